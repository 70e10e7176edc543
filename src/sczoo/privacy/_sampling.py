"""Poisson sampling of units: every cell or donor takes part in a step with its own coin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from sczoo.errors import InputError, PrivacyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sczoo.privacy._noise import NoiseSource

__all__ = ["PoissonSampler"]


class PoissonSampler(Sampler):
    """Draw, for every step, a minibatch of row numbers by a coin for each unit.

    Empty minibatches occur and are yielded: such a step is pure noise, and is made and accounted.

    Parameters
    ----------
    units
        Unit of each row, codes from 0 to ``n_units - 1``; ``None`` where every row is a unit.
    n_units
        Number of units.
    rate
        Probability that a unit takes part.
    n_steps
        Minibatches per pass.
    source
        Random numbers that nobody can repeat.
    rows_per_unit
        With `units`: rows drawn, with replacement, from every unit that takes part. Each unit then
        counts the same, however many rows it has.

    Notes
    -----
    Yields lists of row numbers; with `units`, runs of `rows_per_unit` rows belong to one unit.
    """

    def __init__(
        self,
        n_units: int,
        rate: float,
        n_steps: int,
        source: NoiseSource,
        *,
        units: Sequence[int] | np.ndarray | None = None,
        rows_per_unit: int = 1,
    ) -> None:
        if not 0 < rate <= 1:
            raise PrivacyError(f"rate={rate}: a probability between 0 (excluded) and 1 is needed.")
        if n_units < 1 or n_steps < 1 or rows_per_unit < 1:
            raise InputError("n_units, n_steps and rows_per_unit must be at least 1.")
        self.n_units, self.rate, self.n_steps = n_units, rate, n_steps
        self.rows_per_unit = rows_per_unit
        self._source = source
        self._order: np.ndarray | None = None
        if units is not None:
            codes = np.asarray(units)
            self._order = np.argsort(codes, kind="stable")
            self._sizes = np.bincount(codes, minlength=n_units)
            self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
            if (self._sizes == 0).any():
                raise InputError("Every unit must have at least one row.")

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.n_steps):
            chosen = self._source.poisson(self.n_units, self.rate)
            if self._order is not None:
                shape = (len(chosen), self.rows_per_unit)
                place = self._source.integers(self._sizes[chosen][:, None], shape)
                chosen = self._order[self._starts[chosen][:, None] + place].ravel()
            yield chosen.tolist()
