"""Losses between synthetic and real cells.

Matching of distributions, of kernel regressions, of gradients and of trajectories.

All read features ``(n, d)`` and classes, and are differentiable in the synthetic features.
"""

from __future__ import annotations

import itertools
from typing import Literal, get_args

import torch
from torch.nn import functional as F

from sczoo.errors import InputError

__all__ = [
    "Matching",
    "RandomFeatures",
    "check_matching",
    "distribution_loss",
    "gradient_loss",
    "kernel_ridge_loss",
    "new_classifier",
    "shell_loss",
    "trajectory_loss",
]

Matching = Literal["none", "dm", "krr", "dm+krr", "gm", "dm+gm", "tm"]
_RIDGE = 1e-3
_CLASSIFIER_WIDTH = 64
Weights = list[torch.Tensor]


def check_matching(matching: str) -> tuple[str, ...]:
    """Split the name of a matching into its losses; none for ``"none"``."""
    if matching not in get_args(Matching):
        raise InputError(
            f"matching={matching!r} is not known; choose one of {get_args(Matching)}."
        )
    return () if matching == "none" else tuple(matching.split("+"))


class RandomFeatures:
    """A random network of two layers (256, 128) with ReLU and He's initialisation.

    Parameters
    ----------
    n_input
        Features that it reads.
    generator
        Source of the weights.
    """

    def __init__(self, n_input: int, generator: torch.Generator) -> None:
        widths = (n_input, 256, 128)
        self.weights = [
            torch.randn(a, b, generator=generator) * (2.0 / a) ** 0.5
            for a, b in itertools.pairwise(widths)
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Compute features, ``(n, 128)``."""
        for weight in self.weights:
            x = torch.relu(x @ weight.to(x))
        return x


def class_means(features: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Mean of the features of each class, ``(n_classes, d)``."""
    indicator = F.one_hot(codes, n_classes).to(features)
    return (indicator.T @ features) / indicator.sum(0).clamp(min=1.0)[:, None]


def distribution_loss(
    synthetic: torch.Tensor, codes: torch.Tensor, real: torch.Tensor, real_codes: torch.Tensor
) -> torch.Tensor:
    r"""Distance of the class means, relative to the variance of the real features.

    :math:`L_{DM} = \frac1K\sum_k\lVert\bar f(\tilde x_k) - \bar f(x_k)\rVert^2 /
    \mathrm{tr}\,\mathrm{Var} f(x)` [Zhao23]_.

    Parameters
    ----------
    synthetic, real
        Features, ``(n, d)``.
    codes, real_codes
        Classes, 0 to K - 1; each class is in both.

    References
    ----------
    .. [Zhao23] Dataset condensation with distribution matching. WACV 2023.
    """
    n_classes = int(real_codes.max()) + 1
    gap = class_means(synthetic, codes, n_classes) - class_means(real, real_codes, n_classes)
    spread = real.var(dim=0, unbiased=False).sum().clamp(min=1e-8)
    return (gap**2).sum(dim=1).mean() / spread


def kernel_ridge_loss(
    synthetic: torch.Tensor, codes: torch.Tensor, real: torch.Tensor, real_codes: torch.Tensor
) -> torch.Tensor:
    r"""Error on real cells of the ridge regression that the synthetic cells determine.

    :math:`P = BA^\top(AA^\top + \lambda M\,\overline{\mathrm{diag}}\,I)^{-1}Y`, with :math:`A, B`
    the features of synthetic and real cells, centred and :math:`Y` the classes as
    :math:`\mathrm{onehot} - 1/K`; the loss is :math:`\overline{(P - Y_r)^2}` [Nguyen21]_.

    Parameters
    ----------
    synthetic, codes, real, real_codes
        As of :func:`distribution_loss`.

    References
    ----------
    .. [Nguyen21] Dataset meta-learning from kernel ridge-regression. ICLR 2021.
    """
    n_classes = int(real_codes.max()) + 1
    centre = real.mean(dim=0, keepdim=True).detach()
    a, b = synthetic - centre, real - centre
    kernel = a @ a.T
    ridge = _RIDGE * len(a) * kernel.diagonal().mean()
    target = F.one_hot(codes, n_classes).to(a) - 1.0 / n_classes
    truth = F.one_hot(real_codes, n_classes).to(a) - 1.0 / n_classes
    eye = torch.eye(len(a), dtype=a.dtype, device=a.device)
    solution = torch.linalg.solve(kernel + (ridge + 1e-8) * eye, target)
    return ((b @ a.T @ solution - truth) ** 2).mean()


def shell_loss(codes: torch.Tensor) -> torch.Tensor:
    r"""Keep codes where the noise of the generator lives: :math:`\overline{(\|u\|^2/d-1)^2}`."""
    return (((codes**2).mean(dim=1) - 1.0) ** 2).mean()


# --- gradients and trajectories ---------------------------------------------------------------


def new_classifier(n_input: int, n_classes: int, generator: torch.Generator) -> Weights:
    """Draw the weights and biases of a classifier with one hidden layer."""
    widths = (n_input, _CLASSIFIER_WIDTH, n_classes)
    weights: Weights = []
    for a, b in itertools.pairwise(widths):
        weights += [torch.randn(a, b, generator=generator) * (2.0 / a) ** 0.5, torch.zeros(b)]
    return [weight.requires_grad_(True) for weight in weights]


def _error(weights: Weights, x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    first, first_bias, second, second_bias = weights
    hidden = torch.relu(x @ first + first_bias)
    return F.cross_entropy(hidden @ second + second_bias, codes)


def gradient_loss(
    weights: Weights,
    synthetic: torch.Tensor,
    codes: torch.Tensor,
    real: torch.Tensor,
    real_codes: torch.Tensor,
) -> torch.Tensor:
    r"""Angle between the gradients of a classifier on synthetic and on real cells.

    :math:`L_{GM} = \frac1K\sum_k\sum_\ell\overline{1 - \cos(g^{syn}, g^{real})}` over the columns
    of each layer's weights; biases are left out [Zhao21]_.

    References
    ----------
    .. [Zhao21] Dataset condensation with gradient matching. ICLR 2021.
    """
    matrices = [weight for weight in weights if weight.ndim == 2]
    total = synthetic.new_zeros(())
    present = torch.unique(real_codes)
    for code in present:
        ours, theirs = codes == code, real_codes == code
        wanted = torch.autograd.grad(_error(weights, real[theirs], real_codes[theirs]), matrices)
        found = torch.autograd.grad(
            _error(weights, synthetic[ours], codes[ours]), matrices, create_graph=True
        )
        for ours_grad, theirs_grad in zip(found, wanted, strict=True):
            # a unit that is silent for all of these cells has no direction to compare
            heard = theirs_grad.norm(dim=0) > 0
            cosine = F.cosine_similarity(ours_grad, theirs_grad, dim=0, eps=1e-12)
            total = total + (1.0 - cosine)[heard].sum() / heard.sum().clamp(min=1)
    return total / len(present)


def descend(
    weights: Weights,
    x: torch.Tensor,
    codes: torch.Tensor,
    rate: float,
    n_steps: int,
    *,
    differentiable: bool = False,
) -> Weights:
    """Take steps of gradient descent; with `differentiable`, the result depends on `x`."""
    for _ in range(n_steps):
        steps = torch.autograd.grad(
            _error(weights, x, codes), weights, create_graph=differentiable
        )
        weights = [weight - rate * step for weight, step in zip(weights, steps, strict=True)]
        if not differentiable:
            weights = [weight.detach().requires_grad_(True) for weight in weights]
    return weights


def trajectory_loss(
    start: Weights,
    end: Weights,
    synthetic: torch.Tensor,
    codes: torch.Tensor,
    rate: float,
    n_steps: int = 10,
) -> torch.Tensor:
    r"""How far training on the synthetic cells ends from where training on real ones ended.

    :math:`L_{TM} = \lVert\hat\theta_{t+N} - \theta^*_{t+M}\rVert^2 /
    \lVert\theta^*_t - \theta^*_{t+M}\rVert^2` [Cazenavette22]_.

    Parameters
    ----------
    start, end
        Weights of an expert at the start and after some epochs on real cells.
    synthetic, codes
        The synthetic cells.
    rate, n_steps
        Of the steps on the synthetic cells.

    References
    ----------
    .. [Cazenavette22] Dataset distillation by matching training trajectories. CVPR 2022.
    """
    begun = [weight.detach().clone().requires_grad_(True) for weight in start]
    reached = descend(begun, synthetic, codes, rate, n_steps, differentiable=True)
    missed = sum(((a - b.detach()) ** 2).sum() for a, b in zip(reached, end, strict=True))
    moved = sum(((a - b) ** 2).sum() for a, b in zip(start, end, strict=True))
    return missed / moved.detach().clamp(min=1e-12)  # type: ignore[union-attr]
