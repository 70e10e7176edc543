"""The training plan: no gradient, one pass over the cells per step."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule

if TYPE_CHECKING:
    from sczoo.model.gramdr._fit import GramFit
    from sczoo.model.gramdr._module import GramDRModule

__all__ = ["GramDRTrainingPlan"]

logger = logging.getLogger(__name__)


class GramDRTrainingPlan(LightningModule):
    """Runs a fit: an epoch is one product of the Gram matrix with a block of vectors.

    The module is brought up to date after every step, so that a run that is stopped keeps what
    it has. The run ends by itself when the components have converged.

    Parameters
    ----------
    module
        Where the gene-side parameters go.
    """

    def __init__(self, module: GramDRModule) -> None:
        super().__init__()
        self.module = module
        self.automatic_optimization = False
        self.n_passes = 0

    def training_step(self, batch: GramFit, batch_idx: int) -> torch.Tensor:
        """Make one pass and record its residual and the variance explained."""
        fit = batch
        fit.step()
        self.module.set_gene_state(fit.state)
        self.n_passes += 1
        residual = torch.tensor(fit.residual, dtype=torch.float32)
        kept = fit.state.eigenvalues.sum()
        explained = torch.tensor(kept / max(float(fit.state.total), 1e-300), dtype=torch.float32)
        self.log("residual", residual, on_step=False, on_epoch=True, batch_size=1, prog_bar=True)
        self.log("explained", explained, on_step=False, on_epoch=True, batch_size=1)
        last = self.trainer.max_epochs is not None and (
            self.current_epoch + 1 >= self.trainer.max_epochs
        )
        if fit.converged or last:
            self.trainer.should_stop = True
            fit.finish()
        return residual

    def configure_optimizers(self) -> Any:
        """Return nothing: there is no gradient."""
        return None
