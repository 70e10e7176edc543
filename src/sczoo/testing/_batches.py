"""Checks that any number of cells goes with any batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sczoo.testing._expect import CheckSkippedError, require_finite, require_history

if TYPE_CHECKING:
    from sczoo.testing._case import ModelCase

_BATCH = 16


def _trains(case: ModelCase, n_cells: int, **train: object) -> None:
    if case._base.n_obs < n_cells:
        raise CheckSkippedError(f"the cells given are fewer than {n_cells}")
    cells = case.cells()[:n_cells].copy()
    model = case.fit(cells, train={"batch_size": _BATCH, "max_epochs": 1} | train)
    require_history(model)
    require_finite(case.embed(model), n_cells, f"The latent representation of {n_cells} cells")


def check_batches_that_fit(case: ModelCase) -> None:
    """Train where the batch size divides the number of cells."""
    _trains(case, 5 * _BATCH)


def check_batches_with_one_left_over(case: ModelCase) -> None:
    """Train where one cell is left over: no batch of one kills the run."""
    _trains(case, 5 * _BATCH + 1)


def check_batches_with_two_left_over(case: ModelCase) -> None:
    """Train where two cells are left over."""
    _trains(case, 5 * _BATCH + 2)


def check_batch_larger_than_the_data(case: ModelCase) -> None:
    """Train where one batch holds all cells."""
    _trains(case, 5 * _BATCH, batch_size=1000)


def check_validation_cells(case: ModelCase) -> None:
    """Train with held-out cells, of which one batch is a single cell."""
    _trains(case, 5 * _BATCH + 5, train_size=0.8)
