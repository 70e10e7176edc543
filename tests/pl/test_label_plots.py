"""Plots of labels before and after the refinement."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sczoo import pl
from sczoo.errors import InputError, MissingKeyError


@pytest.fixture
def labelled(cells):
    rng = np.random.default_rng(0)
    types = np.array(["B", "T", "NK"])
    raw = rng.integers(3, size=60)
    after = np.where(rng.random(60) < 0.3, rng.integers(3, size=60), raw)
    cells.obs["grit_raw_label"] = pd.Categorical(types[raw])
    cells.obs["grit_label"] = pd.Categorical(types[after])
    cells.obs["grit_confidence"] = rng.random(60)
    return cells


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_flow_states_the_cells_on_both_sides(labelled):
    before = labelled.obs.copy()
    ax = pl.label_flow(labelled)
    raw = labelled.obs["grit_raw_label"].value_counts()
    after = labelled.obs["grit_label"].value_counts()
    for name in raw.index:
        assert f"{name}  {raw[name]}" in texts(ax)
        assert f"{after[name]}  {name}" in texts(ax)
    changed = labelled.obs["grit_raw_label"].astype(str) != labelled.obs["grit_label"].astype(str)
    assert f"{changed.mean():.1%}" in ax.get_title()
    pd.testing.assert_frame_equal(labelled.obs, before)


def test_flow_areas_are_the_counts(labelled):
    ax = pl.label_flow(labelled)
    bars = [p for p in ax.patches if type(p).__name__ == "Rectangle"]
    left = sorted(b.get_height() for b in bars if b.get_x() == 0)
    counts = np.sort(labelled.obs["grit_raw_label"].value_counts().to_numpy())
    assert np.allclose(np.array(left) / sum(left), counts / 60)


def test_confidence_has_one_box_per_label(labelled):
    ax = pl.label_confidence(labelled)
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert len(names) == 3
    medians = labelled.obs.groupby("grit_label", observed=True)["grit_confidence"].median()
    assert names[0].startswith(medians.idxmin())


def test_confusion_has_shares_of_each_true_type(labelled, tmp_path):
    axes = pl.label_confusion(labelled, "cell_type", save=tmp_path / "confusion.png")
    assert [ax.get_title() for ax in axes] == ["before", "after"]
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    drawn = axes[1].collections[0].get_array().reshape(3, 3)
    assert np.allclose(np.asarray(drawn).sum(1), 1)


def test_one_label_and_unknown(labelled):
    labelled.obs["grit_raw_label"] = "B"
    labelled.obs["grit_label"] = "unknown"
    assert "60  unknown" in texts(pl.label_flow(labelled))
    pl.label_confidence(labelled)


def test_what_is_missing_is_named(labelled, cells):
    with pytest.raises(MissingKeyError, match="other_raw_label"):
        pl.label_flow(labelled, "other")
    with pytest.raises(MissingKeyError, match="'nothing'"):
        pl.label_confusion(labelled, "nothing")
    labelled.obs["empty"] = np.nan
    with pytest.raises(InputError, match="not missing"):
        pl.label_confusion(labelled, "empty")
    del labelled.obs["grit_confidence"]
    with pytest.raises(MissingKeyError, match="grit_confidence"):
        pl.label_confidence(labelled)
