"""Distilled cells as an artefact: what is written, and what stays behind."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sczoo.base._artefact import ArtefactRecord, InputContract, SetupCall, write_artefact
from sczoo.base._checks import check_input
from sczoo.base._genes import DEFAULT_MIN_COVERAGE, detect_namespace
from sczoo.base._genes_table import genes_sha256
from sczoo.base._training import plain
from sczoo.errors import ArtefactError, InputError
from sczoo.model.scdd._output import NOT_ANONYMOUS, SYNTHETIC, UNS_KEY

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["is_small_set", "save_dataset"]

_METHOD = "scdd"
_PERSONAL = ("scores",)


def is_small_set(data: Any) -> bool:
    """Whether `data` is an AnnData that a distillation or a selection returned."""
    return hasattr(data, "uns") and "labels_key" in dict(data.uns.get(UNS_KEY, {}))


def save_dataset(
    adata: AnnData,
    dir_path: str | os.PathLike[str],
    *,
    obs_keys: Sequence[str] = (),
    overwrite: bool = False,
    allow_real_cells: bool = False,
) -> Path:
    """Save distilled cells as an artefact of kind ``dataset``.

    Written are the whole counts of ``X``, the labels, ``obs["is_synthetic"]`` and
    ``obs["weight"]``; other columns only if asked for by name, and neither ``obsm`` nor layers.
    ``sczoo.load`` opens the folder, ``sczoo.transfer`` annotates new cells with it and
    ``sczoo.hub.publish`` publishes it.

    Parameters
    ----------
    adata
        Result of :meth:`sczoo.model.SCDD.distill`, ``generate`` or :func:`select_cells`.
    dir_path
        Folder to write.
    obs_keys
        Further columns of ``obs`` to write.
    overwrite
        Replace an existing artefact.
    allow_real_cells
        Also save cells that were chosen rather than computed: those are patients' cells.

    Returns
    -------
    The absolute path of the folder.

    Raises
    ------
    InputError
        `adata` is not a distilled set, or its counts are not whole.
    ArtefactError
        Some cells are real, or the folder cannot be written.
    """
    from anndata import AnnData

    if not is_small_set(adata):
        raise InputError(
            "Only small training sets can be saved so: pass what SCDD.distill, SCDD.generate or "
            "select_cells returned, with its uns['scdd']."
        )
    record = dict(adata.uns[UNS_KEY])
    labels_key = str(record["labels_key"])
    adata = adata.copy() if adata.is_view else adata
    missing = [key for key in (labels_key, SYNTHETIC, *obs_keys) if key not in adata.obs]
    if missing:
        raise InputError(f"adata.obs has no column {missing[0]!r}.")
    check_input(adata, scale="counts", categorical_keys=[labels_key])
    n_real = int((~adata.obs[SYNTHETIC].to_numpy(dtype=bool)).sum())
    if n_real and not allow_real_cells:
        raise ArtefactError(
            f"{n_real} of the {adata.n_obs} cells are real cells of patients, not synthetic ones. "
            "Publish distilled or pooled cells, or pass allow_real_cells=True if you may release "
            "these."
        )
    counts = sparse.csr_matrix(adata.X)
    counts.eliminate_zeros()
    largest = int(counts.data.max(initial=0))
    narrow = np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int32
    columns = [labels_key, SYNTHETIC, *(["weight"] if "weight" in adata.obs else []), *obs_keys]
    slim = AnnData(counts.astype(narrow), obs=adata.obs[list(dict.fromkeys(columns))].copy())
    slim.obs[labels_key] = slim.obs[labels_key].astype("category")
    slim.obs[labels_key] = slim.obs[labels_key].cat.remove_unused_categories()
    slim.obs_names = [f"cell-{number}" for number in range(adata.n_obs)]
    slim.var_names = [str(name) for name in adata.var_names]
    with tempfile.TemporaryDirectory(prefix="sczoo-") as scratch:
        place = Path(scratch) / "data.h5ad"
        slim.write_h5ad(place, compression="gzip", compression_opts=9)
        data = place.read_bytes()
    names = [str(name) for name in adata.var_names]
    n_classes = slim.obs[labels_key].nunique()
    source_bytes = int(record.pop("source_bytes", 0))
    model = dict(record.pop("model", {}))
    n_source = int(record.pop("n_source_cells", model.get("n_cells", 0)))
    provenance = {
        **{key: plain(value) for key, value in record.items() if key not in _PERSONAL},
        "model": plain(model),
    }
    if n_source:
        provenance["n_cells"] = n_source
    against = f" against {source_bytes:,} bytes of counts" if source_bytes else ""
    what = f" distilled from {n_source:,}" if n_source else ""
    document = ArtefactRecord(
        kind="dataset",
        method=_METHOD,
        setup=SetupCall(args={"labels_key": labels_key}),
        input=InputContract(
            namespace=detect_namespace(names),
            n_genes=len(names),
            genes_sha256=genes_sha256(names),
            scale="counts",
            min_coverage=DEFAULT_MIN_COVERAGE,
        ),
        provenance=provenance,
        attributes={
            "labels_key": labels_key,
            "notice": NOT_ANONYMOUS,
            "data_bytes": len(data),
            "source_bytes": source_bytes,
            "summary": (
                f"{adata.n_obs} cells of {n_classes} classes{what}: {len(data):,} bytes{against}"
            ),
        },
    )
    return write_artefact(
        dir_path,
        document,
        tensors=None,
        genes=[{"id": name, "symbol": None, "importance": None} for name in names],
        extra_files={"data.h5ad": data},
        overwrite=overwrite,
    )
