"""The zoo's classes as ``scvi.hub.HubModel`` looks for them: they read scvi-tools' own format.

The file ``_scvi_required_metadata.json`` that :func:`sczoo.hub.to_scvi` writes names this module,
so that ``scvi.hub`` finds the classes of all installed methods here, under their own names. What
``sczoo.load`` and ``sczoo.model`` read is the zoo's format alone: that unpickling happens here is
the doing of whoever calls ``scvi.hub``, which unpickles every model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sczoo.base import ZooModelClass

__all__ = ["ScviReader"]


@dataclass(frozen=True)
class ScviReader:
    """Reads models of one class from scvi-tools' format."""

    model_class: type[ZooModelClass]

    def load(
        self,
        dir_path: str,
        adata: AnnData | MuData | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> ZooModelClass:
        """Load ``model.pt``. It is unpickled: whoever wrote it can run code on this machine.

        Parameters
        ----------
        dir_path
            Folder that :func:`sczoo.hub.to_scvi` wrote.
        adata
            Data to attach; they must have the model's genes in its order. ``None`` takes those
            in the folder, if there are any; ``False`` attaches none.
        accelerator, device
            Where the model lives.
        """
        from scvi.model.base import BaseModelClass

        given = adata is not None and adata is not False
        # bound to the zoo's class, whose own load reads the zoo's format only
        read: Any = BaseModelClass.load.__func__
        model = read(
            self.model_class,
            dir_path,
            adata=False if given else adata,
            accelerator=accelerator,
            device=device,
        )
        for name, value in model.__dict__.pop("zoo_state_", {}).items():
            setattr(model, name, value)
        if given:
            model._attach(adata)
        return model


def __getattr__(name: str) -> ScviReader:
    from sczoo.model import _IMPORTED, get_model_class, list_methods

    if not name.startswith("_"):
        for method, place in (list_methods() | _IMPORTED).items():
            if place.rpartition(":")[2] == name:
                return ScviReader(get_model_class(method))
    raise AttributeError(f"no installed method of sczoo has a model class {name!r}")
