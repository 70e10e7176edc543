"""Clusters of DPDCAN's embeddings at several epsilon, beside what else can be released.

    python benchmarks/dpdcan_utility.py [SET ...]

K-means with the true number of types on the embeddings of all cells; labels are used for scoring
alone. Rows are written one by one, and a second call goes on where the first stopped.

``dp_pca``, ``published`` and ``paper`` read the 2,000 genes with the highest mean where a set has
more (worm_neuron), chosen without noise and in their favour; DPDCAN reads all genes and chooses
within its own budget. ``published`` is whole-network DP-SGD of the published architecture with
the exact clipping that the tests compare with opacus; ``paper`` is the published partial noise, at
a nominal epsilon that it does not keep.
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import scvi
from _measure import QUIET, Results, cost, labelled
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from sczoo.model import DPDCAN
from sczoo.privacy import dp_pca
from sczoo.privacy._projection import unit_profiles

SETS = ("pbmc4k_10x", "cbmc_cite", "kang_ifnb", "worm_neuron")
OPEN = float("inf")
EPSILON = (4.0, 1.0, 2.0, 8.0, OPEN)
# of the published network: fewer steps than published, which noise likes better. Of the rates
# 5e-4 and 3e-3 the first is better at epsilon 4; without noise it takes more steps.
OPEN_STEPS = 500
STEPS, BATCH, RATE = 100, 256, 5e-4
# where dp_pca and DPDCAN are closest, five seeds more
CLOSE = ("kang_ifnb", "cbmc_cite")
# most telling first: method, values of epsilon, seeds, and sets if not all
PLAN: tuple[tuple, ...] = (
    ("dp_pca", EPSILON, (0, 1, 2)),
    ("random projection", (OPEN,), (0, 1, 2)),
    ("dp", EPSILON, (0, 1, 2)),
    ("frozen-decoder", EPSILON, (0,)),
    ("published", (4.0, 1.0), (0,)),
    ("split", EPSILON, (0,)),
    ("paper", (4.0,), (0,)),
    ("dp_pca", (4.0, 8.0), (3, 4, 5, 6, 7), CLOSE),
    ("dp", (4.0, 8.0), (3, 4, 5, 6, 7), CLOSE),
    ("published", (OPEN, 8.0, 2.0), (0,)),
    ("published, 840 steps", (4.0,), (0,), ("pbmc4k_10x",)),
    ("frozen-decoder", EPSILON, (1, 2)),
    ("split", EPSILON, (1, 2)),
    ("published", (4.0, 1.0), (1, 2)),
    ("paper", (1.0, 8.0, 2.0), (0,)),
    ("published", (8.0, 2.0), (1, 2)),
    ("paper", (4.0, 1.0, 8.0, 2.0), (1, 2)),
    ("paper", (OPEN,), (0, 1, 2)),
    ("published", (OPEN,), (1, 2)),
)


def embedding(method, adata, epsilon, seed):
    scvi.settings.seed = seed
    if method == "random projection":
        rng = np.random.default_rng(seed)
        return unit_profiles(adata.X) @ rng.standard_normal((adata.n_vars, 10)), None
    if method == "dp_pca":
        found = dp_pca(adata, epsilon=epsilon)
        return found.transform(adata), found.epsilon
    DPDCAN.setup_anndata(adata)
    arguments = {"mode": method}
    if method.startswith("published"):
        arguments = {"architecture": "published"}
    if method == "published, 840 steps":
        arguments["max_grad_norm"] = 0.1
    model = DPDCAN(adata, target_epsilon=epsilon, **arguments)
    train = {}
    if method in ("published", "paper"):
        per_epoch = max(1, round(adata.n_obs / BATCH))
        steps = STEPS if np.isfinite(epsilon) else OPEN_STEPS
        epochs = max(1, round(steps / per_epoch))
        train = {"batch_size": BATCH, "max_epochs": epochs, "plan_kwargs": {"lr": RATE}}
    elif method == "published, 840 steps":
        # the published schedule: a tenth of the cells, clipping at 0.1
        train = {
            "batch_size": adata.n_obs // 10,
            "max_epochs": 84,
            "plan_kwargs": {"lr": 1e-3},
        }
    model.train(**QUIET, **train)
    return model.get_latent_representation(), model.epsilon


def scores(latent, types):
    known = ~np.isin(types, ["unassigned", "unlabelled"])
    found = KMeans(len(set(types[known])), n_init=5, random_state=0).fit_predict(latent[known])
    return (
        adjusted_rand_score(types[known], found),
        normalized_mutual_info_score(types[known], found),
    )


def read(name, method):
    adata = labelled(name)
    adata.X = sparse.csr_matrix(adata.X)
    if adata.n_vars > 2000 and method in ("dp_pca", "published", "paper"):
        mean = np.asarray(unit_profiles(adata.X).mean(axis=0)).ravel()
        adata = adata[:, np.sort(np.argsort(-mean)[:2000])].copy()
    return adata


def main(names):
    results = Results("dpdcan_utility", {"published_steps": STEPS, "batch": BATCH, "rate": RATE})
    results.resume()
    done = {(r["set"], r["method"], r["epsilon"], r["seed"]) for r in results.rows}
    for method, values, seeds, *only in PLAN:
        for seed, epsilon, name in product(seeds, values, names):
            if (name, method, str(epsilon), seed) in done or name not in (only or [names])[0]:
                continue
            adata = read(name, method)
            types = adata.obs["cell_type"].astype(str).to_numpy()
            with cost() as spent:
                latent, claimed = embedding(method, adata, epsilon, seed)
            ari, nmi = scores(latent, types)
            results.add(
                set=name,
                method=method,
                epsilon=str(epsilon),
                seed=seed,
                ari=ari,
                nmi=nmi,
                claimed=claimed,
                cells=adata.n_obs,
                cpu_seconds=spent.cpu_seconds,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or SETS)
