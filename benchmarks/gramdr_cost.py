"""Cost of GramDR: beside scikit-learn's PCA on 20,000 cells, and growth up to a million cells.

Run with ``python benchmarks/gramdr_cost.py`` (a minute), or ``--million`` for the growth up to
10^6 x 2,000 simulated counts, each size in a process of its own (about half an hour, 12 GiB).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import _measure
import numpy as np
from _measure import QUIET, Results, cost
from anndata import AnnData
from scipy import sparse

N_GENES, N_COMPONENTS, N_TYPES = 2000, 50, 12


def simulate(n_cells: int, seed: int = 0, block: int = 20_000) -> sparse.csr_matrix:
    """Draw Poisson counts of 12 types with depths from 60 to 600, about 6 % not zero."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.25, 1.0, size=(1, N_GENES)) * rng.lognormal(0, 1, (N_TYPES, N_GENES))
    profile /= profile.sum(axis=1, keepdims=True)
    parts = []
    for start in range(0, n_cells, block):
        size = min(block, n_cells - start)
        kind = rng.integers(N_TYPES, size=size)
        depth = np.exp(rng.uniform(np.log(60), np.log(600), size))
        rates = (profile[kind] * depth[:, None]).astype(np.float32)
        parts.append(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)))
    return sparse.vstack(parts, format="csr")


def fit(adata: AnnData, **kwargs):
    """Set up and train; return the model and its wall and CPU seconds."""
    from sczoo.model import GramDR

    setup = {name: kwargs.pop(name) for name in ("mask", "mask_layer") if name in kwargs}
    wall = time.perf_counter()
    with cost() as spent:
        GramDR.setup_anndata(adata, **setup)
        model = GramDR(adata, n_latent=N_COMPONENTS)
        model.train(**{**QUIET, "logger": None}, **kwargs)
    return model, spent, time.perf_counter() - wall


def beside_pca(results: Results) -> None:
    """Compare with scikit-learn's PCA on the same 20,000 cells in this process."""
    from sklearn.decomposition import PCA

    counts = simulate(20_000)
    dense = np.log1p(counts.toarray() / counts.sum(axis=1) * 1e4)
    dense = np.asarray(dense, dtype=np.float32)
    fit(AnnData(counts[:500].copy()))  # first calls import and compile
    for name, values in (("float32", dense), ("float64", dense.astype(np.float64))):
        with cost() as spent:
            PCA(N_COMPONENTS, random_state=0).fit_transform(values)
        results.add(what=f"scikit-learn PCA, dense {name}", cpu_seconds=spent.cpu_seconds)
    wanted = sparse.csr_matrix(dense)
    with cost() as spent:
        PCA(N_COMPONENTS, random_state=0, svd_solver="arpack").fit_transform(wanted)
    results.add(what="scikit-learn PCA, sparse, arpack", cpu_seconds=spent.cpu_seconds)
    model, spent, _ = fit(AnnData(counts.copy()))
    results.add(
        what="GramDR counts, sparse",
        cpu_seconds=spent.cpu_seconds,
        passes=len(model.history["residual"]),
        residual=float(model.history["residual"].iloc[-1, 0]),
        nonzero=counts.nnz,
    )
    with cost() as spent:
        model.get_latent_representation()
    results.add(what="GramDR counts, coordinates of all cells", cpu_seconds=spent.cpu_seconds)
    rng = np.random.default_rng(1)
    rate = np.exp(rng.uniform(np.log(0.1), 0, 20_000))[:, None] * rng.uniform(0.3, 1, N_GENES)
    dense[rng.random(dense.shape) > rate] = np.nan
    model, spent, _ = fit(AnnData(dense), mask="explicit")
    results.add(
        what="GramDR explicit mask, dense float32",
        cpu_seconds=spent.cpu_seconds,
        passes=len(model.history["residual"]),
        residual=float(model.history["residual"].iloc[-1, 0]),
    )


def one_size(n_cells: int) -> None:
    """Fit one simulated size and print what it cost (in a process of its own)."""
    counts = simulate(n_cells)
    adata = AnnData(counts)
    with cost() as before:
        pass
    model, spent, wall = fit(adata)
    row = {
        "what": f"{n_cells} x {N_GENES} counts",
        "cells": n_cells,
        "nonzero": int(counts.nnz),
        "cpu_seconds": spent.cpu_seconds,
        "wall_seconds": wall,
        "peak_gib": spent.peak_gib,
        "peak_gib_of_the_data": before.peak_gib,
        "passes": len(model.history["residual"]),
        "residual": float(model.history["residual"].iloc[-1, 0]),
    }
    print("ROW " + json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--size", type=int)
    chosen = parser.parse_args()
    if chosen.size:
        one_size(chosen.size)
        return
    if chosen.million:
        results = Results("gramdr_scale", {"n_genes": N_GENES, "n_components": N_COMPONENTS})
        for size in (62_500, 125_000, 250_000, 500_000, 1_000_000):
            out = subprocess.run(
                [sys.executable, __file__, "--size", str(size)],
                capture_output=True,
                text=True,
                check=True,
                cwd=_measure.ROOT,
            )
            line = next(line for line in out.stdout.splitlines() if line.startswith("ROW "))
            results.add(**json.loads(line[4:]))
        return
    beside_pca(Results("gramdr_cost", {"n_genes": N_GENES, "n_components": N_COMPONENTS}))


if __name__ == "__main__":
    main()
