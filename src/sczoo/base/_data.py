"""Minibatches for training: any number of cells works with any batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import settings
from scvi.dataloaders import DataSplitter
from torch.utils.data import DataLoader, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator


class BatchSampler(Sampler):
    """Draw minibatches of row positions; a last batch that is too small joins the one before.

    Batch normalisation needs two cells at the least, and a gradient from three cells is noise.

    Parameters
    ----------
    n_obs
        Number of cells.
    batch_size
        Cells in a minibatch.
    shuffle
        Whether to draw a new order in every epoch.
    seed
        Seed of the order; the state of torch's global generator plays no part.
    min_batch_size
        Batches with fewer cells are merged; ``batch_size // 4`` and at least 2 by default.
    """

    def __init__(
        self,
        n_obs: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        min_batch_size: int | None = None,
    ) -> None:
        self.n_obs = n_obs
        self.batch_size = batch_size
        self.shuffle = shuffle
        if min_batch_size is None:
            min_batch_size = max(2, batch_size // 4)
        n_batches, rest = divmod(n_obs, batch_size)
        if rest >= min_batch_size or n_batches == 0:
            n_batches += rest > 0
        self.n_batches = n_batches
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            order = torch.randperm(self.n_obs, generator=self._generator).tolist()
        else:
            order = list(range(self.n_obs))
        for number in range(self.n_batches):
            start = number * self.batch_size
            stop = None if number == self.n_batches - 1 else start + self.batch_size
            yield order[start:stop]


class ZooDataSplitter(DataSplitter):
    """scvi-tools' splitter with batches that are never too small, independent of global state.

    Parameters are those of :class:`scvi.dataloaders.DataSplitter`, and ``seed``, which decides the
    split and the order of the cells; ``scvi.settings.seed`` by default. Trains on all cells unless
    ``train_size`` or ``validation_size`` says otherwise.
    """

    def __init__(
        self,
        adata_manager: Any,
        train_size: float | None = None,
        validation_size: float | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._distributed = bool(kwargs.get("distributed_sampler", False))
        self._seed = (settings.seed or 0) if seed is None else seed
        if train_size is None:
            train_size = 1.0 - (validation_size or 0.0)
        super().__init__(
            adata_manager, train_size=train_size, validation_size=validation_size, **kwargs
        )

    def setup(self, stage: str | None = None) -> None:
        """Split the cells; unlike scvi-tools, also reproducibly without ``scvi.settings.seed``."""
        super().setup(stage)
        if self.external_indexing is None and self.shuffle_set_split:
            order = np.random.RandomState(self._seed).permutation(self.adata_manager.adata.n_obs)
            self.val_idx = order[: self.n_val]
            self.train_idx = order[self.n_val : self.n_val + self.n_train]
            self.test_idx = order[self.n_val + self.n_train :]

    def _loader(self, indices: np.ndarray, shuffle: bool) -> DataLoader:
        kwargs = {k: v for k, v in self.data_loader_kwargs.items() if k != "distributed_sampler"}
        batch_size = kwargs.pop("batch_size", None) or settings.batch_size
        dataset = self.adata_manager.create_torch_dataset(
            indices=indices,
            data_and_attributes=kwargs.pop("data_and_attributes", None),
            load_sparse_tensor=self.load_sparse_tensor,
        )
        kwargs.setdefault("num_workers", settings.dl_num_workers)
        kwargs.setdefault("persistent_workers", settings.dl_persistent_workers)
        sampler = BatchSampler(len(indices), batch_size, shuffle=shuffle, seed=self._seed)
        return DataLoader(
            dataset, sampler=sampler, batch_size=None, pin_memory=self.pin_memory, **kwargs
        )

    def train_dataloader(self) -> Any:
        """Return shuffled training batches."""
        if self._distributed:
            return super().train_dataloader()
        return self._loader(self.train_idx, shuffle=True)

    def val_dataloader(self) -> Any:
        """Return validation batches, in order; none without validation cells."""
        if self._distributed:
            return super().val_dataloader()
        return self._loader(self.val_idx, shuffle=False) if len(self.val_idx) else []
