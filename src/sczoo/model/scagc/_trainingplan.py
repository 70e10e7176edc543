"""The training plan of scAGC: first the embedding and its graph, then the clusters."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.train import TrainingPlan

from sczoo.model.scagc._clustering import (
    centres_of,
    initial_partition,
    soft_assignments,
    target_of,
)
from sczoo.model.scagc._data import CELLS
from sczoo.model.scagc._module import GRAPH, TARGET
from sczoo.model.scagc._sampling import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sczoo.model.scagc._memory import GraphMemory

__all__ = ["SCAGCTrainingPlan"]

logger = logging.getLogger(__name__)

_TEMPERATURE = (1.0, 0.3)


class SCAGCTrainingPlan(TrainingPlan):
    """Pre-training with a graph that is drawn anew each epoch, then clustering.

    Parameters
    ----------
    module
        The module.
    memory
        Graph and banks of all cells.
    encode_all
        Function that encodes all cells anew and puts the result into the memory.
    n_clusters
        Number of clusters; ``None`` asks Leiden on the learned graph.
    pretrain_epochs
        Epochs before the clusters come in.
    lr, cluster_lr
        Learning rates of the two stages.
    fan_out
        Most neighbours of a cell, and of a neighbour, in a minibatch.
    refresh_epochs
        Epochs after which all cells are encoded anew and candidates searched again.
    target_epochs
        Epochs after which the target of the clustering is computed again.
    prior
        Weight of the first graph beside the learned one, at the start and at the end of the
        pre-training; the first epoch sees the first graph alone.
    stop_below
        Clustering stops when a smaller share of the labels changes between two targets.
    weight_decay, eps
        Of the optimiser.
    **kwargs
        Of :class:`scvi.train.TrainingPlan`.
    """

    def __init__(
        self,
        module: Any,
        *,
        memory: GraphMemory,
        encode_all: Callable[[], None],
        n_clusters: int | None,
        pretrain_epochs: int,
        seed: int,
        lr: float = 2e-3,
        cluster_lr: float = 5e-4,
        fan_out: tuple[int, int] = (10, 5),
        refresh_epochs: int = 10,
        target_epochs: int = 1,
        prior: tuple[float, float] = (0.0, 0.0),
        stop_below: float = 1e-3,
        weight_decay: float = 1e-6,
        eps: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            module, lr=lr, weight_decay=weight_decay, eps=eps, n_epochs_kl_warmup=None, **kwargs
        )
        self.memory = memory
        self.encode_all = encode_all
        self.n_clusters = n_clusters
        self.pretrain_epochs = pretrain_epochs
        self.cluster_lr = cluster_lr
        self.fan_out = fan_out
        self.refresh_epochs = refresh_epochs
        self.target_epochs = target_epochs
        self.prior = prior
        self.stop_below = stop_below
        self.graph_seed = seed
        self.temperature = _TEMPERATURE[0]
        self.target: torch.Tensor | None = None
        self.labels: np.ndarray | None = None
        self._stepped = False
        self._generator = torch.Generator().manual_seed(seed)

    # --- epochs -------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Make the graph of the epoch, and bring the clusters in when their time has come."""
        super().on_train_epoch_start()
        epoch, memory = self.current_epoch, self.memory
        progress = min(1.0, epoch / max(self.pretrain_epochs, 1))
        first, last = _TEMPERATURE
        self.temperature = first * (last / first) ** progress
        clustering = epoch >= self.pretrain_epochs
        if epoch > 0 and (epoch % self.refresh_epochs == 0 or epoch == self.pretrain_epochs):
            self.encode_all()
            if not clustering:
                memory.refresh_candidates()
            memory.balance_prices()
        first, last = self.prior
        memory.adopt(1.0 if epoch == 0 else first + (last - first) * progress)
        if epoch > 0:
            self.encode_latent()
        if clustering:
            self._refresh_target(start=self.target is None)

    def encode_latent(self) -> None:
        """Convolve the remembered features of all cells on the current graph."""
        self.memory.latent = convolve_all(self.module, self.memory)

    def _refresh_target(self, start: bool) -> None:
        if start:
            self._start_clustering()
        elif (self.current_epoch - self.pretrain_epochs) % self.target_epochs:
            return
        with torch.no_grad():
            q = soft_assignments(self.memory.latent, self.module.centres.cpu())
        self.target = target_of(q)
        labels = q.argmax(dim=1).numpy()
        if self.labels is not None and not start:
            changed = float((labels != self.labels).mean())
            self.memory.history.setdefault("label_changes", []).append(changed)
            if changed < self.stop_below:
                self.trainer.should_stop = True
        self.labels = labels

    def _start_clustering(self) -> None:
        """Put the centres where the clusters are, and let them learn with a fresh optimiser."""
        memory = self.memory
        if not self.module.clustered:
            z = memory.latent.numpy()
            labels = initial_partition(z, memory.graph(), self.n_clusters, seed=self.graph_seed)
            n_clusters = self.n_clusters or int(labels.max()) + 1
            self.module.set_centres(centres_of(z, labels, n_clusters))
        optimizer = self.optimizers().optimizer
        optimizer.state.clear()
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        centres = self.module.centres
        if centres.requires_grad and id(centres) not in known:
            optimizer.param_groups[0]["params"].append(centres)
        for group in optimizer.param_groups:
            group["lr"] = self.cluster_lr

    def on_train_epoch_end(self) -> None:
        """Adopt the rows that were drawn, if the epoch was not stopped before its first step."""
        super().on_train_epoch_end()
        if self._stepped:
            self.memory.end_epoch()
        self._stepped = False

    # --- steps --------------------------------------------------------------------------------

    def _with_graph(self, batch: dict[str, Any]) -> dict[str, Any]:
        cells = batch[CELLS].cpu()
        batch = {
            **batch,
            GRAPH: Surroundings(self.memory, cells, self.fan_out, self._generator),
        }
        if self.target is not None:
            batch[TARGET] = self.target[cells].to(self.module.device)
        return batch

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Make one step and remember the cells' features and drawn edges."""
        tensors = self._with_graph(batch)
        inference, _, losses = self.module(
            tensors, inference_kwargs={"temperature": self.temperature}
        )
        cells = batch[CELLS].cpu()
        with torch.no_grad():
            self.memory.hidden[cells] = inference["hidden"].detach().cpu()
            if "edges" in inference:
                chosen = inference["edges"].cpu().numpy()
                rows = cells.numpy()
                self.memory.next_rows[rows] = np.take_along_axis(
                    self.memory.candidates[rows], chosen, axis=1
                )
        self._stepped = True
        self._record(losses, "train", len(cells))
        return losses.loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Compute the loss of cells that are not trained on."""
        tensors = self._with_graph(batch)
        _, _, losses = self.module(tensors)
        self._record(losses, "validation", len(batch[CELLS]))

    def _record(self, losses: Any, part: str, n_cells: int) -> None:
        values = {"loss": losses.loss.detach(), **losses.extra_metrics}
        for name, value in values.items():
            self.log(
                f"{name}_{part}" if name != "loss" else f"{part}_loss",
                value,
                on_step=False,
                on_epoch=True,
                batch_size=n_cells,
                prog_bar=name == "loss",
            )
        self.log(
            f"reconstruction_loss_{part}",
            losses.reconstruction_loss_sum.detach() / n_cells,
            on_step=False,
            on_epoch=True,
            batch_size=n_cells,
        )


@torch.no_grad()
def convolve_all(module: Any, memory: GraphMemory) -> torch.Tensor:
    """Embedding of all cells from remembered features, layer by layer; cells x dimensions."""
    hidden = memory.hidden
    weights = [lin.weight.detach().cpu() for lin in module.conv.lins]
    out = hidden @ weights[-1].T
    for weight in weights[-2::-1]:
        out = hidden @ weight.T + torch.from_numpy(memory.adjacency @ out.numpy())
    return out + module.conv.bias.detach().cpu()
