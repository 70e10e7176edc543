"""Checks of the kinds of matrix that a model trains on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
from scipy import sparse

from sczoo.errors import ViewError
from sczoo.testing._expect import CheckSkippedError, refuses, require_close, require_finite
from sczoo.testing._report import CheckFailedError
from sczoo.testing._snapshot import Snapshot

if TYPE_CHECKING:
    from sczoo.testing._case import ModelCase

# Rounding in another order of summation may differ, and may be carried through two epochs.
_TOLERANCE = 1e-2


def _as_integers(case: ModelCase, matrix: Any) -> Any:
    if case.model_class._input_scale not in ("counts", "nonnegative", "any"):
        raise CheckSkippedError("the model reads normalised values, which are not whole numbers")
    if not np.all(case.dense(case.cells()) % 1 == 0):
        raise CheckSkippedError("the cells given are not counts")
    return sparse.csr_matrix(matrix).astype(np.int64)


def _train_on(case: ModelCase, matrix: Any) -> None:
    """Train on `matrix`: finite results that match those of the same cells in CSR float32."""
    model = case.fit(case.put_matrix(case.cells(), matrix))
    latent = case.embed(model, case.query(bare=True))
    require_finite(latent, len(case.latent), "The latent representation")
    require_close(
        latent, case.latent, "The same values in another storage give another model", _TOLERANCE
    )
    own = case.embed(model)
    require_finite(own, len(case.cells()), "The latent representation of the training cells")


def check_trains_on_csr(case: ModelCase) -> None:
    """Set up, train and give finite results on CSR float32."""
    latent = case.embed(case.model)
    require_finite(latent, case.cells().n_obs, "The latent representation")


def check_trains_on_csc(case: ModelCase) -> None:
    """Give the same model on CSC."""
    _train_on(case, sparse.csc_matrix(case.matrix(case.cells())))


def check_trains_on_dense_float64(case: ModelCase) -> None:
    """Give the same model on a dense array of float64."""
    _train_on(case, case.dense(case.cells()).astype(np.float64))


def check_trains_on_integers(case: ModelCase) -> None:
    """Give the same model on whole numbers of an integer type."""
    _train_on(case, _as_integers(case, case.matrix(case.cells())))


def check_trains_on_a_layer(case: ModelCase) -> None:
    """Read the layer that it was told to read, and nothing else."""
    case.need_setup_argument("layer")
    cells, query = case.cells(), case.query(bare=True)
    for data in (cells, query):
        data.layers["the_counts"] = case.matrix(data)
        data.X = np.full(data.shape, np.nan, dtype=np.float32)
        if case.layer is not None:
            del data.layers[case.layer]
    model = case.fit(cells, setup={"layer": "the_counts"})
    latent = case.embed(model, query)
    require_close(latent, case.latent, "The same values in a layer give another model", _TOLERANCE)


def check_trains_on_a_backed_file(case: ModelCase) -> None:
    """Give the same model on an h5ad file opened with backed='r', without writing into it."""
    path = case.folder / "backed.h5ad"
    case.cells().write_h5ad(path)
    content = path.read_bytes()
    backed = anndata.read_h5ad(path, backed="r")
    try:
        model = case.fit(backed)
        latent = case.embed(model, case.query(bare=True))
        own = case.embed(model)
    finally:
        backed.file.close()
    require_finite(own, case.cells().n_obs, "The latent representation of the backed cells")
    require_close(latent, case.latent, "The same values in a file give another model", _TOLERANCE)
    if path.read_bytes() != content:
        raise CheckFailedError("Training changed the file that it read.")


def check_refuses_a_view(case: ModelCase) -> None:
    """Refuse a view at set-up, and leave both the view and its parent alone."""
    parent = case.cells()
    view = parent[:100]
    before = Snapshot(parent)
    with refuses(ViewError, doing="Setting up a view"):
        case.set_up(view)
    before.require_unchanged("Refusing a view")
    if not view.is_view:
        raise CheckFailedError("Refusing a view turned it into a copy.")
