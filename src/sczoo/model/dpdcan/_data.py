"""Minibatches for private training: coins for units, and donors held out whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS, settings
from torch.utils.data import DataLoader

from sczoo.base import ZooDataSplitter

if TYPE_CHECKING:
    from torch.utils.data import Sampler

__all__ = ["PrivateDataSplitter", "donor_codes"]


def donor_codes(manager: Any, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Codes 0, 1, ... of the donors of `rows`, and their number."""
    codes = np.asarray(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()[rows]
    donors, codes = np.unique(codes, return_inverse=True)
    return codes, len(donors)


class PrivateDataSplitter(ZooDataSplitter):
    """The zoo's splitter; minibatches come from `sampler_factory` where one is given.

    Parameters
    ----------
    adata_manager
        Registered data.
    by_donor
        Hold out whole donors, not some cells of each.
    sampler_factory
        Makes the sampler of row positions from the training rows.
    **kwargs
        Of :class:`~sczoo.base.ZooDataSplitter`.
    """

    def __init__(
        self,
        adata_manager: Any,
        *args: Any,
        by_donor: bool = False,
        sampler_factory: Any = None,
        **kwargs: Any,
    ) -> None:
        self._by_donor = by_donor
        self._sampler_factory = sampler_factory
        super().__init__(adata_manager, *args, **kwargs)

    def setup(self, stage: str | None = None) -> None:
        """Split the cells, or the donors."""
        super().setup(stage)
        if not self._by_donor or self.external_indexing is not None or self.train_size == 1:
            return
        codes, n_donors = donor_codes(self.adata_manager, np.arange(len(self.adata_manager.adata)))
        order = np.arange(n_donors)
        if self.shuffle_set_split:
            order = np.random.default_rng(self._seed).permutation(n_donors)
        # of shares and donors alone: numbers of cells are rounded, and would leave their trace
        n_train = min(n_donors, max(1, round(n_donors * self.train_size)))
        n_val = n_donors - n_train
        if self.validation_size is not None:
            n_val = min(n_val, round(n_donors * self.validation_size))
        self.train_idx = np.flatnonzero(np.isin(codes, order[:n_train]))
        self.val_idx = np.flatnonzero(np.isin(codes, order[n_train : n_train + n_val]))
        self.test_idx = np.flatnonzero(np.isin(codes, order[n_train + n_val :]))

    def train_dataloader(self) -> Any:
        """Return training minibatches."""
        if self._sampler_factory is None:
            return super().train_dataloader()
        rows = np.sort(np.asarray(self.train_idx))
        sampler: Sampler = self._sampler_factory(rows)
        dataset = self.adata_manager.create_torch_dataset(
            indices=rows, data_and_attributes={REGISTRY_KEYS.X_KEY: np.float32}
        )
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=settings.dl_num_workers,
            persistent_workers=settings.dl_persistent_workers,
        )

    def val_dataloader(self) -> Any:
        """Return nothing: a loss of held-out cells would be private too, and is not needed."""
        return []
