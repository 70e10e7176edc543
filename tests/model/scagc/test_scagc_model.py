"""SCAGC on small cells: what it returns, what it refuses, what a saved model holds."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from sczoo.errors import InputError, MissingKeyError, NotTrainedError, TooFewCellsError
from sczoo.model import SCAGC
from sczoo.testing import example_cells

QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


def trained(adata, n_clusters=4, max_epochs=3, **kwargs):
    SCAGC.setup_anndata(adata)
    model = SCAGC(adata, n_clusters=n_clusters, **kwargs)
    model.train(max_epochs=max_epochs, **QUIET)
    return model


@pytest.fixture(scope="module")
def model():
    import scvi

    scvi.settings.seed = 0
    return trained(example_cells(300))


@pytest.fixture
def query():
    return example_cells(80, seed=3)


# --- results -----------------------------------------------------------------------------------


def test_clusters_are_the_kinds_of_cells(model):
    from sklearn.metrics import adjusted_rand_score

    found = model.get_cluster_assignments()
    assert adjusted_rand_score(model.adata.obs["cell_type"], found) > 0.95


def test_soft_assignments_agree_with_hard_ones(model, query):
    for cells in (None, query):
        soft = model.predict(cells, soft=True)
        np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(soft.argmax(axis=1), model.predict(cells))
        np.testing.assert_array_equal(model.get_cluster_assignments(cells), model.predict(cells))


def test_new_cells_fall_into_the_clusters_of_their_kind(model, query):
    own, kinds = model.predict(), model.adata.obs["cell_type"].to_numpy()
    cluster_of = {k: np.bincount(own[kinds == k]).argmax() for k in np.unique(kinds)}
    expected = query.obs["cell_type"].map(cluster_of).to_numpy()
    assert (model.predict(query) == expected).mean() > 0.95


def test_training_cells_as_a_query_get_the_same_clusters(model):
    as_query = model.predict(model.adata.copy())
    assert (as_query == model.predict()).mean() > 0.97
    own, attached = (
        model.get_latent_representation(),
        model.get_latent_representation(model.adata.copy()),
    )
    assert np.corrcoef(own.ravel(), attached.ravel())[0, 1] > 0.95


def test_a_cell_s_result_does_not_depend_on_its_company(model, query):
    alone = np.concatenate(
        [model.get_latent_representation(query[[row]].copy()) for row in (0, 5, 11)]
    )
    together = model.get_latent_representation(query)[[0, 5, 11]]
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_the_learned_graph_is_ready_for_obsp(model):
    graph = model.get_adaptive_graph()
    assert sparse.issparse(graph)
    assert graph.format == "csr"
    assert (graph != graph.T).nnz == 0
    assert not graph.diagonal().any()
    assert np.diff(graph.indptr).min() >= 15
    model.adata.obsp["scagc_connectivities"] = graph
    graph.data[:] = 7  # a copy
    assert model.get_adaptive_graph().max() == 1


def test_new_cells_have_a_graph_too(model, query):
    graph = model.get_adaptive_graph(query)
    assert graph.shape == (80, 80)
    assert (graph != graph.T).nnz == 0
    coo = graph.tocoo()
    kinds = query.obs["cell_type"].to_numpy()
    assert (kinds[coo.row] == kinds[coo.col]).mean() > 0.8
    with pytest.raises(TooFewCellsError, match="2 cell"):
        model.get_adaptive_graph(query[:2].copy())


def test_the_report_counts_what_is_there(model):
    report = model.get_graph_report("cell_type")
    graph, kinds = model.get_adaptive_graph().tocoo(), model.adata.obs["cell_type"].to_numpy()
    learned = report.table.loc["learned"]
    assert learned["n_edges"] == graph.nnz // 2
    assert learned["homophily"] == pytest.approx((kinds[graph.row] == kinds[graph.col]).mean())
    assert learned["degree_max"] == report.degrees["learned"].max()
    assert learned["degree_gini"] < report.table.loc["nearest neighbours", "degree_gini"]
    assert 0 < learned["homophily_chance"] < 0.5
    assert len(report.jaccard) >= 2
    assert "homophily" not in model.get_graph_report().table
    with pytest.raises(MissingKeyError, match="no_such"):
        model.get_graph_report("no_such")


def test_cells_without_a_label_are_left_out_of_the_homophily(model):
    from sczoo.model.scagc._graph_report import edge_homophily

    graph = sparse.csr_matrix(np.ones((4, 4)) - np.eye(4))
    assert edge_homophily(graph, ["a", "a", "unassigned", "b"]) == pytest.approx(1 / 3)
    assert np.isnan(edge_homophily(graph, ["unassigned"] * 4))


def test_the_number_of_clusters_is_found_without_labels():
    model = trained(example_cells(300), n_clusters=None)
    found = len(model.module.centres)
    assert 3 <= found <= 8
    assert set(model.predict()) == set(range(found))


def test_a_given_number_is_honoured():
    model = trained(example_cells(200), n_clusters=6, max_epochs=2)
    assert model.predict(soft=True).shape == (200, 6)
    assert len(np.unique(model.predict())) == 6


@pytest.mark.slow
def test_training_stops_when_clusters_stay():
    model = trained(example_cells(200), max_epochs=60)
    assert model.provenance_["epochs"] < 60


@pytest.mark.slow
def test_labels_are_never_read():
    cells, other = example_cells(200), example_cells(200)
    other.obs["cell_type"] = np.random.default_rng(0).permutation(other.obs["cell_type"])
    results = [trained(a, max_epochs=2).get_latent_representation() for a in (cells, other)]
    np.testing.assert_array_equal(*results)


@pytest.mark.slow
def test_stability_finds_the_clusters_again(model):
    table = model.stability(seeds=(1, 2), subsample=0.8, max_epochs=2, **QUIET)
    assert list(table.columns) == ["n_cells", "overlap", "recurrence", "recurs"]
    assert table["n_cells"].sum() == 300
    assert (table["overlap"] > 0.9).all()
    assert table["recurs"].all()


@pytest.mark.slow
def test_stability_doubts_clusters_that_are_not_there():
    rng = np.random.default_rng(0)
    noise = AnnData(sparse.csr_matrix(rng.poisson(3.0, (200, 40)).astype(np.float32)))
    noise.var_names = [f"GENE{i}" for i in range(40)]
    table = trained(noise, n_clusters=6, max_epochs=2).stability(
        seeds=(1, 2, 3), max_epochs=2, **QUIET
    )
    assert table["overlap"].mean() < 0.7


def test_overlaps_of_known_partitions():
    from sczoo.model.scagc._stability import best_overlaps

    found = best_overlaps(np.array([0, 0, 0, 1, 1]), np.array([2, 2, 5, 5, 5]))
    np.testing.assert_allclose(found, [2 / 3, 2 / 3])


# --- saved models --------------------------------------------------------------------------------


def test_a_saved_model_predicts_the_same_for_new_patients(model, query, tmp_path):
    model.save(tmp_path / "m")
    loaded = SCAGC.load(tmp_path / "m", accelerator="cpu")
    np.testing.assert_array_equal(loaded.predict(query), model.predict(query))
    np.testing.assert_array_equal(
        loaded.get_latent_representation(query), model.get_latent_representation(query)
    )
    with pytest.raises(InputError, match="never saved"):
        loaded.get_graph_report()


def test_anchors_are_averages_of_at_least_five_cells():
    from sczoo.model.scagc._anchors import anchor_groups, group_means

    rng = np.random.default_rng(0)
    z = rng.normal(size=(203, 4)).astype(np.float32)
    z[:3] += 50  # three cells far from all others have no anchor of their own
    groups = anchor_groups(z, 256, seed=0)
    assert np.bincount(groups).min() >= 5
    assert len(np.bincount(groups)) > 5
    means = group_means(z, groups)
    np.testing.assert_allclose(means[groups[0]], z[groups == groups[0]].mean(0), rtol=1e-5)
    assert (anchor_groups(z[:7], 256, seed=0) == 0).all()


def test_fine_tuning_keeps_the_meaning_of_the_clusters(model, query):
    tuned = SCAGC.load_query_data(query, model, accelerator="cpu")
    centres = tuned.module.centres.detach().numpy().copy()
    tuned.train(max_epochs=2, **QUIET)
    np.testing.assert_array_equal(tuned.module.centres.detach().numpy(), centres)
    assert (tuned.predict() == model.predict(query)).mean() > 0.9


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_clusters": 0},
        {"n_clusters": 2.5},
        {"n_neighbors": 0},
        {"n_latent": -1},
        {"dropout_rate": 1.0},
        {"similarity_scale": -1},
        {"cluster_weight": "heavy"},
        {"preset": "best"},
        {"graph": "complete"},
        {"likelihood": "poisson"},
        {"n_candidates": True},
    ],
)
def test_senseless_arguments_are_named(counts, arguments):
    SCAGC.setup_anndata(counts)
    (name,) = arguments
    with pytest.raises(InputError, match=name):
        SCAGC(counts, **arguments)


def test_fewer_candidates_than_neighbours_are_refused(counts):
    SCAGC.setup_anndata(counts)
    with pytest.raises(InputError, match="n_candidates=5"):
        SCAGC(counts, n_neighbors=10, n_candidates=5)


def test_training_in_several_processes_is_refused(counts):
    SCAGC.setup_anndata(counts)
    model = SCAGC(counts, n_clusters=3)
    with pytest.raises(InputError, match="strategy"):
        model.train(strategy="ddp", **QUIET)


def test_results_need_training(counts):
    SCAGC.setup_anndata(counts)
    model = SCAGC(counts, n_clusters=3)
    for ask in (model.predict, model.get_adaptive_graph, model.get_graph_report, model.stability):
        with pytest.raises(NotTrainedError):
            ask()


# --- bad input -----------------------------------------------------------------------------------


def test_fewer_cells_than_neighbours():
    few = example_cells(9)
    model = trained(few, n_clusters=2, max_epochs=2)  # all other cells are neighbours
    assert np.diff(model.get_adaptive_graph().indptr).max() <= 8
    again = model.stability(seeds=(1,), subsample=0.8, max_epochs=1, **QUIET)
    assert again["n_cells"].sum() == 9
    again = example_cells(9)
    SCAGC.setup_anndata(again)
    with pytest.raises(TooFewCellsError, match="n_neighbors=15"):
        SCAGC(again, n_neighbors=15)


def test_two_cells_are_refused_before_training():
    two = example_cells(2)
    SCAGC.setup_anndata(two)
    with pytest.raises(TooFewCellsError, match="at least 3"):
        SCAGC(two, n_clusters=1).train(**QUIET)


def test_more_clusters_than_cells_are_refused():
    few = example_cells(8)
    SCAGC.setup_anndata(few)
    with pytest.raises(TooFewCellsError, match="9 clusters"):
        SCAGC(few, n_clusters=9)


def test_duplicate_cells_have_neighbours_and_one_cluster():
    cells = example_cells(120)
    copies = cells[np.r_[np.arange(120), np.zeros(30, dtype=int)]].copy()
    copies.obs_names_make_unique()
    model = trained(copies)
    assert np.isfinite(model.get_latent_representation()).all()
    same = model.predict()[np.r_[0, 120:150]]
    assert len(np.unique(same)) == 1
    assert not model.get_adaptive_graph().diagonal().any()


def test_cells_that_are_all_equal(caplog):
    cells = example_cells(40)
    cells.X = sparse.csr_matrix(np.tile(cells.X[:1].toarray(), (40, 1)))
    with caplog.at_level(logging.WARNING, logger="sczoo"):
        model = trained(cells, n_clusters=3, max_epochs=2)
    assert np.isfinite(model.get_latent_representation()).all()
    assert len(np.unique(model.predict())) == 1
    assert "only 1 have cells" in caplog.text


def test_cells_without_counts_are_finite_and_together():
    cells = example_cells(150)
    matrix = cells.X.toarray()
    matrix[[3, 50, 149]] = 0
    cells.X = sparse.csr_matrix(matrix)
    model = trained(cells)
    assert np.isfinite(model.get_latent_representation()).all()
    assert len(np.unique(model.predict()[[3, 50, 149]])) == 1


def test_an_isolated_cell_gets_neighbours_of_its_own():
    """A cell like no other is nobody's choice, but chooses: no row of the graph is empty."""
    cells = example_cells(150)
    matrix = cells.X.toarray()
    matrix[7] = 0
    matrix[7, -1] = 500
    cells.X = sparse.csr_matrix(matrix)
    model = trained(cells)
    assert np.diff(model.get_adaptive_graph().indptr).min() >= 15
    assert np.isfinite(model.predict(soft=True)).all()


def test_data_without_a_single_count_are_refused():
    cells = example_cells(50)
    cells.X = sparse.csr_matrix(cells.shape, dtype=np.float32)
    SCAGC.setup_anndata(cells)
    with pytest.raises(InputError, match="total of zero"):
        SCAGC(cells, n_clusters=2)
