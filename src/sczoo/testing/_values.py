"""Checks of values and sizes that cannot be, or hardly ever are: refused early, or survived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.callbacks import Callback
from scipy import sparse

from sczoo.errors import (
    DuplicateGenesError,
    EmptyDataError,
    InputError,
    MissingKeyError,
    NegativeValuesError,
    NotCountsError,
    NotFiniteError,
)
from sczoo.testing._expect import (
    CheckSkippedError,
    refuses,
    require,
    require_finite,
    require_history,
)
from sczoo.testing._snapshot import Snapshot

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.testing._case import ModelCase

_ROW, _COLUMN = 17, 5


def _refuses_value(
    case: ModelCase, value: float, error: type[InputError], scales: tuple[str, ...]
) -> None:
    """Plant one bad value in ``X`` and in a layer: a typed error that names the place."""
    scale = case.model_class._input_scale
    if scale not in scales:
        raise CheckSkippedError(f"a model of scale {scale!r} may read such values")
    layers: list[str | None] = [case.layer]
    try:
        case.need_setup_argument("layer")
        layers.append("planted_layer")
    except CheckSkippedError:
        pass
    for layer in layers:
        cells = case.cells()
        matrix = case.dense(cells).astype(np.float32)
        # a later cell is bad too: the message must name the first
        matrix[_ROW, _COLUMN] = matrix[_ROW + 30, 2] = value
        if layer == "planted_layer":
            cells.layers[layer] = sparse.csr_matrix(matrix)
        else:
            case.put_matrix(cells, matrix)
        place = "adata.X" if layer is None else repr(layer)
        before = Snapshot(cells)
        overrides = {"layer": layer} if layer is not None else {}
        names = (place, str(cells.obs_names[_ROW]), str(cells.var_names[_COLUMN]))
        with refuses(error, *names, doing=f"Setting up {place} with the value {value}"):
            case.set_up(cells, **overrides)
        before.require_unchanged(f"Refusing the value {value} in {place}")


def check_refuses_nan(case: ModelCase) -> None:
    """Refuse NaN at set-up, naming layer, cell and gene; the data stay as they were."""
    _refuses_value(case, np.nan, NotFiniteError, ("counts", "log1p", "nonnegative", "any"))


def check_refuses_infinity(case: ModelCase) -> None:
    """Refuse infinity at set-up, naming layer, cell and gene; the data stay as they were."""
    _refuses_value(case, np.inf, NotFiniteError, ("counts", "log1p", "nonnegative", "any"))


def check_refuses_negative_values(case: ModelCase) -> None:
    """Refuse negative expression, naming layer, cell and gene; the data stay as they were."""
    _refuses_value(case, -1.0, NegativeValuesError, ("counts", "log1p", "nonnegative"))


def check_refuses_fractions(case: ModelCase) -> None:
    """Refuse fractions where it needs counts, naming layer, cell and gene."""
    _refuses_value(case, 1.5, NotCountsError, ("counts",))


def check_refuses_duplicate_genes(case: ModelCase) -> None:
    """Refuse duplicate gene names at set-up, naming one."""
    cells = case.cells()
    names = list(cells.var_names)
    names[3] = names[7]
    cells.var_names = names
    before = Snapshot(cells)
    with refuses(DuplicateGenesError, names[7], doing="Setting up duplicate gene names"):
        case.set_up(cells)
    before.require_unchanged("Refusing duplicate gene names")


def check_refuses_a_missing_layer(case: ModelCase) -> None:
    """Refuse a layer that does not exist, naming it and those that do."""
    case.need_setup_argument("layer")
    cells = case.cells()
    cells.layers["another_layer"] = case.matrix(cells)
    before = Snapshot(cells)
    with refuses(MissingKeyError, "no_such_layer", "another_layer", doing="Asking for no layer"):
        case.set_up(cells, layer="no_such_layer")
    before.require_unchanged("Refusing a layer")


def check_refuses_no_cells(case: ModelCase) -> None:
    """Refuse data without cells, and data without genes."""
    for empty in (case.cells()[:0].copy(), case.cells()[:, :0].copy()):
        with refuses(EmptyDataError, doing=f"Setting up data of shape {empty.shape}"):
            case.set_up(empty)


class _Started(Callback):
    """Remember whether a training batch was ever begun."""

    begun = False

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.begun = True


def check_refuses_one_cell(case: ModelCase) -> None:
    """Refuse a single cell with a typed error before the first epoch."""
    cells = case.cells()[:1].copy()
    started = _Started()
    with refuses(InputError, "1 cell", doing="Training on one cell"):
        case.fit(cells, train={"callbacks": [started]})
    require(not started.begun, "The single cell was refused only after training had begun.")


def _survives(case: ModelCase, cells: AnnData, what: str) -> None:
    model = case.fit(cells)
    require_history(model)
    require_finite(case.embed(model), cells.n_obs, f"The latent representation with {what}")
    for name, weight in model.module.state_dict().items():
        require(
            bool(np.isfinite(weight.detach().cpu().numpy()).all()),
            f"With {what} the weight {name!r} is not finite after training.",
        )


def check_silent_and_constant_genes(case: ModelCase) -> None:
    """Train with genes that are zero, or the same, in every cell."""
    cells = case.cells()
    matrix = case.dense(cells)
    matrix[:, 0] = 0
    matrix[:, 1] = 3
    _survives(case, case.put_matrix(cells, sparse.csr_matrix(matrix)), "silent genes")


def check_empty_cells(case: ModelCase) -> None:
    """Train with cells that have no counts at all, and give finite results for them."""
    cells = case.cells()
    matrix = case.dense(cells)
    matrix[[0, 1, 50, -1]] = 0
    _survives(case, case.put_matrix(cells, sparse.csr_matrix(matrix)), "empty cells")


def check_depths_from_one_to_a_million(case: ModelCase) -> None:
    """Train with cells of a single count beside cells of a million counts."""
    if case.model_class._input_scale == "log1p":
        raise CheckSkippedError("the model reads normalised values, which have no depth")
    cells = case.cells()
    matrix = case.dense(cells)
    matrix[0] = 0
    matrix[0, 4] = 1
    matrix[1] = np.round(1e6 * (matrix[1] + 1) / (matrix[1] + 1).sum())
    _survives(case, case.put_matrix(cells, sparse.csr_matrix(matrix)), "extreme depths")
