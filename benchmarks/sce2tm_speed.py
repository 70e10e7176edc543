"""Cost of a training step of SCE2TM against the published algorithm, and of an epoch against SCVI.

One process, one thread, CPU seconds, the median over epochs of several runs that alternate between
the two, so that other work on the machine troubles both alike. The published algorithm is
``preset="paper"`` with the same data, topics and minibatch: Sinkhorn unrolled, three passes of the
encoder, batch normalisation over the genes. Run: ``python benchmarks/sce2tm_speed.py``.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

from _measure import QUIET, Results  # isort: skip

import numpy as np
import scvi
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from scipy import sparse

import sczoo

STEP = (512, 5000, 100)
"""Cells in a minibatch, genes, topics."""


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


class EpochClock(Callback):
    """CPU seconds of every epoch, set-up and the first epoch left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: object) -> None:
        """Start the clock."""
        self.start = time.process_time()

    def on_train_epoch_end(self, *_: object) -> None:
        """Stop it."""
        self.seconds.append(time.process_time() - self.start)


def epochs(model, n_epochs: int, **kwargs) -> list[float]:
    """CPU seconds of each epoch but the first."""
    clock = EpochClock()
    model.train(max_epochs=1 + n_epochs, callbacks=[clock], **QUIET, **kwargs)
    return clock.seconds[1:]


def step_cost(repeats: int) -> dict[str, float]:
    """CPU seconds of one training step, published algorithm and default."""
    batch_size, n_genes, n_topics = STEP
    adata = simulated(10 * batch_size, n_genes)
    costs: dict[str, list[float]] = {"paper": [], "default": []}
    for _ in range(repeats):
        for preset, found in costs.items():
            scvi.settings.seed = 0
            sczoo.model.SCE2TM.setup_anndata(adata)
            model = sczoo.model.SCE2TM(adata, n_topics=n_topics, preset=preset)
            found += [spent / 10 for spent in epochs(model, 3, batch_size=batch_size)]
    return {preset: median(found) for preset, found in costs.items()}


def epoch_cost(n_cells: int, n_genes: int, repeats: int) -> dict[str, float]:
    """CPU seconds of one epoch on the same cells, at batch sizes of 128 and 256."""
    adata = simulated(n_cells, n_genes)
    costs: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, model_class, batch_size in (
            ("sce2tm", sczoo.model.SCE2TM, 256),
            ("scvi_128", scvi.model.SCVI, 128),
            ("scvi_256", scvi.model.SCVI, 256),
        ):
            scvi.settings.seed = 0
            model_class.setup_anndata(adata)
            found = epochs(model_class(adata), 2, batch_size=batch_size)
            costs.setdefault(name, []).extend(found)
    return {name: median(found) for name, found in costs.items()}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n-cells", type=int, default=10_000)
    parser.add_argument("--claims", nargs="+", default=["step", "epoch"])
    arguments = parser.parse_args()
    results = Results("sce2tm_speed", vars(arguments))
    results.resume()
    for claim in arguments.claims:
        results.rows = [row for row in results.rows if not row["claim"].startswith(f"{claim} ")]
    if "step" in arguments.claims:
        step = step_cost(arguments.repeats)
        results.add(
            claim="step of 512 cells x 5,000 genes x 100 topics",
            published_cpu_seconds=step["paper"],
            sce2tm_cpu_seconds=step["default"],
            times_cheaper=step["paper"] / step["default"],
        )
    if "epoch" in arguments.claims:
        epoch = epoch_cost(arguments.n_cells, 2000, arguments.repeats)
        results.add(
            claim=f"epoch of {arguments.n_cells} cells x 2,000 genes",
            **{f"{name}_cpu_seconds": value for name, value in epoch.items()},
            share_of_scvi_default=epoch["sce2tm"] / epoch["scvi_128"],
            share_of_scvi_at_256=epoch["sce2tm"] / epoch["scvi_256"],
        )


if __name__ == "__main__":
    main()
