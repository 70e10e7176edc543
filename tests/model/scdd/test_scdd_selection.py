"""Small training sets by choosing and pooling: against brute force and the library's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sczoo.base._normalise import log_normalise
from sczoo.errors import (
    InputError,
    MissingKeyError,
    MissingValuesError,
    NotCountsError,
    TooFewCellsError,
)
from sczoo.model.scdd._budget import class_budget
from sczoo.model.scdd._counts import largest_remainder, library_quantiles
from sczoo.model.scdd._membership import exact_copies
from sczoo.model.scdd._selection import pool_cells, select_cells
from sczoo.model.scdd._subsets import (
    geosketch,
    herding,
    kmeans_clusters,
    kmedoids,
    merge_small_clusters,
)
from sczoo.testing._cells import example_cells

METHODS = ("random", "stratified", "herding", "kmeans", "kmedoids", "geosketch", "pseudobulk")


@pytest.fixture
def cells():
    return example_cells(300)


@given(st.integers(0, 10_000), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_largest_remainder_sums_and_is_the_nearest(seed, total):
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.3, 1.0, size=(1, 12)) + 1e-9
    counts = largest_remainder(profile, np.array([total]))[0]
    expected = profile[0] / profile.sum() * total
    assert counts.sum() == total
    assert (counts >= 0).all()
    # no whole numbers of this sum are nearer: moving one count from i to j never helps
    error = np.abs(counts - expected).sum()
    for i in np.flatnonzero(counts):
        for j in range(12):
            moved = counts.copy()
            moved[i] -= 1
            moved[j] += 1
            assert np.abs(moved - expected).sum() >= error - 1e-9


def test_largest_remainder_refuses_what_is_no_profile():
    for bad in ([[0.0, 0.0]], [[np.nan, 1.0]], [[-1.0, 2.0]]):
        with pytest.raises(InputError, match="profile"):
            largest_remainder(np.array(bad), np.array([5]))


def test_log_normalise_is_scanpys(cells):
    import scanpy as sc

    expected = cells.copy()
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    np.testing.assert_allclose(
        log_normalise(cells.X).toarray(), expected.X.toarray(), rtol=1e-5, atol=1e-6
    )


def test_library_quantiles():
    assert library_quantiles(np.arange(101), 1).tolist() == [50]
    assert library_quantiles(np.arange(101), 4).tolist() == [12, 38, 62, 88]


def test_herding_is_greedy_by_brute_force():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 4))
    mean, chosen = points.mean(axis=0), []
    for _ in range(6):
        free = [i for i in range(30) if i not in chosen]
        distance = [np.linalg.norm(points[[*chosen, i]].mean(axis=0) - mean) for i in free]
        chosen.append(free[int(np.argmin(distance))])
    assert herding(points, 6, rng).tolist() == chosen


def test_kmedoids_are_the_cells_nearest_to_their_centres():
    rng = np.random.default_rng(1)
    centres = np.array([[0, 0], [20, 0], [0, 20.0]])
    points = np.concatenate([c + rng.normal(size=(25, 2)) for c in centres])
    chosen = kmedoids(points, 3, rng)
    for k in range(3):
        block = points[25 * k : 25 * (k + 1)]
        nearest = 25 * k + ((block - block.mean(axis=0)) ** 2).sum(axis=1).argmin()
        assert nearest in chosen


def test_geosketch_evens_out_density_as_the_library_does():
    geosketch_library = pytest.importorskip("geosketch")
    rng = np.random.default_rng(2)
    dense, thin = rng.normal(0, 0.1, (950, 2)), rng.uniform(3, 9, (50, 2))
    points = np.concatenate([dense, thin])
    ours = np.mean([(geosketch(points, 40, rng) >= 950).mean() for _ in range(20)])
    theirs = np.mean(
        [
            (np.array(geosketch_library.gs(points, 40, replace=False)) >= 950).mean()
            for _ in range(20)
        ]
    )
    assert ours > 0.4  # a random draw gives 0.05
    assert abs(ours - theirs) < 0.25


@given(st.integers(0, 1000), st.integers(2, 20), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_merged_clusters_are_large_enough(seed, n_clusters, min_size):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(40, 3))
    clusters = rng.integers(n_clusters, size=40)
    merged = merge_small_clusters(points, clusters, min_size)
    sizes = np.unique(merged, return_counts=True)[1]
    assert len(sizes) == 1 or sizes.min() >= min_size
    for cluster in np.unique(clusters):  # clusters are joined, never torn
        assert len(np.unique(merged[clusters == cluster])) == 1


def test_kmeans_clusters_with_few_different_points():
    points = np.repeat(np.arange(3.0)[:, None], 5, axis=0)
    assert len(np.unique(kmeans_clusters(points, 8, np.random.default_rng(0)))) == 3


@pytest.mark.parametrize("method", METHODS)
def test_the_form_is_the_same_for_all(cells, method):
    before = cells.copy()
    small = select_cells(cells, method, 5, labels_key="cell_type", seed=1)
    assert small.n_obs <= 20
    assert (small.n_obs == 20) or method in ("pseudobulk",)
    values = small.X.toarray()
    assert (values == np.round(values)).all()
    assert (values >= 0).all()
    assert (small.layers["counts"] != small.X).nnz == 0
    assert list(small.obs["cell_type"].cat.categories) == list(
        before.obs["cell_type"].cat.categories
    )
    assert small.obs["is_synthetic"].all() == (method == "pseudobulk")
    assert "not anonymous" in small.uns["scdd"]["notice"]
    assert list(small.var_names) == list(cells.var_names)
    again = select_cells(cells, method, 5, labels_key="cell_type", seed=1)
    assert (again.X != small.X).nnz == 0
    assert (before.X != cells.X).nnz == 0
    pd.testing.assert_frame_equal(before.obs, cells.obs)
    assert not cells.uns
    if method != "pseudobulk":
        rows = cells.obs_names.get_indexer(small.obs_names)
        assert (rows >= 0).all()
        assert len(set(rows)) == len(rows)
        np.testing.assert_array_equal(cells.X[rows].toarray(), values)
        assert (cells.obs["cell_type"].iloc[rows].to_numpy() == small.obs["cell_type"]).all()


def test_weights_restore_the_class_shares(cells):
    small = select_cells(cells, "random", 5, labels_key="cell_type")
    share = small.obs.groupby("cell_type", observed=True)["weight"].sum() / small.n_obs
    expected = cells.obs["cell_type"].value_counts(normalize=True)
    np.testing.assert_allclose(share.to_numpy(), expected[share.index].to_numpy(), rtol=1e-5)


def test_stratified_follows_the_class_sizes(cells):
    rare = cells.copy()
    keep = (rare.obs["cell_type"] != rare.obs["cell_type"].cat.categories[0]) | (
        np.arange(rare.n_obs) < 40
    )
    rare = rare[keep].copy()
    small = select_cells(rare, "stratified", 10, labels_key="cell_type")
    assert small.n_obs == 40
    shares = small.obs["cell_type"].value_counts() / 40
    expected = rare.obs["cell_type"].value_counts(normalize=True)
    assert (shares - expected[shares.index]).abs().max() < 1 / 40


def test_pools_of_few_cells_are_merged_and_copy_nobody(cells):
    small = select_cells(cells, "pseudobulk", 40, labels_key="cell_type")
    sizes = cells.obs["cell_type"].value_counts()
    made = small.obs["cell_type"].value_counts()
    assert (made <= sizes[made.index] // 5).all()
    assert not exact_copies(small.X, cells.X).any()


def test_without_merging_pools_do_copy(cells):
    """Show that the rule is needed: k-means makes pools of single cells."""
    from sczoo.model.scdd._selection import principal_components

    codes = cells.obs["cell_type"].cat.codes.to_numpy().astype(int)
    pooled, _ = pool_cells(
        cells.X.tocsr(),
        codes,
        np.full(4, 40),
        principal_components(cells.X),
        rng=np.random.default_rng(0),
        min_pool=1,
    )
    assert exact_copies(pooled, cells.X).any()


def test_a_class_too_small_to_pool(cells):
    labels = cells.obs["cell_type"].astype(str).to_numpy()
    labels[:3] = "rare"
    cells.obs["cell_type"] = labels
    with pytest.raises(TooFewCellsError, match=r"'rare'.*rare='drop'"):
        select_cells(cells, "pseudobulk", 3, labels_key="cell_type")
    small = select_cells(cells, "pseudobulk", 3, labels_key="cell_type", rare="drop")
    assert "rare" not in set(small.obs["cell_type"])
    # choosing takes the whole class
    chosen = select_cells(cells, "kmedoids", 10, labels_key="cell_type")
    assert (chosen.obs["cell_type"] == "rare").sum() == 3


def test_bad_input(cells):
    def select(adata=cells, **kwargs):
        options = {"labels_key": "cell_type", "n_cells_per_class": 5, **kwargs}
        return select_cells(adata, **options)

    with pytest.raises(InputError, match="method='best'"):
        select(method="best")
    with pytest.raises(MissingKeyError, match="'no_such'"):
        select(labels_key="no_such")
    one = cells.copy()
    one.obs["cell_type"] = "T"
    with pytest.raises(InputError, match="1 class"):
        select(one)
    missing = cells.copy()
    missing.obs["cell_type"] = [None, *missing.obs["cell_type"].astype(str)[1:]]
    with pytest.raises(MissingValuesError, match="cell_type"):
        select(missing)
    with pytest.raises(TooFewCellsError, match="fewer cells per class"):
        select(n_cells_per_class=80)
    for wrong in (-1, 1.5, "first"):
        with pytest.raises(InputError, match="seed"):
            select(seed=wrong)
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="n_cells_per_class"):
            select(n_cells_per_class=wrong)
    with pytest.raises(InputError, match="not both"):
        select(fraction=0.1)
    with pytest.raises(InputError, match="fraction"):
        select(n_cells_per_class=None, fraction=1.5)
    logged = cells.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(NotCountsError):
        select(logged)


def test_views_layers_dense_and_fraction(cells):
    cells.layers["raw"] = cells.X.toarray()
    cells.X = cells.X * 0
    small = select_cells(cells[:250], "kmeans", labels_key="cell_type", layer="raw", fraction=0.1)
    assert small.n_obs in (24, 25)
    assert small.X.sum() > 0


@given(
    st.lists(st.integers(0, 300), min_size=2, max_size=8).filter(
        lambda s: sum(x > 0 for x in s) > 1
    ),
    st.integers(1, 20),
    st.sampled_from(["balanced", "proportional", "sqrt"]),
)
@settings(max_examples=100, deadline=None)
def test_budget_is_met(sizes, per_class, shares):
    sizes = np.array(sizes)
    present = int((sizes > 0).sum())
    if per_class * present >= sizes.sum():
        with pytest.raises(TooFewCellsError):
            class_budget(sizes, per_class, None, shares)
        return
    budget = class_budget(sizes, per_class, None, shares)
    assert (budget[sizes > 0] >= 1).all()
    assert (budget[sizes == 0] == 0).all()
    assert abs(int(budget.sum()) - per_class * present) <= present


def test_empty_cells_and_one_gene_do_no_harm():
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (60, 2)).astype(np.float32)
    counts[:5] = 0
    adata = AnnData(sparse.csr_matrix(counts))
    adata.obs["label"] = np.repeat(["a", "b"], 30)
    for method in METHODS:
        assert select_cells(adata, method, 3, labels_key="label").n_obs >= 2
