"""GramDR on matrices with explicit masks, beside imputation and probabilistic PCA.

Simulated (three clusters, the paper's generator) and real matrices; the paper's mask (about 40 %
missing, much alike in all rows) and a strong one (rows observed at rates from 0.1 to 1); five mask
seeds. Run with ``python benchmarks/gramdr_masks.py``, then ``--summary``.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from _gramdr_peers import PEERS
from _measure import QUIET, Results, cost, labelled  # first: limits the threads
from anndata import AnnData
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

SEEDS = range(5)
REAL = {"pollen_log": None, "zeisel_1464": 250, "baron_human": 250, "segerstolpe": 250}
# parity is looked for on a few
MILD = ("simulated D=1000", "pollen_log")
SIZES = (500, 1000, 2000, 3000)
N_REAL, N_SIMULATED, N_CELLS = 10, 2, 450


def simulated(n_genes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(345)
    centres = rng.uniform(-2.5, 2.5, size=(3, 2))
    kind = rng.integers(3, size=N_CELLS)
    latent = centres[kind] + 0.1 * rng.normal(size=(N_CELLS, 2))
    loadings = rng.uniform(-0.5, 0.5, size=(n_genes, 2))
    mean = 3 * rng.uniform(0.9, 1.1, n_genes)
    return latent @ loadings.T + mean + 2.0 * rng.normal(size=(N_CELLS, n_genes)), kind


def real(name: str, n_cells: int | None) -> tuple[np.ndarray, np.ndarray]:
    adata = labelled(name, n_cells)
    y = np.asarray(adata.X.toarray(), dtype=float)
    if "raw counts" in str(adata.uns["matrix"]):
        y = np.log1p(1e4 * y / np.maximum(y.sum(axis=1, keepdims=True), 1))
    varying = np.argsort(y.var(axis=0))[::-1][:1500]
    kind = adata.obs["cell_type"].astype(str).to_numpy()
    kept = ~np.isin(kind, ("unassigned", "unlabelled"))
    return y[kept][:, np.sort(varying)], kind[kept]


def masks(shape: tuple[int, int], kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(1000 + seed)
    if kind == "paper":
        rate = 1 - np.outer(rng.uniform(0.4, 0.6, shape[0]), rng.uniform(0.7, 0.9, shape[1]))
    else:
        cell = np.exp(rng.uniform(np.log(0.1), 0.0, shape[0]))
        rate = np.outer(cell, rng.uniform(0.3, 1.0, shape[1]))
    return rng.random(shape) < rate


def gramdr(y: np.ndarray, mask: np.ndarray, k: int, scores: str = "gram", **kwargs) -> np.ndarray:
    from sczoo.model import GramDR

    adata = AnnData(np.where(mask, y, np.nan))
    GramDR.setup_anndata(adata, mask="explicit")
    model = GramDR(adata, n_latent=k, **kwargs)
    model.train(**QUIET)
    return model.get_latent_representation(scores=scores)


def scores(latent: np.ndarray, kind: np.ndarray, rate: np.ndarray) -> dict[str, float]:
    n_kinds = len(np.unique(kind))
    ari = [
        adjusted_rand_score(kind, KMeans(n_kinds, n_init=10, random_state=s).fit_predict(latent))
        for s in range(3)
    ]
    near = NearestNeighbors(n_neighbors=11).fit(latent).kneighbors(latent)[1][:, 1:]
    varying = latent[:, latent.std(axis=0) > 0]
    depth = [abs(np.corrcoef(column, rate)[0, 1]) for column in varying.T]
    return {
        "ari": float(np.mean(ari)),
        "purity": float((kind[near] == kind[:, None]).mean()),
        "rate_correlation": float(max(depth)),
    }


def run() -> None:
    methods = dict(PEERS)
    methods["GramDR"] = gramdr
    methods["GramDR conditional"] = lambda y, m, k: gramdr(y, m, k, scores="conditional")
    methods["GramDR pairwise"] = lambda y, m, k: gramdr(y, m, k, normaliser="pairwise")
    methods["GramDR paper"] = lambda y, m, k: gramdr(y, m, k, normaliser="paper")
    results = Results("gramdr_masks", {"seeds": len(SEEDS), "cells": N_CELLS})
    if results.path.exists():  # a run that was stopped goes on
        results.rows = json.loads(results.path.read_text())["rows"]
    done = {(row["mask"], row["data"], row["seed"], row["method"]) for row in results.rows}
    settings = [(name, N_REAL, lambda a=name, b=n: real(a, b)) for name, n in REAL.items()]
    settings += [
        (f"simulated D={size}", N_SIMULATED, lambda s=size: simulated(s)) for size in SIZES
    ]
    jobs = [
        (mask_kind, name, k, make, seed)
        for mask_kind in ("strong", "paper")
        for name, k, make in settings
        if mask_kind == "strong" or name in MILD
        for seed in SEEDS
    ]
    slow = ("PPCA-EM", "softImpute", "KNNImputer", "GramDR paper")
    rounds = [[name for name in methods if name not in slow], *([name] for name in slow)]
    for chosen in rounds:  # the cheap ones first
        for mask_kind, name, k, make, seed in jobs:
            missing = [m for m in chosen if (mask_kind, name, seed, m) not in done]
            if not missing:
                continue
            y, kind = make()
            mask = masks(y.shape, mask_kind, seed)
            for method in missing:
                with cost() as spent:
                    latent = methods[method](y, mask, k)
                results.add(
                    mask=mask_kind,
                    data=name,
                    method=method,
                    seed=seed,
                    **scores(latent, kind, mask.mean(axis=1)),
                    cpu_seconds=spent.cpu_seconds,
                )


def summary() -> None:
    import pandas as pd

    table = pd.DataFrame(json.loads(Results("gramdr_masks", {}).path.read_text())["rows"])
    pd.set_option("display.width", 200, "display.max_columns", 20)
    for column in ("ari", "purity", "rate_correlation", "cpu_seconds"):
        mean = table.groupby(["mask", "data", "method"])[column].mean().unstack()
        print(f"\n{column}\n{mean.round(3)}")
    for column, tie in (("ari", 0.02), ("purity", 0.01)):
        mean = table.groupby(["mask", "data", "method"])[column].mean().unstack()
        peers = mean[[name for name in mean.columns if name in PEERS]].max(axis=1)
        for name in ("GramDR", "GramDR conditional"):
            good = (mean[name] >= peers - tie).groupby("mask").agg(["sum", "size"])
            print(f"\n{name} best or within {tie} by {column}:\n{good}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--summary", action="store_true")
    summary() if parser.parse_args().summary else run()
