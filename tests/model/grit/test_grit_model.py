"""GRIT as a user meets it: labels, confidence, new cells, saving, bad input."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import sczoo
from sczoo import hub
from sczoo.errors import (
    InputError,
    MissingKeyError,
    NotFiniteError,
    NotTrainedError,
    TooFewCellsError,
)
from sczoo.model import GRIT
from sczoo.model.grit._graph import agreement, build_graph
from sczoo.model.grit._guard import inspect_refinement
from sczoo.model.grit._rare import measure_shrinkage
from sczoo.model.grit._refinement import Settings, refine_scores
from sczoo.model.grit.scorers import attach_scores, marker_table

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
TYPES = ["B cell", "CD14 monocyte", "naive CD4 T cell", "natural killer cell"]


def simulated(sizes=(60, 50, 40, 50), *, seed=0, noise=2.0, n_other=60):
    """Draw cells of four blood types whose markers are high in their own type."""
    rng = np.random.default_rng(seed)
    table = marker_table()
    genes = sorted({g for name in TYPES for g in table[name].genes["human"]})
    genes += [f"OTHER{n}" for n in range(n_other)]
    profile = np.random.default_rng(99).gamma(1.0, 1.0, (len(TYPES), len(genes)))
    profile[:, : len(genes) - n_other] = 0.4
    for row, name in enumerate(TYPES):
        profile[row, [genes.index(g) for g in table[name].genes["human"]]] = 0.4 + 1.0 / noise
    kind = np.repeat(np.arange(len(TYPES)), sizes)
    adata = AnnData(sparse.csr_matrix(rng.poisson(profile[kind]).astype(np.float32)))
    adata.var_names = genes
    adata.obs_names = [f"cell-{seed}-{n}" for n in range(adata.n_obs)]
    adata.obs["truth"] = pd.Categorical(np.asarray(TYPES)[kind])
    return adata


def fitted(adata=None, *, setup=None, **kwargs):
    adata = simulated() if adata is None else adata
    GRIT.setup_anndata(adata, **(setup or {}))
    if setup is None or "logits_key" not in setup:
        kwargs = {"classes": TYPES} | kwargs
    model = GRIT(adata, **kwargs)
    model.train(**QUIET)
    return model


def accuracy(labels, adata):
    return float((np.asarray(labels) == adata.obs["truth"].to_numpy()).mean())


@pytest.fixture(scope="module")
def model():
    return fitted()


# --- labels ---


def test_refined_labels_are_right_more_often(model):
    raw, refined = model.predict(raw=True), model.predict()
    assert accuracy(refined, model.adata) > accuracy(raw, model.adata) + 0.1
    assert set(refined) <= set(TYPES)
    flow = model.get_label_flow()
    assert int(flow.to_numpy().sum()) == model.adata.n_obs
    table = model.get_confidence()
    off = flow.to_numpy().sum() - np.trace(flow.to_numpy())
    assert int(table["changed"].sum()) == off
    assert (table["raw_label"].to_numpy() == raw).all()


def test_shuffled_graph_does_not_gain():
    adata = simulated()
    real = accuracy(fitted(adata).predict(), adata)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    graph = fitted(simulated()).refine().graph
    shuffled = simulated()
    shuffled.obsp["shuffled"] = graph[order][:, order]
    control = fitted(shuffled, setup={"connectivities_key": "shuffled"})
    raw = accuracy(control.predict(raw=True), shuffled)
    assert accuracy(control.predict(), shuffled) < raw + 0.02 < real


def test_history_has_the_residuals_of_the_solver(model):
    residuals = model.history["residual"]["residual"].to_numpy()
    assert residuals[-1] <= 1e-5 < residuals[0]
    assert len(residuals) > 3
    before, after = model.refine().energy()
    assert before == 1
    assert after < 0.7


def test_soft_predictions_are_probabilities(model):
    soft = model.predict(soft=True)
    assert list(soft.columns) == TYPES
    assert np.allclose(soft.sum(1), 1, atol=1e-5)
    assert (soft.to_numpy() >= 0).all()
    assert (soft.to_numpy().argmax(1) == model.refine().codes).all()


def test_another_strength_reuses_the_graph(model, monkeypatch):
    monkeypatch.setattr("sczoo.model.grit._query.build_graph", None)
    weak, strong = model.refine(lam=0.0), model.refine(lam=10.0)
    assert np.array_equal(weak.refined, weak.raw)
    assert strong.energy()[1] < model.refine().energy()[1]
    with pytest.raises(InputError, match="no setting 'lamda'"):
        model.refine(lamda=3)


@pytest.mark.parametrize(
    "changed",
    [
        {"laplacian": "sym"},
        {"laplacian": "comb"},
        {"weights": "binary"},
        {"weights": "gaussian"},
        {"weights": "mutual", "n_neighbors": 30},
        {"confidence_weighted": True},
        {"ontology_weight": 0.5},
        {"space": "prob"},
        {"keep_rare": False},
        {"n_components": 5},
    ],
)
def test_every_option_refines(changed):
    adata = simulated()
    model = fitted(adata, **changed)
    assert accuracy(model.predict(), adata) > accuracy(model.predict(raw=True), adata) + 0.05


def test_ontology_coupling_draws_close_types_together():
    adata = simulated()
    names = ["naive CD4 T cell", "B cell", "CD14 monocyte", "natural killer cell"]
    plain, coupled = (
        fitted(adata, classes=names, ontology_weight=w).refine().refined for w in (0.0, 3.0)
    )
    # lymphocytes are closer to one another than to monocytes
    gap = lambda f, a, b: np.abs(f[:, names.index(a)] - f[:, names.index(b)]).mean()
    lymph = gap(coupled, names[0], "B cell") / gap(plain, names[0], "B cell")
    mono = gap(coupled, names[0], "CD14 monocyte") / gap(plain, names[0], "CD14 monocyte")
    assert lymph < mono


# --- abstention, parents, rare types, guard ---


def test_coverage_is_what_was_asked_for_and_the_rest_is_unknown(model):
    n_cells = model.adata.n_obs
    truth = model.adata.obs["truth"].to_numpy()
    right = []
    for coverage in (1.0, 0.8, 0.5):
        labels = model.predict(coverage=coverage, unknown="?")
        known = labels != "?"
        assert known.sum() == round(coverage * n_cells)
        right.append((labels[known] == truth[known]).mean())
    assert right[2] >= right[1] >= right[0]
    for wrong in (0, 1.1, "half", True, np.nan):
        with pytest.raises(InputError, match="coverage"):
            model.predict(coverage=wrong)


def test_parents_are_as_specific_as_the_probabilities_allow():
    classes = ("naive CD4 T cell", "naive CD8 T cell", "B cell", "mine")
    terms = {n: marker_table()[n].term for n in classes[:3]}
    chance = np.array(
        [
            [0.9, 0.05, 0.05, 0.0],
            [0.45, 0.45, 0.1, 0.0],
            [0.3, 0.2, 0.5, 0.0],
            [0.3, 0.1, 0.1, 0.5],
            [0.0, 0.0, 0.1, 0.9],
        ],
        dtype=np.float32,
    )
    graph = sparse.csr_matrix((5, 5))
    result = refine_scores(chance, classes, graph, Settings(lam=0), probability=True, terms=terms)
    table = result.back_off(0.8)
    assert table["label"].iloc[0] == "naive CD4 T cell"
    assert "T cell" in table["label"].iloc[1]
    assert "lymphocyte" in table["label"].iloc[2]
    assert list(table["label"])[3:] == ["unknown", "mine"]
    assert np.allclose(table["probability"].iloc[:3], [0.9, 0.9, 1.0], atol=1e-5)
    with pytest.raises(InputError, match="threshold"):
        result.back_off(0)


@given(st.integers(0, 2**16), st.floats(0.3, 0.95))
@settings(max_examples=25, deadline=None)
def test_parents_are_probable_enough_and_nothing_deeper_is(seed, threshold):
    from sczoo.model.grit.ontology import cell_ontology

    names = list(marker_table())[:12]
    terms = {name: marker_table()[name].term for name in names}
    chance = np.random.default_rng(seed).dirichlet(np.full(12, 0.2), 20).astype(np.float32)
    result = refine_scores(
        chance,
        tuple(names),
        sparse.csr_matrix((20, 20)),
        Settings(lam=0),
        probability=True,
        terms=terms,
    )
    table = result.back_off(threshold)
    ontology = cell_ontology()
    assert (table["probability"] >= threshold - 1e-6).all()
    for cell, (term, p) in enumerate(zip(table["term"], chance, strict=True)):
        inside = [i for i, n in enumerate(names) if term in ontology.ancestors(terms[n])]
        label, stated = table["label"].iloc[cell], table["probability"].iloc[cell]
        # a class may be named like its term: then alone, or with all kinds of it
        alone = label in names and abs(p[names.index(label)] - stated) < 1e-5
        assert alone or abs(p[inside].sum() - stated) < 1e-5
        # no class is probable enough where a parent was named
        assert label in names or p.max() < threshold


def test_a_small_group_is_not_swallowed():
    """Twelve cells of a rare type in a sea of a large one, with honest but noisy scores."""
    kept, lost = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        kind = np.repeat([0, 1, 2], [200, 188, 12])
        points = rng.normal(size=(400, 5)) * 0.6
        points[kind == 1, 0] += 6
        points[kind == 2, 1] += 2.2
        graph = build_graph(points.astype(np.float32), 15)
        scores = (np.eye(3)[kind] + rng.normal(0, 0.35, (400, 3))).astype(np.float32)
        names = ("a", "b", "c")
        with_it = refine_scores(scores, names, graph, Settings(), probability=False)
        plain = Settings(keep_rare=False)
        without = refine_scores(scores, names, graph, plain, probability=False)
        signal = with_it.shrinkage["signal_kept"]
        assert signal["c"] < signal["a"]
        kept.append((with_it.codes[kind == 2] == 2).sum())
        lost.append((without.codes[kind == 2] == 2).sum())
        assert (with_it.codes == kind).mean() > (without.codes == kind).mean() - 0.02
    assert sum(kept) >= sum(lost)


def test_scattered_labels_are_not_taken_for_a_rare_type():
    rng = np.random.default_rng(0)
    graph = build_graph(rng.normal(size=(300, 4)).astype(np.float32), 15)
    scores = np.zeros((300, 3), np.float32)
    scores[:, 0] = 1
    scores[rng.choice(300, 15, replace=False), 2] = 2
    table = measure_shrinkage(scores, scores * 0.9, graph, ("a", "b", "c"))
    assert np.allclose(table["factor"], 1)
    assert table.loc["c", "coherence"] < 0.2


def drained(seed=0):
    """Probabilities that are wrong for whole neighbourhoods: a few cells of each class only."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(4), 75)
    points = (np.eye(4)[kind] * 6 + rng.normal(size=(300, 4))).astype(np.float32)
    logits = rng.normal(0, 1, (300, 4))
    logits[:, 0] += 1.0  # one class attracts all
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return build_graph(points, 15), chance.astype(np.float32)


