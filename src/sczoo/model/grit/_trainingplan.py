"""The training plan: one step, which solves for the refined scores; nothing has a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader

from sczoo.base._data import ZooDataSplitter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AllCells", "GRITTrainingPlan"]


class GRITTrainingPlan(pl.LightningModule):
    """Solves in the first step; a further epoch solves again from the same scores.

    Parameters
    ----------
    module
        The module.
    solve
        Scores, connects and refines the cells; returns the last relative residual.
    """

    def __init__(self, module: Any, *, solve: Callable[[], float]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module = module
        self.n_passes = 0
        self._solve = solve

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Solve, and log the relative residual that was reached."""
        residual = torch.tensor(self._solve())
        self.n_passes += 1
        self.log("residual_train", residual, on_step=False, on_epoch=True, batch_size=1)
        return residual

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing: no cells are held out."""

    def configure_optimizers(self) -> None:
        """Return no optimiser: conjugate gradients need none of Lightning's."""
        return None


class AllCells(ZooDataSplitter):
    """One batch that stands for all cells: every label depends on the whole graph.

    A share asked for with ``train_size`` is not held out, for there is nothing to overfit.
    """

    def setup(self, stage: str | None = None) -> None:
        """Take all cells."""
        n_cells = self.adata_manager.adata.n_obs
        self.train_idx = np.arange(n_cells)
        self.val_idx = self.test_idx = np.arange(0)
        self.n_train, self.n_val = n_cells, 0

    def train_dataloader(self) -> Any:
        """Return the one batch."""
        return DataLoader([{"all": torch.ones(1)}], batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        """Return nothing."""
        return []
