"""Export to scvi-tools' own format, for users of ``scvi.hub``."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sczoo.base._files import write_file_atomically
from sczoo.base._provenance import interruption
from sczoo.errors import ArtefactError

if TYPE_CHECKING:
    import os

__all__ = ["to_scvi"]

logger = logging.getLogger("sczoo")

# What scvi-tools would save of single cells: dropped here.
_PER_CELL = ("history_", "train_indices_", "validation_indices_", "test_indices_")
# What the zoo keeps besides and scvi-tools, which looks for names ending in "_", would forget.
_ZOO_STATE = ("domain", "_alternative_genes")
METADATA_FILE = "_scvi_required_metadata.json"
CARD_FILE = "README.md"


def to_scvi(
    model: Any,
    dir_path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    card: str | None = None,
) -> Path:
    """Write a model in scvi-tools' own format, with what ``scvi.hub`` needs beside it.

    The folder gets ``model.pt``, ``_scvi_required_metadata.json`` and ``README.md``, and
    :class:`scvi.hub.HubModel` reads it where sczoo is installed. The format uses pickle, so
    readers must trust its origin, and it holds the category names of the set-up columns (donors
    too, if a donor column was given; of a :class:`~sczoo.model.DPDCAN` numbers instead). Training
    history and cell indices are left out, the data as well. ``sczoo.load`` never reads this
    format; share the folder that ``model.save`` writes instead where you can.

    Parameters
    ----------
    model
        A trained model.
    dir_path
        Folder to write.
    overwrite
        Replace the three files in an existing folder.
    card
        Text of ``README.md``, such as :func:`sczoo.hub.card_text` of a published model; a short
        one is written by default.

    Returns
    -------
    The folder.

    Raises
    ------
    NotTrainedError
        The model has not been trained.
    ArtefactError
        The folder exists and `overwrite` is ``False``.

    Examples
    --------
    >>> sczoo.hub.to_scvi(model, "for-scvi-hub/")
    >>> scvi.hub.HubModel("for-scvi-hub/").load_model(adata)
    """
    import anndata
    import pyro
    import scvi
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
    bare.registry_ = model._exported_registry()
    bare.zoo_state_ = {name: getattr(model, name) for name in _ZOO_STATE}
    # scvi-tools adds Pyro's global store, in which other models of this process would travel along
    with pyro.get_param_store().scope():
        BaseModelClass.save(bare, str(dir_path), overwrite=overwrite, save_anndata=False)
    metadata = {
        "scvi_version": scvi.__version__,
        "anndata_version": anndata.__version__,
        "model_cls_name": type(model).__name__,
        "training_data_url": None,
        "model_parent_module": "sczoo.hub.scvi_classes",
    }
    document = json.dumps(metadata, indent=4) + "\n"
    write_file_atomically(dir_path / METADATA_FILE, document.encode())
    text = _short_card(model) if card is None else card
    write_file_atomically(dir_path / CARD_FILE, text.encode())
    logger.info(
        "Wrote %s in scvi-tools' format. It uses pickle: its readers must trust you.", dir_path
    )
    return dir_path


def _short_card(model: Any) -> str:
    """Say what the model is; the zoo's own card belongs to published models."""
    name, record = type(model).__name__, model.provenance_
    versions = record.get("versions", {})
    made_with = ", ".join(f"{package} {version}" for package, version in versions.items())
    return f"""---
library_name: scvi-tools
tags: [sczoo, single-cell, scRNA-seq, model_cls_name:{name}]
---
# {name}

{model._summary}

{interruption(record) or ""}

- Genes: {len(model.var_names)}; training cells: {record.get("n_cells", "unknown")}
- Random seed: {record.get("seed", "unknown")}
- Made with: {made_with or "unknown"}

Reading this folder needs sczoo and scvi-tools, and unpickles `model.pt`: do it only if you trust
whoever gave it to you.

```python
import scvi.hub

model = scvi.hub.HubModel(".").load_model(adata)  # adata: {name}.prepare_query_anndata(...)
```
"""