def test_guard_refuses_to_drain_classes_and_says_so(caplog):
    graph, chance = drained()
    names = ("a", "b", "c", "d")
    refused = refine_scores(chance, names, graph, Settings(), probability=True)
    assert refused.guard.collapsed
    assert refused.guard.refused
    assert np.array_equal(refused.refined, chance)
    assert "drains classes" in refused.warnings[0]
    warned = refine_scores(chance, names, graph, Settings(guard="warn"), probability=True)
    assert not np.array_equal(warned.refined, chance)
    assert "drains classes" in warned.warnings[0]
    silent = refine_scores(chance, names, graph, Settings(guard="off"), probability=True)
    assert silent.warnings == ()


def test_guard_says_when_neighbours_disagree():
    graph, _ = drained()
    scores = np.random.default_rng(1).normal(size=(300, 6)).astype(np.float32)
    report = inspect_refinement(scores, scores, graph, probability=False)
    assert report.agreement < 0.3
    assert "Neighbours have the same raw label" in report.warnings[0]


def test_warnings_are_logged_in_training(caplog):
    adata = simulated()
    values = np.random.default_rng(0).normal(size=(adata.n_obs, 5)).astype(np.float32)
    attach_scores(adata, values, list("abcde"))
    with caplog.at_level(logging.WARNING):
        fitted(adata, setup={"logits_key": "X_scores"})
    assert "Neighbours have the same raw label" in caplog.text


