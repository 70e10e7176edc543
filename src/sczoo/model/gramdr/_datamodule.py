"""Hands the fit to Lightning: a loader whose one item, each epoch, is the fit itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader

from sczoo.base import ZooDataSplitter
from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sczoo.model.gramdr._fit import GramFit

__all__ = ["FitDataModule"]


class FitDataModule(ZooDataSplitter):
    """Splits the cells as every model of the zoo does, and reads the training ones in blocks.

    Parameters
    ----------
    make_fit
        From the row numbers of the training cells to the fit.
    """

    def __init__(
        self, *args: Any, make_fit: Callable[[np.ndarray], GramFit], **kwargs: Any
    ) -> None:
        if kwargs.get("distributed_sampler"):
            raise InputError(
                "GramDR has no gradient to share between devices: train on one, without ddp."
            )
        self._make_fit = make_fit
        super().__init__(*args, **kwargs)

    def train_dataloader(self) -> Any:
        """Return a loader of one item."""
        fit = self._make_fit(np.sort(np.asarray(self.train_idx)))
        return DataLoader([fit], batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        """Return nothing: held-out cells are projected on request."""
        return []
