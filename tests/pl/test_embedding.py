from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from sczoo import pl
from sczoo.errors import EmptyDataError, InputError, MissingKeyError, NotFiniteError
from sczoo.pl import _embedding
from sczoo.pl._colours import MISSING


def drawn_points(ax):
    return np.vstack([np.asarray(part.get_offsets()) for part in ax.collections])


def as_set(points):
    return {tuple(np.round(point, 9)) for point in points}


def test_two_dimensions_are_drawn_as_they_are(cells):
    for basis in ("flat", "X_flat"):
        ax = pl.embedding(cells, basis, "cell_type")
        assert as_set(drawn_points(ax)) == as_set(cells.obsm["X_flat"])
    assert ax.get_title(loc="left") == "cell type"
    assert ax.get_xlabel() == "flat 1"


def test_components_are_drawn_without_a_layout(cells):
    ax = pl.embedding(cells, "toy", components=(3, 1))
    assert as_set(drawn_points(ax)) == as_set(cells.obsm["X_toy"][:, [3, 1]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("toy 4", "toy 2")


@pytest.mark.parametrize("layout", ["umap", "tsne", "pca"])
def test_more_dimensions_are_laid_out(cells, layout):
    ax = pl.embedding(cells, "toy", "cell_type", layout=layout)
    points = drawn_points(ax)
    assert points.shape == (60, 2)
    assert np.isfinite(points).all()
    assert ax.get_xlabel().endswith("1 of toy")
    assert as_set(drawn_points(pl.embedding(cells, "toy", layout=layout))) == as_set(points)


def test_panels_share_a_layout_that_is_computed_once(cells, monkeypatch):
    _embedding._RECENT.clear()
    calls = []
    compute = _embedding._lay_out
    monkeypatch.setattr(
        _embedding, "_lay_out", lambda *args: calls.append(args[1]) or compute(*args)
    )
    panels = pl.embedding(cells, "toy", ["cell_type", "condition"])
    other = pl.embedding(cells, "toy", "ISG15")
    assert calls == ["umap"]
    assert len(panels) == 2
    assert as_set(drawn_points(panels[0])) == as_set(drawn_points(other))
    cells.obsm["X_toy"] = cells.obsm["X_toy"] + np.arange(5)
    pl.embedding(cells, "toy")
    assert calls == ["umap", "umap"]
    for seed in range(10):
        pl.embedding(cells, "toy", layout="pca", random_state=seed)
    assert len(_embedding._RECENT) == _embedding._N_RECENT


def test_categories_take_their_colours_and_a_legend(cells):
    cells.uns["cell_type_colors"] = ["#112233", "#445566", "#778899"]
    ax = pl.embedding(cells, "flat", "cell_type", random_state=3)
    (scatter,) = ax.collections
    colours = {
        tuple(np.round(point, 9)): tuple(np.round(shade[:3], 6))
        for point, shade in zip(scatter.get_offsets(), scatter.get_facecolors(), strict=True)
    }
    by_group = dict(zip(["T", "B", "NK"], cells.uns["cell_type_colors"], strict=True))
    for point, group in zip(cells.obsm["X_flat"], cells.obs["cell_type"], strict=True):
        expected = tuple(np.round(to_rgba(by_group[group])[:3], 6))
        assert colours[tuple(np.round(point, 9))] == expected
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["T", "B", "NK"]


def test_legend_on_data_and_none(cells):
    ax = pl.embedding(cells, "flat", "cell_type", legend="on data")
    assert {text.get_text() for text in ax.texts} == {"T", "B", "NK"}
    assert ax.get_legend() is None
    assert pl.embedding(cells, "flat", "cell_type", legend=None).get_legend() is None


def test_missing_and_unused_categories(cells):
    values = cells.obs["cell_type"].astype(object)
    values[cells.obs["cell_type"] == "NK"] = None
    cells.obs["cell_type"] = pd.Categorical(values, ["T", "B", "NK"])
    ax = pl.embedding(cells, "flat", "cell_type")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["T", "B", "missing"]
    shades = {tuple(shade[:3]) for shade in ax.collections[0].get_facecolors()}
    assert to_rgba(MISSING)[:3] in shades


@pytest.mark.parametrize("what", ["depth", "ISG15"])
def test_numbers_and_genes_have_a_colour_bar(cells, what):
    ax = pl.embedding(cells, "flat", what)
    values = ax.collections[0].get_array()
    expected = cells.obs["depth"] if what == "depth" else cells[:, what].X.toarray().ravel()
    assert sorted(values) == sorted(expected)
    assert (np.diff(values) >= 0).all()  # high values are drawn last
    assert len(ax.figure.axes) == 2


def test_numbers_that_are_missing_are_grey(cells):
    cells.obs["depth"] = np.where(np.arange(60) < 5, np.nan, cells.obs["depth"])
    ax = pl.embedding(cells, "flat", "depth")
    assert len(ax.collections[0].get_offsets()) == 5
    assert len(ax.collections[1].get_offsets()) == 55


def test_booleans_and_strings_are_groups(cells):
    cells.obs["malignant"] = np.arange(60) % 2 == 0
    for what, n_groups in (("malignant", 2), ("condition", 2)):
        ax = pl.embedding(cells, "flat", what)
        assert len(ax.get_legend().get_texts()) == n_groups


def test_data_are_left_alone(cells):
    before = cells.copy()
    pl.embedding(cells, "toy", ["cell_type", "condition", "MX1"])
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert list(cells.obsm) == list(before.obsm)
    assert not cells.uns


def test_views_one_cell_and_one_dimension(cells):
    pl.embedding(cells[::2], "toy", "cell_type")
    for n_cells in (1, 2, 4):
        for layout in ("umap", "tsne", "pca"):
            ax = pl.embedding(cells[:n_cells], "toy", "condition", layout=layout)
            assert len(drawn_points(ax)) == n_cells
    cells.obsm["X_one"] = cells.obsm["X_toy"][:, :1]
    assert len(drawn_points(pl.embedding(cells, "one"))) == 60


def test_many_groups_keep_their_colours_apart(cells):
    cells.obs["donor"] = [f"donor {k}" for k in range(60)]
    ax = pl.embedding(cells, "flat", "donor")
    assert len({tuple(shade) for shade in ax.collections[0].get_facecolors()}) == 60


def test_bad_input(cells):
    with pytest.raises(MissingKeyError, match="There are: X_toy, X_flat"):
        pl.embedding(cells, "umap")
    with pytest.raises(MissingKeyError, match="neither a column of obs nor a gene"):
        pl.embedding(cells, "flat", "batch")
    with pytest.raises(InputError, match="layout='force'"):
        pl.embedding(cells, "toy", layout="force")
    with pytest.raises(InputError, match="from 0 to 4"):
        pl.embedding(cells, "toy", components=(0, 5))
    with pytest.raises(InputError, match="legend='left'"):
        pl.embedding(cells, "flat", "cell_type", legend="left")
    with pytest.raises(InputError, match="empty list"):
        pl.embedding(cells, "flat", [])
    with pytest.raises(EmptyDataError, match="no cells"):
        pl.embedding(cells[:0], "flat")
    cells.obsm["X_toy"][2, 1] = np.nan
    with pytest.raises(NotFiniteError, match="row 2, column 1"):
        pl.embedding(cells, "toy")
