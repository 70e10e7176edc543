"""Optimising latent codes through the single-step generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sczoo.base._normalise import TARGET_TOTAL
from sczoo.model.scdd._flow_map import codes_for
from sczoo.model.scdd._matching import (
    RandomFeatures,
    check_matching,
    descend,
    distribution_loss,
    gradient_loss,
    kernel_ridge_loss,
    new_classifier,
    shell_loss,
    trajectory_loss,
)
from sczoo.model.scdd._selection import principal_components
from sczoo.model.scdd._subsets import kmeans_clusters, merge_small_clusters

if TYPE_CHECKING:
    from sczoo.model.scdd._flow_map import OneStep
    from sczoo.model.scdd._module import SCDDModule

__all__ = [
    "SMALLEST_GROUP",
    "CodeInit",
    "MatchSpace",
    "Source",
    "cell_groups",
    "initial_codes",
    "nearest_groups",
    "optimise_codes",
    "profiles",
]

CodeInit = Literal["auto", "kmeans", "pools", "real", "random"]
MatchSpace = Literal["recon", "latent", "raw"]
_SHELL_WEIGHT = 0.05
SMALLEST_GROUP = 5
_GRADIENT_WEIGHT = 0.1
_DESCENT_RATE = 0.05
_EXPERT_STEPS = 15


@dataclass(frozen=True)
class Source:
    """The training cells that codes are made from.

    Attributes
    ----------
    latents
        Standardised, ``(n_cells, n_latent)``.
    codes
        Class of each cell, a position among the classes in use.
    batch
        Batch of each cell, -1 where unknown.
    log_values
        Log-normalised counts, CSR; read by ``match_space="raw"`` alone.
    labels
        The module's own code of each class in use, ``(n_classes,)``.
    counts
        Counts, CSR.
    """

    latents: np.ndarray
    codes: np.ndarray
    batch: np.ndarray
    log_values: Any
    labels: np.ndarray
    counts: Any


def initial_codes(
    module: SCDDModule,
    one_step: OneStep,
    source: Source,
    codes: np.ndarray,
    conditions: torch.Tensor,
    init: str,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[torch.Tensor, list[np.ndarray] | None]:
    """Choose where the codes begin.

    ``"kmeans"``: the codes of the centres of groups of each class, found by k-means in the latent
    space. ``"pools"``: the same with groups found in principal components of the log-normalised
    counts, as a pseudobulk has them. ``"real"``: of cells drawn from the class. ``"random"``:
    Gaussian noise.

    Parameters
    ----------
    module, one_step
        The networks.
    source
        Training cells.
    codes
        Class of each synthetic cell.
    conditions
        The same as the generator reads them, with batches.
    init
        Which of the four.
    rng, generator
        Sources of random numbers.

    Returns
    -------
    The codes, and rows of the training cells that each stands for; ``None`` where codes do not
    begin at groups.
    """
    device = module.latent_mean.device
    if init == "random":
        noise = torch.randn(len(codes), module.n_latent, generator=generator)
        return noise.to(device), None
    points = source.latents
    if init == "pools":
        points = principal_components(source.counts)
    targets = np.zeros((len(codes), module.n_latent), dtype=np.float32)
    groups: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(codes)
    for code in np.unique(codes):
        ours = np.flatnonzero(codes == code)
        rows = np.flatnonzero(source.codes == code)
        if init == "real":
            chosen = rng.choice(rows, len(ours), replace=len(rows) < len(ours))
            targets[ours] = source.latents[chosen]
            continue
        for place, members in zip(ours, cell_groups(points[rows], len(ours), rng), strict=True):
            groups[place] = rows[members]
            targets[place] = source.latents[rows[members]].mean(axis=0)
    wanted = torch.as_tensor(targets, device=device)
    start = codes_for(one_step, module.denoiser, wanted, conditions, generator)
    return start, None if init == "real" else groups


def cell_groups(points: np.ndarray, n_groups: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Group points so that every group stands for more than a few outliers.

    K-means clusters of fewer than five points are joined to the nearest; the largest are split
    until there are enough. Where points are too few for that, random halves fill up: a group of
    one would be that patient's cell.

    Returns
    -------
    Rows of each group; of at least five points wherever there are so many.
    """
    n = len(points)
    clusters = kmeans_clusters(points, min(n_groups, max(1, n // 2)), rng)
    clusters = merge_small_clusters(points, clusters, min(SMALLEST_GROUP, n))
    while len(np.unique(clusters)) < n_groups:
        names, sizes = np.unique(clusters, return_counts=True)
        members = np.flatnonzero(clusters == names[int(np.argmax(sizes))])
        halves = kmeans_clusters(points[members], 2, rng)
        if min(halves.sum(), (1 - halves).sum()) < SMALLEST_GROUP:
            # along the direction in which the cluster is longest
            centred = points[members] - points[members].mean(axis=0)
            along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
            halves = (along > np.median(along)).astype(np.int64)
        if min(halves.sum(), (1 - halves).sum()) < SMALLEST_GROUP:
            break
        clusters[members[halves == 1]] = names.max() + 1
    groups = [np.flatnonzero(clusters == name) for name in np.unique(clusters)]
    size = min(n, max(SMALLEST_GROUP, (n + 1) // 2))
    while len(groups) < n_groups:
        groups.append(np.sort(rng.choice(n, size, replace=False)))
    return groups[:n_groups]


def nearest_groups(source: Source, latents: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Rows of the training cells that are nearest to each synthetic cell of their class.

    At least five, wherever the class has so many; then a cell can be near to two.
    """
    groups: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(codes)
    for code in np.unique(codes):
        ours, rows = np.flatnonzero(codes == code), np.flatnonzero(source.codes == code)
        distance = ((source.latents[rows][:, None] - latents[ours][None]) ** 2).sum(axis=2)
        nearest = distance.argmin(axis=1)
        for place, one in enumerate(ours):
            members = np.flatnonzero(nearest == place)
            if len(members) < SMALLEST_GROUP:
                members = np.argsort(distance[:, place], kind="stable")[:SMALLEST_GROUP]
            groups[one] = np.sort(rows[members])
    return groups


def profiles(
    module: SCDDModule, standard: torch.Tensor, batch: torch.Tensor | None
) -> torch.Tensor:
    """Decode standardised latents to log-normalised profiles, ``log(1 + 10^4 share)``."""
    return torch.log1p(TARGET_TOTAL * module.decode_standard(standard, batch).exp())


def optimise_codes(
    module: SCDDModule,
    one_step: OneStep,
    source: Source,
    start: torch.Tensor,
    codes: np.ndarray,
    conditions: torch.Tensor,
    *,
    matching: str = "dm+krr",
    match_space: MatchSpace = "recon",
    n_steps: int = 200,
    lr: float = 0.03,
    n_real: int = 32,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[torch.Tensor, list[float]]:
    """Move codes so that the cells they generate match the real ones, class by class.

    Synthetic and real cells are compared as the decoder shows them (``"recon"``): profiles
    without noise against single cells full of zeros would only teach the codes the difference
    between a mean and a cell.

    Parameters
    ----------
    module, one_step
        The networks; their weights do not change.
    source
        Training cells.
    start
        Codes to start from, ``(n, n_latent)``.
    codes, conditions
        Class of each synthetic cell, alone and as the generator reads it.
    matching
        Losses, joined by ``+``.
    match_space
        ``"recon"``, ``"latent"`` (the latents themselves), or ``"raw"`` (real cells as they are).
    n_steps, lr
        Steps of Adam, and its rate at the start.
    n_real
        Real cells of each class in a step.
    rng, generator
        Sources of random numbers.

    Returns
    -------
    The codes, and the loss of each step.
    """
    losses = check_matching(matching)
    device = start.device
    target = torch.as_tensor(codes, device=device)
    batch = conditions[:, 1] if module.n_batch else None
    pools = [np.flatnonzero(source.codes == code) for code in range(len(source.labels))]
    moving = start.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([moving], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, n_steps))
    curve: list[float] = []
    classifier = None
    for _ in range(n_steps if losses else 0):
        rows = np.concatenate(
            [rng.choice(pool, min(n_real, len(pool)), replace=False) for pool in pools]
        )
        real_codes = torch.as_tensor(source.codes[rows], device=device)
        real = _real_features(module, source, rows, match_space, device)
        made = one_step(moving, conditions)
        synthetic = made if match_space == "latent" else profiles(module, made, batch)
        loss = _SHELL_WEIGHT * shell_loss(moving)
        if "dm" in losses or "krr" in losses:
            features = RandomFeatures(real.shape[1], generator)
            ours, theirs = features(synthetic), features(real)
            if "dm" in losses:
                loss = loss + distribution_loss(ours, target, theirs, real_codes)
            if "krr" in losses:
                loss = loss + kernel_ridge_loss(ours, target, theirs, real_codes)
        if "gm" in losses or "tm" in losses:
            # the classifier reads centred features: without, its first gradients are all alike
            centre, scale = real.mean(0), real.std(0).mean().clamp(min=1e-6)
            ours, theirs = (synthetic - centre) / scale, (real - centre) / scale
            if classifier is None:
                classifier = new_classifier(real.shape[1], len(pools), generator)
                classifier = [w.to(device).detach().requires_grad_(True) for w in classifier]
            if "gm" in losses:
                loss = loss + _GRADIENT_WEIGHT * gradient_loss(
                    classifier, ours, target, theirs, real_codes
                )
                classifier = descend(classifier, ours.detach(), target, _DESCENT_RATE, 2)
            else:
                expert = descend(classifier, theirs, real_codes, _DESCENT_RATE, _EXPERT_STEPS)
                loss = loss + trajectory_loss(classifier, expert, ours, target, _DESCENT_RATE)
                classifier = expert
            if len(curve) % 25 == 24:  # a fresh one now and then, as at the start of a training
                classifier = None
        (gradient,) = torch.autograd.grad(loss, moving)
        moving.grad = gradient
        optimizer.step()
        schedule.step()
        curve.append(float(loss.detach()))
    return moving.detach(), curve


@torch.no_grad()
def _real_features(
    module: SCDDModule, source: Source, rows: np.ndarray, match_space: str, device: torch.device
) -> torch.Tensor:
    if match_space == "raw":
        return torch.as_tensor(source.log_values[rows].toarray(), device=device)
    latents = torch.as_tensor(source.latents[rows], device=device)
    if match_space == "latent":
        return latents
    batch = torch.as_tensor(source.batch[rows], device=device) if module.n_batch else None
    return profiles(module, latents, batch)