def test_types_that_cannot_be_scored_are_said_once(caplog):
    adata = simulated()
    lost = marker_table()["B cell"].genes["human"]
    adata = adata[:, [g for g in adata.var_names if g not in lost]].copy()
    GRIT.setup_anndata(adata)
    with caplog.at_level(logging.WARNING), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GRIT(adata, tissue="blood")
        model.train(**QUIET)
    told = [str(w.message) for w in caught if "label of another type" in str(w.message)]
    assert len(told) == 1
    assert "B cell" in told[0]
    assert told[0] not in caplog.text
    model.annotate(adata)
    assert told[0] in adata.uns["sczoo"]["grit"]["warnings"]


def test_b_cells_are_called_where_one_of_their_markers_was_measured():
    adata = sczoo.datasets.kang_ifnb_demo()
    adata = adata[np.random.default_rng(0).permutation(adata.n_obs)[:1500]].copy()
    truth = (adata.obs["cell_type"] == "B cells").to_numpy()
    GRIT.setup_anndata(adata)
    with pytest.warns(UserWarning, match="B cell: scored by CD79A alone"):
        model = GRIT(adata, tissue="blood")
    model.train(**QUIET)
    called = model.predict() == "B cell"
    assert called[truth].mean() > 0.5
    assert truth[called].mean() > 0.95


