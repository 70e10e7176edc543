"""Recipes: what they make is what the index lists, and a figure that changed is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

import sczoo
from sczoo import hub
from sczoo.errors import ArtefactError, FetchError, UnknownArtefactError
from sczoo.hub._reproduce import figure_checks, recipe_of
from sczoo.recipes import get_recipe, list_recipes
from sczoo.recipes._figures import bootstrap, clustering
from sczoo.recipes._recipe import Recipe

ROOT = Path(__file__).parents[2]
ENTRIES = hub.read_registry(ROOT)[0].entries


@pytest.mark.parametrize("identifier", list_recipes())
def test_a_recipe_is_filed_under_its_own_name(identifier):
    assert get_recipe(identifier).id == identifier


def test_unknown_recipe():
    with pytest.raises(UnknownArtefactError, match="no recipe"):
        get_recipe("sce2tm/nothing")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_every_artefact_has_a_recipe_a_card_and_is_small(entry):
    assert recipe_of(entry) is not None
    assert entry.size <= 3e6
    card = ROOT / "model_cards" / f"{entry.id.replace('/', '-')}.md"
    assert card.read_text() == (hub.pull(entry.name) / "card.md").read_text()
    assert hub.card_text(entry.id) in card.read_text()


def test_all_artefacts_together_are_small():
    assert sum(entry.size for entry in ENTRIES) <= 15e6


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_the_figures_of_every_card_are_measured_again(entry, monkeypatch):
    shared = ROOT.parent / "shared" / "data"
    if shared.is_dir():
        monkeypatch.setenv("SCZOO_DATA_DIR", str(shared))
    report = hub.verify(entry.name)
    assert report.ok, str(report)
    skipped = [check.message for check in report.checks if check.result == "skipped"]
    if skipped:
        pytest.skip(skipped[0])
    assert any(check.name.startswith("figure") for check in report.checks)


# --- the comparison itself, on a model of no consequence --------------------------------------


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A published toy, its recipe and what the recipe measures; the figure can be changed."""
    measured = {"value": 0.5}

    def train():
        adata = sczoo.datasets.simulated_cohort(n_donors=2, n_cells=120, n_genes=60, seed=0)
        sczoo.model.SCE2TM.setup_anndata(adata)
        model = sczoo.model.SCE2TM(adata, n_topics=4)
        model.train(2, accelerator="cpu", enable_progress_bar=False)
        return model

    def figures(model, *, baselines=True):
        if measured["value"] is None:
            raise FetchError("The data are not at hand.")
        return [
            {
                "name": "ari",
                "value": measured["value"],
                "ci95": [0.4, 0.6],
                "split": "held-out donor",
                "baseline": {"pca": 0.4},
                "command": "sczoo verify toy/recipe:1",
            }
        ]

    def card(model):
        return {
            "summary": "A toy for the tests of recipes",
            "licence": {"weights": "CC0-1.0", "data": "CC0-1.0"},
            "training": {
                "data": [{"name": "simulated", "access": "synthetic"}],
                "n_donors": 2,
                "split": "no split, every donor was trained on",
                "command": "sczoo reproduce toy/recipe:1",
            },
            "input": {"species": "homo_sapiens"},
            "limits": ["simulated cells only"],
            "out_of_scope": ["diagnosis"],
        }

    recipe = Recipe("toy/recipe", 1, train, figures, card)
    monkeypatch.setattr("sczoo.recipes.get_recipe", lambda identifier: recipe)
    registry = tmp_path / "registry"
    model = recipe.make()
    hub.publish(model, "toy/recipe:1", registry=registry, card=recipe.full_card(model))
    return registry, measured, recipe


def test_verify_measures_again(listed):
    registry, measured, _ = listed
    report = hub.verify("toy/recipe", registry=registry)
    assert report.ok
    assert "figure ari" in str(report)
    measured["value"] = 0.52  # more than the tolerance away
    report = hub.verify("toy/recipe", registry=registry)
    assert not report.ok
    assert "card 0.5, measured again 0.52" in str(report)
    assert hub.verify("toy/recipe", registry=registry, figures=False).ok


def test_missing_data_are_not_a_failure_and_not_a_success(listed):
    registry, measured, _ = listed
    measured["value"] = None
    report = hub.verify("toy/recipe", registry=registry)
    assert report.ok
    assert [check.result for check in report.checks if check.name == "figures"] == ["skipped"]


def test_a_figure_that_the_recipe_does_not_know_fails(listed):
    registry, _, recipe = listed
    entry = hub.show("toy/recipe", registry=registry)
    other = entry.model_copy(
        update={"metrics": [entry.metrics[0].model_copy(update={"name": "nmi"})]}
    )
    assert [check.result for check in figure_checks(other, recipe, None)] == ["failed"]


def test_reproduce_gives_the_same_weights(listed, tmp_path):
    registry, measured, _ = listed
    report = hub.reproduce("toy/recipe", tmp_path / "again", registry=registry)
    assert report.ok
    assert "the same weights" in str(report)
    assert sczoo.load(tmp_path / "again").is_trained_
    measured["value"] = 0.9
    assert not hub.reproduce("toy/recipe", registry=registry).ok
    with pytest.raises(ArtefactError, match="exists already"):
        hub.reproduce("toy/recipe", tmp_path / "again", registry=registry)


def test_only_what_has_a_recipe_can_be_reproduced(listed, monkeypatch):
    registry, _, recipe = listed
    older = Recipe("toy/recipe", 2, recipe.train, recipe.figures, recipe.card)
    monkeypatch.setattr("sczoo.recipes.get_recipe", lambda identifier: older)
    with pytest.raises(UnknownArtefactError, match="no recipe in this version"):
        hub.reproduce("toy/recipe", registry=registry)


# --- figures ---------------------------------------------------------------------------------


def test_bootstrap_of_a_mean_matches_theory():
    import numpy as np

    x = np.random.default_rng(0).normal(size=4000)
    score = bootstrap(len(x), lambda rows: float(x[rows].mean()))
    assert score.value == pytest.approx(x.mean())
    # 95 % of a normal lies within 1.96 standard errors
    half = 1.96 * x.std() / np.sqrt(len(x))
    assert score.high - score.low == pytest.approx(2 * half, rel=0.25)
    assert score.low < score.value < score.high


def test_clustering_scores_are_those_of_scikit_learn():
    import numpy as np
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    rng = np.random.default_rng(1)
    truth = rng.integers(4, size=300).astype(str)
    found = np.where(rng.random(300) < 0.7, truth, rng.integers(4, size=300).astype(str))
    scores = clustering(truth, found)
    assert scores["ari"].value == pytest.approx(adjusted_rand_score(truth, found))
    assert scores["nmi"].value == pytest.approx(normalized_mutual_info_score(truth, found))


def test_the_card_of_the_private_model_says_that_it_was_attacked():
    """The template says "Attacks: none was measured" of a card that states none."""
    from sczoo.recipes import dpdcan_pbmc

    audit = dpdcan_pbmc.card(None)["privacy"]["audit"]
    assert "membership_auc" in audit["membership of a cell"]
    assert "shows nothing" in audit["membership of a cell"]
