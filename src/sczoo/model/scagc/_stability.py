"""Which clusters come back with other seeds and with fewer cells."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo import _compat
from sczoo.base._reading import matrix_of, read_rows
from sczoo.errors import InputError, TooFewCellsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["StabilityMixin", "best_overlaps", "current_seed"]

_OVERRIDE: ContextVar[int | None] = ContextVar("scagc_seed", default=None)


def current_seed() -> int | None:
    """Seed that takes the place of ``scvi.settings.seed`` at the moment, if any."""
    return _OVERRIDE.get()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    token = _OVERRIDE.set(seed)
    try:
        yield
    finally:
        _OVERRIDE.reset(token)


def best_overlaps(first: np.ndarray, second: np.ndarray) -> pd.Series:
    """Largest Jaccard overlap of each cluster of one partition with any of another.

    Parameters
    ----------
    first, second
        Clusters of the same cells.

    Returns
    -------
    Series over the clusters of `first`, values between 0 and 1 (Hennig 2007).
    """
    table = pd.crosstab(pd.Series(first, name="cluster"), pd.Series(second, name="other"))
    common = table.to_numpy(dtype=np.float64)
    union = common.sum(1, keepdims=True) + common.sum(0, keepdims=True) - common
    return pd.Series((common / union).max(axis=1), index=table.index)


class StabilityMixin:
    """Cluster stability."""

    def stability(
        self,
        seeds: Sequence[int] = (1, 2, 3),
        subsample: float = 0.9,
        *,
        threshold: float = 0.6,
        **train_kwargs: Any,
    ) -> pd.DataFrame:
        """Train again with other seeds on parts of the cells and look for each cluster.

        Parameters
        ----------
        seeds
            Seeds of the other runs, and of the cells drawn for them.
        subsample
            Share of the cells that each run sees.
        threshold
            Jaccard overlap from which two clusters count as the same.
        **train_kwargs
            For :meth:`train`; give what this model was trained with.

        Returns
        -------
        Table with one row per cluster that has cells: ``n_cells``; ``overlap``, the mean over the
        runs of its largest Jaccard overlap with a cluster of the run, on the cells that both saw;
        ``recurrence``, the share of the runs in which it came back; and ``recurs``, in at least
        half of them. A cluster of which a run saw no cell has no overlap in that run.

        Raises
        ------
        InputError
            No data, no seed, or a share that is not above 0 and at most 1.
        """
        model: Any = self
        model._require_trained()
        if model.adata is None:
            raise InputError("This model was loaded without data, so it cannot be trained again.")
        if len(seeds) == 0:
            raise InputError("seeds is empty: give at least one.")
        if not 0 < subsample <= 1:
            raise InputError(f"subsample={subsample!r}: it must be above 0 and at most 1.")
        own = model.get_cluster_assignments()
        source = model._expression(model.adata)
        n_drawn = round(subsample * len(own))
        if n_drawn < max(model._min_cells, len(model.module.centres)):
            raise TooFewCellsError(
                f"subsample={subsample} leaves {n_drawn} cells for {len(model.module.centres)} "
                "clusters: draw more."
            )
        columns = []
        for seed in seeds:
            rng = np.random.default_rng(int(seed))
            rows = np.sort(rng.choice(len(own), n_drawn, replace=False))
            with _seeded(int(seed)):
                other = self._again(source, rows)
                other.train(**train_kwargs)
            columns.append(best_overlaps(own[rows], other.get_cluster_assignments()))
            _compat.forget_setup(type(model), other.adata)
        found = pd.concat(columns, axis=1, keys=list(range(len(columns)))).sort_index()
        recurrence = (found >= threshold).sum(axis=1) / found.notna().sum(axis=1)
        return pd.DataFrame(
            {
                "n_cells": np.bincount(own)[found.index],
                "overlap": found.mean(axis=1),
                "recurrence": recurrence,
                "recurs": recurrence >= 0.5,
            },
            index=pd.Index(found.index, name="cluster"),
        )

    def _again(self, source: Any, rows: np.ndarray) -> Any:
        """Return an untrained model of the same arguments on some of the cells."""
        from anndata import AnnData

        model: Any = self
        cells = AnnData(read_rows(matrix_of(source, model._layer), rows))
        cells.var_names = model.var_names
        type(model).setup_anndata(cells)
        arguments = _compat.flat_init_params(model.init_params_)
        arguments["n_anchors"] = 0
        arguments["n_neighbors"] = min(arguments["n_neighbors"], len(rows) - 1)
        return type(model)(cells, **arguments)
