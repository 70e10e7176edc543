"""Export to scvi-tools' own format, for users of ``scvi.hub``."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sczoo.errors import ArtefactError

if TYPE_CHECKING:
    import os

__all__ = ["to_scvi"]

logger = logging.getLogger("sczoo")

# What scvi-tools would save of single cells: dropped here.
_PER_CELL = ("history_", "train_indices_", "validation_indices_", "test_indices_")


def to_scvi(model: Any, dir_path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a model in scvi-tools' own format (``model.pt``).

    scvi-tools reads it with the model's class: ``scvi.model.base.BaseModelClass.load``. The format
    uses pickle, so readers must trust its origin, and it holds the category names of the set-up
    columns (donors too, if a donor column was given). Training history and cell indices are left
    out, the data as well. sczoo itself never reads this format; share the folder that
    ``model.save`` writes instead where you can.

    Parameters
    ----------
    model
        A trained model.
    dir_path
        Folder to write.
    overwrite
        Replace a ``model.pt`` in an existing folder.

    Returns
    -------
    The folder.
    """
    import pyro
    from scvi.model.base import BaseModelClass

    model._require_trained()
    dir_path = Path(dir_path)
    if dir_path.exists() and not overwrite:
        raise ArtefactError(
            f"{dir_path} exists already; pass overwrite=True to replace it, or choose another "
            "path."
        )
    bare = copy.copy(model)
    for name in _PER_CELL:
        if getattr(bare, name, None) is not None:
            setattr(bare, name, None)
    # scvi-tools adds Pyro's global store, in which other models of this process would travel along
    with pyro.get_param_store().scope():
        BaseModelClass.save(bare, str(dir_path), overwrite=overwrite, save_anndata=False)
    logger.info(
        "Wrote %s in scvi-tools' format. It uses pickle: its readers must trust you.", dir_path
    )
    return dir_path
