"""The three training plans of scDD: autoencoder, diffusion teacher, single-step student."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from scvi.train import TrainingPlan
from torch import nn

from sczoo.model.scdd._diffusion import diffusion_loss
from sczoo.model.scdd._flow_map import flow_map_loss, flow_map_pairs

if TYPE_CHECKING:
    from sczoo.model.scdd._module import SCDDModule

__all__ = ["AutoencoderPlan", "DiffusionPlan", "StudentPlan"]

_THETA_RATE = 10.0
_STAGE = {"autoencoder": 0, "diffusion": 1, "student": 2}


class AutoencoderPlan(TrainingPlan):
    """scvi-tools' plan over the autoencoder's weights, with a learning rate that falls to zero.

    Parameters
    ----------
    module
        The module.
    lr
        Learning rate at the start.
    kl_share
        Share of the epochs over which the weight of the divergence rises to `max_kl_weight`.
    max_kl_weight, eps, weight_decay, **kwargs
        Of :class:`scvi.train.TrainingPlan`. scvi-tools' own ``eps`` is a million times larger
        than torch's and would damp small gradients.
    """

    def __init__(
        self,
        module: SCDDModule,
        *,
        lr: float = 1e-3,
        kl_share: float = 0.4,
        max_kl_weight: float = 0.5,
        eps: float = 1e-8,
        weight_decay: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("n_epochs_kl_warmup", None)
        super().__init__(
            module,
            lr=lr,
            max_kl_weight=max_kl_weight,
            eps=eps,
            weight_decay=weight_decay,
            **kwargs,
        )
        self.kl_share = kl_share

    def on_train_start(self) -> None:
        """Set the length of the warm-up, which is known only now."""
        if self.n_epochs_kl_warmup is None:
            self.n_steps_kl_warmup = max(1, int(self.kl_share * self._n_steps()))

    def _n_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        return max(int(steps), 1) if steps != float("inf") else 1

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam over the free weights of the autoencoder, with a half cosine."""
        free = {
            name: weight
            for name, weight in self.module.named_parameters()
            if weight.requires_grad and not name.startswith(("denoiser.", "student."))
        }
        # the dispersions have far to go, and at the rate of the others they would not arrive
        theta = free.pop("log_theta", None)
        groups: list[dict[str, Any]] = [
            {"params": list(free.values()), "weight_decay": self.weight_decay}
        ]
        if theta is not None:
            groups.append({"params": [theta], "lr": _THETA_RATE * self.lr, "weight_decay": 0.0})
        optimizer = torch.optim.Adam(groups, lr=self.lr, eps=self.eps)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._n_steps())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_train_end(self) -> None:
        """Note that the stage is complete."""
        self.module.stages_done[_STAGE["autoencoder"]] = True


class _LatentPlan(pl.LightningModule):
    """What the plans on latents share: AdamW with a half cosine, an average of the weights.

    Parameters
    ----------
    module
        The module.
    seed
        Seed of noise and draws.
    lr, weight_decay
        Of AdamW.
    ema_decay
        Decay of the average of the weights, which is what the model keeps.
    """

    _net: str
    _stage: str

    def __init__(
        self,
        module: SCDDModule,
        *,
        seed: int = 0,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.998,
    ) -> None:
        super().__init__()
        self.module = module
        self.lr = lr
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self._generator = torch.Generator().manual_seed(seed)
        self._average: nn.Module | None = None

    @property
    def net(self) -> nn.Module:
        """The network in training."""
        return getattr(self.module, self._net)

    def configure_optimizers(self) -> Any:
        """AdamW over one network."""
        optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=self.lr, weight_decay=self.weight_decay
        )
        steps = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, int(steps)))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_train_start(self) -> None:
        """Begin the average at the weights as they are."""
        self._average = copy.deepcopy(self.net)

    @torch.no_grad()
    def on_train_batch_end(self, *args: Any) -> None:
        """Move the average; at first faster, so that the start is soon forgotten."""
        assert self._average is not None
        step = self.trainer.global_step
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        pairs = zip(self._average.parameters(), self.net.parameters(), strict=True)
        for kept, new in pairs:
            kept.lerp_(new, 1 - decay)

    def on_train_end(self) -> None:
        """Keep the average, and note that the stage is complete."""
        assert self._average is not None
        self.net.load_state_dict(self._average.state_dict())
        self._average = None
        self.module.stages_done[_STAGE[self._stage]] = True

    def _record(self, loss: torch.Tensor, n: int) -> torch.Tensor:
        self.log(f"{self._stage}_loss", loss, on_step=False, on_epoch=True, batch_size=n)
        return loss


class DiffusionPlan(_LatentPlan):
    """Train the teacher on standardised latents.

    Parameters
    ----------
    module, seed, lr, weight_decay, ema_decay
        As of all plans on latents.
    p_uncond
        Probability with which each condition is left out.
    """

    _net, _stage = "denoiser", "diffusion"

    def __init__(self, module: SCDDModule, *, p_uncond: float = 0.1, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        self.p_uncond = p_uncond

    def training_step(self, batch: tuple[torch.Tensor, ...], batch_idx: int) -> torch.Tensor:
        """One step of velocity regression."""
        z, conditions = batch
        loss = diffusion_loss(self.net, z, conditions, self.p_uncond, self._generator)
        return self._record(loss, len(z))


class StudentPlan(_LatentPlan):
    """Train the student to do in one call what the teacher's flow does in many.

    Parameters
    ----------
    module, seed, lr, weight_decay, ema_decay
        As of all plans on latents.
    n_pairs
        Ends of flows to learn from.
    n_flow_steps
        Steps of the teacher's flow.
    """

    _net, _stage = "student", "student"

    def __init__(
        self,
        module: SCDDModule,
        *,
        n_pairs: int = 8000,
        n_flow_steps: int = 30,
        lr: float = 5e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, lr=lr, **kwargs)
        self.n_pairs = n_pairs
        self.n_flow_steps = n_flow_steps
        self._pairs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def on_train_start(self) -> None:
        """Start from the teacher's weights, and follow its flow once for all pairs."""
        self.net.load_state_dict(self.module.denoiser.state_dict())
        super().on_train_start()
        conditions = self._draw_conditions(self.n_pairs)
        ends = flow_map_pairs(
            self.module.denoiser,
            conditions,
            self.module.n_latent,
            self.n_flow_steps,
            self._generator,
        )
        self._pairs = (*ends, conditions)

    def _draw_conditions(self, n: int) -> torch.Tensor:
        """Classes in equal parts, batches as they occur in the class."""
        module = self.module
        present = (module.class_share > 0).nonzero(as_tuple=True)[0].cpu()
        codes = present[torch.arange(n) % len(present)]
        if not module.n_batch:
            return codes[:, None].to(module.class_share.device)
        shares = module.batch_share.cpu()[codes] + 1e-12
        batch = torch.multinomial(shares, 1, generator=self._generator)
        return torch.cat([codes[:, None], batch], dim=1).to(module.class_share.device)

    def training_step(self, batch: tuple[torch.Tensor, ...], batch_idx: int) -> torch.Tensor:
        """One step of regression on the ends of the flows."""
        assert self._pairs is not None
        n = min(256, self.n_pairs)
        rows = torch.randperm(self.n_pairs, generator=self._generator)[:n]
        noise, ends, conditions = (part[rows] for part in self._pairs)
        return self._record(flow_map_loss(self.net, noise, ends, conditions), n)

    def on_train_end(self) -> None:
        """Let the pairs go."""
        super().on_train_end()
        self._pairs = None
