"""Routes that might let clusters gain from SCAGC's learned graph, on either graph, untrained.

Nothing is trained here: the embedding is the average of the 15 leading principal components over
two hops, where training starts, and the adaptive graph is settled twice on it. What a route gains
is the difference of its rows with ``graph="adaptive"`` and ``"static"``. Sets are those on which
the start of the centres was chosen; labels are used for scoring alone. Run:
``python benchmarks/scagc_routes.py``; ``--table`` prints the means.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from _measure import Results, cost
from scagc_clustering import cells_of
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering
from sklearn.metrics import normalized_mutual_info_score
from sklearn.mixture import GaussianMixture

from sczoo.graph import leiden_k_of_graph
from sczoo.model.scagc._adaptive_graph import averaging_adjacency, union_graph
from sczoo.model.scagc._constants import input_constants
from sczoo.model.scagc._memory import GraphMemory, GraphSettings

SETS = ("worm_neuron", "mouse_bladder", "cbmc_cite")
LEADING, N_HOPS = 15, 2


def scaled_expression(adata):
    """Scaled expression and its principal components, as the model makes them (equation 1)."""
    constants = input_constants(adata, None, 2000, seed=0)
    counts = adata.X.toarray().astype(np.float64)
    size = constants.target_total / np.maximum(counts.sum(axis=1, keepdims=True), 1e-6)
    logs = np.log1p(counts[:, constants.chosen_genes] * size)
    scaled = np.clip((logs - constants.gene_mean) / constants.gene_scale, -10, 10)
    return scaled, (scaled @ constants.axes).astype(np.float32)


def averaged(components, adjacency, n_leading=LEADING, n_hops=N_HOPS):
    """Mean of the leading components over no, one, ... hops."""
    hops = [components[:, :n_leading]]
    for _ in range(n_hops):
        hops.append(adjacency @ hops[-1])
    return np.mean(hops, axis=0).astype(np.float32)


def memory_of(components, adaptive, bonus=None):
    """Graph of the cells; `bonus` adds to the log-odds of the candidates in every turn."""
    settings = GraphSettings(15, 50, 10.0, 0.3, adaptive=adaptive)
    memory = GraphMemory(components, 1, LEADING, settings)
    memory.latent = torch.from_numpy(averaged(components, memory.adjacency))
    for turn in range((2 if bonus is None else 4) if adaptive else 0):
        memory.refresh_candidates()
        if bonus is not None:
            memory.base = memory.base + bonus(memory, turn)
        memory.settle()
        memory.adopt(0.0)
        memory.latent = torch.from_numpy(averaged(components, memory.adjacency))
    return memory


def agreement(k):
    """Log-probability that soft assignments of two cells to k clusters agree."""

    def bonus(memory, turn):
        z = memory.latent.numpy()
        centres = KMeans(k, n_init=5, random_state=turn).fit(z).cluster_centers_
        apart = ((z[:, None] - centres) ** 2).sum(axis=2)
        near = apart.min(axis=1, keepdims=True)
        q = np.exp(-0.5 * (apart - near) / np.median(near))
        q /= q.sum(axis=1, keepdims=True)
        both = np.einsum("ik,ijk->ij", q, q[memory.candidates])
        return np.log(1e-4 + both).astype(np.float32)

    return bonus


def shared_neighbours(graph):
    """Edges weighted by the Jaccard overlap of their ends' neighbourhoods."""
    own = (graph + sparse.eye(graph.shape[0])).tocsr().astype(float)
    size = np.asarray(own.sum(axis=1)).ravel()
    common = (own @ own).multiply(graph).tocoo()
    weight = common.data / (size[common.row] + size[common.col] - common.data)
    return sparse.csr_matrix((weight, (common.row, common.col)), shape=graph.shape)


def from_wards_groups(z, k):
    groups = AgglomerativeClustering(k).fit_predict(z)
    start = np.stack([z[groups == group].mean(axis=0) for group in range(k)])
    return KMeans(k, init=start, n_init=1).fit_predict(z)


def consensus(embeddings, k, seed, n_runs=30):
    """Average linkage of how often runs of k-means, of k to 2k clusters, part two cells."""
    rng = np.random.default_rng(seed)
    together = np.zeros((len(embeddings[0]),) * 2)
    for run in range(n_runs):
        kmeans = KMeans(int(rng.integers(k, 2 * k + 1)), n_init=1, random_state=run)
        labels = kmeans.fit_predict(embeddings[run % len(embeddings)])
        together += labels[:, None] == labels
    apart = squareform(1 - together / n_runs, checks=False)
    return fcluster(linkage(apart, "average"), k, "maxclust")


def merged_communities(graph, k, seed):
    """Four times as many Leiden communities, merged by edges relative to the smaller's."""
    label = leiden_k_of_graph(graph, 4 * k, seed=seed)[0]
    member = sparse.csr_matrix((np.ones(len(label)), (np.arange(len(label)), label)))
    between = (member.T @ graph @ member).toarray()
    alive, name = list(range(len(between))), np.arange(len(between))
    while len(alive) > k:
        edges = between[np.ix_(alive, alive)]
        degree = edges.sum(axis=1)
        share = edges / np.minimum(degree[:, None], degree)
        np.fill_diagonal(share, -1)
        one, other = (alive[i] for i in np.unravel_index(share.argmax(), share.shape))
        between[one] += between[other]
        between[:, one] += between[:, other]
        name[name == other] = one
        alive.remove(other)
    return name[label]


