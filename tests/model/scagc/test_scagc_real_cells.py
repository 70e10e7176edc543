"""SCAGC on real cells, beside the static graph and the published computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anndata import read_h5ad
from sklearn.metrics import normalized_mutual_info_score

from sczoo.model import SCAGC

QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells(shared_data):
    adata = read_h5ad(shared_data("worm_neuron.h5ad"))
    rows = np.random.default_rng(0).choice(adata.n_obs, 700, replace=False)
    return adata[np.sort(rows)].copy()


def trained(cells, **kwargs):
    cells = cells.copy()
    SCAGC.setup_anndata(cells)
    model = SCAGC(cells, n_clusters=10, **kwargs)
    model.train(**QUIET, **({"max_epochs": 30} if "preset" in kwargs else {}))
    return model


def test_the_learned_graph_is_more_homophilous_and_more_even(cells):
    from sczoo.metrics import cluster_leiden_k

    model = trained(cells)
    report = model.get_graph_report("cell_type").table
    learned, first = report.loc["learned"], report.loc["nearest neighbours"]
    assert learned["homophily"] > first["homophily"] + 0.05
    assert learned["degree_gini"] < 0.5 * first["degree_gini"]
    assert learned["degree_max"] < 0.6 * first["degree_max"]
    truth = model.adata.obs["cell_type"].astype(str)
    own = normalized_mutual_info_score(truth, model.predict())
    # beside Leiden on the components that the model started from
    z = model.module.components(
        torch.from_numpy(model.adata.X.toarray().astype(np.float32))
    ).numpy()
    assert own > normalized_mutual_info_score(truth, cluster_leiden_k(z, 10))
    attached = normalized_mutual_info_score(truth, model.predict(model.adata.copy()))
    assert attached > own - 0.05


def test_the_published_graph_is_near_chance(cells):
    model = trained(cells[:400].copy(), preset="reference")
    report = model.get_graph_report("cell_type").table
    learned, first = report.loc["learned"], report.loc["nearest neighbours"]
    assert learned["homophily"] < learned["homophily_chance"] + 0.25
    assert learned["homophily"] < first["homophily"] - 0.3
    graph = model.get_adaptive_graph()
    assert (graph != graph.T).nnz == 0
    assert not graph.diagonal().any()


def test_the_published_preset_saves_and_loads(cells, tmp_path):
    model = trained(cells[:200].copy(), preset="reference")
    query = cells[200:260].copy()
    model.save(tmp_path / "m")
    loaded = SCAGC.load(tmp_path / "m", accelerator="cpu")
    np.testing.assert_array_equal(loaded.predict(query), model.predict(query))


def test_the_published_preset_refuses_many_cells_and_minibatches(cells):
    from sczoo.errors import InputError

    many = cells[np.zeros(4001, dtype=int)].copy()
    many.obs_names_make_unique()
    SCAGC.setup_anndata(many)
    with pytest.raises(InputError, match="at most 4000"):
        SCAGC(many, n_clusters=2, preset="reference")
    few = cells[:50].copy()
    SCAGC.setup_anndata(few)
    with pytest.raises(InputError, match="batch_size=10"):
        SCAGC(few, n_clusters=2, preset="reference").train(1, 10, **QUIET)
