"""Minibatches of latents, drawn so that small classes are heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from sczoo.base import ZooDataSplitter

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LatentData", "SortedDataSplitter", "epochs_for"]

_STEPS_PER_EPOCH = 100


def epochs_for(n_steps: int) -> tuple[int, int]:
    """Split a number of steps into epochs of at most a hundred; returns epochs and their steps."""
    n_epochs = max(1, -(-n_steps // _STEPS_PER_EPOCH))
    return n_epochs, -(-n_steps // n_epochs)


class _Sorted(Sampler):
    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[list[int]]:
        return (sorted(batch) for batch in self._sampler)


class SortedDataSplitter(ZooDataSplitter):
    """The zoo's data splitter with the cells of a minibatch in ascending order.

    File-backed data come in that order whatever was asked for, and the noise of the autoencoder
    is drawn cell by cell: the same minibatch in another order would give another model.
    """

    def _loader(self, indices: np.ndarray, shuffle: bool) -> DataLoader:
        loader = super()._loader(indices, shuffle)
        return DataLoader(
            loader.dataset,
            sampler=_Sorted(loader.sampler),
            batch_size=None,
            pin_memory=loader.pin_memory,
            num_workers=loader.num_workers,
            persistent_workers=loader.persistent_workers,
        )


class _Draws(IterableDataset):
    def __init__(self, data: LatentData) -> None:
        super().__init__()
        self._data = data

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        data = self._data
        for _ in range(data.n_steps):
            rows = data.draw()
            yield data.latents[rows], data.conditions[rows]

    def __len__(self) -> int:
        return self._data.n_steps


class LatentData(pl.LightningDataModule):
    r"""Minibatches of latents; a class of :math:`n` cells is drawn :math:`\propto\sqrt n` times.

    Parameters
    ----------
    latents, conditions
        Of the training cells.
    train_idx, val_idx, test_idx
        Rows of the data that the latents are of, kept for the model.
    batch_size
        Cells in a minibatch.
    n_steps
        Minibatches in an epoch.
    seed
        Seed of the draws.
    """

    def __init__(
        self,
        latents: np.ndarray,
        conditions: np.ndarray,
        *,
        train_idx: np.ndarray,
        val_idx: np.ndarray,
        test_idx: np.ndarray,
        batch_size: int,
        n_steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.latents = torch.as_tensor(latents)
        self.conditions = torch.as_tensor(conditions)
        self.train_idx, self.val_idx, self.test_idx = train_idx, val_idx, test_idx
        self.n_train, self.n_val = len(train_idx), len(val_idx)
        self.batch_size = min(batch_size, max(2, len(latents)))
        self.n_steps = n_steps
        codes = conditions[:, 0]
        sizes = np.bincount(codes + 1)[codes + 1]
        weight = sizes**-0.5
        # cells of classes that the model does not know serve only where there are no others
        if (codes >= 0).any():
            weight[codes < 0] = 0.0
        self._shares = torch.as_tensor(weight / weight.sum())
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> torch.Tensor:
        """Rows of the next minibatch."""
        return torch.multinomial(
            self._shares, self.batch_size, replacement=True, generator=self._generator
        )

    def train_dataloader(self) -> DataLoader:
        """Return the minibatches of an epoch."""
        return DataLoader(_Draws(self), batch_size=None)
