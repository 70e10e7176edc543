"""The training plan of DPDCAN: clip every unit, sum, add noise, step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from scvi import REGISTRY_KEYS

from sczoo.model.dpdcan._centres import private_centres
from sczoo.model.dpdcan._checks import check_sampling
from sczoo.model.dpdcan._run import GRADIENTS, GROUPS
from sczoo.privacy._clipping import UnitGradients

if TYPE_CHECKING:
    import numpy as np

    from sczoo.model.dpdcan._run import PrivateRun
    from sczoo.privacy._canaries import GradientCanaries

__all__ = ["DPDCANTrainingPlan"]


class DPDCANTrainingPlan(pl.LightningModule):
    """Differentially private stochastic gradient descent with a few large minibatches.

    Parameters
    ----------
    module
        The module.
    run
        Noise, clipping norms and what has been spent.
    lr
        Learning rate of Adam. Its moments see noisy gradients only: post-processing.
    average_share
        Share of the last steps whose weights are averaged: post-processing too.
    blocks
        Function that yields counts of the training cells, for the cluster centres.
    weights
        Weight of each training cell.
    canaries
        Planted gradients, for an audit. A model that was trained with them is no good for
        anything else.
    """

    def __init__(
        self,
        module: Any,
        *,
        run: PrivateRun,
        lr: float = 5e-4,
        average_share: float = 0.5,
        blocks: Any = None,
        weights: np.ndarray | None = None,
        canaries: GradientCanaries | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module = module
        self.run = run
        self.lr = lr
        self.average_share = average_share
        self._blocks, self._weights = blocks, weights
        self.canaries = canaries
        self.n_passes = 0
        self._average: dict[str, torch.Tensor] = {}
        self._n_averaged = 0

    def configure_optimizers(self) -> Any:
        """Adam over everything that is trained."""
        free = [p for p in self.module.parameters() if p.requires_grad]
        return torch.optim.Adam(free, lr=self.lr)

    def on_train_start(self) -> None:
        """Prepare clipping; the module begins in phase one."""
        if self.run.private and self.run.mode != "paper":
            check_sampling(self.trainer, self.run)
        self.gradients = UnitGradients(self.module, GROUPS[self.run.mode])
        self.module.phase = 1

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Make one step. An empty minibatch is a step of noise alone, and is accounted."""
        run, module = self.run, self.module
        if self.n_passes == run.phase_one_steps and module.centres is not None:
            private_centres(module, self._blocks, self._weights, run)
            module.phase = 2
        counts = batch[REGISTRY_KEYS.X_KEY]
        counts = counts.to_dense() if counts.layout != torch.strided else counts
        counts = counts.reshape(-1, run.rows_per_unit, counts.shape[-1]).float()
        if not run.verified and len(counts) > 1:
            self._verify(counts)
        with self.gradients.record():
            loss = module.unit_loss(counts, run.source)
        sums, _ = self.gradients.clipped_sums(loss, run.max_grad_norm)
        self._release(sums)
        optimizer: Any = self.optimizers()
        optimizer.step()
        self.n_passes += 1
        self._keep_average()
        if not run.private:
            self._log_loss(loss)

    def _log_loss(self, loss: torch.Tensor) -> None:
        mean = loss.detach().mean() if len(loss) else torch.zeros(())
        self.log("train_loss", mean, on_step=False, on_epoch=True, batch_size=max(1, len(loss)))

    def _verify(self, counts: torch.Tensor) -> None:
        counts = counts.detach().clone().requires_grad_()
        with self.gradients.record():
            loss = self.module.unit_loss(counts, self.run.source)
        self.gradients.verify(loss, counts)
        self.run.verified = True

    def _release(self, sums: dict[str, torch.Tensor]) -> None:
        """Add noise, account for it, and hand the result to the optimiser."""
        run = self.run
        if run.private:
            run.spend(GRADIENTS)
        named = dict(self.module.named_parameters())
        groups = {name: self._group(name) for name in sums}
        if self.canaries is not None:
            bounds = {name: run.max_grad_norm[group] for name, group in groups.items()}
            sums = self.canaries.plant(sums, bounds, run.rate)
        if run.private:
            for name, value in sums.items():
                noise = torch.from_numpy(run.source.normal(tuple(value.shape)))
                scale = run.group_noise[groups[name]] * run.max_grad_norm[groups[name]]
                value.add_(noise.to(value), alpha=scale)
        if self.canaries is not None:
            self.canaries.observe(sums)
        for name, value in sums.items():
            named[name].grad = value.div_(run.expected_units)
        centre_loss = self.module.centre_loss()
        if centre_loss is not None:
            # a function of the released centres alone
            (extra,) = torch.autograd.grad(centre_loss, [self.module.centres.centres])
            named["centres.centres"].grad += extra

    def _group(self, name: str) -> str:
        for group, prefixes in GROUPS[self.run.mode].items():
            if any(name.startswith(prefix) for prefix in prefixes):
                return group
        raise KeyError(name)  # UnitGradients has refused such a layer before

    def _keep_average(self) -> None:
        first = self.run.n_steps * (1 - self.average_share)
        if self.n_passes <= first or self.module.phase == 2:
            return
        self._n_averaged += 1
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                kept = self._average.setdefault(name, torch.zeros_like(parameter))
                kept += (parameter.detach() - kept) / self._n_averaged

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing: cells that are held out are not looked at."""

    def on_train_epoch_end(self) -> None:
        """Record steps and spent epsilon; of the cells themselves nothing."""
        values: dict[str, float] = {"steps": float(self.n_passes)}
        if self.run.private and self.run.mode != "paper":
            values |= {"epsilon": self.run.epsilon(), "delta": self.run.delta}
            if self.run.budget is not None:
                values["epsilon_budget"] = float(self.run.budget)
        for name, value in values.items():
            self.log(name, value, on_step=False, on_epoch=True)

    def on_train_end(self) -> None:
        """Put the averaged weights in the place of the last ones."""
        named = dict(self.module.named_parameters())
        if self.module.phase == 1:
            for name, value in self._average.items():
                named[name].data.copy_(value)
        for parameter in named.values():
            parameter.grad = None