# --- scores of other models, embeddings, graphs, batches ---


def with_scores(seed=0):
    adata = simulated(seed=seed)
    rng = np.random.default_rng(seed)
    truth = pd.Categorical(adata.obs["truth"], categories=TYPES).codes
    logits = 2 * np.eye(4)[truth] + rng.normal(0, 1.6, (adata.n_obs, 4))
    adata.obsm["X_model"] = pd.DataFrame(logits, adata.obs_names, TYPES)
    return adata


def test_scores_of_another_model_are_refined():
    adata = with_scores()
    model = fitted(adata, setup={"logits_key": "X_model"})
    assert model.classes == TYPES
    assert accuracy(model.predict(), adata) > accuracy(model.predict(raw=True), adata) + 0.1
    new = with_scores(seed=4)
    assert accuracy(model.predict(new), new) > accuracy(model.predict(new, raw=True), new) + 0.1
    del new.obsm["X_model"]
    with pytest.raises(MissingKeyError, match="'X_model'"):
        model.predict(new)


def test_probabilities_stay_probabilities():
    adata = with_scores()
    logits = adata.obsm["X_model"].to_numpy()
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    attach_scores(adata, chance, TYPES, key="X_chance")
    result = fitted(adata, setup={"logits_key": "X_chance"}, keep_rare=False).refine()
    assert result.probability
    assert np.allclose(result.refined.sum(1), 1, atol=1e-4)
    assert np.allclose(result.probabilities(), result.refined, atol=1e-4)


def test_expression_is_not_read_where_scores_and_embedding_are_given():
    adata = with_scores()
    adata.obsm["X_emb"] = np.random.default_rng(0).normal(size=(adata.n_obs, 4))
    adata.X = adata.X.toarray() - 1.0  # scaled values, as many keep them in X
    model = fitted(adata, setup={"logits_key": "X_model", "use_rep": "X_emb"})
    other = adata[:, ::-1][:, :20].copy()
    assert np.array_equal(model.predict(other), model.predict())
    del other.obsm["X_emb"]
    with pytest.raises(MissingKeyError, match="'X_emb'"):
        model.predict(other)


