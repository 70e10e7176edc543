"""Agreement of a clustering, or of an embedding, with known labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import EmptyDataError
from sczoo.metrics._clustering import cluster_kmeans
from sczoo.metrics._inputs import codes, embedding, same_length

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

_ORACLE_RESOLUTIONS = tuple(step / 10 for step in range(20))


def clustering_scores(
    labels_true: ArrayLike, labels_pred: ArrayLike, *, ignore: Collection[Any] = ()
) -> dict[str, float]:
    """Compare a clustering with known labels.

    Parameters
    ----------
    labels_true
        Known label of each cell.
    labels_pred
        Cluster of each cell.
    ignore
        Values of ``labels_true`` that mean "not known", such as ``"unassigned"``. These cells
        are left out of the scores.

    Returns
    -------
    dict
        ``ari``: adjusted Rand index (1 = equal partitions, 0 = chance);
        ``nmi``: mutual information over the arithmetic mean of the two entropies (0 to 1, not
        adjusted for chance: it rises with the number of clusters);
        ``ami``: the same, adjusted for chance.
    """
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        normalized_mutual_info_score,
    )

    truth, kinds = codes(labels_true, "labels_true")
    found, _ = codes(labels_pred, "labels_pred")
    same_length(len(truth), len(found), ("labels_true", "labels_pred"))
    known = _known(truth, kinds, ignore)
    truth, found = truth[known], found[known]
    return {
        "ari": float(adjusted_rand_score(truth, found)),
        "nmi": float(normalized_mutual_info_score(truth, found, average_method="arithmetic")),
        "ami": float(adjusted_mutual_info_score(truth, found, average_method="arithmetic")),
    }


def score_embedding(
    X: ArrayLike,
    labels: ArrayLike,
    *,
    resolution: float = 1.0,
    n_neighbors: int = 15,
    random_state: int = 0,
    ignore: Collection[Any] = (),
    oracle: bool = False,
    max_silhouette_cells: int = 20_000,
) -> dict[str, float]:
    """Score how well the clusters of an embedding recover known labels.

    Parameters
    ----------
    X
        Embedding, cells x dimensions.
    labels
        Known label of each cell. No clustering sees more of them than their number.
    resolution
        Resolution of the label-free Leiden clustering.
    n_neighbors
        Neighbours per cell, the cell itself counted as in scanpy.
    random_state
        Seed of every step.
    ignore
        Labels that mean "not known": their cells are clustered, but not scored.
    oracle
        Also report the best resolution among 0.0, 0.1, ..., 1.9 **as judged by the labels**.
        This is an upper bound that no user can reach; its keys start with ``oracle_``.
    max_silhouette_cells
        The silhouette compares all pairs of cells: above this number, of a random sample.

    Returns
    -------
    dict
        For ``leiden`` (fixed resolution, label-free), ``leiden_k`` (Leiden at the true number of
        classes) and ``kmeans`` (at the true number of classes): ``<name>_ari``, ``<name>_nmi``,
        ``<name>_ami`` (see :func:`clustering_scores`) and ``<name>_n_clusters``;
        ``leiden_k_resolution``; ``silhouette``: mean Euclidean silhouette width of the labels
        (-1 to 1; NaN with one class); with ``oracle``, ``oracle_leiden_*`` and
        ``oracle_leiden_resolution``.
    """
    from sczoo.graph import connectivities, knn, leiden_k_of_graph, leiden_of_graph

    matrix = embedding(X)
    truth, kinds = codes(labels, "labels")
    same_length(len(matrix), len(truth), ("X", "labels"))
    known = _known(truth, kinds, ignore)
    n_classes = len(np.unique(truth[known]))
    graph = connectivities(knn(matrix, min(n_neighbors, len(matrix)) - 1))
    scores: dict[str, float] = {}

    def add(name: str, found: NDArray[np.int64]) -> None:
        agreement = clustering_scores(truth[known], found[known])
        scores.update({f"{name}_{key}": value for key, value in agreement.items()})
        scores[f"{name}_n_clusters"] = int(found.max()) + 1

    add("leiden", leiden_of_graph(graph, resolution=resolution, seed=random_state))
    at_k, resolution_k = leiden_k_of_graph(graph, n_classes, seed=random_state)
    add("leiden_k", at_k)
    scores["leiden_k_resolution"] = resolution_k
    add("kmeans", cluster_kmeans(matrix, n_classes, random_state=random_state))
    scores["silhouette"] = _silhouette(
        matrix[known], truth[known], max_silhouette_cells, random_state
    )
    if oracle:
        runs = {
            value: leiden_of_graph(graph, resolution=value, seed=random_state)
            for value in _ORACLE_RESOLUTIONS
        }
        ari = {
            value: clustering_scores(truth[known], found[known])["ari"]
            for value, found in runs.items()
        }
        best = max(ari, key=lambda value: ari[value])
        add("oracle_leiden", runs[best])
        scores["oracle_leiden_resolution"] = best
    return scores


def _known(
    truth: NDArray[np.int64], kinds: NDArray[Any], ignore: Collection[Any]
) -> NDArray[np.bool_]:
    if isinstance(ignore, str):
        ignore = (ignore,)
    known = ~np.isin(truth, [code for code, kind in enumerate(kinds) if kind in ignore])
    if not known.any():
        raise EmptyDataError("No cell has a known label: there is nothing to score.")
    return known


def _silhouette(
    matrix: NDArray[np.floating], truth: NDArray[np.int64], max_cells: int, seed: int
) -> float:
    from sklearn.metrics import silhouette_score

    if len(matrix) > max_cells:
        chosen = np.random.default_rng(seed).choice(len(matrix), max_cells, replace=False)
        matrix, truth = matrix[chosen], truth[chosen]
    if not 2 <= len(np.unique(truth)) < len(truth):
        return float("nan")
    return float(silhouette_score(matrix, truth))
