"""The training plan of scE2TM: one optimiser, no KL warm-up, a schedule over steps or epochs."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR, StepLR

__all__ = ["SCE2TMTrainingPlan"]

OptimizerName = Literal["Adam", "RMSprop"]
ScheduleName = Literal["cosine", "step", "constant"]

# Published schedule: halve the learning rate every 125 epochs.
_STEP_EPOCHS, _STEP_FACTOR = 125, 0.5
_RISE_SHARE = 0.1


class _Step(NamedTuple):
    """What the history of an epoch needs of one step."""

    n_cells: int
    loss: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor
    extra: dict[str, torch.Tensor]


class SCE2TMTrainingPlan(TrainingPlan):
    """scvi-tools' plan with scE2TM's optimisers and learning-rate schedules.

    Parameters
    ----------
    module
        The module.
    optimizer
        ``"Adam"`` or ``"RMSprop"`` (published).
    lr
        Largest learning rate.
    embedding_rate, decoder_rate
        Learning rates of the topic and gene embeddings and of the decoder, relative to ``lr``.
    schedule
        ``"cosine"``: a linear rise over the first tenth of the steps, then a half cosine to zero.
        ``"step"``: half the rate every 125 epochs (published). ``"constant"``: neither.
    ecr_warmup
        Share of the steps over which the clustering of embeddings comes in.
    weight_decay, eps
        Of the optimiser. scvi-tools' own default of ``eps`` is a million times larger than
        torch's and would damp small gradients.
    n_epochs_kl_warmup
        None by default: the KL divergence has its full weight from the first step.
    **kwargs
        Of :class:`scvi.train.TrainingPlan`.
    """

    def __init__(
        self,
        module: Any,
        *,
        optimizer: OptimizerName = "Adam",
        lr: float = 1e-3,
        embedding_rate: float = 1.0,
        decoder_rate: float = 1.0,
        schedule: ScheduleName = "cosine",
        ecr_warmup: float = 0.0,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        n_epochs_kl_warmup: int | None = None,
        **kwargs: Any,
    ) -> None:
        if optimizer not in get_args(OptimizerName):
            raise ValueError(f"optimizer={optimizer!r} is not one of {get_args(OptimizerName)}")
        if schedule not in get_args(ScheduleName):
            raise ValueError(f"schedule={schedule!r} is not one of {get_args(ScheduleName)}")
        super().__init__(
            module,
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            n_epochs_kl_warmup=n_epochs_kl_warmup,
            **kwargs,
        )
        self.algorithm = optimizer
        self.schedule = schedule
        self.embedding_rate = embedding_rate
        self.decoder_rate = decoder_rate
        self.ecr_warmup = ecr_warmup
        self._steps: list[_Step] = []
        self._memory: torch.Tensor | None = None

    def on_train_epoch_start(self) -> None:
        """Begin the record of an epoch."""
        self._steps = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Make one step, with the share of the clustering loss that has come in by now.

        What an epoch's history is made of is handed to Lightning once an epoch: logging every
        step takes as long as a third of the step.
        """
        warmup = self.ecr_warmup * self._n_steps()
        self.module.ecr_scale = min(1.0, self.trainer.global_step / warmup) if warmup else 1.0
        n_batches = self.trainer.num_training_batches
        if self.on_step or not math.isfinite(n_batches):
            return super().training_step(batch, batch_idx)
        if "kl_weight" in self.loss_kwargs:
            self.loss_kwargs["kl_weight"] = self.kl_weight
        memory = self._memory_for(batch[REGISTRY_KEYS.X_KEY])
        _, _, output = self.forward(
            batch,
            inference_kwargs={"memory": memory},
            generative_kwargs={"decode": not self.module.decodes_in_loss()},
            loss_kwargs=self.loss_kwargs,
        )
        self._steps.append(
            _Step(
                output.n_obs_minibatch,
                output.loss.detach(),
                output.reconstruction_loss["reconstruction_loss"].detach(),
                output.kl_local["kl_local"].detach(),
                output.extra_metrics,
            )
        )
        if batch_idx + 1 == n_batches:
            self._log_epoch()
        return output.loss

    def _memory_for(self, x: torch.Tensor) -> torch.Tensor | None:
        """Memory for the normalised expression of a minibatch: the same at every step.

        Fresh memory has to be cleared by the system first, which can take longer than a product
        of matrices.
        """
        if self.module.published or x.is_sparse or x.layout != torch.strided:
            return None
        memory = self._memory
        if memory is None or len(memory) < len(x) or memory.device != x.device:
            memory = self._memory = torch.empty_like(x)
        return memory[: len(x)]

    def _log_epoch(self) -> None:
        """Log what logging every step would have averaged to."""
        steps, self._steps = self._steps, []
        sizes = torch.tensor([step.n_cells for step in steps], dtype=torch.float32)

        def mean(values: list[torch.Tensor]) -> torch.Tensor:
            stacked = torch.stack(values)
            return (stacked * sizes.to(stacked)).sum() / sizes.sum()

        if "kl_weight" in self.loss_kwargs:
            self.log("kl_weight", self.kl_weight, on_step=False, on_epoch=True)
        loss = mean([step.loss for step in steps])
        self.log("train_loss", loss, on_epoch=self.on_epoch, on_step=False, prog_bar=True)
        output = LossOutput(
            loss=loss,
            reconstruction_loss=torch.cat([step.reconstruction for step in steps]),
            kl_local=torch.cat([step.kl for step in steps]),
            extra_metrics={
                name: mean([step.extra[name] for step in steps]) for name in steps[0].extra
            },
        )
        self.compute_and_log_metrics(output, self.train_metrics, "train")

    def on_train_end(self) -> None:
        """Leave the module with the whole clustering loss, also after an early stop."""
        self.module.ecr_scale = 1.0
        self._memory = None

    def configure_optimizers(self) -> dict[str, Any]:
        """Build the optimiser over the parameters that are free, and its schedule."""
        rates = {"encoder": 1.0, "embeddings": self.embedding_rate, "decoder": self.decoder_rate}
        members: dict[str, list[torch.nn.Parameter]] = {name: [] for name in rates}
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                members[_group_of(name)].append(parameter)
        groups = [
            {"params": members[name], "lr": self.lr * rate}
            for name, rate in rates.items()
            if members[name]
        ]
        options: dict[str, Any] = {
            "lr": self.lr,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
        }
        optimizer: torch.optim.Optimizer
        if self.algorithm == "RMSprop":
            optimizer = torch.optim.RMSprop(groups, **options)
        else:
            # one pass over the memory; elsewhere Lightning's precision plugins object to it
            on_cpu = all(p.device.type == "cpu" for group in members.values() for p in group)
            optimizer = torch.optim.Adam(groups, fused=on_cpu, **options)
        config: dict[str, Any] = {"optimizer": optimizer}
        if self.schedule == "step":
            scheduler = StepLR(optimizer, step_size=_STEP_EPOCHS, gamma=_STEP_FACTOR)
            config["lr_scheduler"] = {"scheduler": scheduler, "interval": "epoch"}
        elif self.schedule == "cosine":
            steps = self._n_steps()
            rise = max(int(_RISE_SHARE * steps), 1)
            schedulers = [
                LinearLR(optimizer, start_factor=1.0 / rise, total_iters=rise),
                CosineAnnealingLR(optimizer, T_max=max(steps - rise, 1)),
            ]
            config["lr_scheduler"] = {
                "scheduler": SequentialLR(optimizer, schedulers, milestones=[rise]),
                "interval": "step",
            }
        return config

    def _n_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        # without an end there is nothing to warm up towards
        return max(int(steps), 1) if steps != float("inf") else 1


def _group_of(name: str) -> str:
    """Group of a parameter by its name; a compiled module puts a prefix before the name."""
    if name.endswith("_embedding"):
        return "embeddings"
    return "decoder" if "decoder." in name or name.endswith("batch_offset") else "encoder"
