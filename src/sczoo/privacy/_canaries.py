"""Planted gradients: the sharpest test of a training that clips and noises gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sczoo.errors import InputError
from sczoo.privacy._audit import AuditBound, one_run_bound
from sczoo.privacy._noise import NoiseSource

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GradientCanaries"]


class GradientCanaries:
    """Units whose clipped gradient is one weight's direction, each in the run by a coin.

    A canary takes part in a step with the same coin as any unit, adds the whole clipping norm to
    its weight's sum, and is scored by what is released for that weight. Each has a weight of its
    own, so one run tests them all.

    Parameters
    ----------
    n
        Number of canaries; at most as many as trained numbers.
    """

    def __init__(self, n: int, source: NoiseSource | None = None) -> None:
        if n < 10:
            raise InputError(f"{n} canaries: at least 10 are needed.")
        self.n = n
        self._source = source or NoiseSource()
        self.included = self._source.random(n) < 0.5
        self.scores = np.zeros(n)
        self._places: dict[str, tuple[np.ndarray, np.ndarray]] | None = None

    def plant(
        self, sums: Mapping[str, torch.Tensor], bounds: Mapping[str, float], rate: float
    ) -> dict[str, torch.Tensor]:
        """Add the canaries that take part in this step to the clipped sums.

        Parameters
        ----------
        sums
            Clipped sums by parameter.
        bounds
            Clipping norm of each parameter's group.
        rate
            Sampling probability of the run.
        """
        places = self._where(sums)
        # the audited step draws its own coins for canaries: they are units like all others
        drawn = self.included & (self._source.random(self.n) < rate)
        planted = {}
        for name, value in sums.items():
            canaries, positions = places[name]
            value = value.clone()
            value.view(-1)[torch.as_tensor(positions, device=value.device)] += torch.as_tensor(
                drawn[canaries] * bounds[name], dtype=value.dtype, device=value.device
            )
            planted[name] = value
        return planted

    def observe(self, released: Mapping[str, torch.Tensor]) -> None:
        """Score the canaries by what was released."""
        for name, (canaries, positions) in self._where(released).items():
            self.scores[canaries] += released[name].reshape(-1).cpu().numpy()[positions]

    def bound(self, delta: float, confidence: float = 0.95) -> AuditBound:
        """Return the lower bound on epsilon that the scores show."""
        return one_run_bound(self.scores, self.included, delta=delta, confidence=confidence)

    def _where(
        self, values: Mapping[str, torch.Tensor]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if self._places is None:
            sizes = [value.numel() for value in values.values()]
            total = sum(sizes)
            if self.n > total:
                raise InputError(f"{self.n} canaries for {total} trained numbers: use fewer.")
            chosen = np.sort(np.argsort(self._source.random(total))[: self.n])
            starts = np.concatenate([[0], np.cumsum(sizes)])
            self._places = {}
            for name, start, stop in zip(values, starts[:-1], starts[1:], strict=True):
                canaries = np.flatnonzero((chosen >= start) & (chosen < stop))
                self._places[name] = (canaries, chosen[canaries] - start)
        return self._places
