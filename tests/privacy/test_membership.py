"""Attacks against their definitions, on models, on synthetic cells, ours or not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import roc_auc_score

from sczoo.errors import GeneOverlapError, InputError
from sczoo.privacy import (
    advantage_bound,
    audit,
    donor_scores,
    dp_pca,
    membership,
    nearest_synthetic,
)
from sczoo.testing._cells import example_cells


def test_auc_and_tpr_are_those_of_the_definitions():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0.7, 1, 400).round(1), rng.normal(0, 1, 300).round(1)
    found = membership(inside, outside)
    truth = np.repeat([1, 0], [400, 300])
    assert found.auc == pytest.approx(roc_auc_score(truth, np.concatenate([inside, outside])))
    accused = outside > np.sort(outside)[-1 - 3]
    assert accused.mean() <= 0.01
    assert found.tpr_at_1_fpr == (inside > np.sort(outside)[-1 - 3]).mean()
    assert found.auc_ci95[0] < found.auc < found.auc_ci95[1]
    assert (found.n_members, found.n_others) == (400, 300)


def test_intervals_cover_the_truth():
    # AUC of two normals one apart is known
    from scipy.stats import norm

    rng, truth = np.random.default_rng(1), norm.cdf(1 / np.sqrt(2))
    covered = 0
    for seed in range(40):
        found = membership(rng.normal(1, 1, 80), rng.normal(0, 1, 80), n_bootstrap=200, seed=seed)
        covered += found.auc_ci95[0] <= truth <= found.auc_ci95[1]
    assert covered >= 33


def test_intervals_of_cells_know_that_donors_come_whole():
    """Chance scores that donors share: an interval for single cells would call it an attack."""
    rng = np.random.default_rng(0)
    donors = np.repeat(np.arange(20), 50)
    wrong, wrong_if_single = 0, 0
    for trial in range(40):
        score = rng.standard_normal(40).repeat(50) + 0.3 * rng.standard_normal(2000)
        inside, outside = score[:1000], score[1000:]
        options = {"n_bootstrap": 100, "seed": trial}
        low, high = membership(inside, outside, groups=(donors, donors), **options).auc_ci95
        wrong += not low <= 0.5 <= high
        low, high = membership(inside, outside, **options).auc_ci95
        wrong_if_single += not low <= 0.5 <= high
    assert wrong <= 6 < 20 < wrong_if_single
    with pytest.raises(InputError, match="names 3 units"):
        membership(inside, outside, groups=(donors[:3], donors))


def test_the_audit_draws_donors_whole():
    cells = example_cells(400, seed=5)
    cells.obs["donor"] = [f"p{i % 20}" for i in range(400)]
    number = cells.obs["donor"].str[1:].astype(int).to_numpy()
    own = np.random.default_rng(1).standard_normal(20)
    score = lambda adata: own[adata.obs["donor"].str[1:].astype(int)]
    parts = cells[number < 10].copy(), cells[number >= 10].copy()
    by_cell = audit(score, *parts).attacks["model", "cell"].auc_ci95
    by_donor = audit(score, *parts, donor_key="donor").attacks["model", "cell"].auc_ci95
    assert by_donor[1] - by_donor[0] > 2 * (by_cell[1] - by_cell[0])


def test_a_claim_for_synthetic_cells_is_contradicted_too():
    rng = np.random.default_rng(3)
    cells = example_cells(600, seed=5)
    drawn = rng.random(600) < 0.5
    members, others = cells[drawn].copy(), cells[~drawn].copy()
    claim = {"epsilon": 0.5, "delta": 1e-5}
    report = audit(members.copy(), members, others, random_split=True, **claim)
    assert report.bounds["synthetic", "cell"].epsilon > 1
    assert report.contradicted
    assert "CONTRADICTED" in report.card_block()["claim"]
    # without coins there is no bound, and nothing was put to the test
    untested = audit(members.copy(), members, others, **claim)
    assert not untested.contradicted
    assert "not tested" in untested.card_block()["claim"]
    with pytest.raises(InputError, match="without a delta"):
        audit(members.copy(), members, others, epsilon=0.5)


def test_the_claim_bounds_every_auc():
    assert advantage_bound(0.0, 0.0) == pytest.approx(0.5, abs=1e-4)
    assert advantage_bound(50.0, 0.0) == pytest.approx(1.0, abs=1e-3)
    # randomised response is the worst case of pure epsilon: ROC through one corner
    epsilon = 1.3
    corner = 1 / (1 + np.exp(epsilon))
    assert advantage_bound(epsilon, 0.0) == pytest.approx(1 - corner, abs=1e-12)
    # a bound is not below what it bounds: at large epsilon one minus it is tiny
    assert 1 - advantage_bound(20.0, 0.0) == pytest.approx(np.exp(-20.0), rel=1e-6)
    for epsilon, delta in ((0.0, 0.1), (0.5, 0.01), (3.0, 1e-3)):
        fpr = np.linspace(0, 1, 200_001)
        grow = np.exp(epsilon)
        tpr = np.minimum(np.minimum(1, grow * fpr + delta), 1 - (1 - delta - fpr) / grow)
        curve = np.trapezoid(np.minimum(tpr, 1), fpr)
        assert advantage_bound(epsilon, delta) == pytest.approx(curve, abs=1e-9)


def test_donor_scores_average_their_cells():
    scores, names = donor_scores([1.0, 3.0, 5.0], ["b", "a", "b"])
    np.testing.assert_allclose(scores, [3.0, 3.0])
    assert names.tolist() == ["a", "b"]


def test_copied_cells_leak_and_others_do_not():
    cells = example_cells(300, seed=4)
    members, others = cells[:150].copy(), cells[150:].copy()
    copied = members[:100].copy()
    scores = nearest_synthetic(copied, members)
    np.testing.assert_allclose(scores[:100], 1.0, atol=1e-5)
    report = audit(copied, members, others)
    assert report.attacks["synthetic", "cell"].auc > 0.75
    independent = audit(example_cells(100, seed=9), members, others)
    low, high = independent.attacks["synthetic", "cell"].auc_ci95
    assert low < 0.5 < high


def test_nearness_is_the_largest_cosine():
    rng = np.random.default_rng(0)
    left, right = AnnData(rng.random((7, 20))), AnnData(sparse.csr_matrix(rng.random((5, 20))))
    found = nearest_synthetic(left, right, normalise=False)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = (unit(right.X.toarray()) @ unit(left.X).T).max(1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    left.var_names = [f"other{i}" for i in range(20)]
    with pytest.raises(GeneOverlapError, match="gene names"):
        nearest_synthetic(left, right, normalise=False)


def test_a_lookup_table_is_found_out_and_its_epsilon_bounded():
    """A target that remembers its members, scored by a function: somebody else's model."""
    rng = np.random.default_rng(3)
    cells = example_cells(600, seed=5)
    drawn = rng.random(600) < 0.5
    members, others = cells[drawn].copy(), cells[~drawn].copy()
    known = set(members.obs_names)
    report = audit(
        lambda adata: [name in known for name in adata.obs_names],
        members,
        others,
        random_split=True,
        epsilon=1.0,
        delta=1e-5,
        unit="cell",
    )
    assert report.attacks["model", "cell"].auc == 1.0
    assert report.bounds["model", "cell"].epsilon > 3
    assert report.contradicted
    assert "CONTRADICTED" in report.card_block()["claim"]
    json.dumps(report.as_dict())
    assert "chance" in set(report.table["subject"])
    assert report.auc_bound < 0.75