def reweighted(scaled, adaptive, n_turns=2):
    """Components of genes weighted by the variance that survives averaging over the graph."""
    components, order = None, np.random.default_rng(0).permutation(len(scaled))
    weight = np.ones(scaled.shape[1])
    for turn in range(n_turns + 1):
        values = scaled * weight - (scaled * weight).mean(axis=0)
        u, s, _ = np.linalg.svd(values, full_matrices=False)
        components = (u[:, :50] * s[:50]).astype(np.float32)
        memory = memory_of(components, adaptive)
        if turn < n_turns:
            total = np.maximum(scaled.var(axis=0), 1e-9)
            kept = (memory.adjacency @ scaled).var(axis=0) / total
            chance = ((memory.adjacency @ scaled[order]).var(axis=0) / total).mean()
            weight = np.sqrt(np.clip(kept - chance, 0, None))
    return memory.latent.numpy()


def routes(scaled, components, adaptive, k):
    """Yield name and labels of every route."""
    memory = memory_of(components, adaptive)
    z, graph = memory.latent.numpy(), memory.graph().astype(float)
    yield "k-means, random starts", KMeans(k, n_init=10, random_state=0).fit_predict(z)
    yield "k-means from Ward's groups", from_wards_groups(z, k)
    yield "consensus of 30 k-means", consensus([z], k, 0)
    wide = averaged(components, memory.adjacency, 30)
    yield "30 components, Ward's start", from_wards_groups(wide, k)
    far = averaged(components, memory.adjacency, n_hops=4)
    yield "four hops, Ward's start", from_wards_groups(far, k)
    mixture = GaussianMixture(k, covariance_type="tied", n_init=3, reg_covar=0.01, random_state=0)
    yield "Gaussian mixture, one covariance", mixture.fit_predict(z)
    overlap = shared_neighbours(graph)
    near = averaged(components, averaging_adjacency(overlap))
    yield "edges weighted by shared neighbours, Ward's start", from_wards_groups(near, k)
    yield (
        "genes reweighted by the graph, Ward's start",
        from_wards_groups(reweighted(scaled, adaptive), k),
    )
    if adaptive:
        rng, drawn = np.random.default_rng(0), []
        odds = memory.all_logits() - memory.prices[memory.candidates]
        for _ in range(5):
            best = np.argpartition(-(odds + rng.gumbel(size=odds.shape)), 14, axis=1)[:, :15]
            rows = np.take_along_axis(memory.candidates, best, axis=1)
            drawn.append(averaged(components, averaging_adjacency(union_graph(rows))))
        yield "mean of five drawn graphs, Ward's start", from_wards_groups(np.mean(drawn, 0), k)
        yield "consensus over five drawn graphs", consensus(drawn, k, 0)
        agreed = memory_of(components, True, agreement(k))
        yield "agreement of assignments, Ward's start", from_wards_groups(agreed.latent.numpy(), k)
        yield (
            "agreement of assignments, Leiden",
            leiden_k_of_graph(agreed.graph().astype(float), k, seed=0)[0],
        )
    yield "Leiden", leiden_k_of_graph(graph, k, seed=0)[0]
    yield "Leiden, shared neighbours", leiden_k_of_graph(overlap, k, seed=0)[0]
    yield "merged Leiden communities", merged_communities(graph, k, 0)
    spectral = SpectralClustering(
        k, affinity="precomputed", assign_labels="cluster_qr", random_state=0
    )
    yield "spectral clustering", spectral.fit_predict(graph)


def table(rows) -> None:
    """Print the mean of each route on either graph."""
    frame = pd.DataFrame(rows)
    wide = frame.pivot_table(index=["n_cells", "route"], columns="graph", values="nmi", sort=False)
    wide["gain"] = wide["adaptive"] - wide["static"]
    print(wide.round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--draws", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--n-cells", type=int, default=800)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    results = Results("scagc_routes", {"sets": SETS})
    results.resume()
    if given.table:
        table(results.rows)
        return
    done = {(row["set"], row["draw"], row["n_cells"]) for row in results.rows}
    for draw in given.draws:
        for name in given.sets:
            adata = cells_of(name, given.n_cells, draw)
            if (name, draw, adata.n_obs) in done:
                continue
            truth = adata.obs["cell_type"].astype(str).to_numpy()
            k = len(np.unique(truth))
            with cost() as spent:
                scaled, components = scaled_expression(adata)
                found = [
                    (graph, route, labels)
                    for graph in ("static", "adaptive")
                    for route, labels in routes(scaled, components, graph == "adaptive", k)
                ]
            for graph, route, labels in found:
                results.rows.append(
                    {
                        "set": name,
                        "draw": draw,
                        "n_cells": adata.n_obs,
                        "k": k,
                        "graph": graph,
                        "route": route,
                        "nmi": round(float(normalized_mutual_info_score(truth, labels)), 5),
                    }
                )
            results.write()
            print(name, draw, adata.n_obs, round(spent.cpu_seconds, 1), flush=True)


if __name__ == "__main__":
    main()
