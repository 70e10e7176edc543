"""Judging small sets: against the libraries' figures, and against what must come out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score

from sczoo.base._normalise import log_normalise
from sczoo.errors import GeneOverlapError, InputError, MissingKeyError
from sczoo.model.scdd._classifiers import fit_predict, fit_scores
from sczoo.model.scdd._evaluation import (
    evaluate_distillation,
    evaluation_report,
    summarise_evaluation,
)
from sczoo.model.scdd._fidelity import fidelity, mmd
from sczoo.model.scdd._membership import (
    exact_copies,
    membership_scores,
    memorisation,
    shadow_attack,
)
from sczoo.model.scdd._selection import select_cells
from sczoo.testing._cells import example_cells

QUICK = ("lr", "knn")


@pytest.fixture
def split():
    cells = example_cells(360)
    return cells[:240].copy(), cells[240:].copy()


def value(frame, **where):
    for column, wanted in where.items():
        frame = frame[frame[column] == wanted]
    assert len(frame) == 1
    return float(frame["value"].iloc[0])


def test_utility_is_what_scikit_learn_says(split):
    train, test = split
    small = select_cells(train, "random", 8, labels_key="cell_type")
    frame = evaluate_distillation(small, test, classifiers=["lr"], fidelity=False, privacy=False)
    model = LogisticRegression(max_iter=3000, tol=1e-6, fit_intercept=False)
    model.fit(log_normalise(small.X).astype(np.float64), small.obs["cell_type"])
    found = model.predict(log_normalise(test.X))
    truth = test.obs["cell_type"]
    assert value(frame, measure="balanced_accuracy") == balanced_accuracy_score(truth, found)
    assert value(frame, measure="macro_f1") == f1_score(truth, found, average="macro")


def test_logistic_regression_has_one_answer(split):
    """A fit that ends, of a loss with a single minimum: neither order nor precision matter."""
    train, test = split
    small = select_cells(train, "pseudobulk", 2, labels_key="cell_type")
    codes = small.obs["cell_type"].cat.codes.to_numpy().astype(int)
    order = np.random.default_rng(0).permutation(small.n_obs)
    one, two = (
        fit_scores("lr", matrix, labels, [test.X])[1][0]
        for matrix, labels in (
            (small.X, codes),
            (small.X[order].astype(np.float64), codes[order]),
        )
    )
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_whole_baselines_regret_and_report(split):
    train, test = split
    small = select_cells(train, "kmedoids", 5, labels_key="cell_type")
    frame = evaluate_distillation(
        {"mine": small}, test, train=train, classifiers=QUICK, baselines=["random", "pseudobulk"]
    )
    assert set(frame["set"]) == {"whole", "mine", "random", "pseudobulk"}
    whole = frame[(frame["set"] == "whole") & (frame["measure"] == "accuracy")]
    rows = frame[(frame["set"] == "mine") & (frame["measure"] == "accuracy")]
    for row in rows.itertuples():
        same = whole[whole["classifier"] == row.classifier]["value"].iloc[0]
        assert row.reference == same
        assert row.regret == pytest.approx(whole["value"].max() - row.value)
    table = summarise_evaluation(frame)
    assert table["balanced_accuracy"].is_monotonic_decreasing
    assert table.loc["random", "exact_copies"] == 1.0
    assert table.loc["pseudobulk", "exact_copies"] == 0.0
    text = evaluation_report(frame)
    assert "Distilled is not anonymous" in text
    assert "Distilled is not anonymous" in frame.attrs["notice"]
    for name in ("whole", "mine", "random", "pseudobulk", "reference"):
        assert f"| {name} |" in text


def test_a_wrong_labelling_is_seen(split):
    """A control: with shuffled labels every classifier falls to chance."""
    train, test = split
    small = select_cells(train, "random", 10, labels_key="cell_type")
    small.obs["cell_type"] = np.random.default_rng(0).permutation(
        small.obs["cell_type"].astype(str)
    )
    frame = evaluate_distillation(small, test, fidelity=False, privacy=False)
    assert frame[frame["measure"] == "balanced_accuracy"]["value"].mean() < 0.45


@pytest.mark.parametrize("name", ["lr", "mlp", "knn", "rf"])
def test_classifiers_learn_repeat_and_leave_the_random_state(split, name):
    from sczoo.testing._quiet import random_states

    train, test = split
    codes = train.obs["cell_type"].cat.codes.to_numpy().astype(int)
    truth = test.obs["cell_type"].cat.codes.to_numpy()
    before = random_states()
    first = fit_predict(name, train.X, codes, [test.X], seed=3)[0]
    again = fit_predict(name, train.X, codes, [test.X], seed=3)[0]
    np.testing.assert_array_equal(first, again)
    assert (first == truth).mean() > 0.9
    assert np.array_equal(before[1][1], random_states()[1][1])
    # codes with gaps come back as they were
    assert set(fit_predict(name, train.X, codes * 3, [test.X])[0]) <= {0, 3, 6, 9}


@pytest.mark.slow
def test_scanvi_reads_counts(split):
    import scvi

    train, test = split
    small = select_cells(train, "random", 15, labels_key="cell_type")
    before = scvi.settings.seed
    frame = evaluate_distillation(
        small, test, classifiers=["scanvi"], fidelity=False, privacy=False
    )
    assert scvi.settings.seed == before
    assert value(frame, measure="accuracy") > 0.7


def test_cross_study_by_shared_genes(split):
    train, test = split
    small = select_cells(train, "random", 8, labels_key="cell_type")
    other = test[:, ::-1][:, :45].copy()
    frame = evaluate_distillation(
        small, test, classifiers=["lr"], cross_study={"other": other}, fidelity=False
    )
    assert value(frame, test="other", measure="accuracy") > 0.8
    other.var_names = [f"X{i}" for i in range(other.n_vars)]
    with pytest.raises(GeneOverlapError, match="'other' shares 0 genes"):
        evaluate_distillation(small, test, cross_study={"other": other}, fidelity=False)


def test_bad_arguments(split):
    train, test = split
    small = select_cells(train, "random", 5, labels_key="cell_type")
    with pytest.raises(InputError, match="'svm'"):
        evaluate_distillation(small, test, classifiers=["svm"])
    with pytest.raises(InputError, match="seed"):
        evaluate_distillation(small, test, seed=-1)
    with pytest.raises(InputError, match="'kcenter'"):
        evaluate_distillation(small, test, train=train, baselines=["kcenter"])
    one = evaluate_distillation(
        small, test, train=train, classifiers="lr", baselines="stratified", fidelity=False
    )
    assert set(one["set"]) == {"whole", "distilled", "stratified"}
    with pytest.raises(InputError, match="train="):
        evaluate_distillation(small, test, baselines=["random"])
    with pytest.raises(InputError, match="taken"):
        evaluate_distillation({"whole": small}, test)
    with pytest.raises(InputError, match="no small set"):
        evaluate_distillation({}, test)
    small.uns.clear()
    with pytest.raises(MissingKeyError, match="labels_key="):
        evaluate_distillation(small, test)


def test_mmd_is_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(0.5, 1, size=(5, 3))

    def kernel(a, b):
        d = ((a - b) ** 2).sum()
        return np.mean([np.exp(-d / (2 * s * 2.5)) for s in (0.25, 0.5, 1, 2, 4)])

    xx = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([kernel(a, b) for a in x for b in y])
    assert mmd(x, y, 2.5) == pytest.approx(xx + yy - 2 * xy, abs=1e-12)


def test_mmd_tells_distributions_apart():
    rng = np.random.default_rng(1)
    same = [mmd(rng.normal(size=(60, 4)), rng.normal(size=(60, 4))) for _ in range(20)]
    assert abs(np.mean(same)) < 0.01
    assert mmd(rng.normal(size=(60, 4)), rng.normal(1, 1, size=(60, 4))) > 0.1


def test_fidelity_of_real_cells_and_of_averages(split):
    train, test = split
    codes = [a.obs["cell_type"].cat.codes.to_numpy() for a in (train, test)]
    real = fidelity(train.X, codes[0], test.X, codes[1])
    assert abs(real["mmd"]) < 0.02
    assert real["mean_gene_r"] > 0.98
    pooled = select_cells(train, "pseudobulk", 6, labels_key="cell_type")
    dense = fidelity(pooled.X, pooled.obs["cell_type"].cat.codes.to_numpy(), test.X, codes[1])
    assert dense["zero_rate"] < real["zero_rate"]
    assert dense["n_genes_ks"] > real["n_genes_ks"]


def test_copies_are_found_whatever_the_storage(split):
    train, _ = split
    changed = train.X[3].toarray()
    changed[0, 5] += 1
    query = np.concatenate([train.X[[10, 3]].toarray(), changed])
    assert exact_copies(query, train.X).tolist() == [True, True, False]
    shuffled = sparse.csr_matrix(train.X[[10]])
    order = np.random.default_rng(0).permutation(shuffled.nnz)
    shuffled = sparse.csr_matrix(
        (shuffled.data[order], shuffled.indices[order], shuffled.indptr), shape=shuffled.shape
    )
    assert exact_copies(shuffled.astype(np.float64), train.X).tolist() == [True]


def test_memorisation_of_copies_and_of_strangers(split):
    train, test = split
    copies = memorisation(train.X[::4], train.X, test.X)
    assert copies["exact_copies"] == 1.0
    assert copies["nndr"] == pytest.approx(0.0, abs=1e-6)
    assert copies["closer_to_source"] > 0.6
    stranger = memorisation(example_cells(60, seed=5).X, train.X, test.X)
    assert stranger["exact_copies"] == 0.0
    assert stranger["nndr"] > 0.7
    assert abs(stranger["closer_to_source"] - 0.5) < 0.2
    assert abs(stranger["attack_auc"] - 0.5) < 0.12


def test_no_leak_is_seen_where_there_is_none():
    """Cells of the same kinds that know nothing of the source are as near to both."""
    rng = np.random.default_rng(0)
    profile = rng.gamma(0.3, 1.0, (4, 400)) + 0.01
    profile /= profile.sum(axis=1, keepdims=True)
    draw = lambda n: sparse.csr_matrix(
        rng.poisson(profile[np.arange(n) % 4] * 300).astype(np.float32)
    )
    found = memorisation(draw(80), draw(400), draw(100))
    assert abs(found["attack_auc"] - 0.5) < 0.1
    assert abs(found["closer_to_source"] - 0.5) < 0.15


def test_membership_scores_of_a_perfect_and_of_no_attack():
    assert membership_scores(np.ones(50), np.zeros(50)) == (1.0, 1.0)
    rng = np.random.default_rng(0)
    auc, tpr = membership_scores(rng.normal(size=4000), rng.normal(size=4000))
    assert abs(auc - 0.5) < 0.03
    assert tpr < 0.03


def test_shadow_attack_catches_copying_and_not_random_numbers(split):
    train, _ = split
    publishes = shadow_attack(train.X, lambda rows: train.X[rows], n_shadows=4)
    assert publishes["attack_auc"] > 0.99
    fixed = example_cells(40, seed=9).X
    nothing = shadow_attack(train.X, lambda rows: fixed, n_shadows=4)
    assert abs(nothing["attack_auc"] - 0.5) < 0.1
