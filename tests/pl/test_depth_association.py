from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from sczoo import pl
from sczoo.errors import InputError, MissingKeyError


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    kind = np.repeat(["a", "b"], 100)
    depth = np.exp(rng.normal(size=200)) * np.where(kind == "a", 1.0, 10.0)
    adata = AnnData(rng.poisson(depth[:, None] * 20 * np.ones((1, 30))).astype(np.float32))
    adata.obs["kind"] = kind
    log = np.log(np.asarray(adata.X.sum(1)).ravel())
    adata.obsm["X_deep"] = np.column_stack([log, rng.normal(size=200), kind == "a"]).astype(float)
    adata.obsm["X_flat"] = rng.normal(size=(200, 3))
    return adata


def drawn(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_it_draws_the_correlation_of_each_component_with_log_depth(cells):
    found = drawn(pl.depth_association(cells, ["X_deep", "X_flat"]))
    log = np.log(np.asarray(cells.X.sum(1)).ravel())
    for key in ("X_deep", "X_flat"):
        expected = [abs(np.corrcoef(c, log)[0, 1]) for c in cells.obsm[key].T]
        np.testing.assert_allclose(found[key], expected, rtol=1e-5)
    assert found["X_deep"][0] == pytest.approx(1)


def test_within_groups_a_component_of_the_type_is_no_depth(cells):
    over_all = drawn(pl.depth_association(cells, "X_deep"))["X_deep"]
    within = drawn(pl.depth_association(cells, "X_deep", groupby="kind"))["X_deep"]
    assert over_all[2] > 0.5
    assert within[2] == 0
    assert within[0] == pytest.approx(1)


def test_arrays_columns_and_layers_do_as_well(cells):
    cells.obs["depth"] = np.asarray(cells.X.sum(1)).ravel()
    cells.layers["counts"] = cells.X.copy()
    expected = drawn(pl.depth_association(cells, ["X_deep"]))["X_deep"]
    for kwargs in ({"depth": "depth"}, {"depth": cells.obs["depth"].to_numpy()},
                   {"layer": "counts"}):  # fmt: skip
        ax = pl.depth_association(cells, {"it": cells.obsm["X_deep"]}, **kwargs)
        np.testing.assert_allclose(drawn(ax)["it"], expected)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"embeddings": ["X_none"]}, MissingKeyError),
        ({"embeddings": []}, InputError),
        ({"embeddings": {"a": np.zeros((3, 2))}}, InputError),
        ({"embeddings": {"a": np.full((200, 2), np.nan)}}, InputError),
        ({"embeddings": ["X_flat"], "depth": "none"}, MissingKeyError),
        ({"embeddings": ["X_flat"], "depth": np.zeros(200)}, InputError),
        ({"embeddings": ["X_flat"], "depth": np.ones(200)}, InputError),
        ({"embeddings": ["X_flat"], "layer": "none"}, MissingKeyError),
        ({"embeddings": ["X_flat"], "groupby": "none"}, MissingKeyError),
        ({"embeddings": ["X_flat"], "n_components": 0}, InputError),
    ],
)
def test_what_cannot_be_drawn_is_refused(cells, kwargs, error):
    with pytest.raises(error):
        pl.depth_association(cells, **kwargs)


def test_scree(cells):
    from types import SimpleNamespace

    import pandas as pd

    table = pd.DataFrame({"ratio": [0.5, 0.3], "cumulative": [0.5, 0.8]})
    model = SimpleNamespace(get_explained_variance=lambda: table)
    np.testing.assert_allclose(pl.scree(model).get_lines()[0].get_ydata(), [0.5, 0.3])
    ax = pl.scree(model, cumulative=True)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [0.5, 0.8])
    with pytest.raises(InputError):
        pl.scree(object())
