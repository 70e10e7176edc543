"""Membership attacks on DPDCAN, on its non-private twin, and on chance; audits of its training.

    python benchmarks/dpdcan_attacks.py

A simulated cohort of 120 donors of 12 cells; each is a member by a fair coin. The twin is the
published network trained without noise until it remembers its donors: where the attack finds
nothing there, it shows nothing. Then planted gradients against the claim in every sound mode.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scvi
from _measure import QUIET, Results, cost
from anndata import AnnData
from scipy import sparse

from sczoo.model import DPDCAN
from sczoo.privacy import audit

TWIN_EPOCHS = 100
NETWORK = {"architecture": "published", "reconstruction_weight": 1.0}


def cohort(n_donors=120, n_cells=12, n_genes=150, effect=0.6, seed=0):
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.5, 2.0, (4, n_genes)) + 0.02
    donor = np.repeat(np.arange(n_donors), n_cells)
    own = np.exp(effect * rng.standard_normal((n_donors, n_genes)))
    rate = profile[rng.integers(4, size=len(donor))] * own[donor]
    rate *= 300 * rng.lognormal(0, 0.3, (len(donor), 1)) / rate.sum(1, keepdims=True)
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.obs = pd.DataFrame(
        {"donor": [f"p{d:03d}" for d in donor]}, index=[f"c{i}" for i in range(len(donor))]
    )
    adata.var_names = [f"GENE{i}" for i in range(n_genes)]
    return adata


def fit(adata, epsilon, epochs, **arguments):
    data = adata.copy()
    DPDCAN.setup_anndata(data, donor_key="donor")
    model = DPDCAN(data, target_epsilon=epsilon, **arguments)
    model.train(**QUIET, max_epochs=epochs, batch_size=16, plan_kwargs={"lr": 1e-3})
    return model


# unit, mode, architecture, canaries: at most as many as trained numbers
PLANTED = (
    ("cell", "dp", "published", 5000),
    ("cell", "frozen-decoder", "published", 5000),
    ("cell", "split", "published", 5000),
    ("donor", "dp", "published", 5000),
    ("donor", "split", "published", 5000),
    ("cell", "dp", "projected", 1000),
    ("cell", "frozen-decoder", "projected", 600),
    ("cell", "split", "projected", 1000),
)


def memberships(results, adata):
    names = np.unique(adata.obs["donor"])
    drawn = names[np.random.default_rng(1).random(len(names)) < 0.5]
    inside = adata.obs["donor"].isin(drawn).to_numpy()
    members, others = adata[inside].copy(), adata[~inside].copy()
    cases = [("twin", float("inf"), TWIN_EPOCHS, NETWORK)]
    for epsilon in (1.0, 2.0, 8.0):
        cases.append(("published network", epsilon, 10, NETWORK))
        cases.append(("projected", epsilon, 5, {}))
    done = {(r["model"], r["epsilon"]) for r in results.rows if r["what"] == "membership"}
    for name, epsilon, epochs, arguments in cases:
        shown = epsilon if np.isfinite(epsilon) else None
        if (name, shown) in done:
            continue
        model = fit(members, epsilon, epochs, **arguments)
        report = audit(model, members, others, donor_key="donor", random_split=True)
        for level in ("cell", "donor"):
            found = report.attacks["model", level]
            bound = report.bounds.get(("model", level))
            results.add(
                what="membership",
                model=name,
                epsilon=shown,
                claimed=model.epsilon,
                level=level,
                auc=found.auc,
                auc_ci95=found.auc_ci95,
                tpr_at_1_fpr=found.tpr_at_1_fpr,
                tpr_ci95=found.tpr_ci95,
                epsilon_at_least=None if bound is None else bound.epsilon,
                most_the_claim_allows=report.auc_bound,
            )


def planted(results, adata):
    cells = adata[:, :60].copy()
    done = {
        (r["unit"], r["model"], r["architecture"], r["epsilon"])
        for r in results.rows
        if r["what"] == "planted gradients"
    }
    for unit, mode, architecture, n in PLANTED:
        for epsilon in (1.0, 4.0):
            if (unit, mode, architecture, epsilon) in done:
                continue
            DPDCAN.setup_anndata(cells, donor_key="donor" if unit == "donor" else None)
            size = 144 if unit == "cell" else 12
            with cost() as spent:
                model = DPDCAN(cells, mode, target_epsilon=epsilon, architecture=architecture)
                found = model.audit_training(n, max_epochs=3, batch_size=size, **QUIET)
            results.add(
                what="planted gradients",
                unit=unit,
                model=mode,
                epsilon=epsilon,
                architecture=architecture,
                **found,
                cpu_seconds=spent.cpu_seconds,
            )


def main():
    results = Results("dpdcan_attacks", {"twin_epochs": TWIN_EPOCHS, "donors": 120, "cells": 1440})
    results.resume()
    scvi.settings.seed = 0
    adata = cohort()
    memberships(results, adata)
    planted(results, adata)


if __name__ == "__main__":
    main()