def test_a_given_graph_is_used():
    adata = with_scores()
    n = adata.n_obs
    adata.obsp["mine"] = sparse.csr_matrix((n, n))
    model = fitted(adata, setup={"logits_key": "X_model", "connectivities_key": "mine"})
    # without an edge nothing changes
    assert np.array_equal(model.refine().raw, model.refine().refined)
    stranger = with_scores(seed=2)
    for graph in ("own", "model"):
        with pytest.raises(MissingKeyError, match="'mine'"):
            model.predict(stranger, graph=graph)


def test_batches_share_the_neighbours_out():
    rng = np.random.default_rng(0)
    batch = np.repeat([0, 1, 2], [100, 60, 12])
    points = rng.normal(size=(172, 5)).astype(np.float32)
    points[:, 0] += 50 * batch  # a batch effect without overlap
    across = lambda graph: batch[graph.nonzero()[0]] != batch[graph.nonzero()[1]]
    assert across(build_graph(points, 15)).mean() < 0.05
    balanced = build_graph(points, 15, batches=batch)
    assert across(balanced).mean() > 0.5
    assert balanced.diagonal().sum() == 0
    adata = simulated()
    adata.obs["kit"] = np.resize(["one", "two"], adata.n_obs)
    model = fitted(adata, setup={"batch_key": "kit"})
    kit = adata.obs["kit"].to_numpy()
    rows, columns = model.refine().graph.nonzero()
    assert (kit[rows] != kit[columns]).mean() > 0.4
    new = simulated(seed=7)
    new.obs["kit"] = np.resize(["three", "four"], new.n_obs)
    rows, columns = model.refine(new, batch_key="kit").graph.nonzero()
    kit = new.obs["kit"].to_numpy()
    assert (kit[rows] != kit[columns]).mean() > 0.4
    with pytest.raises(MissingKeyError, match="'no_such'"):
        model.refine(new, batch_key="no_such")


# --- new cells, saving, publishing ---


def test_new_cells_have_their_own_graph_and_a_view_equals_its_copy(model):
    new = simulated(seed=3)
    labels = model.predict(new)
    assert accuracy(labels, new) > accuracy(model.predict(new, raw=True), new) + 0.1
    assert np.array_equal(model.predict(new, indices=[5, 2, 2]), labels[[5, 2, 2]])
    view = new[20:120]
    assert np.array_equal(model.get_refined_scores(view), model.get_refined_scores(view.copy()))


def codes_of(folder, model):
    """What the gate finds, besides names of cell types of the marker table."""
    found = {finding.code for finding in hub.inspect(folder, model).findings}
    return found - {"categories:truth"}


