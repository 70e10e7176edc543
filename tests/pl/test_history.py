from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sczoo import pl
from sczoo.errors import InputError, MissingKeyError

HISTORY = {
    "train_loss_epoch": pd.DataFrame({"train_loss_epoch": [5.0, 4.0, 3.0]}),
    "validation_loss": pd.DataFrame({"validation_loss": [5.5, 4.5]}, index=[0, 2]),
    "elbo_train": pd.DataFrame({"elbo_train": [9.0, 8.0, 7.0]}),
    "elbo_validation": pd.DataFrame({"elbo_validation": [9.5, 8.5, 7.5]}),
    "ecr": [1.0, 0.5, 0.2],
}


def test_training_and_validation_share_a_panel():
    panels = pl.history(SimpleNamespace(history=HISTORY))
    assert [panel.get_title(loc="left") for panel in panels] == ["loss", "elbo", "ecr"]
    loss = {line.get_label(): line for line in panels[0].get_lines()}
    assert set(loss) == {"train", "validation"}
    np.testing.assert_array_equal(loss["train"].get_ydata(), [5, 4, 3])
    np.testing.assert_array_equal(loss["validation"].get_xdata(), [0, 2])
    assert panels[0].get_legend() is not None
    assert panels[2].get_legend() is None


def test_chosen_quantities():
    ax = pl.history(HISTORY, ["ecr"])
    assert ax.get_title(loc="left") == "ecr"
    with pytest.raises(MissingKeyError, match="There are: loss, elbo, ecr"):
        pl.history(HISTORY, ["kl"])
    with pytest.raises(MissingKeyError):
        pl.history(HISTORY, [])


def test_one_epoch_and_gaps():
    ax = pl.history({"loss": [2.0]})
    assert ax.get_lines()[0].get_marker() == "o"
    ax = pl.history({"loss": [2.0, np.nan, 1.0], "unused": [np.nan, np.nan]})
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), [0, 2])


@pytest.mark.parametrize("recorded", [None, {}])
def test_no_history_says_why(recorded):
    with pytest.raises(InputError, match="not saved with a model"):
        pl.history(SimpleNamespace(history=recorded))


def test_nothing_to_draw():
    with pytest.raises(InputError, match="no finite value"):
        pl.history({"loss": [np.nan]})
    with pytest.raises(InputError, match="no training history"):
        pl.history(object())
