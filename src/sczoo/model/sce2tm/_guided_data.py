"""Minibatches that carry the outside knowledge of their cells and of their neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from torch.utils.data import DataLoader, Dataset, Subset

from sczoo.base import ZooDataSplitter
from sczoo.model.sce2tm._knowledge import KNOWLEDGE_FIELD
from sczoo.model.sce2tm._module import (
    KNOWLEDGE,
    NEIGHBOUR_KNOWLEDGE,
    NEIGHBOUR_X,
    NEIGHBOUR_X_KNOWLEDGE,
)

if TYPE_CHECKING:
    from sczoo.model.sce2tm._knowledge import Guidance

__all__ = ["GuidedDataSplitter", "GuidedDataset"]


class GuidedDataset(Dataset):
    """scvi-tools' dataset, with a neighbour drawn for every cell at every visit.

    Parameters
    ----------
    dataset
        Dataset of all cells.
    guidance
        Knowledge and neighbours of all cells.
    seed
        Seed of the draws.
    """

    def __init__(self, dataset: Any, guidance: Guidance, seed: int) -> None:
        super().__init__()
        self.dataset = dataset
        self.guidance = guidance
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, indexes: Any) -> dict[str, Any]:
        # Sorted, because file-backed data come back in that order whatever was asked for.
        cells = np.sort(np.atleast_1d(np.asarray(indexes, dtype=np.int64)))
        batch = dict(self.dataset[cells])
        guidance = self.guidance
        batch[KNOWLEDGE] = guidance.knowledge[cells]
        if guidance.by_expression is None or guidance.by_knowledge is None:
            return batch
        near = guidance.by_expression.draw(cells, self._rng)
        like = guidance.by_knowledge.draw(cells, self._rng)
        batch[NEIGHBOUR_X_KNOWLEDGE] = guidance.knowledge[near]
        batch[NEIGHBOUR_KNOWLEDGE] = guidance.knowledge[like]
        if guidance.with_expression:
            unique, position = np.unique(near, return_inverse=True)
            batch[NEIGHBOUR_X] = self.dataset[unique][REGISTRY_KEYS.X_KEY][position]
        return batch


class GuidedDataSplitter(ZooDataSplitter):
    """The zoo's data splitter with guidance.

    Parameters
    ----------
    guidance
        Knowledge and neighbours of all cells; ``None`` for plain minibatches.
    """

    def __init__(self, *args: Any, guidance: Guidance | None = None, **kwargs: Any) -> None:
        self._guidance = guidance
        super().__init__(*args, **kwargs)
        # Knowledge comes with the guidance alone: a registered embedding must not guide a model
        # that was asked to do without, nor the fine-tuning on cells whose neighbours are unknown.
        self.data_loader_kwargs.setdefault(
            "data_and_attributes",
            [key for key in self.adata_manager.data_registry if key != KNOWLEDGE_FIELD],
        )

    def _loader(self, indices: np.ndarray, shuffle: bool) -> DataLoader:
        loader = super()._loader(indices, shuffle)
        if self._guidance is None:
            return loader
        subset = loader.dataset
        if not isinstance(subset, Subset):
            raise TypeError(f"expected a subset of cells, got {type(subset).__name__}")
        guided = GuidedDataset(subset.dataset, self._guidance, self._seed)
        return DataLoader(
            Subset(guided, subset.indices),
            sampler=loader.sampler,
            batch_size=None,
            pin_memory=loader.pin_memory,
            num_workers=loader.num_workers,
            persistent_workers=loader.persistent_workers,
        )
