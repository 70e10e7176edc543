"""Minibatches that know which cells they hold, and streamed passes over all cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch.utils.data import DataLoader, Dataset, Subset

from sczoo.base import ZooDataSplitter
from sczoo.base._reading import iter_row_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

__all__ = ["CELLS", "NumberedDataSplitter", "dense_blocks"]

# Key of a minibatch: rows of its cells.
CELLS = "cell_rows"
_BLOCK = 1024


def dense_blocks(adata: AnnData, layer: str | None) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield rows and their counts, dense in float32, in the order of `adata`."""
    for rows, block in iter_row_blocks(adata, layer):
        for start in range(0, len(rows), _BLOCK):
            part = block[start : start + _BLOCK]
            values = part.toarray() if sparse.issparse(part) else np.asarray(part)
            yield rows[start : start + _BLOCK], torch.from_numpy(values.astype(np.float32))


class _NumberedDataset(Dataset):
    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, indexes: Any) -> dict[str, Any]:
        # Sorted, because file-backed data come back in that order whatever was asked for.
        cells = np.sort(np.atleast_1d(np.asarray(indexes, dtype=np.int64)))
        return {**self.dataset[cells], CELLS: cells}


class NumberedDataSplitter(ZooDataSplitter):
    """The zoo's data splitter, with the rows of the cells in every minibatch."""

    def _loader(self, indices: np.ndarray, shuffle: bool) -> DataLoader:
        loader = super()._loader(indices, shuffle)
        subset = loader.dataset
        if not isinstance(subset, Subset):
            raise TypeError(f"expected a subset of cells, got {type(subset).__name__}")
        return DataLoader(
            Subset(_NumberedDataset(subset.dataset), subset.indices),
            sampler=loader.sampler,
            batch_size=None,
            pin_memory=loader.pin_memory,
            num_workers=loader.num_workers,
            persistent_workers=loader.persistent_workers,
        )
