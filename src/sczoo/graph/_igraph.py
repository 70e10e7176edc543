"""What Leiden and the layout share of igraph: making its graphs, lending it a generator."""

from __future__ import annotations

import random
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import igraph
    from scipy.sparse import csr_matrix

# igraph draws from one generator per process.
_ONE_AT_A_TIME = Lock()


def network_of(graph: csr_matrix) -> igraph.Graph:
    """Return the undirected igraph graph of symmetric weights."""
    from igraph import Graph
    from scipy.sparse import triu

    if graph.shape[0] != graph.shape[1]:
        raise InputError(f"The graph has shape {graph.shape}: it must be cells x cells.")
    upper = triu(graph, k=1).tocoo()
    network = Graph(n=graph.shape[0], edges=np.column_stack([upper.row, upper.col]))
    network.es["weight"] = upper.data.astype(float).tolist()
    return network


@contextmanager
def lent_generator(seed: int) -> Iterator[None]:
    """Lend igraph a generator of our own, then give it back its default."""
    import igraph

    with _ONE_AT_A_TIME:
        igraph.set_random_number_generator(random.Random(int(seed)))
        try:
            yield
        finally:
            igraph.set_random_number_generator(random)
