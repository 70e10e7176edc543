"""Time per epoch and peak memory of SCAGC at 10^4, 10^5 and 10^6 simulated cells x 2,000 genes.

One size per process, so that the peak memory is its own. One thread; CPU seconds. The counts are
sparse, of 30 kinds of cells. Run: ``python benchmarks/scagc_scale.py --n-cells 10000`` for each.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import scvi
from _measure import QUIET, RESULTS, Results, cost
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import normalized_mutual_info_score

N_GENES, N_KINDS, MEAN_TOTAL = 2000, 30, 150


def simulated(n_cells: int) -> AnnData:
    """Draw counts of 30 kinds of cells: genes of each count from the profile of its kind."""
    rng = np.random.default_rng(0)
    profile = rng.lognormal(0, 1.2, N_GENES) * rng.lognormal(0, 1.0, (N_KINDS, N_GENES))
    steps = np.cumsum(profile / profile.sum(1, keepdims=True), axis=1)
    kind = rng.integers(N_KINDS, size=n_cells)
    parts = []
    for start in range(0, n_cells, 20_000):
        of = kind[start : start + 20_000]
        total = np.maximum(rng.poisson(rng.lognormal(np.log(MEAN_TOTAL), 0.3, len(of))), 1)
        row = np.repeat(np.arange(len(of)), total)
        draw = rng.random(len(row))
        gene = np.empty(len(row), dtype=np.int32)
        for number in range(N_KINDS):
            mine = of[row] == number
            gene[mine] = np.minimum(np.searchsorted(steps[number], draw[mine]), N_GENES - 1)
        ones = np.ones(len(row), dtype=np.float32)
        parts.append(sparse.csr_matrix((ones, (row, gene)), shape=(len(of), N_GENES)))
    adata = AnnData(sparse.vstack(parts, format="csr"))
    adata.var_names = [f"GENE{number}" for number in range(N_GENES)]
    adata.obs["kind"] = kind
    return adata


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-cells", type=int, required=True)
    n_cells = parser.parse_args().n_cells
    import sczoo

    results = Results("scagc_scale", {"n_genes": N_GENES, "max_epochs": 1, "batch_size": 256})
    if results.path.exists():
        earlier = json.loads((RESULTS / "scagc_scale.json").read_text())["rows"]
        results.rows = [row for row in earlier if row["n_cells"] != n_cells]
    with cost() as simulation:
        adata = simulated(n_cells)
    scvi.settings.seed = 0
    wall = time.perf_counter()
    with cost() as building:
        sczoo.model.SCAGC.setup_anndata(adata)
        model = sczoo.model.SCAGC(adata, n_clusters=N_KINDS)
    spent: dict[str, float] = {}

    def timed(name: str) -> None:
        inner = getattr(model, name)

        def outer(*args, **kwargs):
            with cost() as part:
                value = inner(*args, **kwargs)
            spent[name] = spent.get(name, 0) + part.cpu_seconds
            print(name, round(part.cpu_seconds, 1), flush=True)
            return value

        setattr(model, name, outer)

    for name in ("_new_memory", "_train", "_conclude"):
        timed(name)
    with cost() as training:
        model.train(max_epochs=1, batch_size=256, **QUIET)
    with cost() as assigning:
        labels = model.get_cluster_assignments()
    report = model.get_graph_report().table.loc["learned"]
    results.add(
        n_cells=n_cells,
        nonzero=adata.X.nnz,
        simulation_cpu_seconds=simulation.cpu_seconds,
        setup_cpu_seconds=building.cpu_seconds,
        first_graph_cpu_seconds=spent["_new_memory"],
        epoch_cpu_seconds=spent["_train"],
        final_graph_and_clusters_cpu_seconds=spent["_conclude"],
        train_cpu_seconds=training.cpu_seconds,
        cpu_ms_per_cell_in_all=1e3 * (building.cpu_seconds + training.cpu_seconds) / n_cells,
        assign_cpu_seconds=assigning.cpu_seconds,
        wall_seconds=time.perf_counter() - wall,
        peak_gib=assigning.peak_gib,
        nmi_with_kinds=normalized_mutual_info_score(adata.obs["kind"], labels),
        degree_gini=report["degree_gini"],
        degree_max=report["degree_max"],
    )


if __name__ == "__main__":
    main()