def test_a_saved_model_labels_new_cells_alike_and_holds_no_cells(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = sczoo.load(tmp_path / "model")
    new = simulated(seed=3)
    assert np.array_equal(loaded.get_refined_scores(new), model.get_refined_scores(new))
    assert codes_of(tmp_path / "model", model) == set()
    with pytest.raises(NotTrainedError, match="include_reference=True"):
        loaded.predict(new, graph="reference")


def test_a_model_of_own_classes_is_published_where_their_names_are_allowed(tmp_path, monkeypatch):
    from sczoo.errors import ReleaseGateError
    from sczoo.testing._card import _FIELDS

    adata = with_scores()
    adata.obsm["X_model"].columns = ["mine 1", "mine 2", "mine 3", "mine 4"]
    model = fitted(adata, setup={"logits_key": "X_model"})
    registry = tmp_path / "registry"
    with pytest.raises(ReleaseGateError, match="class_names"):
        hub.publish(model, "grit/mine", registry=registry, card=_FIELDS)
    allow = ["categories:class_names"]
    hub.publish(model, "grit/mine", registry=registry, card=_FIELDS, allow=allow)
    monkeypatch.setenv("SCZOO_CACHE_DIR", str(tmp_path / "cache"))
    loaded = hub.load("grit/mine", registry=registry, accelerator="cpu")
    assert np.array_equal(loaded.predict(adata), model.predict())


def test_boundary_step_against_a_saved_reference(model, tmp_path):
    model.save(tmp_path / "reference", include_reference=True)
    loaded = sczoo.load(tmp_path / "reference")
    new = simulated(seed=3)
    found = loaded.refine(new, graph="reference")
    assert np.allclose(found.refined, model.refine(new, graph="reference").refined, atol=1e-5)
    assert accuracy(found.labels, new) > accuracy(found.raw_labels, new) + 0.1
    # one step of equation (P + lam mean F_ref) / (1 + lam), by hand for one cell
    reference = model.refine()
    apart = ((reference.embedding - found.embedding[7]) ** 2).sum(1)
    near = np.argsort(apart, kind="stable")[:15]
    expected = (found.raw[7] + 3 * reference.refined[near].mean(0)) / 4
    assert np.allclose(found.refined[7], expected, atol=1e-4)
    # the gate refuses what is stored per cell, unless it is allowed by name
    codes = codes_of(tmp_path / "reference", model)
    assert any(code.startswith("percell:reference") for code in codes)
    # and the next save is without it again
    model.save(tmp_path / "plain")
    assert codes_of(tmp_path / "plain", model) == set()


def test_few_new_cells_are_labelled_with_the_models_means(model):
    new = simulated((2, 2, 2, 2), seed=3, noise=0.5)
    found = model.refine(new, graph="model")
    assert found.n_cells == 8
    assert (found.raw_labels == new.obs["truth"].to_numpy()).mean() > 0.7
    one = model.refine(new[:1].copy(), graph="model")
    assert np.array_equal(one.raw, one.refined)


def test_a_saved_foreign_scorer_must_be_set_again(tmp_path):
    class Mine:
        name = "mine"
        classes = ("a", "b")

        def score(self, adata, *, layer=None):
            from sczoo.model.grit.scorers import Scores

            first = sparse.csr_matrix(adata.X[:, :1]).toarray().astype(np.float32)
            return Scores(np.hstack([first, 1 - first]), self.classes, False)

    adata = simulated()
    GRIT.setup_anndata(adata)
    model = GRIT(adata, scorer=Mine())
    model.train(**QUIET)
    model.save(tmp_path / "model")
    loaded = sczoo.load(tmp_path / "model")
    with pytest.raises(InputError, match="scorer 'mine'"):
        loaded.predict(adata)
    loaded.scorer = Mine()
    assert np.array_equal(loaded.predict(adata), model.predict())


def test_annotate_and_transfer_write_labels(model):
    new = simulated(seed=3)
    keys = model.annotate(new, coverage=0.5)
    assert set(keys) == {
        "obsm['X_grit']",
        "obs['grit_label']",
        "obs['grit_raw_label']",
        "obs['grit_confidence']",
        "obs['grit_changed']",
    }
    assert (new.obs["grit_label"] == "unknown").sum() == 100
    record = new.uns["sczoo"]["grit"]
    assert record["energy_after"] < 1
    assert record["edge_agreement_after"] > record["edge_agreement_before"]
    again = simulated(seed=3)
    result = sczoo.transfer(model, again[:, ::-1].copy())
    assert result.alignment.coverage == 1


def test_annotated_cells_can_be_written(model, tmp_path):
    new = simulated(seed=3)
    model.annotate(new)
    new.write_h5ad(tmp_path / "annotated.h5ad")


# --- bad input ---


def test_impossible_arguments_are_refused():
    adata = simulated()
    GRIT.setup_anndata(adata)
    for wrong in (
        {"lam": -1},
        {"lam": np.nan},
        {"lam": "3"},
        {"n_neighbors": 0},
        {"n_neighbors": 2.5},
        {"laplacian": "other"},
        {"weights": "other"},
        {"space": "other"},
        {"guard": "other"},
        {"temperature": 0},
        {"n_components": 0},
        {"ontology_weight": -1},
        {"marker_prior": -1},
        {"input_kind": "other"},
        {"scorer": "other"},
        {"scorer": 5},
        {"markers": {"a": ["X"], "b": ["Y"]}, "tissue": "blood"},
    ):
        with pytest.raises(InputError, match="|".join(wrong)):
            GRIT(adata, **wrong)
    with pytest.raises(MissingKeyError, match="logits_key"):
        GRIT(adata, scorer="precomputed")


def test_more_neighbours_than_cells_are_refused_before_training():
    adata = simulated()[:10].copy()
    GRIT.setup_anndata(adata)
    model = GRIT(adata, classes=TYPES)
    with pytest.raises(TooFewCellsError, match="n_neighbors=15 with 10 cells"):
        model.train(**QUIET)
    assert not model.is_trained_


def test_bad_scores_and_graphs_are_refused_at_setup():
    adata = with_scores()
    before = set(adata.uns), set(adata.obs)
    adata.obsm["X_model"].iloc[3, 1] = np.nan
    with pytest.raises(NotFiniteError, match="row 3"):
        GRIT.setup_anndata(adata, logits_key="X_model")
    with pytest.raises(MissingKeyError, match="'X_other'"):
        GRIT.setup_anndata(adata, logits_key="X_other")
    with pytest.raises(MissingKeyError, match="'X_rep'"):
        GRIT.setup_anndata(adata, use_rep="X_rep")
    with pytest.raises(MissingKeyError, match="'graph'"):
        GRIT.setup_anndata(adata, connectivities_key="graph")
    n = adata.n_obs
    adata.obsp["graph"] = sparse.diags(np.full(n - 1, -1.0), 1, (n, n)).tocsr()
    with pytest.raises(InputError, match="negative"):
        GRIT.setup_anndata(adata, connectivities_key="graph")
    adata.obsp["graph"] = adata.obsp["graph"] * np.nan
    with pytest.raises(NotFiniteError, match="graph"):
        GRIT.setup_anndata(adata, connectivities_key="graph")
    assert (set(adata.uns), set(adata.obs)) == before


def test_class_names_that_are_not_those_of_the_scores_are_refused():
    adata = simulated()
    attach_scores(adata, np.eye(4, dtype=np.float32)[np.arange(adata.n_obs) % 4], list("abcd"))
    GRIT.setup_anndata(adata, logits_key="X_scores")
    with pytest.raises(InputError, match=r"missing \['x'\]"):
        GRIT(adata, class_names=list("xbcd"))


def test_one_class_is_refused():
    adata = simulated()
    adata.obsm["one"] = pd.DataFrame(np.ones((adata.n_obs, 1)), adata.obs_names, ["only"])
    with pytest.raises(InputError, match="fewer than two"):
        GRIT.setup_anndata(adata, logits_key="one")


def test_disconnected_isolated_and_duplicated_cells():
    adata = with_scores()
    n = adata.n_obs
    blocks = sparse.block_diag([np.ones((50, 50))] * 3 + [np.zeros((50, 50))]).tocsr()
    adata.obsp["blocks"] = blocks
    setup = {"logits_key": "X_model", "connectivities_key": "blocks"}
    model = fitted(adata, setup=setup, keep_rare=False)
    result = model.refine()
    assert np.allclose(result.raw[150:], result.refined[150:])
    assert np.isfinite(result.confidence).all()
    duplicated = simulated()
    duplicated.X = sparse.csr_matrix(np.tile(duplicated.X[:10].toarray(), (20, 1)))
    found = fitted(duplicated).refine()
    assert np.isfinite(found.refined).all()
    # twenty copies of one cell are twenty equal labels
    assert all(len(set(found.labels[k::10])) == 1 for k in range(10))
    assert n == 200


def test_agreement_by_hand():
    graph = sparse.csr_matrix(np.array([[0, 2, 1.0, 0], [2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]))
    labels = np.array([0, 0, 1, 1])
    found = agreement(graph, labels, np.array([0, 1, 0, 0]))
    assert np.allclose(found, [2 / 3, 0, 1, 0])


def test_mouse_and_human_by_the_same_words():
    human = fitted(simulated())
    assert human.classes == TYPES
    mouse = simulated()
    table = marker_table()
    names = {
        g: m
        for t in TYPES
        for g in table[t].genes["human"]
        for m in table[t].genes["mouse"]
        if m.upper() == g
    }
    mouse.var_names = [names.get(g, g.capitalize()) for g in mouse.var_names]
    model = fitted(mouse)
    assert accuracy(model.predict(), mouse) > accuracy(model.predict(raw=True), mouse)
