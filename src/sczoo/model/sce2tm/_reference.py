"""Two groups of reference cells: how their topics differ, and which genes go with the topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ReferenceGroups"]

# The regression over all cell types weighs as much as this many cells with logits of unit spread.
_PRIOR_CELLS = 50.0


@dataclass(frozen=True)
class ReferenceGroups:
    """Reference cells of a source and a target group, within levels such as cell types."""

    latent: np.ndarray
    """Topic logits, cells x topics."""
    source: np.ndarray
    """Whether a cell is in the source group."""
    target: np.ndarray
    """Whether a cell is in the target group."""
    level: np.ndarray
    """Level of each cell."""

    def levels(self) -> list[str | None]:
        """Levels with cells in both groups."""
        return [
            level
            for level in sorted(set(self.level), key=str)
            if (self._of(level) & self.source).any() and (self._of(level) & self.target).any()
        ]

    def shift(self) -> dict[str | None, np.ndarray]:
        """Mean difference of the logits, target minus source, in each level."""
        return {
            level: self.latent[self._of(level) & self.target].mean(axis=0)
            - self.latent[self._of(level) & self.source].mean(axis=0)
            for level in self.levels()
        }

    def genes_of_topics(
        self, expression: np.ndarray, topics: Sequence[int], level: str | None
    ) -> np.ndarray:
        """Change of log-normalised expression per logit of each topic.

        Ridge regression of the genes on the topics within a level, both groups weighing alike,
        drawn toward the regression over all levels, which itself is drawn toward zero. A level
        that the reference lacks in either group gets the regression over all.

        Parameters
        ----------
        expression
            Log-normalised expression of the reference cells, cells x genes.
        topics
            The topics that are moved.
        level
            The level; ``None`` for one not in the reference, or where there are none.

        Returns
        -------
        Topics x genes.
        """
        ridge = _PRIOR_CELLS * np.eye(len(topics))
        moments = {name: self._moments(expression, topics, name) for name in self.levels()}
        squares = np.sum([square for square, _ in moments.values()], axis=0)
        products = np.sum([product for _, product in moments.values()], axis=0)
        overall = np.linalg.solve(squares + ridge, products)
        if level not in moments:
            return overall
        square, product = moments[level]
        return np.linalg.solve(square + ridge, product + ridge @ overall)

    def _moments(
        self, expression: np.ndarray, topics: Sequence[int], level: str | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weighted products of topics with topics and with genes, within a level."""
        source, target = self._of(level) & self.source, self._of(level) & self.target
        cells = np.flatnonzero(source | target)
        # as many cells of either group as the target has
        weight = np.where(target[cells], 1.0, target.sum() / source.sum())[:, None]
        logits = self.latent[cells][:, list(topics)].astype(np.float64)
        genes = expression[cells].astype(np.float64)
        logits -= (logits * weight).sum(axis=0) / weight.sum()
        genes -= (genes * weight).sum(axis=0) / weight.sum()
        return (logits * weight).T @ logits, (logits * weight).T @ genes

    def _of(self, level: str | None) -> np.ndarray:
        return np.asarray(self.level == level, dtype=bool)
