"""The published scheme, for comparison. It gives no guarantee.

Kept as published: the heads of the decoder get no noise; the contrastive term is a cosine across
the minibatch, and the whole of it is in the gradient of every cell; input statistics, cluster
frequencies and cluster centres are computed from the cells without noise; minibatches are
shuffled, of a fixed size. One draw of the masks serves a whole minibatch here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from torch.nn import functional as F

from sczoo.model.dpdcan._losses import cluster_divergence, soft_assignments
from sczoo.model.dpdcan._run import GRADIENTS
from sczoo.model.dpdcan._trainingplan import DPDCANTrainingPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PublishedTrainingPlan", "standardise"]

_NOISED = ("encoder.", "decoder.trunk.", "centres.")
_KMEANS_EVERY = 5
_PHASE_ONE = 50 / 90  # published: 50 epochs, then at most 40


def standardise(module: Any, blocks: Callable[[], Iterator[Any]]) -> None:
    """Set the published input statistics: median library size, mean and deviation per gene."""
    totals = np.concatenate([np.asarray(x.sum(axis=1)).ravel() for x in blocks()])
    median = float(np.median(totals))
    n, first, second = len(totals), 0.0, 0.0
    for block in blocks():
        x = np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float64)
        x = np.log1p(x * (median / np.maximum(x.sum(axis=1, keepdims=True), 1.0)))
        first, second = first + x.sum(axis=0), second + np.square(x).sum(axis=0)
    mean = first / n
    deviation = np.sqrt(np.maximum(second / n - np.square(mean), 0.0))
    module.median_total.fill_(median)
    module.gene_mean.copy_(torch.as_tensor(mean))
    module.gene_scale.copy_(torch.as_tensor(np.where(deviation > 0, deviation, 1.0)))


class PublishedTrainingPlan(DPDCANTrainingPlan):
    """Training as published: clipped whole gradients, noise on part of the network."""

    def configure_optimizers(self) -> Any:
        """Adam for phase one, Adadelta for phase two."""
        free = [p for p in self.module.parameters() if p.requires_grad]
        return [torch.optim.Adam(free, lr=self.lr), torch.optim.Adadelta(free, lr=1.0, rho=0.95)]

    def on_train_epoch_start(self) -> None:
        """Choose the phase; in phase two, refresh frequencies and, every few epochs, centres."""
        module = self.module
        last = self.trainer.max_epochs or 1
        begin = math.ceil(_PHASE_ONE * last)
        if module.centres is None or self.current_epoch < begin:
            return
        module.phase = 2
        with torch.no_grad():
            parts = (self._tensor(x) for x in self._blocks())
            z = torch.cat([module.encoder(module.prepare(x)) for x in parts])
            if (self.current_epoch - begin) % _KMEANS_EVERY == 0:
                from sklearn.cluster import KMeans

                k = module.centres.centres.shape[0]
                seed = int(self.run.source.integers(2**31))
                found = KMeans(min(k, len(z)), n_init=20, random_state=seed).fit(z.cpu().numpy())
                module.centres.centres[: len(found.cluster_centers_)] = self._tensor(
                    found.cluster_centers_
                )
            self._frequencies = soft_assignments(module.centres(z)).sum(0)

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32), device=self.module.device)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Make one step of the published scheme."""
        module, run = self.module, self.run
        counts = batch[REGISTRY_KEYS.X_KEY]
        counts = counts.to_dense() if counts.layout != torch.strided else counts
        counts = counts.float()
        shared = self._shared(counts)
        with self.gradients.record():
            x = module.prepare(counts)
            z = module.encoder(x)
            loss = module.reconstruction(counts, z)
            if module.phase == 1:
                loss = module.reconstruction_weight * loss
            else:
                q = soft_assignments(module.centres(z))
                first, second, _ = module.cluster_weights
                loss = first * loss + second * cluster_divergence(q, self._frequencies)
        sums, _ = self.gradients.clipped_sums(loss, run.max_grad_norm, shared)
        if run.private:
            run.spend(GRADIENTS)
        named = dict(module.named_parameters())
        scale = run.group_noise["all"] * run.max_grad_norm["all"] if run.private else 0.0
        for name, value in sums.items():
            if scale and name.startswith(_NOISED):
                noise = torch.from_numpy(run.source.normal(tuple(value.shape)))
                value = value + scale * noise.to(value)
            named[name].grad = value / len(counts)
        optimizers: Any = self.optimizers()
        optimizers[module.phase - 1].step()
        self.n_passes += 1
        if not run.private:
            self.log("train_loss", loss.detach().mean(), on_step=False, on_epoch=True)

    def _shared(self, counts: torch.Tensor) -> dict[str, torch.Tensor]:
        """Gradient of the terms that belong to no cell, which is in every cell's gradient."""
        module = self.module
        if module.phase == 2:
            loss = module.centre_loss()
        elif module.reconstruction_weight < 1:
            x = module.prepare(counts)
            draws = torch.as_tensor(self.run.source.random((2, *x.shape)), device=x.device)
            one, other = (module.encoder(x * (draw >= module.mask_rate)) for draw in draws)
            agreement = -F.cosine_similarity(one, other, dim=0).mean()
            loss = (1 - module.reconstruction_weight) * agreement
        else:
            return {}
        named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return {n: g for n, g in zip(named, found, strict=True) if g is not None}

    def _keep_average(self) -> None:
        """Average nothing: the published scheme does not."""