def test_any_model_of_scvi_tools_can_be_audited():
    import scvi

    cells = example_cells(120, seed=6)
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, n_hidden=8, n_latent=2)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    members, others = cells[:60].copy(), cells[60:].copy()
    report = audit(model, members, others)
    assert 0 <= report.attacks["model", "cell"].auc <= 1
    assert report.notes  # no coins, no bound


def test_what_cannot_be_audited_is_refused():
    cells = example_cells(60)
    with pytest.raises(InputError, match="Split by donor"):
        audit(lambda a: np.zeros(a.n_obs), cells[:30].copy(), cells[30:].copy(), donor_key="donor")
    with pytest.raises(InputError, match="neither a model"):
        audit(object(), cells[:30].copy(), cells[30:].copy())
    with pytest.raises(InputError, match="AnnData"):
        audit(lambda a: a, cells.X, cells)


def test_dp_pca_is_pca_without_noise_and_calibrated_with():
    cells = example_cells(400, seed=7)
    exact = dp_pca(cells, 4, epsilon=float("inf"))
    assert exact.epsilon is None
    x = np.log1p(1e4 * cells.X.toarray() / cells.X.sum(1))
    x = np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True)
    _, _, vt = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.diag(vt[:4] @ exact.components)), 1, atol=1e-5)
    np.testing.assert_allclose(exact.transform(cells), x @ exact.components, atol=1e-5)
    from sczoo.privacy import PrivacyLedger

    noisy = dp_pca(cells, 4, epsilon=2.0, delta=1e-5)
    ledger = PrivacyLedger()
    ledger.spend(noisy.noise_multiplier)
    assert ledger.epsilon(1e-5) == pytest.approx(2.0, rel=0.01)
    again = dp_pca(cells, 4, epsilon=2.0, delta=1e-5)
    assert not np.allclose(noisy.components, again.components)


def test_dp_pca_one_cell_changes_its_matrix_by_at_most_one():
    from sczoo.privacy._projection import unit_profiles

    cells = example_cells(50, seed=8)
    lengths = np.linalg.norm(unit_profiles(cells.X).toarray().astype(np.float64), axis=1)
    assert (lengths <= 1).all()
    assert (lengths > 0.999).all()


def test_dp_pca_refuses_genes_that_were_chosen_on_the_cells():
    from sczoo.errors import PrivacyError

    cells = example_cells(80, seed=8)
    cells.var["highly_variable"] = True
    with pytest.raises(PrivacyError, match="chosen on these cells"):
        dp_pca(cells, 3)
    assert dp_pca(cells, 3, acknowledge=["gene_list"]).epsilon == 4.0
    with pytest.raises(PrivacyError, match="positive number"):
        dp_pca(cells, 3, epsilon="four", acknowledge=["gene_list"])


def test_dp_pca_of_donors():
    from sczoo.errors import PrivacyError

    cells = example_cells(80, seed=8)
    found = dp_pca(cells, 3, epsilon=4.0, donor_key="donor")
    assert found.unit == "donor"
    cells.obs["donor"] = "one"
    with pytest.raises(PrivacyError, match="one donor"):
        dp_pca(cells, 3, donor_key="donor")
    with pytest.raises(PrivacyError, match="1/n"):
        dp_pca(cells, 3, delta=0.1)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_dp_pca_of_impossible_epsilon(epsilon):
    from sczoo.errors import PrivacyError

    with pytest.raises(PrivacyError, match="positive number"):
        dp_pca(example_cells(80, seed=8), 3, epsilon=epsilon)
