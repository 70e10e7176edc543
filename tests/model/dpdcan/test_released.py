"""What leaves with a private model: nothing that was computed outside the mechanism."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sczoo import hub
from sczoo.errors import SchemaError
from sczoo.model import DPDCAN

CARD = {
    "licence": {"weights": "CC-BY-4.0", "data": "CC-BY-4.0"},
    "training": {
        "data": [{"name": "simulated cells", "access": "synthetic"}],
        "n_donors": 24,
        "split": "all cells",
        "command": "pytest tests/model/dpdcan/test_released.py",
    },
    "metrics": "not applicable: cells of a test",
    "limits": ["cells of a test"],
    "out_of_scope": ["diagnosis"],
    "input": {"species": "homo_sapiens"},
}


def test_two_data_sets_with_the_same_noise_store_the_same_but_for_the_releases(
    fit, cells, known_noise, tmp_path, monkeypatch
):
    """With the outputs of the mechanism held fixed, nothing else may depend on the cells.

    Noise so large that the cells drown makes the outputs equal to rounding; whatever then differs
    between two saved models was computed from the cells outside the mechanism.
    """
    from sczoo.model.dpdcan import _planning

    shuffled = cells.copy()
    rng = np.random.default_rng(0)
    shuffled.X = shuffled.X[:, rng.permutation(shuffled.n_vars)]
    shuffled.X.data = np.round(shuffled.X.data * 3)

    def no_cells(blocks, *args, **kwargs):
        from sczoo.privacy import _projection

        zero = lambda: (block * 0 for block in blocks())
        return _projection.fit_projection(zero, *args, **kwargs)

    monkeypatch.setattr(_planning, "fit_projection", no_cells)
    monkeypatch.setattr(DPDCAN, "_source", lambda self, seed: known_noise())
    documents = []
    for name, data in (("one", cells), ("other", shuffled)):
        model = fit(data, max_grad_norm=1e-12, noise_multiplier=1e6)
        model.save(tmp_path / name)
        documents.append(json.loads((tmp_path / name / "artefact.json").read_text()))
        for part in ("genes.tsv",):
            documents.append((tmp_path / name / part).read_text())
    assert documents[0] == documents[2]
    assert documents[1] == documents[3]


def test_statistics_of_the_cells_are_not_stored(fit, tmp_path):
    private, open_model = fit(), fit(target_epsilon=math.inf)
    assert private.domain == {}
    assert private.provenance_["data_sha256"] is None
    assert private.provenance_["cpu_seconds"] is None
    assert open_model.domain
    assert open_model.provenance_["data_sha256"]
    private.save(tmp_path / "private")
    text = (tmp_path / "private" / "artefact.json").read_text()
    assert "total_per_cell" not in text
    loaded = DPDCAN.load(tmp_path / "private", accelerator="cpu")
    assert (loaded.epsilon, loaded.delta) == (private.epsilon, private.delta)
    assert loaded.get_privacy_report() == private.get_privacy_report()


def test_no_format_holds_the_names_of_donors(fit, cells, tmp_path):
    """In scvi-tools' own as well: who took part is what the guarantee for donors hides."""
    from scvi.hub import HubModel

    model = fit(donor_key="donor", target_epsilon=8.0, train={"batch_size": 6})
    model.save(tmp_path / "zoo")
    hub.to_scvi(model, tmp_path / "scvi")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert b"person-" not in path.read_bytes(), path.name
    # it can still be read, and used on other people
    stranger = cells[:50].copy()
    stranger.obs["donor"] = "somebody else"
    received = HubModel(str(tmp_path / "scvi"))
    received.load_model(stranger)
    assert received.model.epsilon == model.epsilon
    assert received.model.get_privacy_report()["unit"] == "donor"
    assert "person-3" in str(model.registry_)  # the model itself still knows them


def test_the_noise_is_not_stored_and_gradients_are_not_left_behind(fit):
    model = fit()
    assert all(p.grad is None for p in model.module.parameters())
    assert model._noise_source is None
    assert "source" not in json.dumps(model.provenance_["arguments"]["train"]).replace(
        "PrivateRun", ""
    )


