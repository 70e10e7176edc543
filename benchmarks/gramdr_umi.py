"""GramDR on UMI counts beside PCA of CP10k and of log CP10k: depth and clusters.

Every set twice: as it is, and with every cell thinned binomially to a share drawn log-uniformly
from 0.1 to 1. The correlation of the components with the depth is measured over all cells, within
the labelled types (in real data types differ in depth, and a component may follow the type), and,
in the thinned data, with the drawn share, which no biology can explain. New cells: accuracy of
15-nearest-neighbour labels of a held-out third, projected and embedded together. GLM-PCA (the
package ``glmpca``) runs on the first 500 cells where it is installed.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from _measure import QUIET, Results, cost, labelled  # first: limits the threads
from anndata import AnnData
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

SETS = ("pbmc3k", "pbmc4k_10x", "kang_ifnb", "baron_human", "cbmc_cite", "mouse_bladder")
N_CELLS, N_GENES, K, LEADING = 2000, 2000, 20, 10


def read(name: str, n_cells: int) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Return counts of the 2,000 most variable genes, depth over all genes, labels."""
    import scanpy as sc

    adata = labelled(name)
    adata = adata[~adata.obs["cell_type"].isin(["unassigned", "unlabelled"])].copy()
    chosen = np.random.default_rng(0).permutation(adata.n_obs)[:n_cells]
    adata = adata[np.sort(chosen)].copy()
    depth = np.asarray(adata.X.sum(axis=1)).ravel()
    if adata.n_vars > N_GENES:
        log = adata.copy()
        sc.pp.normalize_total(log, target_sum=1e4)
        sc.pp.log1p(log)
        sc.pp.highly_variable_genes(log, n_top_genes=N_GENES)
        adata = adata[:, log.var["highly_variable"]].copy()
    return sparse.csr_matrix(adata.X), depth, adata.obs["cell_type"].astype(str).to_numpy()


def thin(counts: sparse.csr_matrix, share: np.ndarray) -> sparse.csr_matrix:
    thinned = counts.copy()
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    drawn = np.random.default_rng(1).binomial(counts.data.astype(int), share[rows])
    thinned.data = drawn.astype(np.float32)
    thinned.eliminate_zeros()
    return thinned


def normalised(counts: sparse.csr_matrix) -> np.ndarray:
    dense = counts.toarray().astype(float)
    return 1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)


def fit(counts: sparse.csr_matrix, k: int = K, **kwargs):
    from sczoo.model import GramDR

    adata = AnnData(counts)
    GramDR.setup_anndata(adata)
    model = GramDR(adata, n_latent=k, **kwargs)
    model.train(**QUIET)
    return model


METHODS = {
    "CP10k PCA": lambda c: PCA(K, random_state=0).fit_transform(normalised(c)),
    "log CP10k PCA": lambda c: PCA(K, random_state=0).fit_transform(np.log1p(normalised(c))),
    "GramDR": lambda c: fit(c).get_latent_representation(),
    "GramDR unclipped": lambda c: fit(c, clip=None).get_latent_representation(),
}


def correlation(latent: np.ndarray, values: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Largest |correlation| of the leading components with `values`, optionally within groups."""
    latent, values = latent[:, :LEADING].astype(float), values.astype(float)
    if groups is not None:
        latent, values = latent.copy(), values.copy()
        for group in np.unique(groups):
            chosen = groups == group
            latent[chosen] -= latent[chosen].mean(axis=0)
            values[chosen] -= values[chosen].mean()
    return max(abs(np.corrcoef(column, values)[0, 1]) for column in latent.T)


def scores(latent: np.ndarray, labels: np.ndarray, depth: np.ndarray) -> dict[str, float]:
    n_kinds = len(np.unique(labels))
    ari = [
        adjusted_rand_score(labels, KMeans(n_kinds, n_init=10, random_state=s).fit_predict(latent))
        for s in range(5)
    ]
    near = NearestNeighbors(n_neighbors=11).fit(latent).kneighbors(latent)[1][:, 1:]
    log_depth = np.log(np.maximum(depth, 1))
    return {
        "ari": float(np.mean(ari)),
        "purity": float((labels[near] == labels[:, None]).mean()),
        "depth": correlation(latent, log_depth),
        "depth_within": correlation(latent, log_depth, labels),
    }


def glm_pca(counts: sparse.csr_matrix) -> np.ndarray | None:
    try:
        from glmpca.glmpca import glmpca
    except ImportError:
        return None
    dense = counts.toarray().T.astype(float)
    dense = dense[dense.sum(axis=1) > 0]
    np.random.seed(0)  # noqa: NPY002
    return glmpca(dense, 10, fam="poi", ctl={"maxIter": 200, "eps": 1e-4})["factors"]


def new_cells(results: Results, name: str, counts: sparse.csr_matrix, labels: np.ndarray) -> None:
    """Project a held-out third; compare with embedding all cells together."""
    new = np.random.default_rng(2).random(len(labels)) < 1 / 3

    def accuracy(reference: np.ndarray, query: np.ndarray) -> float:
        knn = KNeighborsClassifier(15).fit(reference, labels[~new])
        return float((knn.predict(query) == labels[new]).mean())

    together = fit(counts).get_latent_representation()
    model = fit(counts[~new])
    own = model.get_latent_representation()
    projected = model.get_latent_representation(AnnData(counts[new]))
    results.add(
        data=name,
        variant="new cells",
        method="GramDR",
        accuracy_projected=accuracy(own, projected),
        accuracy_together=accuracy(together[~new], together[new]),
        norm_ratio=float(np.linalg.norm(projected, axis=1).mean())
        / float(np.linalg.norm(own, axis=1).mean()),
    )


def run() -> None:
    results = Results("gramdr_umi", {"cells": N_CELLS, "genes": N_GENES, "components": K})
    for name in SETS:
        counts, depth, labels = read(name, N_CELLS)
        share = np.exp(np.random.default_rng(3).uniform(np.log(0.1), 0, len(labels)))
        for variant, matrix, total in (
            ("as it is", counts, depth),
            ("thinned", thin(counts, share), depth * share),
        ):
            kept = np.asarray(matrix.sum(axis=1)).ravel() > 0
            matrix = matrix[kept]
            for method, embed in METHODS.items():
                with cost() as spent:
                    latent = embed(matrix)
                row = scores(latent, labels[kept], total[kept])
                if variant == "thinned":
                    row["share"] = correlation(latent, np.log(share[kept]))
                results.add(
                    data=name,
                    variant=variant,
                    method=method,
                    **row,
                    cpu_seconds=spent.cpu_seconds,
                )
        new_cells(results, name, counts, labels)
    for name in SETS[:3]:
        counts, depth, labels = read(name, 500)
        with cost() as spent:
            latent = glm_pca(counts)
        if latent is None:
            return
        row = scores(latent, labels, depth)
        results.add(data=name, variant="500 cells", method="GLM-PCA", **row,
                    cpu_seconds=spent.cpu_seconds)  # fmt: skip
        with cost() as spent:
            latent = fit(counts, 10).get_latent_representation()
        row = scores(latent, labels, depth)
        results.add(data=name, variant="500 cells", method="GramDR", **row,
                    cpu_seconds=spent.cpu_seconds)  # fmt: skip


def summary() -> None:
    import pandas as pd

    table = pd.DataFrame(json.loads(Results("gramdr_umi", {}).path.read_text())["rows"])
    pd.set_option("display.width", 220, "display.max_columns", 20)
    print(table.drop(columns="cpu_seconds").round(3).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--summary", action="store_true")
    summary() if parser.parse_args().summary else run()
