"""The synthetic cells of an artefact's self-test: a function of the gene count alone.

They hold nothing of any patient, so the release gate can require that the stored cells are
exactly these.
"""

from __future__ import annotations

import numpy as np

N_CELLS = 32
_SEED = 20261122


def selftest_cells(n_genes: int, scale: str) -> np.ndarray:
    r"""Draw the self-test cells.

    Parameters
    ----------
    n_genes
        Number of genes of the model.
    scale
        The model's input scale. ``"counts"`` and ``"nonnegative"`` give Poisson counts with
        log-normal gene means and library sizes between 500 and 8,000; every other scale gives
        :math:`\log(1 + 10^4 x / \sum x)` of the same counts.

    Returns
    -------
    Array of shape ``(32, n_genes)``: ``uint16`` for counts, ``float32`` otherwise.
    """
    rng = np.random.default_rng(_SEED)
    profile = rng.lognormal(0.0, 1.5, size=n_genes)
    profile /= profile.sum()
    depth = np.geomspace(500, 8000, N_CELLS)
    tilt = rng.lognormal(0.0, 0.5, size=(N_CELLS, n_genes))
    counts = rng.poisson(depth[:, None] * profile * tilt)
    counts = np.minimum(counts, np.iinfo(np.uint16).max)
    if scale in ("counts", "nonnegative"):
        return counts.astype(np.uint16)
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.log1p(1e4 * counts / total).astype(np.float32)
