"""Small training sets without training: choosing cells, or pooling them.

The methods that every distillation has to beat, in the format that a distillation returns.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy import sparse

from sczoo.base._checks import check_input
from sczoo.base._normalise import log_normalise
from sczoo.base._provenance import versions
from sczoo.base._reading import matrix_of, read_rows
from sczoo.errors import TooFewCellsError
from sczoo.model.scdd._arguments import check_choices, check_seed
from sczoo.model.scdd._budget import class_budget, class_codes
from sczoo.model.scdd._counts import largest_remainder
from sczoo.model.scdd._output import small_set
from sczoo.model.scdd._subsets import SUBSETS, kmeans_clusters, merge_small_clusters

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.model.scdd._budget import ClassShares

__all__ = ["MIN_POOL", "SelectionMethod", "select_cells"]

logger = logging.getLogger(__name__)

SelectionMethod = Literal[
    "random", "stratified", "herding", "kmeans", "kmedoids", "geosketch", "pseudobulk"
]
# A pool of fewer cells points at those who gave them.
MIN_POOL = 5
_N_COMPONENTS = 50


def select_cells(
    adata: AnnData,
    method: SelectionMethod = "kmedoids",
    n_cells_per_class: int | None = None,
    *,
    labels_key: str,
    layer: str | None = None,
    fraction: float | None = None,
    class_shares: ClassShares | None = None,
    rounding: Literal["mode", "sampled"] = "mode",
    rare: Literal["error", "drop"] = "error",
    seed: int = 0,
) -> AnnData:
    """Make a small training set by choosing or pooling cells, class by class.

    Distances are between the first 50 principal components of the log-normalised counts.

    Parameters
    ----------
    adata
        Labelled cells to choose from. Never modified. Leave out cells without a true label first.
    method
        ``"random"``: drawn at random, the same number for each class.
        ``"stratified"``: drawn at random, classes in proportion to their size.
        ``"herding"``: greedily, so that the mean of the chosen cells follows the class mean
        [Welling09]_.
        ``"kmeans"``: the class is split by k-means, and of each cluster one cell is drawn.
        ``"kmedoids"``: as many clusters, and of each the cell nearest to its centre.
        ``"geosketch"``: equal boxes are laid over the cells and one cell drawn from each, so that
        sparse regions count as much as dense ones [Hie19]_.
        ``"pseudobulk"``: k-means clusters of at least five cells are pooled into one cell each.
    n_cells_per_class
        Cells of each class, 10 unless `fraction` is given. A class with fewer cells gives all it
        has.
    labels_key
        Column of ``adata.obs`` with the classes.
    layer
        Layer with raw counts; ``None`` for ``adata.X``.
    fraction
        Size as a share of the cells, instead of `n_cells_per_class`.
    class_shares
        ``"balanced"``, ``"proportional"`` or ``"sqrt"``; by default proportional for
        ``"stratified"`` and balanced for all others.
    rounding
        How a pool becomes whole numbers, at the median depth of its cells: ``"mode"`` rounds by
        largest remainders, ``"sampled"`` draws from a multinomial.
    rare
        What to do about a class of fewer than five cells, which cannot be pooled: ``"error"``, or
        ``"drop"`` the class with a warning. Only pooling asks.
    seed
        Seed of all random draws.

    Returns
    -------
    AnnData with whole counts in ``X`` and ``layers["counts"]``, the labels with their original
    categories, ``obs["is_synthetic"]`` and ``obs["weight"]`` (the class's share in the source
    relative to its share here), and the arguments in ``uns["scdd"]``. Chosen cells keep their
    names and columns of ``obs``.

    Raises
    ------
    NotCountsError, MissingKeyError, MissingValuesError
        The data cannot be used; the message names the place and the remedy.
    InputError
        Fewer than two classes, or an argument that makes no sense.
    TooFewCellsError
        As many cells asked for as there are, or a class is too small to be pooled.

    Examples
    --------
    >>> small = select_cells(adata, "pseudobulk", 10, labels_key="cell_type")

    References
    ----------
    .. [Welling09] Herding dynamical weights to learn. ICML 2009.
    .. [Hie19] Geometric sketching compactly summarizes the single-cell transcriptomic landscape.
       Cell Systems 8, 2019.
    """
    check_choices(
        method=(method, get_args(SelectionMethod)),
        rounding=(rounding, ("mode", "sampled")),
        rare=(rare, ("error", "drop")),
    )
    seed = check_seed(seed)
    adata = adata.copy() if getattr(adata, "is_view", False) else adata
    check_input(adata, layer=layer, scale="counts", min_genes=2, categorical_keys=[labels_key])
    codes, categories = class_codes(adata.obs[labels_key], f"adata.obs[{labels_key!r}]")
    sizes = np.bincount(codes, minlength=len(categories))
    if n_cells_per_class is None and fraction is None:
        n_cells_per_class = 10
    shares = class_shares or ("proportional" if method == "stratified" else "balanced")
    budget = class_budget(sizes, n_cells_per_class, fraction, shares)
    counts = sparse.csr_matrix(read_rows(matrix_of(adata, layer), np.arange(adata.n_obs)))
    record = {
        "kind": "selection",
        "method": method,
        "seed": int(seed),
        "class_shares": shares,
        "n_source_cells": int(adata.n_obs),
        "versions": versions(),
    }
    rng = np.random.default_rng(seed)
    points = None
    if method not in ("random", "stratified"):
        points = principal_components(counts, seed=seed)
    if method == "pseudobulk":
        record["rounding"] = rounding
        pooled, pooled_codes = pool_cells(
            counts, codes, budget, points, rounding=rounding, rng=rng, rare=rare, names=categories
        )
        return small_set(
            pooled,
            pooled_codes,
            labels_key=labels_key,
            categories=categories,
            var=adata.var,
            obs_names=[f"pool-{number}" for number in range(len(pooled_codes))],
            synthetic=True,
            sizes=sizes,
            record=record,
        )
    rows = choose_rows(codes, budget, method, points, rng)
    chosen = adata.obs.iloc[rows]
    small = small_set(
        counts[rows],
        codes[rows],
        labels_key=labels_key,
        categories=categories,
        var=adata.var,
        obs_names=adata.obs_names[rows],
        synthetic=False,
        sizes=sizes,
        record=record,
    )
    for column in chosen.columns:
        if column not in small.obs and not str(column).startswith("_scvi"):
            small.obs[column] = chosen[column].to_numpy()
    return small


def principal_components(
    counts: Any, n_components: int = _N_COMPONENTS, seed: int = 0
) -> np.ndarray:
    """First principal components of the log-normalised counts; ``(n_cells, n_components)``."""
    from sklearn.decomposition import PCA

    values = log_normalise(counts)
    n_components = min(n_components, min(values.shape) - 1)
    if n_components < 1:
        return values.toarray()
    # the solver starts from a given vector, so that the result is the same in every run
    return PCA(n_components, svd_solver="arpack", random_state=seed).fit_transform(values)


def choose_rows(
    codes: np.ndarray,
    budget: np.ndarray,
    method: str,
    points: np.ndarray | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Choose rows of each class; in the order of the classes."""
    chosen = []
    for code, wanted in enumerate(budget):
        rows = np.flatnonzero(codes == code)
        if wanted >= len(rows):
            chosen.append(rows)
            continue
        if points is None:
            picked = rng.choice(len(rows), wanted, replace=False)
        else:
            picked = SUBSETS[method](points[rows], int(wanted), rng)
        chosen.append(rows[np.sort(picked)])
    return np.concatenate(chosen)


