"""Cost of SCDD on 5,000 cells, and of its likelihood against the dense form.

CPU seconds on one thread: the three stages, distilling 10 cells per class, the optimisation of the
codes alone; a step of the negative binomial likelihood, forward and backward, with the gamma
function at non-zero counts only and at all counts (scvi-tools' distribution). Also the size of the
distilled set as an artefact. Run: ``python benchmarks/scdd_speed.py``.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import scvi
import torch
from _measure import QUIET, Results, cost, labelled
from scvi.distributions import NegativeBinomial

from sczoo.model import SCDD
from sczoo.model.scdd import save_dataset
from sczoo.model.scdd._autoencoder import negative_binomial_nll


def likelihood(adata, repeats: int) -> dict[str, float]:
    """CPU seconds of one step on a minibatch of 128 cells, the smallest of several."""
    counts = torch.as_tensor(adata.X[:128].toarray())
    log_mean = torch.randn(counts.shape, requires_grad=True)
    log_theta = torch.zeros(counts.shape[1], requires_grad=True)

    def dense():
        found = NegativeBinomial(mu=log_mean.exp(), theta=log_theta.exp())
        return -found.log_prob(counts).sum(dim=1)

    forms = {
        "sparse": lambda: negative_binomial_nll(counts, log_mean, log_theta),
        "dense": dense,
    }
    found = {}
    for name, form in forms.items():
        spent = []
        for _ in range(repeats):
            with cost() as step:
                for _ in range(10):
                    form().sum().backward()
            spent.append(step.cpu_seconds / 10)
        found[f"{name}_seconds"] = min(spent)
    return {**found, "share_of_zeros": float((counts == 0).float().mean())}


def main() -> None:
    """Measure and write rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="cbmc_cite")
    parser.add_argument("--n-cells", type=int, default=5000)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    results = Results("scdd_speed", vars(arguments))
    adata = labelled(arguments.set, arguments.n_cells)
    results.add(what="likelihood", **likelihood(adata, 5))
    scvi.settings.seed = 0
    SCDD.setup_anndata(adata, labels_key="cell_type")
    model = SCDD(adata)
    quiet = {key: value for key, value in QUIET.items() if key != "logger"}
    total = 0.0
    for stage in ("autoencoder", "diffusion", "student"):
        with cost() as spent:
            model.train(stages=[stage], **quiet)
        total += spent.cpu_seconds
        results.add(what=stage, cpu_seconds=spent.cpu_seconds, peak_gib=spent.peak_gib)
    with cost() as spent:
        small = model.distill(10)
    results.add(what="distill", cpu_seconds=spent.cpu_seconds, peak_gib=spent.peak_gib)
    results.add(what="whole pipeline", cpu_seconds=total + spent.cpu_seconds)
    with cost() as spent:
        model.distill(10, emission="mode", accept="always")
    results.add(what="codes alone, one emission", cpu_seconds=spent.cpu_seconds)
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_dataset(small, Path(scratch) / "distilled")
        size = sum(file.stat().st_size for file in folder.iterdir())
    results.add(
        what="artefact",
        n_classes=int(small.obs["cell_type"].nunique()),
        n_cells=small.n_obs,
        bytes=size,
        source_bytes=int(small.uns["scdd"]["source_bytes"]),
    )


if __name__ == "__main__":
    main()
