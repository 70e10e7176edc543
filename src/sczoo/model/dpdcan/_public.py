"""Learning from cells that everybody may see, before the private ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sczoo.model.dpdcan._repeatable import repeatable_source
from sczoo.privacy._projection import fit_projection, unit_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["learn_from_public", "shared_cells"]

_STEPS, _BATCH, _RATE = 200, 256, 1e-3


def learn_from_public(module: Any, blocks: Sequence[np.ndarray], seed: int) -> None:
    """Compute the projection and train all weights on public counts, without noise.

    Parameters
    ----------
    module
        The module; changed in place.
    blocks
        Counts of the public cells in the model's genes.
    seed
        Of the minibatches.
    """
    n_cells = sum(map(len, blocks))
    source = repeatable_source(seed)
    if module.architecture == "projected" and not bool(module.encoder.fitted):
        found = fit_projection(
            lambda: iter(blocks),
            unit_weights(None, n_cells),
            n_cells,
            module.n_latent,
            profile_noise=0.0,
            moment_noise=0.0,
            source=source,
        )
        module.encoder.set_projection(found.profile, found.components)
    module.requires_grad_(True)
    optimizer = torch.optim.Adam(module.parameters(), lr=_RATE)
    counts = np.concatenate(blocks)
    for _ in range(_STEPS):
        chosen = source.integers(n_cells, min(_BATCH, n_cells))
        x = torch.as_tensor(counts[chosen], device=module.device)[:, None]
        optimizer.zero_grad()
        module.unit_loss(x, source).mean().backward()
        optimizer.step()
    module.zero_grad(set_to_none=True)


def shared_cells(private: Iterable[Any], public: Iterable[Any]) -> tuple[int, int]:
    """Count public cells whose counts are those of a private cell, gene by gene.

    Names tell nothing: barcodes come from one short list, and a copy may have others.

    Parameters
    ----------
    private, public
        Blocks of counts in the same genes.

    Returns
    -------
    Public cells that are private ones, and all public cells. Empty cells are not compared.
    """
    known, asked = (
        np.concatenate([np.zeros(0), *map(_fingerprints, blocks)]) for blocks in (private, public)
    )
    return int(np.isin(asked[asked != 0], known).sum()), len(asked)


def _fingerprints(counts: Any) -> np.ndarray:
    """Return one number per cell, the same for the same counts in whatever matrix."""
    # whole numbers below 2^53 add up exactly in any order
    weights = np.random.default_rng(0).integers(1, 2**30, counts.shape[1]).astype(np.float64)
    return np.asarray(counts @ weights, dtype=np.float64).ravel()
