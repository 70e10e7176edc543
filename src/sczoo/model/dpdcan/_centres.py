"""Cluster centres for phase two: a few rounds of Lloyd's algorithm on noisy sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sczoo.model.dpdcan._run import CENTRE_ROUNDS, CENTRES

if TYPE_CHECKING:
    from sczoo.model.dpdcan._run import PrivateRun

__all__ = ["private_centres"]

_FEWEST = 5.0  # noisy sizes below this say nothing about a centre


def cluster_sums(latent: np.ndarray, weight: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Sum vectors and numbers of the cells nearest to each centre.

    A cell adds its latent vector, cut to length one, and a one to the sums of its cluster: a
    vector of length at most the root of two. A donor adds the mean over its cells.

    Parameters
    ----------
    latent
        ``(cells, latent)``.
    weight
        Of each cell; those of a donor add up to one.
    centres
        ``(centres, latent)``.

    Returns
    -------
    ``(centres, latent + 1)``; the last column holds the numbers.
    """
    latent = latent / np.maximum(np.linalg.norm(latent, axis=1, keepdims=True), 1.0)
    latent = np.where(np.isfinite(latent).all(1, keepdims=True), latent, 0.0)
    distances = np.square(latent[:, None] - centres).sum(-1)
    member = np.zeros((len(latent), len(centres)))
    member[np.arange(len(latent)), distances.argmin(1)] = weight
    return member.T @ np.column_stack([latent, np.ones(len(latent))])


@torch.no_grad()
def private_centres(module: Any, blocks: Any, weights: np.ndarray | None, run: PrivateRun) -> None:
    """Set the centres by noisy k-means of the latent representations.

    The noise is scaled to the root of two, by which a unit can change the sums
    (:func:`cluster_sums`). The start is random and sees no data.
    """
    training = module.training
    module.eval()
    latent = np.concatenate(
        [
            module.encoder(module.prepare(torch.as_tensor(x, device=module.device))).cpu().numpy()
            for x in blocks()
        ]
    ).astype(np.float64)
    module.train(training)
    weight = np.ones(len(latent)) if weights is None else weights
    n_centres, n_latent = module.centres.centres.shape
    start = run.source.normal((n_centres, n_latent), np.float64)
    centres = 0.3 * start / np.linalg.norm(start, axis=1, keepdims=True)
    scale = np.sqrt(2.0) * run.noise[CENTRES]
    for _ in range(CENTRE_ROUNDS):
        sums = cluster_sums(latent, weight, centres)
        if run.private:
            run.spend(CENTRES)
            sums += scale * run.source.normal(sums.shape, np.float64)
        size = sums[:, -1]
        known = size > max(_FEWEST, 3 * scale)
        centres[known] = sums[known, :-1] / size[known, None]
        if known.any() and not known.all():
            # the others begin anew beside a centre that is known
            chosen = run.source.integers(int(known.sum()), int((~known).sum()))
            beside = 0.1 * run.source.normal((int((~known).sum()), n_latent), np.float64)
            centres[~known] = centres[known][chosen] + beside
    module.centres.centres.copy_(torch.as_tensor(centres))
