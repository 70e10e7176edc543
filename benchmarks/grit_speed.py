"""CPU seconds and memory of the solve, given the graph.

A million cells and thirty classes, k = 15: neighbours are drawn within windows of two thousand
cells, in an order that is then shuffled, so that memory is read as in a real graph; and fifty
thousand cells with a real graph, refined again with another strength.

Run: ``python benchmarks/grit_speed.py [n_cells]``.
"""

from __future__ import annotations

from _measure import Results, cost  # isort: skip

import sys

import numpy as np
from scipy import sparse

from sczoo.model.grit._graph import build_graph
from sczoo.model.grit._refinement import Settings, refine_scores
from sczoo.model.grit._solver import build_system, choose_dtype, default_tolerance, solve

_K, _CLASSES = 15, 30


def window_graph(n_cells: int, seed: int = 0) -> sparse.csr_matrix:
    """Draw a symmetric graph with weights as in a fuzzy simplicial set."""
    rng = np.random.default_rng(seed)
    place = rng.permutation(n_cells).astype(np.int32)
    near = (np.arange(n_cells)[:, None] + rng.integers(1, 2000, (n_cells, _K))) % n_cells
    rows, columns = np.repeat(place, _K), place[near].ravel()
    weights = rng.uniform(0.05, 1.0, n_cells * _K).astype(np.float32)
    directed = sparse.csr_matrix((weights, (rows, columns)), shape=(n_cells, n_cells))
    return directed.maximum(directed.T).tocsr()


def main() -> None:
    """Measure."""
    n_cells = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    out = Results("grit_speed", {"n_cells": n_cells, "k": _K, "classes": _CLASSES, "lam": 3.0})
    rng = np.random.default_rng(0)
    graph = window_graph(n_cells)
    scores = rng.normal(size=(n_cells, _CLASSES)).astype(np.float32)
    with cost() as before:
        pass
    for tol in (1e-3, default_tolerance(scores.size), 1e-5):
        with cost() as spent:
            system = build_system(graph, 3.0, dtype=choose_dtype(scores.size))
            found = solve(system, scores, tol=tol)
        out.add(
            what="solve",
            n_cells=n_cells,
            edges_per_cell=graph.nnz / n_cells,
            tolerance=tol,
            iterations=found.n_iterations,
            residual=found.residuals[-1],
            cpu_seconds=spent.cpu_seconds,
            peak_gib=spent.peak_gib,
            peak_gib_before=before.peak_gib,
        )
        del system, found
    del graph, scores
    centres = rng.normal(size=(20, 20)) * 3
    points = (centres[rng.integers(20, size=50_000)] + rng.normal(size=(50_000, 20))).astype("f4")
    with cost() as spent:
        graph = build_graph(points, _K)
    out.add(what="graph", n_cells=50_000, cpu_seconds=spent.cpu_seconds)
    scores = rng.normal(size=(50_000, _CLASSES)).astype(np.float32)
    names = tuple(f"class {number}" for number in range(_CLASSES))
    first = refine_scores(scores, names, graph, Settings(), probability=False)
    with cost() as spent:
        first.with_settings(lam=5.0)
    out.add(what="refine again, all of it", n_cells=50_000, cpu_seconds=spent.cpu_seconds)
    with cost() as spent:
        solve(build_system(graph, 5.0, dtype=choose_dtype(scores.size)), scores)
    out.add(what="refine again, the solve", n_cells=50_000, cpu_seconds=spent.cpu_seconds)


if __name__ == "__main__":
    main()
