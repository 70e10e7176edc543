"""From a trained model through publish, load and transfer, as a stranger would."""

import numpy as np
import pytest

import sczoo
from sczoo import hub
from sczoo.base._artefact import read_artefact
from sczoo.errors import (
    ArtefactError,
    GeneOverlapError,
    InputError,
    ReleaseGateError,
    SelfTestError,
    UnknownArtefactError,
    UnknownMethodError,
)


@pytest.fixture
def toy(toy_class, monkeypatch):
    """Put the toy on the list of installed methods."""
    import sczoo.model

    monkeypatch.setattr(sczoo.model, "get_model_class", lambda method: {"toy": toy_class}[method])
    return toy_class


@pytest.fixture
def model(toy, counts):
    adata = counts.copy()
    toy.setup_anndata(adata, batch_key="batch")
    model = toy(adata)
    model.train(max_epochs=1)
    return model


@pytest.fixture
def published(model, card, tmp_path):
    return hub.publish(model, "toy/small", registry=tmp_path / "r", card=card), tmp_path / "r"


def test_publish_load_transfer(model, published, counts):
    entry, registry = published
    assert entry.privacy.per_cell_content == "none"
    assert entry.privacy.per_donor_content == "none"
    assert entry.privacy.compared_with_data
    assert entry.training.n_cells == len(model.train_indices_)
    loaded = sczoo.load("toy/small:1", registry=registry)
    assert type(loaded) is type(model)
    assert loaded.adata is None
    query = counts[:30].copy()
    expected = model.get_latent_representation(query)
    np.testing.assert_allclose(loaded.get_latent_representation(query), expected, atol=1e-6)

    before = query.X.copy()
    result = sczoo.transfer(loaded, query)
    assert list(result.keys) == ["obsm['X_toy']"]
    assert result.alignment.n_matched == 40
    np.testing.assert_allclose(query.obsm["X_toy"], expected, atol=1e-6)
    assert (query.X != before).nnz == 0
    by_name = counts[:30].copy()
    sczoo.transfer("toy/small", by_name, registry=registry)
    np.testing.assert_allclose(by_name.obsm["X_toy"], expected, atol=1e-6)


def test_nothing_personal_is_in_the_published_files(published, counts):
    _, registry = published
    folder = hub.pull("toy/small", registry=registry)
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for secret in (b"donor_a", b"donor_b", b"type1", b"cell149", b"history"):
        assert secret not in content


def test_verify(published):
    report = hub.verify("toy/small", registry=published[1])
    assert report.ok, str(report)
    assert {check.name: check.result for check in report.checks} == {
        "files": "passed",
        "card": "passed",
        "self-test": "passed",
    }


def test_selftest_catches_silent_drift(published, monkeypatch):
    """Other libraries that compute something else: the model is refused, not wrong."""
    from sczoo.base import _persistence

    entry, registry = published
    real = _persistence.selftest_output
    monkeypatch.setattr(_persistence, "selftest_output", lambda model, x: real(model, x) + 10)
    sczoo.load(entry.name, registry=registry)  # the same libraries: no self-test
    import sczoo.base._provenance as provenance

    monkeypatch.setattr(provenance, "versions", lambda: {"torch": "99.0"})
    with pytest.raises(SelfTestError, match="does not reproduce"):
        sczoo.load(entry.name, registry=registry)
    assert not hub.verify(entry.name, registry=registry).ok
    monkeypatch.setattr(_persistence, "selftest_output", real)
    sczoo.load(entry.name, registry=registry)


def test_published_from_a_folder(model, toy, card, tmp_path):
    model.save(tmp_path / "saved")
    entry = hub.publish(tmp_path / "saved", "toy/small", registry=tmp_path / "r", card=card)
    assert not entry.privacy.compared_with_data
    assert sczoo.load(tmp_path / "saved").is_trained_


def test_categories_leave_by_name_only(toy, counts, card, tmp_path):
    adata = counts.copy()
    toy.setup_anndata(adata, batch_key="batch")
    model = toy(adata)
    model.train(max_epochs=1)
    model.save(tmp_path / "saved", include_categories=["batch"])
    report = hub.inspect(tmp_path / "saved", model)
    assert {finding.code for finding in report.findings} == {"categories:batch"}
    with pytest.raises(ReleaseGateError, match="categories:batch"):
        hub.publish(tmp_path / "saved", "toy/small", registry=tmp_path / "r", card=card)
    entry = hub.publish(
        model, "toy/small", registry=tmp_path / "r", card=card, allow=("categories:batch",)
    )
    assert entry.privacy.allowed == ["categories:batch"]
    folder = hub.pull("toy/small", registry=tmp_path / "r")
    assert b"donor_a" in (folder / "artefact.json").read_bytes()


