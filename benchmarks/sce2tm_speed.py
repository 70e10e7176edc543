"""Cost of a training step of SCE2TM against the published algorithm, and of an epoch against SCVI.

One process, one thread, CPU seconds (``time.process_time``), the smallest of several repeats, so
that other work on the machine does not count. Run: ``python benchmarks/sce2tm_speed.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np
import scvi
import torch
from anndata import AnnData
from scipy import sparse

import sczoo
from sczoo.base._provenance import versions

warnings.filterwarnings("ignore")
torch.set_num_threads(1)


def simulated(n_cells: int, n_genes: int) -> AnnData:
    """Simulate counts of eight cell types with about a fifth of the values above zero."""
    rng = np.random.default_rng(0)
    profile = rng.lognormal(0, 1.5, n_genes) * rng.lognormal(0, 0.7, (8, n_genes))
    profile /= profile.sum(1, keepdims=True)
    kind = rng.integers(8, size=n_cells)
    depth = rng.lognormal(np.log(n_genes), 0.3, n_cells)
    blocks = [
        sparse.csr_matrix(rng.poisson(depth[s : s + 1000, None] * profile[kind[s : s + 1000]]))
        for s in range(0, n_cells, 1000)
    ]
    adata = AnnData(sparse.vstack(blocks, format="csr").astype(np.float32))
    adata.var_names = [f"GENE{i}" for i in range(n_genes)]
    return adata


def epochs(model, n_epochs: int, **kwargs) -> float:
    """CPU seconds of one epoch: the difference of two runs takes set-up out of the account."""
    options = {
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "logger": False,
        **kwargs,
    }
    spent = []
    for number in (1, 1 + n_epochs):
        start = time.process_time()
        model.train(max_epochs=number, **options)
        spent.append(time.process_time() - start)
    return (spent[1] - spent[0]) / n_epochs


def step_cost(n_genes: int, n_topics: int, batch_size: int, repeats: int) -> dict[str, float]:
    """CPU seconds of one training step, published algorithm and default."""
    adata = simulated(4 * batch_size, n_genes)
    costs = {}
    for preset in ("paper", "default"):
        scvi.settings.seed = 0
        sczoo.model.SCE2TM.setup_anndata(adata)
        model = sczoo.model.SCE2TM(adata, n_topics=n_topics, preset=preset)
        runs = [
            epochs(model, 4, batch_size=batch_size) / (adata.n_obs // batch_size)
            for _ in range(repeats)
        ]
        costs[preset] = min(runs)
    return costs


def epoch_cost(n_cells: int, n_genes: int, repeats: int) -> dict[str, float]:
    """CPU seconds of one epoch on the same cells, at batch sizes of 128 and 256."""
    adata = simulated(n_cells, n_genes)
    costs: dict[str, float] = {}
    for name, model_class, batch_size in (
        ("sce2tm", sczoo.model.SCE2TM, 256),
        ("scvi_128", scvi.model.SCVI, 128),
        ("scvi_256", scvi.model.SCVI, 256),
    ):
        scvi.settings.seed = 0
        model_class.setup_anndata(adata)
        model = model_class(adata)
        costs[name] = min(epochs(model, 1, batch_size=batch_size) for _ in range(repeats))
    return costs


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--n-cells", type=int, default=10_000)
    arguments = parser.parse_args()
    step = step_cost(5000, 100, 512, arguments.repeats)
    epoch = epoch_cost(arguments.n_cells, 2000, arguments.repeats)
    result = {
        "step_512x5000x100_cpu_seconds": step,
        "published_over_default": step["paper"] / step["default"],
        f"epoch_{arguments.n_cells}x2000_cpu_seconds": epoch,
        "sce2tm_over_scvi_default": epoch["sce2tm"] / epoch["scvi_128"],
        "versions": versions(),
        "machine": platform.machine(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
