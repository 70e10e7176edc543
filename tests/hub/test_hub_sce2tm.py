"""A real method on real cells: what leaves, what a stranger gets, and what the gate catches."""

import numpy as np
import pytest

import sczoo
from sczoo import hub
from sczoo.errors import ReleaseGateError


@pytest.fixture(scope="module")
def cells():
    adata = sczoo.datasets.kang_ifnb_demo()
    rng = np.random.default_rng(0)
    return adata[np.sort(rng.choice(adata.n_obs, 1_500, replace=False))].copy()


@pytest.fixture(scope="module")
def model(cells):
    new = (cells.obs["patient"].astype(str) == "donor_107").to_numpy()
    reference = cells[~new].copy()
    sczoo.model.SCE2TM.setup_anndata(reference)
    model = sczoo.model.SCE2TM(reference, n_topics=10)
    model.train(max_epochs=3, enable_progress_bar=False)
    return model


def test_a_stranger_gets_the_same_numbers(model, cells, card, tmp_path):
    for stated in ("summary", "citation", "compat"):  # the method and the run state these
        del card[stated]
    entry = hub.publish(model, "sce2tm/kang-test", registry=tmp_path / "r", card=card)
    assert entry.citation[0].doi == "10.1038/s41467-026-76825-5"
    assert entry.summary == sczoo.model.SCE2TM._summary
    assert entry.privacy.per_cell_content == "none"
    assert entry.privacy.per_donor_content == "none"
    assert entry.privacy.compared_with_data
    assert set(entry.compat.trained_with) == {"python", "torch", "scvi_tools"}

    folder = hub.pull("sce2tm/kang-test", registry=tmp_path / "r")
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for name in model.adata.obs_names:
        assert str(name).encode() not in content
    for cell_type in cells.obs["cell_type"].unique():
        assert str(cell_type).encode() not in content

    patient = cells[cells.obs["patient"].astype(str) == "donor_107"].copy()
    expected = model.get_latent_representation(patient)
    result = sczoo.transfer("sce2tm/kang-test", patient, registry=tmp_path / "r")
    np.testing.assert_allclose(patient.obsm["X_sce2tm"], expected, atol=1e-5)
    assert result.alignment.coverage == 1.0
    assert hub.verify("sce2tm/kang-test", registry=tmp_path / "r").ok


def test_a_planted_donor_does_not_leave(model, card, tmp_path, monkeypatch):
    monkeypatch.setitem(model.provenance_, "note", ["donor_101", "donor_1015"])
    with pytest.raises(ReleaseGateError, match="categories:patient"):
        hub.publish(model, "sce2tm/kang-test", registry=tmp_path / "r", card=card)


def test_a_planted_barcode_does_not_leave(model, card, tmp_path, monkeypatch):
    monkeypatch.setitem(model.provenance_, "note", str(model.adata.obs_names[0]))
    with pytest.raises(ReleaseGateError, match="barcodes:note"):
        hub.publish(model, "sce2tm/kang-test", registry=tmp_path / "r", card=card)