def test_a_planted_tensor_is_found(model, card, tmp_path):
    import torch

    model.module.register_buffer("secret", torch.zeros(model.adata.n_obs))
    with pytest.raises(ReleaseGateError, match="percell:secret"):
        hub.publish(model, "toy/small", registry=tmp_path / "r", card=card)


def test_another_models_weights_do_not_load(model, toy, tmp_path, card):
    from sczoo.base._artefact import write_artefact

    model.save(tmp_path / "saved")
    artefact = read_artefact(tmp_path / "saved")
    write_artefact(
        tmp_path / "planted",
        artefact.record,
        tensors={**artefact.tensors(), "other.weight": np.zeros((3, 3), dtype=np.float32)},
        genes=artefact.genes(),
        selftest={"x": artefact.selftest().x, "expected": artefact.selftest().expected},
    )
    assert "parameters:other.weight" in {
        finding.code for finding in hub.inspect(tmp_path / "planted", model).findings
    }
    with pytest.raises(ArtefactError):
        hub.publish(tmp_path / "planted", "toy/small", registry=tmp_path / "r", card=card)


def test_an_unknown_method_is_never_imported(tmp_path, save):
    with pytest.raises(UnknownMethodError, match="not installed"):
        sczoo.load(save(tmp_path / "a", method="no_such_method"))


def test_adata_is_attached(published, counts, toy):
    entry, registry = published
    model = sczoo.load(entry.name, counts.copy(), registry=registry)
    assert model.adata.n_obs == counts.n_obs
    with pytest.raises(InputError, match="Align them first"):
        sczoo.load(entry.name, counts[:, ::-1].copy(), registry=registry)


def test_transfer_aligns_genes(published, counts, toy):
    entry, registry = published
    model = sczoo.load(entry.name, registry=registry)
    expected = model.get_latent_representation(counts)
    shuffled = counts[:, np.random.default_rng(0).permutation(40)].copy()
    sczoo.transfer(model, shuffled)
    np.testing.assert_allclose(shuffled.obsm["X_toy"], expected, atol=1e-5)


def test_transfer_with_few_genes(published, counts):
    entry, registry = published
    model = sczoo.load(entry.name, registry=registry)
    few = counts[:, :20].copy()
    with pytest.raises(GeneOverlapError):
        sczoo.transfer(model, few)
    assert list(few.obsm) == []
    assert "sczoo" not in few.uns
    result = sczoo.transfer(model, few, min_coverage=0.4)
    assert result.alignment.coverage == 0.5
    assert few.obsm["X_toy"].shape == (150, 4)
    assert few.uns["sczoo"]["toy"]["genes"]["n_matched"] == 20
    assert few.n_vars == 20


def test_transfer_from_another_layer(published, counts):
    entry, registry = published
    model = sczoo.load(entry.name, registry=registry)
    expected = model.get_latent_representation(counts)
    query = counts.copy()
    query.layers["raw"] = query.X.copy()
    query.X = query.X * 0.5
    sczoo.transfer(model, query, layer="raw")
    np.testing.assert_allclose(query.obsm["X_toy"], expected, atol=1e-6)


def test_transfer_warns_of_another_depth(published, counts):
    entry, registry = published
    model = sczoo.load(entry.name, registry=registry)
    assert sczoo.transfer(model, counts.copy()).warnings == ()
    deep = counts.copy()
    deep.X = deep.X * 50
    warnings = sczoo.transfer(model, deep).warnings
    assert len(warnings) == 1
    assert "counts per cell" in warnings[0]