def pool_cells(
    counts: sparse.csr_matrix,
    codes: np.ndarray,
    budget: np.ndarray,
    points: np.ndarray | None,
    *,
    rounding: str = "mode",
    rng: np.random.Generator,
    rare: str = "error",
    names: Any = None,
    min_pool: int = MIN_POOL,
) -> tuple[np.ndarray, np.ndarray]:
    """Pool clusters of each class into one cell each, at the median depth of the cluster.

    Returns
    -------
    Counts ``(n_pools, n_genes)`` and the class of each pool.
    """
    assert points is not None
    sizes = np.bincount(codes, minlength=len(budget))
    small = [
        str(names[k]) if names is not None else str(k)
        for k in np.flatnonzero((sizes > 0) & (sizes < min_pool))
    ]
    if small and rare == "error":
        raise TooFewCellsError(
            f"{len(small)} class(es) have fewer than {min_pool} cells, the first is {small[0]!r}: "
            "a pool of so few would point at single cells. Merge or leave out those classes, or "
            "pass rare='drop'."
        )
    if small:
        logger.warning("Left out, having fewer than %d cells: %s.", min_pool, ", ".join(small))
    totals = np.asarray(counts.sum(axis=1)).ravel()
    pools, pool_codes = [], []
    for code, wanted in enumerate(budget):
        rows = np.flatnonzero(codes == code)
        if len(rows) < min_pool:
            continue
        clusters = kmeans_clusters(points[rows], int(min(wanted, len(rows))), rng)
        clusters = merge_small_clusters(points[rows], clusters, min_pool)
        for cluster in np.unique(clusters):
            members = rows[clusters == cluster]
            depth = max(1, int(np.median(totals[members])))
            summed = np.asarray(counts[members].sum(axis=0), dtype=np.float64).ravel()
            if summed.sum() == 0:
                summed = np.ones_like(summed)
            if rounding == "mode":
                pools.append(largest_remainder(summed[None], np.array([depth]))[0])
            else:
                pools.append(rng.multinomial(depth, summed / summed.sum()))
            pool_codes.append(code)
    return np.array(pools), np.array(pool_codes)
