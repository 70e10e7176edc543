"""A published SCAGC holds nothing of single cells, and a stranger gets the same clusters."""

import numpy as np
import pytest

import sczoo
from sczoo import hub
from sczoo.testing import example_cells


@pytest.mark.parametrize("n_clusters", [None, 4])
def test_anchors_pass_the_gate_and_a_stranger_gets_the_same(card, tmp_path, n_clusters):
    cells = example_cells(307)
    sczoo.model.SCAGC.setup_anndata(cells)
    model = sczoo.model.SCAGC(cells, n_clusters=n_clusters)
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    for stated in ("summary", "citation", "compat"):  # the method and the run state these
        del card[stated]
    entry = hub.publish(model, "scagc/test", registry=tmp_path / "r", card=card)
    assert entry.privacy.per_cell_content == "none"
    assert entry.privacy.compared_with_data
    query = example_cells(50, seed=4)
    expected = model.predict(query)
    loaded = sczoo.load("scagc/test", registry=tmp_path / "r")
    np.testing.assert_array_equal(loaded.predict(query), expected)
    assert len(loaded.module.anchor_components) <= 307 // 5
    assert hub.verify("scagc/test", registry=tmp_path / "r").ok