def test_export_to_scvi(model, toy, counts, tmp_path):
    import torch

    hub.to_scvi(model, tmp_path / "scvi")
    assert model.history_  # the model itself keeps what the export leaves out
    assert model.train_indices_ is not None
    with pytest.raises(ArtefactError, match="overwrite=True"):
        hub.to_scvi(model, tmp_path / "scvi")
    hub.to_scvi(model, tmp_path / "scvi", overwrite=True)
    saved = torch.load(tmp_path / "scvi" / "model.pt", weights_only=False)
    for name in ("history_", "train_indices_", "validation_indices_"):
        assert saved["attr_dict"].get(name) is None
    # scvi-tools' own loader reads it
    from scvi.model.base import BaseModelClass

    again = BaseModelClass.load.__func__(toy, str(tmp_path / "scvi"), adata=counts.copy())
    np.testing.assert_allclose(
        again.get_latent_representation(counts),
        model.get_latent_representation(counts),
        atol=1e-6,
    )


def test_names_and_folders(tmp_path, published):
    entry, registry = published
    folder = hub.pull(entry.name, registry=registry)
    assert sczoo.load(folder).is_trained_
    assert sczoo.load(str(folder)).is_trained_
    assert sczoo.load(f"{folder}/").is_trained_


@pytest.mark.parametrize("nonsense", [None, 3, "adata"])
def test_transfer_needs_a_model(counts, nonsense):
    with pytest.raises(InputError, match=r"sczoo\.transfer\(model, adata\)"):
        sczoo.transfer(counts if nonsense == "adata" else nonsense, counts)


def test_transfer_names_a_missing_layer(model, counts):
    query = counts[:20].copy()
    with pytest.raises(InputError, match="'nope'"):
        sczoo.transfer(model, query, layer="nope")
    assert not query.obsm


def test_verify_names_foreign_files_and_broken_folders(model, tmp_path, monkeypatch):
    model.save(tmp_path / "saved")
    (tmp_path / "saved" / "extra.py").write_text("raise SystemExit")
    report = hub.verify(tmp_path / "saved")
    assert report.ok
    assert "extra.py" in str(report)
    (tmp_path / "saved" / "manifest.json").unlink()
    monkeypatch.chdir(tmp_path)
    report = hub.verify("saved")
    assert not report.ok
    assert "manifest.json" in str(report)


def test_transfer_needs_an_anndata(model, counts):
    with pytest.raises(InputError, match="Expected an AnnData"):
        sczoo.transfer(model, counts.X)


class StopAfter:
    """Interrupt training after some epochs, as Ctrl-C does."""

    def __new__(cls, epochs):
        from lightning.pytorch.callbacks import Callback

        class Stop(Callback):
            def on_train_epoch_end(self, trainer, plan):
                if trainer.current_epoch + 1 == epochs:
                    raise KeyboardInterrupt

        return Stop()


def test_an_interrupted_training_is_told_on_the_card_and_to_every_user(
    toy, counts, card, tmp_path
):
    adata = counts.copy()
    toy.setup_anndata(adata)
    model = toy(adata)
    with pytest.raises(KeyboardInterrupt):
        model.train(max_epochs=9, callbacks=[StopAfter(3)])
    said = "Training was interrupted after 2 of 9 epochs."
    entry = hub.publish(model, "toy/half", registry=tmp_path / "r", card=card)
    assert entry.limits == [said, *card["limits"]]
    assert said in hub.card_text("toy/half", registry=tmp_path / "r")
    assert hub.verify("toy/half", registry=tmp_path / "r").ok
    result = sczoo.transfer("toy/half", counts.copy(), registry=tmp_path / "r")
    assert said in result.warnings
    assert said in (hub.to_scvi(model, tmp_path / "scvi") / "README.md").read_text()
    # finished after all
    model.train(max_epochs=1)
    assert "interrupted" not in str(sczoo.transfer(model, counts.copy()).warnings)
    entry = hub.publish(model, "toy/half", registry=tmp_path / "r", card=card)
    assert entry.limits == card["limits"]


@pytest.mark.parametrize("nonsense", [None, 3, b"toy/small", ["toy/small"]])
def test_what_is_no_name_is_said_to_be_none(nonsense):
    for call in (sczoo.load, hub.verify):
        with pytest.raises(InputError, match="list_artefacts"):
            call(nonsense)
    for call in (hub.pull, hub.show, hub.card_text):
        with pytest.raises(UnknownArtefactError, match="not the name"):
            call(nonsense)
    with pytest.raises(InputError, match="Expected a model"):
        sczoo.transfer(nonsense, None)
