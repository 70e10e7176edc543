"""Which topics come back when the model is trained again with other seeds."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from sczoo import _compat
from sczoo.errors import InputError
from sczoo.model.sce2tm._results import topic_gene_effects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["StabilityMixin", "current_seed", "match_topics"]

_OVERRIDE: ContextVar[int | None] = ContextVar("sce2tm_seed", default=None)


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


def match_topics(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair the topics of two runs so that the sum of cosines is largest.

    Parameters
    ----------
    first, second
        Topics x genes.

    Returns
    -------
    For each topic of ``first`` its partner in ``second``, and their cosine.
    """
    unit = [rows - rows.mean(axis=1, keepdims=True) for rows in (first, second)]
    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in unit]
    cosine = unit[0] @ unit[1].T
    row, column = linear_sum_assignment(-cosine)
    partner = np.empty(len(first), dtype=np.int64)
    partner[row] = column
    return partner, cosine[np.arange(len(first)), partner]


class StabilityMixin:
    """Topic stability."""

    def topic_stability(
        self,
        seeds: Sequence[int] = (1, 2, 3),
        *,
        threshold: float = 0.5,
        **train_kwargs: Any,
    ) -> pd.DataFrame:
        """Train again with other seeds and look for each topic of this model.

        Topics are compared by their effects on the genes, centred, and paired one to one.

        Parameters
        ----------
        seeds
            Seeds of the other runs.
        threshold
            Cosine from which two topics count as the same.
        **train_kwargs
            For :meth:`train`; give what this model was trained with.

        Returns
        -------
        Table with one row per topic: ``similarity`` (mean cosine with its partners),
        ``recurrence`` (share of the runs in which it came back) and ``recurs`` (in at least half
        of them). Topics that do not recur should not be named.
        """
        model: Any = self
        model._require_trained()
        if model.adata is None:
            raise InputError("This model was loaded without data, so it cannot be trained again.")
        if len(seeds) == 0:
            raise InputError("seeds is empty: give at least one.")
        own = topic_gene_effects(model.module)
        cosines = []
        for seed in seeds:
            with _seeded(int(seed)):
                other = type(model)(model.adata, **_compat.flat_init_params(model.init_params_))
                other.train(**train_kwargs)
            cosines.append(match_topics(own, topic_gene_effects(other.module))[1])
        found = np.stack(cosines)
        recurrence = (found >= threshold).mean(axis=0)
        return pd.DataFrame(
            {
                "similarity": found.mean(axis=0),
                "recurrence": recurrence,
                "recurs": recurrence >= 0.5,
            },
            index=pd.RangeIndex(found.shape[1], name="topic"),
        )
