"""Graphs of cells: nearest neighbours, connectivities, communities, mutual neighbours, layouts.

Nothing here compiles at run time (no numba), and no cells x cells matrix is made dense.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sczoo.graph._connectivities import connectivities
    from sczoo.graph._knn import Neighbours, knn
    from sczoo.graph._layout import umap_layout
    from sczoo.graph._leiden import leiden, leiden_k, leiden_k_of_graph, leiden_of_graph
    from sczoo.graph._mutual import NeighbourLists, mutual_neighbours

_HOMES = {
    "NeighbourLists": "_mutual",
    "Neighbours": "_knn",
    "connectivities": "_connectivities",
    "knn": "_knn",
    "leiden": "_leiden",
    "leiden_k": "_leiden",
    "leiden_k_of_graph": "_leiden",
    "leiden_of_graph": "_leiden",
    "mutual_neighbours": "_mutual",
    "umap_layout": "_layout",
}

__all__ = [
    "NeighbourLists",
    "Neighbours",
    "connectivities",
    "knn",
    "leiden",
    "leiden_k",
    "leiden_k_of_graph",
    "leiden_of_graph",
    "mutual_neighbours",
    "umap_layout",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"sczoo.graph.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sczoo.graph' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
