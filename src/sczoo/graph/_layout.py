"""A picture of an embedding: the layout of UMAP, as igraph computes it (compiled ahead, in C)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sczoo.errors import InputError
from sczoo.graph._connectivities import connectivities
from sczoo.graph._igraph import lent_generator, network_of
from sczoo.graph._knn import dense_rows, knn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_START_WIDTH = 10.0


def umap_layout(
    data: ArrayLike,
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.3,
    n_epochs: int = 200,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Lay cells out in two dimensions for a picture.

    Starts from the first two principal components. Distances between far groups mean little in
    such pictures: do not cluster or test on them.

    Parameters
    ----------
    data
        Cells x dimensions.
    n_neighbors
        Neighbours per cell, the cell itself counted.
    min_dist
        Least distance of neighbours in the picture; larger values spread groups out.
    n_epochs
        Rounds of optimisation.
    seed
        Seed of the sampling. Global random state is not used.

    Returns
    -------
    Coordinates, cells x 2.
    """
    if n_epochs < 1 or min_dist < 0:
        raise InputError(
            f"n_epochs={n_epochs}, min_dist={min_dist}: at least one epoch and a distance of zero "
            "or more are needed."
        )
    rows = dense_rows(data, "data")
    start = principal_plane(rows)
    if len(rows) < 5:
        return start
    graph = connectivities(knn(rows, min(n_neighbors, len(rows)) - 1))
    network = network_of(graph)
    # exp(-distance) is the weight again: igraph asks for distances
    lengths = -np.log(np.asarray(network.es["weight"]))
    span = np.abs(start).max()
    start = start / span * _START_WIDTH if span > 0 else start
    # cells in one place would stay there, without a direction to part in
    start += np.random.default_rng(seed).normal(scale=1e-3, size=start.shape)
    with lent_generator(seed):
        layout = network.layout_umap(
            dist=np.maximum(lengths, 0.0).tolist(),
            seed=start.tolist(),
            min_dist=min_dist,
            epochs=n_epochs,
        )
    return np.asarray(layout.coords, dtype=np.float64)


def principal_plane(rows: ArrayLike) -> NDArray[np.float64]:
    """Project cells onto their first two principal components, with a fixed sign."""
    matrix = dense_rows(rows, "data").astype(np.float64)
    centred = matrix - matrix.mean(axis=0)
    if centred.shape[1] < 2:
        return np.column_stack([centred, np.zeros((len(centred), 2 - centred.shape[1]))])
    _, axes = np.linalg.eigh(centred.T @ centred)
    plane = axes[:, ::-1][:, :2]
    signs = np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    return centred @ (plane * np.where(signs == 0, 1, signs))
