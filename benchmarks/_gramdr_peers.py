"""What GramDR is compared with: embeddings of a matrix with missing values, k components each."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.impute import KNNImputer


def zero_filled(y: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """PCA of the matrix with zeros where nothing was observed."""
    return PCA(k, random_state=0).fit_transform(np.where(mask, y, 0.0))


def mean_imputed(y: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """PCA of the matrix with the mean of the observed values of each feature."""
    return PCA(k, random_state=0).fit_transform(_centred(y, mask))


def rescaled(y: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """Mean imputation, each row divided by the square root of its observed share."""
    share = np.maximum(mask.mean(axis=1), 1e-9)
    return PCA(k, random_state=0).fit_transform(_centred(y, mask) / share[:, None])


def soft_impute(y: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """Soft-thresholded SVD along a path of penalties, the best by 5 % held-out values."""
    rng = np.random.default_rng(0)
    held = mask & (rng.random(mask.shape) < 0.05)
    train = mask & ~held
    c = _centred(y, train)
    first = np.sqrt(np.linalg.eigvalsh(c @ c.T)[-1])
    best, chosen, low = np.inf, 0.0, np.zeros_like(c)
    for penalty in first * np.array([0.5, 0.25, 0.12, 0.06]):
        low = _soft_svd(c, train, low, penalty)
        error = ((low - _centred(y, mask))[held] ** 2).mean()
        if error < best:
            best, chosen = error, penalty
    low = _soft_svd(_centred(y, mask), mask, np.zeros_like(c), chosen, steps=30)
    return PCA(k, random_state=0).fit_transform(low)


def _soft_svd(c, mask, low, penalty, steps: int = 12) -> np.ndarray:
    for _ in range(steps):
        filled = np.where(mask, c, low)
        values, u = np.linalg.eigh(filled @ filled.T)  # fewer rows than columns here
        s = np.sqrt(np.maximum(values[::-1][:40], 0.0))
        u = u[:, ::-1][:, :40]
        shrunk = np.maximum(s - penalty, 0) / np.maximum(s, 1e-12)
        low = (u * shrunk) @ (u.T @ filled)
    return low


def knn_imputed(y: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    """PCA after scikit-learn's imputation from the 10 nearest rows."""
    filled = KNNImputer(n_neighbors=10).fit_transform(np.where(mask, y, np.nan))
    return PCA(k, random_state=0).fit_transform(filled)


def ppca_em(y: np.ndarray, mask: np.ndarray, k: int, steps: int = 40) -> np.ndarray:
    """Probabilistic PCA with missing values by EM."""
    c, m = _centred(y, mask), mask.astype(float)
    rng = np.random.default_rng(0)
    w, noise = 0.1 * rng.normal(size=(c.shape[1], k)), (c[mask] ** 2).mean()
    for _ in range(steps):
        pairs = (w[:, :, None] * w[:, None, :]).reshape(-1, k * k)
        precision = (m @ pairs).reshape(-1, k, k) + noise * np.eye(k)
        inverse = np.linalg.inv(precision)
        x = np.einsum("nij,nj->ni", inverse, c @ w)
        second = noise * inverse + x[:, :, None] * x[:, None, :]
        gram = (m.T @ second.reshape(-1, k * k)).reshape(-1, k, k) + 1e-6 * np.eye(k)
        w = np.linalg.solve(gram, (c.T @ x)[:, :, None])[:, :, 0]
        fit = x @ w.T
        spread = np.einsum("nij,dj,di->nd", inverse, w, w) if c.size < 1e5 else 0.0
        noise = (m * ((c - fit) ** 2 + noise * spread)).sum() / m.sum()
    return x


def _centred(y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    seen = np.maximum(mask.sum(axis=0), 1)
    return np.where(mask, y - np.where(mask, y, 0.0).sum(axis=0) / seen, 0.0)


PEERS = {
    "zero-filled PCA": zero_filled,
    "mean-imputed PCA": mean_imputed,
    "rescaled mean-imputed": rescaled,
    "softImpute": soft_impute,
    "KNNImputer": knn_imputed,
    "PPCA-EM": ppca_em,
}
