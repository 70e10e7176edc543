from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sczoo import errors
from sczoo.testing._snapshot import Snapshot


def trained(toy_class, counts, values):
    counts.obs["batch"] = values
    toy_class.setup_anndata(counts, batch_key="batch")
    model = toy_class(counts)
    model.train(max_epochs=1)
    return model


def codes(model):
    """Return the codes that scvi-tools gives the cells of a model."""
    return model.adata.obs["_scvi_batch"].to_numpy()


REFERENCE = {
    "text": np.array(["a", "b"] * 75, dtype=object),
    "numbers": np.array([1, 2] * 75),
    "categorical numbers": pd.Categorical([1, 2] * 75),
}
NEW = {
    "text": np.array(["b", "new", "a"] * 50, dtype=object),
    "numbers": np.array([2, 77, 1] * 50),
    "floats": np.array([2.0, 77.5, 1.0] * 50),
    "truth": np.array([True, False, True] * 50),
    "none": None,
}


@pytest.mark.parametrize("new", NEW)
@pytest.mark.parametrize("reference", REFERENCE)
def test_any_kind_of_category_can_be_fine_tuned_on(toy_class, counts, reference, new):
    query = counts.copy()
    model = trained(toy_class, counts, REFERENCE[reference])
    if NEW[new] is not None:
        query.obs["batch"] = NEW[new]
    else:
        del query.obs["batch"]
    before = Snapshot(query)
    tuned = toy_class.load_query_data(query, model, accelerator="cpu")
    tuned.train(max_epochs=1)
    before.require_unchanged("fine-tuning")
    same_kind = reference.split()[-1] == new
    expected = [1, 2, 0] if same_kind else None
    if expected:
        np.testing.assert_array_equal(codes(tuned), expected * 50)
    elif new == "none":
        np.testing.assert_array_equal(codes(tuned), 2)
    assert codes(tuned).min() >= 0


@pytest.mark.parametrize("new", NEW)
def test_a_loaded_model_takes_any_kind_of_category(toy_class, counts, new, tmp_path):
    data = counts.copy()
    trained(toy_class, counts, REFERENCE["text"]).save(tmp_path / "model")
    if NEW[new] is not None:
        data.obs["batch"] = NEW[new]
    else:
        del data.obs["batch"]
    columns = data.obs.copy()
    model = toy_class.load(tmp_path / "model", adata=data, accelerator="cpu")
    model.train(max_epochs=1)
    pd.testing.assert_frame_equal(data.obs[columns.columns], columns)
    assert ("batch" in data.obs) == (new != "none")


def test_missing_categories_are_refused_and_the_column_put_back(toy_class, counts, tmp_path):
    data = counts.copy()
    trained(toy_class, counts, REFERENCE["text"]).save(tmp_path / "model")
    data.obs["batch"] = pd.Categorical(["a", None] * 75)
    before = Snapshot(data)
    with pytest.raises(errors.MissingValuesError, match="'batch'"):
        toy_class.load(tmp_path / "model", adata=data, accelerator="cpu")
    before.require_unchanged("a refused load")


def test_data_that_were_set_up_before_can_be_attached(toy_class, counts, tmp_path):
    model = trained(toy_class, counts, REFERENCE["text"])
    model.save(tmp_path / "model")
    latent = model.get_latent_representation()
    again = toy_class.load(tmp_path / "model", adata=counts, accelerator="cpu")
    np.testing.assert_array_equal(again.get_latent_representation(), latent)


def test_without_a_batch_column_there_is_one_batch(toy_class, counts, tmp_path):
    query = counts.copy()
    toy_class.setup_anndata(counts)
    model = toy_class(counts)
    model.train(max_epochs=1)
    model.save(tmp_path / "model")
    for reference in (model, tmp_path / "model"):
        tuned = toy_class.load_query_data(query, reference, accelerator="cpu")
        np.testing.assert_array_equal(codes(tuned), 0)
