"""Other embeddings from the same budget, beside the one that DPDCAN uses.

    python benchmarks/dpdcan_embeddings.py [SET ...]

Tried because DP-PCA is level or ahead with many cells at epsilon 4 and 8. All are post-processing
of the noisy profile and second moments, or pay for one more release out of the same budget:

``projection``
    The one in use: ten leading eigenvectors.
``half length``
    Each cell's embedding divided by the root of its length, which takes out part of the depth.
``reliability``
    Fifteen eigenvectors, each times the share of it that noise leaves by theory.
``kept length``
    Ten eigenvectors; a cell's deviation from the noisy profile keeps its length in the embedding.
``kept length, weighted``
    Fifteen, each divided by the fourth root of its eigenvalue, from which the noise is taken off.
``rescaled``
    Ten eigenvectors; three noisy rounds of k-means with 20 centres and the noisy scatter within
    clusters, for 6 % of the budget; the inverse fourth root of the scatter is applied.
``rescaled, reliability``
    Fifteen eigenvectors, 15 % of the budget, the inverse root of the scatter, then reliability.

Not one was kept. The settings were chosen on pbmc3k, pbmc_facs_zheng and baron_mouse; those with
kept lengths also on baron_human, mouse_bladder, camp_cortex and segerstolpe.
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
from _measure import Results, cost, labelled
from dpdcan_utility import CLOSE, SETS, scores
from scipy import sparse
from scipy.linalg import eigh

from sczoo.model.dpdcan._centres import cluster_sums
from sczoo.model.dpdcan._run import PROFILE, PROJECTION, default_delta, plan_run
from sczoo.privacy import NoiseSource, PrivacyLedger
from sczoo.privacy._projection import _choose, _to_unit, unit_profiles

TUNING = ("pbmc3k", "pbmc_facs_zheng", "baron_mouse")
EPSILON, SEEDS, CENTRES, ROUNDS = (4.0, 8.0), (0, 1, 2), 20, 3


def planned(n, epsilon):
    run = plan_run(
        mode="dp", unit="cell", n_units=n, rate=min(1.0, 1024 / n), n_steps=24, rows_per_unit=1,
        target_epsilon=epsilon, delta=default_delta(n), noise_multiplier=None, max_grad_norm=0.5,
        needs_projection=True, n_clusters=0, ledger=PrivacyLedger(), source=None,
    )  # fmt: skip
    return run.noise[PROFILE], run.noise[PROJECTION]


def within_clusters(z, sigma, source, power):
    """Noisy k-means and scatter within clusters; the inverse power of the scatter."""
    centres = source.normal((CENTRES, z.shape[1]), np.float64)
    centres *= 0.3 / np.linalg.norm(centres, axis=1, keepdims=True)
    scale = np.sqrt(2.0) * sigma
    for _ in range(ROUNDS):
        sums = cluster_sums(z, np.ones(len(z)), centres)
        sums += scale * source.normal(sums.shape, np.float64)
        known = sums[:, -1] > max(5.0, 3 * scale)
        centres[known] = sums[known, :-1] / sums[known, -1:]
        beside = 0.1 * source.normal((int((~known).sum()), z.shape[1]), np.float64)
        centres[~known] = centres[known][source.integers(known.sum(), (~known).sum())] + beside
    member = np.square(z[:, None] - centres).sum(-1).argmin(1)
    rest = z - centres[member]
    rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1.0)
    values, vectors = np.linalg.eigh(rest.T @ rest + sigma * source.symmetric(z.shape[1]))
    values = np.maximum(values / values.max(), 0.1)
    return z @ (vectors * values**power) @ vectors.T


def moments(adata, epsilon, share, source):
    """Embed in 15 eigenvectors.

    Also gives their reliability, the noise of one further release, the lengths of the cells'
    deviations, and the eigenvalues less the noise.
    """
    unit = unit_profiles(adata.X).astype(np.float64)
    n = unit.shape[0]
    first, second = planned(n, epsilon)
    wider = second / np.sqrt(1 - share)
    profile = np.asarray(unit.sum(axis=0)).ravel()
    profile = (profile + first * source.normal(len(profile), np.float64)) / n
    chosen = _choose(profile, n, wider)
    deviation = unit[:, chosen].toarray() - profile[chosen]
    r = _to_unit(deviation)
    size = len(chosen)
    values, vectors = eigh(
        r.T @ r + wider * source.symmetric(size), subset_by_index=[size - 15, size - 1]
    )
    # a spiked matrix of noise: what is left of a direction
    half = wider * np.sqrt(2 * size) / 2
    root = np.sqrt(np.maximum(values**2 - 4 * half**2, 0.0))
    spike = np.where(values > 2 * half, (values + root) / 2, half)
    reliability = 1 - (half / spike) ** 2
    paid = second * np.sqrt((ROUNDS + 1) / share) if share else None
    length = np.linalg.norm(deviation, axis=1, keepdims=True)
    return r @ vectors[:, ::-1], reliability[::-1], paid, length, spike[::-1]


def variants(adata, epsilon, seed):
    z, reliability, _, length, spread = moments(adata, epsilon, 0.0, known(seed))
    ten = z[:, :10]
    yield "projection", ten
    yield "half length", ten / np.sqrt(np.linalg.norm(ten, axis=1, keepdims=True))
    yield "reliability", z * reliability
    yield "kept length", ten * length
    yield "kept length, weighted", z * length / spread**0.25
    source = known(seed)
    z, _, paid, *_ = moments(adata, epsilon, 0.06, source)
    yield "rescaled", within_clusters(z[:, :10], paid, source, -0.25)
    source = known(seed)
    z, reliability, paid, *_ = moments(adata, epsilon, 0.15, source)
    yield "rescaled, reliability", within_clusters(z, paid, source, -0.5) * reliability


def known(seed):
    """Return noise that can be repeated: nothing here is released."""
    return NoiseSource(_generator=np.random.default_rng(seed))


def main(names):
    results = Results("dpdcan_embeddings", {"centres": CENTRES, "rounds": ROUNDS})
    results.resume()
    done = {(r["set"], r["epsilon"], r["seed"]) for r in results.rows}
    for seed, epsilon, name in product(SEEDS, EPSILON, names):
        if (name, epsilon, seed) in done:
            continue
        adata = labelled(name)
        adata.X = sparse.csr_matrix(adata.X)
        types = adata.obs["cell_type"].astype(str).to_numpy()
        rows = []
        with cost() as spent:
            for variant, z in variants(adata, epsilon, seed):
                ari, nmi = scores(z, types)
                rows.append({"variant": variant, "ari": ari, "nmi": nmi})
        for row in rows:  # all of a seed or none
            results.add(set=name, epsilon=epsilon, seed=seed, **row, cpu_seconds=spent.cpu_seconds)


if __name__ == "__main__":
    main(sys.argv[1:] or tuple(dict.fromkeys((*CLOSE, *SETS, *TUNING))))
