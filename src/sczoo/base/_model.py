"""The base class of every model in the zoo: scvi-tools' contract, plus the zoo's promises."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scvi import settings
from scvi.model.base import BaseModelClass

from sczoo import _compat
from sczoo.base import _persistence
from sczoo.base._provenance import isolated_random_state
from sczoo.base._query import QueryMixin
from sczoo.base._setup import SetupMixin
from sczoo.base._training import TrainingMixin
from sczoo.base._transfer import TransferMixin
from sczoo.errors import InputError, MissingKeyError, NotTrainedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale

logger = logging.getLogger(__name__)

_ALTERNATIVE_NAMES = {
    "symbol": ("ensembl_id", "gene_ids", "gene_id", "feature_id"),
    "ensembl": ("symbol", "gene_symbols", "gene_symbol", "gene_name", "feature_name"),
}


class ZooModelClass(SetupMixin, TrainingMixin, QueryMixin, TransferMixin, BaseModelClass):
    """Base class of the zoo's models.

    A subclass declares the class attributes below, writes ``setup_anndata`` (and, where it makes
    sense, ``setup_mudata``) with :meth:`_check_setup` and :meth:`_register`, and an ``__init__``
    that ends with :meth:`_finish_init`.

    Parameters
    ----------
    adata
        Data that went through ``setup_anndata``.
    registry
        Registry of a saved model, to build the model without data.

    Attributes
    ----------
    provenance_
        What the run decided: versions, seed, hash of the data and of the gene list, arguments,
        hardware, CPU time. Plain values.
    """

    _method: ClassVar[str]
    _module_cls: ClassVar[type]
    _training_plan_cls: ClassVar[type]
    _input_scale: ClassVar[InputScale] = "counts"
    _min_cells: ClassVar[int] = 2
    _min_genes: ClassVar[int] = 2
    # sum up where the training cells lie in the latent space, to tell when a query lies elsewhere
    _describes_latent: ClassVar[bool] = False
    # training cells get other coordinates than a query of the same cells would
    _places_queries_apart: ClassVar[bool] = False
    _summary: ClassVar[str] = ""
    _citation: ClassVar[list[dict[str, str]]] = []
    # setup arguments that a query may lack
    _optional_setup_keys: ClassVar[tuple[str, ...]] = ("batch_key", "labels_key")
    # attributes besides the weights that a saved model needs: small, plain and not personal
    _saved_attributes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, adata: AnnData | MuData | None = None, registry: dict[str, Any] | None = None
    ) -> None:
        if adata is None and registry is None:
            raise InputError(
                f"{type(self).__name__} needs data: call {type(self).__name__}.setup_anndata("
                f"adata) and then {type(self).__name__}(adata)."
            )
        if adata is not None and _compat.SCVI_UUID not in adata.uns:
            raise InputError(
                f"The data were not set up: call {type(self).__name__}.setup_anndata(adata) first."
            )
        super().__init__(adata, registry)
        _compat.forget_with_model(self)
        self.provenance_: dict[str, Any] = {}
        self.domain: dict[str, Any] = {}
        self._alternative_genes = self._find_alternative_genes()

    # --- construction -------------------------------------------------------------------------

    def _build_module(self, **kwargs: Any) -> Any:
        """Build the module with weights that depend on ``scvi.settings.seed`` alone."""
        with isolated_random_state(self._seed()):
            return self._module_cls(**kwargs)

    def _seed(self) -> int:
        """Seed of this run: ``scvi.settings.seed``, else one drawn once and recorded."""
        if settings.seed is not None:
            return int(settings.seed)
        if not hasattr(self, "_drawn_seed"):
            self._drawn_seed = int(np.random.default_rng().integers(2**31))
        return self._drawn_seed

    def _finish_init(self, init_locals: Mapping[str, Any]) -> None:
        """Record the constructor's arguments; the last line of every ``__init__``."""
        self.init_params_ = _compat.init_params(self, init_locals)

    # --- what the model knows about its genes and data ----------------------------------------

    @property
    def _setup_arguments(self) -> dict[str, Any]:
        return self.registry_[_compat.SETUP_ARGS]

    @property
    def _layer(self) -> str | None:
        return self._setup_arguments.get("layer")

    @property
    def _scale(self) -> InputScale:
        """What the model expects of the matrix; a model may narrow it after seeing its data."""
        return self._input_scale

    @property
    def _allow_missing(self) -> bool:
        """Whether NaN in the matrix means a value that was not observed."""
        return False

    @property
    def _companion_layers(self) -> tuple[str, ...]:
        """Layers besides the main matrix that a query needs, such as a mask of what was seen."""
        return ()

    @property
    def var_names(self) -> np.ndarray:
        """Names of the model's genes, in its order; shape ``(n_genes,)``."""
        state = self.registry_[_compat.FIELD_REGISTRIES]["X"][_compat.STATE_REGISTRY]
        return np.asarray(state["column_names"], dtype=object)

    def get_var_names(self, legacy_mudata_format: bool = False) -> Any:
        """Names of the model's genes, as scvi-tools reports them."""
        if self.adata is None:
            return self.var_names
        return super().get_var_names(legacy_mudata_format=legacy_mudata_format)

    def _find_alternative_genes(self) -> list[str] | None:
        """Look up the genes' names in the other namespace in ``adata.var``, if it has them."""
        from sczoo.base._genes import detect_namespace

        if self.adata is None:
            return None
        var = self._expression(self.adata).var
        for column in _ALTERNATIVE_NAMES[detect_namespace(list(self.var_names))]:
            if column in var.columns:
                return [str(name) for name in var[column].astype(object).fillna("")]
        return None

    def _saved_provenance(self) -> dict[str, Any]:
        """Return the record of the training as it is to be saved now."""
        return self.provenance_

    def _exported_registry(self) -> dict[str, Any]:
        """Return scvi-tools' registry as it may be written in scvi-tools' own format."""
        return self.registry_

    def _gene_importance(self) -> np.ndarray | None:
        """Weight of each gene for the coverage of a query, shape ``(n_genes,)``."""
        return None

    def _main_result(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Compute what self-test and battery compare; shape ``(n_cells, d)``.

        The latent representation; a model without one returns its own per-cell result instead.
        """
        return self.get_latent_representation(adata, indices=indices, batch_size=batch_size)

    def _expression(self, data: AnnData | MuData) -> AnnData:
        """Return the AnnData with the expression: `data` itself, or its registered modality."""
        from anndata import AnnData
        from mudata import MuData

        if isinstance(data, MuData):
            modality = (self._setup_arguments.get("modalities") or {}).get("layer")
            if modality is None or modality not in data.mod:
                raise MissingKeyError(
                    f"The MuData has no modality {modality!r} that this model reads; pass the "
                    "AnnData with the expression instead."
                )
            return data.mod[modality]
        if not isinstance(data, AnnData):
            raise InputError(f"Expected an AnnData or MuData, got {type(data).__name__}.")
        return data

    def _require_trained(self) -> None:
        if not self.is_trained_:
            raise NotTrainedError(f"This {type(self).__name__} has no results yet: call train().")

    # --- save and load ------------------------------------------------------------------------

    def save(
        self,
        dir_path: str | PathLike[str],
        overwrite: bool = False,
        *,
        include_categories: Iterable[str] = (),
    ) -> None:
        """Save the model as a zoo artefact: JSON and safetensors, nothing that can run code.

        Nothing about single cells is written: no history, indices, barcodes or names of donors.
        An interrupted save leaves the old folder or the new one, never half of one.

        Parameters
        ----------
        dir_path
            Folder to write.
        overwrite
            Replace an existing folder.
        include_categories
            Columns of ``adata.obs`` whose category names may be written (such as cell types);
            all others are replaced by numbers.

        Raises
        ------
        NotTrainedError
            The model has not been trained.
        ArtefactError
            The folder exists and `overwrite` is ``False``, or cannot be written.
        """
        self._require_trained()
        _persistence.save(self, dir_path, overwrite, tuple(include_categories))

    @classmethod
    def load(
        cls,
        dir_path: str | PathLike[str],
        adata: AnnData | MuData | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> ZooModelClass:
        """Load a saved model.

        Every file is checked against the manifest before it is read. Data are never needed.

        Parameters
        ----------
        dir_path
            Folder of a saved model.
        adata
            Data to attach; they must have the model's genes in its order
            (see :meth:`prepare_query_anndata`).
        accelerator, device
            Where the model lives.

        Raises
        ------
        CorruptedArtefactError
            A file is missing or was altered.
        SchemaVersionError
            The artefact was written by a newer version of sczoo.
        """
        return _persistence.load(cls, dir_path, adata, _compat.resolve_device(accelerator, device))

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the model to `device`, such as ``"cpu"`` or ``"cuda:0"``."""
        self.module.to(torch.device(device))
