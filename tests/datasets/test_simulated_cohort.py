"""The simulator against the theory of its own equations, with scipy as the oracle."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_matrix

from sczoo.datasets import _simulate, simulated_cohort

# one donor, batch, type and condition, no spread of depth: all cells have the same distribution
ALIKE = {
    "n_donors": 1,
    "n_batches": 1,
    "n_cell_types": 1,
    "conditions": ["only"],
    "n_markers": 0,
    "depth_sd": 0.0,
    "donor_sd": 0.0,
    "batch_sd": 0.0,
}


def fingerprint(adata) -> str:
    parts = [adata.X.data, adata.X.indices, adata.X.indptr.astype(np.int64)]
    digest = hashlib.sha256(b"".join(part.tobytes() for part in parts))
    digest.update(adata.obs.to_csv().encode())
    digest.update(adata.var.to_csv().encode())
    return digest.hexdigest()


def nb(mean, dispersion):
    return stats.nbinom(dispersion, dispersion / (dispersion + mean))


# --- the form of the result -------------------------------------------------------------------


def test_defaults_give_the_documented_form():
    adata = simulated_cohort()
    assert isinstance(adata.X, csr_matrix)
    assert adata.X.dtype == np.float32
    assert adata.X.has_canonical_format
    assert adata.shape == (2_000, 500)
    assert list(adata.obs) == ["donor", "batch", "cell_type", "condition"]
    levels = {column: adata.obs[column].nunique() for column in adata.obs}
    assert levels == {"donor": 6, "batch": 2, "cell_type": 5, "condition": 2}
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert (adata.X.data >= 1).all()
    assert (adata.X.data % 1 == 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n_donors=st.integers(1, 6),
    n_genes=st.integers(1, 60),
    n_cell_types=st.integers(1, 6),
    n_conditions=st.integers(1, 3),
    extra=st.integers(0, 80),
    crossed=st.booleans(),
    dropout=st.sampled_from([0.0, 0.3, 0.99]),
    dispersion=st.sampled_from([0.001, 0.5, 10.0, 1e12, np.inf]),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_any_valid_parameters_give_what_they_ask_for(
    n_donors, n_genes, n_cell_types, n_conditions, extra, crossed, dropout, dispersion, seed, data
):
    n_batches = data.draw(st.integers(1, 4 if crossed else n_donors))
    groups = n_donors * n_conditions * (n_batches if crossed else 1)
    adata = simulated_cohort(
        n_donors,
        groups + extra,
        n_genes,
        n_cell_types,
        n_batches,
        conditions=[f"c{i}" for i in range(n_conditions)],
        depth=100,
        dropout=dropout,
        dispersion=dispersion,
        batch_design="crossed" if crossed else "nested",
        seed=seed,
    )
    assert adata.shape == (groups + extra, n_genes)
    # every combination of donor, batch and condition has its even share, to within one cell
    sizes = adata.obs.groupby(["donor", "batch", "condition"], observed=True).size()
    assert len(sizes) == groups
    assert sizes.max() - sizes.min() <= 1
    assert not adata.obs.isna().any(axis=None)
    assert np.isfinite(adata.X.data).all()
    assert (adata.X.data > 0).all()
    # no gene is both a marker and a response gene, and at least half are neither
    marker, responds = adata.var["marker_of"] != "", adata.var["responds_to"] != ""
    assert not (marker & responds).any()
    assert (marker | responds).sum() <= n_genes / 2
    assert adata.var["baseline"].sum() == pytest.approx(1)


def test_batches_are_nested_or_crossed():
    nested = simulated_cohort(n_cells=300, n_donors=5, n_batches=2).obs
    assert (nested.groupby("donor", observed=True)["batch"].nunique() == 1).all()
    crossed = simulated_cohort(n_cells=300, n_donors=5, n_batches=2, batch_design="crossed").obs
    assert (crossed.groupby("donor", observed=True)["batch"].nunique() == 2).all()


def test_the_result_can_be_written_and_says_how_it_was_made(tmp_path):
    import anndata as ad

    adata = simulated_cohort(n_cells=60, n_genes=30, seed=7, dropout=0.25, dispersion=np.inf)
    adata.write_h5ad(tmp_path / "a.h5ad")
    record = ad.read_h5ad(tmp_path / "a.h5ad").uns["simulation"]
    assert record["seed"] == 7
    assert record["dropout"] == 0.25
    assert np.isinf(record["dispersion"])
    again = {key: value for key, value in record.items() if key != "conditions"}
    again = {k: v.item() if isinstance(v, np.generic) else v for k, v in again.items()}
    repeated = simulated_cohort(conditions=list(record["conditions"]), **again)
    assert fingerprint(repeated) == fingerprint(adata)


# --- the moments ------------------------------------------------------------------------------


@pytest.mark.parametrize("dispersion", [0.5, 2.0, 20.0, np.inf])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_mean_and_variance_follow_the_negative_binomial(dispersion, dropout):
    n = 20_000
    adata = simulated_cohort(
        n_cells=n, n_genes=40, depth=80, dispersion=dispersion, dropout=dropout, seed=3, **ALIKE
    )
    mean = 80 * adata.var["baseline"].to_numpy()  # the theory: mu = L p
    full = stats.poisson(mean) if np.isinf(dispersion) else nb(mean, dispersion)
    # raw moments of z * y are (1 - pi) times those of y
    raw = [1.0, *((1 - dropout) * full.moment(k) for k in (1, 2, 3, 4))]
    expected = raw[1]
    variance = raw[2] - raw[1] ** 2
    fourth = raw[4] - 4 * raw[3] * raw[1] + 6 * raw[2] * raw[1] ** 2 - 3 * raw[1] ** 4
    values = adata.X.toarray().astype(float)
    z_mean = (values.mean(axis=0) - expected) / np.sqrt(variance / n)
    z_variance = (values.var(axis=0) - variance) / np.sqrt((fourth - variance**2) / n)
    for z in (z_mean, z_variance):
        assert np.abs(z).max() < 5
        assert 0.5 < z.std() < 1.6  # scattered as sampling error is, neither more nor less
    if not np.isinf(dispersion) and not dropout:
        np.testing.assert_allclose(variance, mean + mean**2 / dispersion, rtol=1e-9)


@pytest.mark.parametrize("dispersion", [0.3, 3.0])
def test_the_whole_distribution_is_negative_binomial(dispersion):
    n = 20_000
    adata = simulated_cohort(
        n_cells=n, n_genes=10, depth=40, dispersion=dispersion, seed=11, **ALIKE
    )
    pvalues = []
    for gene, fraction in enumerate(adata.var["baseline"]):
        law = nb(40 * fraction, dispersion)
        edge = int(law.ppf(0.99)) + 1  # one last class holds the tail
        counts = np.minimum(adata.X[:, gene].toarray().ravel(), edge).astype(int)
        observed = np.bincount(counts, minlength=edge + 1)
        expected = n * np.append(law.pmf(np.arange(edge)), law.sf(edge - 1))
        pvalues.append(stats.chisquare(observed, expected).pvalue)
    assert min(pvalues) > 1e-4 / len(pvalues)


def test_depth_is_the_mean_per_batch_and_spreads_as_stated():
    adata = simulated_cohort(
        n_cells=20_000,
        n_genes=300,
        depth=[500, 3_000],
        depth_sd=0.5,
        dispersion=np.inf,
        seed=5,
    )
    totals = pd.Series(np.asarray(adata.X.sum(axis=1)).ravel(), adata.obs_names)
    for batch, depth in zip(["batch_1", "batch_2"], [500, 3_000], strict=True):
        own = totals[adata.obs["batch"] == batch]
        # Poisson totals around a log-normal: variance L + L^2 (exp(s^2) - 1)
        sd = np.sqrt(depth + depth**2 * np.expm1(0.25))
        assert abs(own.mean() - depth) < 4 * sd / np.sqrt(len(own))
        assert own.std() == pytest.approx(sd, rel=0.1)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(rate=st.floats(0.01, 0.95), seed=st.integers(0, 1_000))
def test_dropout_loses_values_at_its_rate_and_changes_no_other(rate, seed):
    options = {"n_cells": 400, "n_genes": 100, "seed": seed}
    whole = simulated_cohort(**options)
    lossy = simulated_cohort(**options, dropout=rate)
    y, x = whole.X.toarray(), lossy.X.toarray()
    assert ((x == y) | (x == 0)).all()
    pd.testing.assert_frame_equal(whole.obs, lossy.obs)
    lost = int(((x == 0) & (y > 0)).sum())
    assert stats.binomtest(lost, int((y > 0).sum()), rate).pvalue > 1e-6


def test_dropout_does_not_depend_on_the_size_of_the_count():
    options = {"n_cells": 4_000, "n_genes": 200, "seed": 2}
    y = simulated_cohort(**options).X.toarray()
    x = simulated_cohort(**options, dropout=0.3).X.toarray()
    for low, high in ((1, 1), (2, 4), (5, 10_000)):
        among = (y >= low) & (y <= high)
        lost = int((x[among] == 0).sum())
        assert stats.binomtest(lost, int(among.sum()), 0.3).pvalue > 1e-4


# --- the effects ------------------------------------------------------------------------------


def profile(adata, cells):
    """Mean of the depth-normalised profiles of some cells."""
    total = np.asarray(adata.X[cells].sum(axis=0)).ravel()
    return total / total.sum()


def test_group_profiles_are_the_softmax_of_the_effects():
    adata = simulated_cohort(
        n_cells=24_000, n_genes=40, n_donors=3, n_cell_types=2, n_batches=2, depth=2_000,
        dispersion=np.inf, donor_sd=0.5, batch_sd=0.5, batch_design="crossed", seed=9,
    )  # fmt: skip
    alpha = np.log(adata.var["baseline"].to_numpy())
    checked = 0
    for levels, group in adata.obs.groupby(list(adata.obs), observed=True):
        effect = alpha.copy()
        for column, level in zip(adata.obs, levels, strict=True):
            effect += adata.varm[f"{column}_effect"][level].to_numpy()
        expected = np.exp(effect) / np.exp(effect).sum()
        cells = adata.obs_names.get_indexer(group.index)
        observed = np.asarray(adata.X[cells].sum(axis=0)).ravel()
        # given the total, Poisson counts are multinomial with the group's profile
        assert stats.chisquare(observed, observed.sum() * expected).pvalue > 1e-5
        checked += 1
    assert checked == 3 * 2 * 2 * 2


@pytest.mark.parametrize("sd", [0.0, 0.2, 0.8])
def test_donors_differ_by_the_stated_spread(sd):
    adata = simulated_cohort(
        n_cells=6_000, n_genes=400, n_donors=6, n_cell_types=1, n_batches=1, conditions=["one"],
        depth=20_000, dispersion=np.inf, donor_sd=sd, n_markers=0, gene_sd=0.5, seed=4,
    )  # fmt: skip
    logs = np.log([
        profile(adata, np.flatnonzero(adata.obs["donor"] == donor))
        for donor in adata.obs["donor"].cat.categories
    ])  # fmt: skip
    spread = np.sqrt(logs.var(axis=0, ddof=1).mean())
    assert spread == pytest.approx(sd, rel=0.06, abs=0.01)
    truth = adata.varm["donor_effect"].to_numpy().std()
    assert truth == pytest.approx(sd, rel=0.06, abs=1e-12)


def test_markers_and_response_genes_have_their_fold_change():
    adata = simulated_cohort(
        n_cells=8_000, n_genes=300, n_donors=2, n_cell_types=3, n_batches=1, marker_fold=8,
        condition_fold=4, donor_sd=0, batch_sd=0, dispersion=np.inf, depth=5_000, seed=6,
    )  # fmt: skip
    obs, var = adata.obs, adata.var
    for kind in obs["cell_type"].cat.categories:
        own = profile(
            adata, np.flatnonzero((obs["cell_type"] == kind) & (obs["condition"] == "control"))
        )
        ratio = own / var["baseline"].to_numpy()
        neither = ((var["marker_of"] == "") & (var["responds_to"] == "")).to_numpy()
        marker = (var["marker_of"] == kind).to_numpy()
        assert marker.sum() == 20
        fold = np.median(ratio[marker]) / np.median(ratio[neither])
        assert fold == pytest.approx(8, rel=0.03)
        treated = profile(
            adata, np.flatnonzero((obs["cell_type"] == kind) & (obs["condition"] == "treated"))
        )
        responds = (var["responds_to"] == "treated").to_numpy()
        change = treated / own
        fold = np.median(change[responds]) / np.median(change[~responds])
        assert fold == pytest.approx(4, rel=0.03)


def test_composition_differs_between_donors_as_asked():
    def shares(composition):
        obs = simulated_cohort(
            n_cells=6_000, n_genes=20, n_donors=10, n_batches=1, composition=composition, seed=1
        ).obs
        return pd.crosstab(obs["donor"], obs["cell_type"], normalize="index").to_numpy()

    equal = shares(np.inf)
    assert np.abs(equal - 0.2).max() < 5 * np.sqrt(0.16 / 600)
    # Dirichlet(kappa / C): variance of a share is m (1 - m) / (kappa + 1)
    assert shares(3.0).std() == pytest.approx(np.sqrt(0.16 / 4), rel=0.25)


# --- determinism ------------------------------------------------------------------------------


def test_the_seed_decides_everything():
    options = {"n_cells": 200, "n_genes": 50}
    assert fingerprint(simulated_cohort(**options, seed=1)) == fingerprint(
        simulated_cohort(**options, seed=1)
    )
    assert fingerprint(simulated_cohort(**options, seed=1)) != fingerprint(
        simulated_cohort(**options, seed=2)
    )


@settings(max_examples=10, deadline=None, derandomize=True)
@given(state=st.integers(0, 2**32 - 1))
def test_global_random_state_is_neither_read_nor_changed(state):
    expected = fingerprint(simulated_cohort(n_cells=60, n_genes=20))
    np.random.seed(state)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    assert fingerprint(simulated_cohort(n_cells=60, n_genes=20)) == expected
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_a_fresh_process_gives_the_same_cohort():
    code = (
        "import hashlib, numpy as np, sczoo\n"
        "a = sczoo.datasets.simulated_cohort(n_cells=200, n_genes=50, dropout=0.2, seed=8)\n"
        "print(hashlib.sha256(a.X.data.tobytes() + a.X.indices.tobytes()).hexdigest())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "123"},
    )
    here = simulated_cohort(n_cells=200, n_genes=50, dropout=0.2, seed=8).X
    expected = hashlib.sha256(here.data.tobytes() + here.indices.tobytes()).hexdigest()
    assert result.stdout.strip() == expected


@pytest.mark.parametrize("dispersion", [2.0, np.inf])
def test_the_result_does_not_depend_on_the_size_of_the_blocks(monkeypatch, dispersion):
    options = {"n_cells": 157, "n_genes": 40, "dropout": 0.3, "dispersion": dispersion}
    expected = fingerprint(simulated_cohort(**options))
    original = _simulate._draw_counts
    for values in (1, 40, 1_000):
        monkeypatch.setattr(
            _simulate,
            "_draw_counts",
            lambda *args, values=values: original(*args, block_values=values),
        )
        assert fingerprint(simulated_cohort(**options)) == expected


def test_more_cells_leave_the_genes_as_they_are():
    few, many = (simulated_cohort(n_cells=n, n_genes=50) for n in (100, 1_000))
    pd.testing.assert_frame_equal(few.var, many.var)
    pd.testing.assert_frame_equal(few.varm["donor_effect"], many.varm["donor_effect"])


def test_memory_is_that_of_the_result_and_a_few_blocks(monkeypatch):
    simulated_cohort(n_cells=20, n_genes=10)  # imports are not what is measured
    original, block_values = _simulate._draw_counts, 100_000
    monkeypatch.setattr(
        _simulate, "_draw_counts", lambda *args: original(*args, block_values=block_values)
    )
    tracemalloc.start()
    adata = simulated_cohort(n_cells=5_000, n_genes=2_000, depth=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    result = adata.X.data.nbytes + adata.X.indices.nbytes
    dense = 8 * 5_000 * 2_000
    assert result < peak < result + 16 * 8 * block_values < dense / 2
