"""What distilled cells give away about the cells they were made from.

Distilled is not anonymous. These figures are lower bounds on what leaks: an attack that fails
proves nothing, one that succeeds proves a leak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sczoo.base._normalise import log_normalise

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "exact_copies",
    "membership_scores",
    "memorisation",
    "shadow_attack",
]

_COMPONENTS = 50
_FALSE_POSITIVES = 0.01


def exact_copies(counts: Any, source: Any) -> np.ndarray:
    """Say which cells are verbatim copies of a source cell; bool, ``(n_cells,)``."""
    known = {_bytes(row) for row in _rows(source)}
    return np.array([_bytes(row) in known for row in _rows(counts)], dtype=bool)


def _rows(matrix: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    csr = sparse.csr_matrix(matrix, copy=True)
    csr.eliminate_zeros()
    csr.sort_indices()
    edges = zip(csr.indptr[:-1], csr.indptr[1:], strict=True)
    return [(csr.indices[a:b], csr.data[a:b]) for a, b in edges]


def _bytes(row: tuple[np.ndarray, np.ndarray]) -> bytes:
    return row[0].astype("<i8").tobytes() + row[1].astype("<f8").tobytes()


def memorisation(
    counts: Any, train: Any, holdout: Any | None = None, *, seed: int = 0
) -> dict[str, float]:
    """Measure how close distilled cells lie to the cells they were made from.

    Parameters
    ----------
    counts
        The distilled cells.
    train
        The source cells.
    holdout
        Real cells that took no part.
    seed
        Seed of the draw that makes source and held-out cells equally many.

    Returns
    -------
    ``exact_copies``: share of distilled cells that are verbatim source cells. ``nndr``: median
    ratio of the distances to the nearest and the second nearest source cell, 0 for a copy.
    ``closer_to_source``: share of distilled cells nearer to a source cell than to any of as many
    held-out cells, 0.5 where nothing is memorised. ``attack_auc`` and ``attack_tpr``: how well
    the distance to the nearest distilled cell tells source cells from held-out ones (area under
    the ROC curve, 0.5 is chance; true positives at 1 % false positives, 0.01 is chance).
    """
    from sklearn.decomposition import PCA

    found = {"exact_copies": float(exact_copies(counts, train).mean())}
    x, source = log_normalise(counts), log_normalise(train)
    n_components = min(_COMPONENTS, min(source.shape) - 1)
    if n_components < 1 or source.shape[0] < 3:
        return found
    rng = np.random.default_rng(seed)
    basis = source
    if holdout is not None and holdout.shape[0]:
        others = log_normalise(holdout)
        n = min(source.shape[0], others.shape[0])
        chosen = rng.choice(source.shape[0], n, replace=False)
        others = others[rng.choice(others.shape[0], n, replace=False)]
        # components of both in equal parts: those of the source alone follow the noise of its
        # cells, which then lie farther out than others and would hide behind that
        basis = sparse.vstack([source[chosen], others], format="csr")
        n_components = min(n_components, min(basis.shape) - 1)
    space = PCA(n_components, svd_solver="arpack", random_state=seed).fit(basis)
    ours, theirs = space.transform(x), space.transform(source)
    nearest = _nearest(ours, theirs, 2)
    found["nndr"] = float(np.median(nearest[:, 0] / np.maximum(nearest[:, 1], 1e-12)))
    if holdout is None or holdout.shape[0] == 0:
        return found
    theirs, unseen = theirs[chosen], space.transform(others)
    to_source, to_unseen = _nearest(ours, theirs, 1)[:, 0], _nearest(ours, unseen, 1)[:, 0]
    found["closer_to_source"] = float(
        np.mean((to_source < to_unseen) + 0.5 * (to_source == to_unseen))
    )
    scores = [-_nearest(points, ours, 1)[:, 0] for points in (theirs, unseen)]
    found["attack_auc"], found["attack_tpr"] = membership_scores(*scores)
    return found


def _nearest(points: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Distances to the `k` nearest of `others`, ascending; ``(n_points, k)``."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(others).kneighbors(points)[0]


def membership_scores(members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Score an attack: area under the ROC curve, and true positives at 1 % false positives.

    Parameters
    ----------
    members, others
        The attacker's scores, higher for those taken for members.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    truth = np.repeat([1, 0], [len(members), len(others)])
    scores = np.concatenate([members, others])
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return (
        float(roc_auc_score(truth, scores)),
        float(true[false <= _FALSE_POSITIVES].max()),
    )


def shadow_attack(
    counts: Any,
    distil: Callable[[np.ndarray], Any],
    *,
    n_shadows: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    r"""Attack a method with its own repetitions on random halves of the cells.

    The attacker runs the method on `n_shadows` random halves. For each cell he knows how near the
    nearest distilled cell lies when the cell took part and when it did not, and scores a further
    run by how much nearer than without the cell it is, in standard deviations (the offline
    likelihood-ratio attack [Carlini22]_ with
    :math:`s = -\min_j \lVert x - \tilde x_j\rVert`).

    Parameters
    ----------
    counts
        All cells, ``(n_cells, n_genes)``.
    distil
        Called with rows of `counts`; returns the counts of the distilled cells.
    n_shadows
        Halves; each is the target once, the others are the attacker's.
    seed
        Seed of the halves.

    Returns
    -------
    ``attack_auc`` and ``attack_tpr``, the mean over the targets.

    References
    ----------
    .. [Carlini22] Membership inference attacks from first principles. IEEE S&P 2022.
    """
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    values = log_normalise(counts)
    n_cells = values.shape[0]
    n_components = min(_COMPONENTS, min(values.shape) - 1)
    space = PCA(n_components, svd_solver="arpack", random_state=seed).fit(values)
    points = space.transform(values)
    took_part = np.zeros((n_shadows, n_cells), dtype=bool)
    scores = np.zeros((n_shadows, n_cells))
    for shadow in range(n_shadows):
        rows = np.sort(rng.choice(n_cells, n_cells // 2, replace=False))
        took_part[shadow, rows] = True
        made = space.transform(log_normalise(distil(rows)))
        scores[shadow] = -_nearest(points, made, 1)[:, 0]
    results = []
    for target in range(n_shadows):
        others = np.arange(n_shadows) != target
        without = np.where(took_part[others], np.nan, scores[others])
        known = np.isfinite(without).sum(axis=0) >= 2
        mean = np.nanmean(without[:, known], axis=0)
        spread = np.nanstd(without[:, known], axis=0).mean() + 1e-12
        excess = (scores[target, known] - mean) / spread
        inside = took_part[target, known]
        results.append(membership_scores(excess[inside], excess[~inside]))
    auc, tpr = np.mean(results, axis=0)
    return {"attack_auc": float(auc), "attack_tpr": float(tpr)}
