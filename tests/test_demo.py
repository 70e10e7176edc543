"""The main job, end to end, on the embedded real cells."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from sczoo._demo import HELD_OUT, INTERFERON_GENES, run_demo
from sczoo.errors import InputError
from sczoo.recipes._figures import pca_projection


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    from rich.console import Console

    output = tmp_path_factory.mktemp("demo") / "results"
    text = io.StringIO()
    run_demo(output, seed=0, max_epochs=None, console=Console(file=text, width=200))
    return output, text.getvalue()


@pytest.mark.slow
def test_it_writes_everything_it_promises(demo):
    import anndata

    import sczoo

    output, _ = demo
    for name in ("card.md", "embedding.png", "topics.png", "report.html", f"{HELD_OUT}.h5ad"):
        assert (output / name).stat().st_size > 1000
    patient = anndata.read_h5ad(output / f"{HELD_OUT}.h5ad")
    assert set(patient.obs["patient"].astype(str)) == {HELD_OUT}
    model = sczoo.load("sce2tm/kang-interferon:1", registry=output / "registry")
    np.testing.assert_allclose(
        model.get_latent_representation(patient), patient.obsm["X_sce2tm"], atol=1e-5
    )


@pytest.mark.slow
def test_the_embedding_of_the_new_patient_beats_pca(demo):
    import anndata

    import sczoo
    from sczoo.metrics import cluster_leiden, clustering_scores

    output, _ = demo
    patient = anndata.read_h5ad(output / f"{HELD_OUT}.h5ad")
    adata = sczoo.datasets.kang_ifnb_demo()
    reference = adata[(adata.obs["patient"] != HELD_OUT).to_numpy()].copy()
    truth = patient.obs["cell_type"].astype(str)
    ours = clustering_scores(truth, cluster_leiden(patient.obsm["X_sce2tm"]))
    pca = clustering_scores(truth, cluster_leiden(pca_projection(reference, patient)))
    assert ours["ari"] > pca["ari"]
    assert ours["nmi"] > pca["nmi"]


@pytest.mark.slow
def test_interferon_genes_come_out_by_themselves(demo):
    import anndata

    import sczoo
    from sczoo._demo import moving_topics

    output, _ = demo
    model = sczoo.load("sce2tm/kang-interferon:1", registry=output / "registry")
    patient = anndata.read_h5ad(output / f"{HELD_OUT}.h5ad")
    moved = moving_topics(model, patient)
    hits = [len(set(topic["genes"]) & set(INTERFERON_GENES)) for topic in moved]
    assert max(hits) >= 2, moved


@pytest.mark.slow
def test_nothing_about_single_patients_is_in_the_artefact(demo):
    import sczoo

    output, _ = demo
    adata = sczoo.datasets.kang_ifnb_demo()
    folder = sczoo.hub.pull("sce2tm/kang-interferon:1", registry=output / "registry")
    everything = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    donors = set(adata.obs["patient"].astype(str)) - {HELD_OUT}  # the card names the held-out one
    for name in [*donors, *adata.obs_names[:500], *set(adata.obs["cell_type"].astype(str))]:
        assert str(name).encode() not in everything
    record = json.loads((folder / "artefact.json").read_text())
    assert "history" not in json.dumps(record)


def test_it_leaves_foreign_folders_alone(tmp_path):
    from rich.console import Console

    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not from a demo"):
        run_demo(tmp_path, seed=0, max_epochs=1, console=Console(file=io.StringIO()))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
