"""How much distilled cells look like real ones that no method has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from sczoo.base._normalise import log_normalise

__all__ = ["fidelity", "mmd"]

_TOP_GENES = 200
_COMPONENTS = 30
_MOST = 1000


def mmd(x: np.ndarray, y: np.ndarray, scale: float | None = None) -> float:
    r"""Unbiased estimate of the squared maximum mean discrepancy.

    With a mixture of Gaussian kernels
    :math:`k(a,b) = \frac15\sum_{s}\exp(-\lVert a-b\rVert^2/(2 s\,m))`,
    :math:`s\in\{1/4, 1/2, 1, 2, 4\}`, and :math:`m` the median squared distance of the pooled
    points [Gretton12]_. Around zero, also below, for samples of one distribution.

    Parameters
    ----------
    x, y
        Points, ``(n, d)`` and ``(m, d)``, at least two each.
    scale
        The median squared distance; computed if ``None``.

    References
    ----------
    .. [Gretton12] A kernel two-sample test. JMLR 13, 2012.
    """
    from sklearn.metrics import pairwise_distances

    pooled = np.concatenate([x, y])
    distance = pairwise_distances(pooled, metric="sqeuclidean")
    if scale is None:
        scale = float(np.median(distance[np.triu_indices_from(distance, 1)]))
    scale = max(scale, 1e-12)
    kernel = np.mean([np.exp(-distance / (2 * s * scale)) for s in (0.25, 0.5, 1, 2, 4)], axis=0)
    n, m = len(x), len(y)
    within_x = (kernel[:n, :n].sum() - n) / (n * (n - 1))
    within_y = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return float(within_x + within_y - 2 * kernel[:n, n:].mean())


def fidelity(
    counts: Any, codes: np.ndarray, real: Any, real_codes: np.ndarray, *, seed: int = 0
) -> dict[str, float]:
    """Compare cells with real ones, class by class in equal numbers.

    Parameters
    ----------
    counts, codes
        The cells to judge and their classes.
    real, real_codes
        Real cells, which no method has seen.
    seed
        Seed of the draws that make classes equal.

    Returns
    -------
    ``mmd`` (:func:`mmd` in 30 principal components of the real cells), ``mean_gene_r`` (Pearson
    correlation of the mean expression of the genes), ``gene_gene_r`` (of the correlations among
    the 200 most variable genes), ``zero_rate``, ``library_size_ks`` and ``n_genes_ks``
    (Kolmogorov-Smirnov distances).
    """
    from sklearn.decomposition import PCA

    ours, theirs = _balance(codes, real_codes, seed)
    a, b = log_normalise(counts[ours]), log_normalise(real[theirs])
    x, y = a.toarray(), b.toarray()
    found: dict[str, float] = {}
    n_components = min(_COMPONENTS, min(y.shape) - 1)
    if n_components >= 1 and min(len(x), len(y)) > 1:
        space = PCA(n_components, svd_solver="full").fit(y)
        found["mmd"] = mmd(space.transform(x), space.transform(y))
    found["mean_gene_r"] = _pearson(x.mean(axis=0), y.mean(axis=0))
    top = np.argsort(-y.var(axis=0), kind="stable")[:_TOP_GENES]
    upper = np.triu_indices(len(top), 1)
    found["gene_gene_r"] = _pearson(
        _correlations(x[:, top])[upper], _correlations(y[:, top])[upper]
    )
    found["zero_rate"] = float((x == 0).mean())
    raw = [np.asarray(counts[ours].sum(axis=1)).ravel(), np.asarray(real[theirs].sum(1)).ravel()]
    found["library_size_ks"] = float(stats.ks_2samp(*raw).statistic)
    found["n_genes_ks"] = float(stats.ks_2samp((x > 0).sum(1), (y > 0).sum(1)).statistic)
    return found


def _balance(codes: np.ndarray, other: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both in equal numbers for each class that both have."""
    rng = np.random.default_rng(seed)
    shared = np.intersect1d(codes, other)
    most = max(1, _MOST // max(1, len(shared)))
    rows: tuple[list, list] = ([], [])
    for code in shared:
        places = [np.flatnonzero(codes == code), np.flatnonzero(other == code)]
        n = min(*map(len, places), most)
        for part, place in zip(rows, places, strict=True):
            part.append(np.sort(rng.choice(place, n, replace=False)))
    if not len(shared):
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    return np.concatenate(rows[0]), np.concatenate(rows[1])


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _correlations(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    norm[norm == 0] = 1.0
    centred /= norm
    return centred.T @ centred