def test_the_card_states_the_guarantee(fit, tmp_path):
    model = fit(target_epsilon=2.0, public_genes="GENCODE v44")
    entry = hub.publish(model, "dpdcan/test", registry=tmp_path / "registry", card=CARD)
    dp = entry.privacy.dp
    assert dp.epsilon >= model.epsilon
    assert dp.epsilon == pytest.approx(model.epsilon, abs=1e-5)
    assert dp.delta == model.delta
    assert dp.unit == "cell"
    card = (tmp_path / "registry" / "artefacts" / "dpdcan/test" / "1" / "card.md").read_text()
    assert "for each cell" in card
    assert "Poisson sampling" in card
    assert "steps T=18" in card
    assert "budget epsilon 2" in card
    assert "GENCODE v44" in card
    # the simple baseline stands beside every private network
    assert "sczoo.privacy.dp\\_pca" in card or "sczoo.privacy.dp_pca" in card
    assert "dp_pca" in model.get_privacy_report()["alternative"]
    wishes = {"epsilon": 0.1, "delta": 1e-9, "unit": "donor", "accountant": "wishes"}
    false = CARD | {"privacy": {"dp": wishes | {"not_covered": []}}}
    with pytest.raises(SchemaError, match="something else"):
        hub.publish(model, "dpdcan/false", registry=tmp_path / "registry", card=false)


def test_what_is_printed_is_not_less_than_what_was_spent(fit, monkeypatch):
    from sczoo.privacy._accounting import round_up

    assert round_up(3.99912, 4) == "4"
    assert round_up(3.9981, 4) == "3.999"
    assert round_up(2.3143e-6, 3) == "2.32e-06"
    assert round_up(1e-5, 3) == "1e-05"
    assert round_up(0.0, 3) == "0"
    model = fit(target_epsilon=2.0)
    for _ in range(2):
        spent = float(model.epsilon)
        said = model.get_privacy_report()["guarantee"].split("epsilon=")[1].split(",")[0]
        assert spent <= float(said) <= spent * 1.001
        model.train(accelerator="cpu", devices=1, enable_progress_bar=False, batch_size=40,
                    max_epochs=1, target_epsilon=spent + 0.1237)  # fmt: skip


def test_public_cells_and_figures_are_listed_as_not_covered(fit, tmp_path):
    from sczoo.testing._cells import example_cells

    model = fit(train={"public_adata": example_cells(150, seed=9)})
    report = model.get_privacy_report()
    assert any("150 cells that were given as public" in line for line in report["not_covered"])
    assert any("measured with the training cells" in line for line in report["not_covered"])
    # the projection is theirs: it is not what the guarantee is about
    assert "the projection" not in report["covers"]
    model.save(tmp_path / "model")
    text = (tmp_path / "model" / "artefact.json").read_text()
    assert "150 cells that were given as public" in text
    assert "the projection" in fit().get_privacy_report()["covers"]


def test_the_card_of_the_published_scheme_says_that_there_is_none(fit, tmp_path):
    with pytest.warns(UserWarning, match="no differential-"):
        model = fit(mode="paper", n_latent=8)
    entry = hub.publish(model, "dpdcan/paper", registry=tmp_path / "registry", card=CARD)
    card = (tmp_path / "registry" / "artefacts" / "dpdcan/paper" / "1" / "card.md").read_text()
    assert "No differential-privacy guarantee" in card
    assert "Alternative:" not in card
    assert isinstance(entry.privacy.dp, str)


def test_new_patients_and_clusters(fit, cells):
    model = fit(n_clusters=3)
    stranger = cells[:, ::-1].copy()
    stranger.obs = stranger.obs[[]]
    latent = model.get_latent_representation(stranger)
    np.testing.assert_allclose(latent, model.get_latent_representation(cells), atol=1e-5)
    assert set(model.get_cluster_assignments(cells)) <= {0, 1, 2}
    assert len(set(model.get_cluster_assignments(cells, n_clusters=4))) == 4
