from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sczoo import pl
from sczoo.errors import EmptyDataError, InputError, NotFiniteError

GENES = ["ISG15", "MX1", "CD3D", "XIST", "GAPDH"]
CHANGE = pd.Series([2.0, 1.0, -1.5, 0.0, -0.5], GENES)


def names_in(ax):
    return [text.get_text() for text in ax.texts]


def test_genes_up_and_down_in_order():
    ax = pl.perturbation(CHANGE)
    assert names_in(ax) == ["ISG15", "MX1", "GAPDH", "CD3D"]  # XIST does not move
    points = np.asarray(ax.collections[-1].get_offsets())
    np.testing.assert_allclose(points[:, 0], [2.0, 1.0, -0.5, -1.5])
    assert names_in(pl.perturbation(CHANGE, 1)) == ["ISG15", "CD3D"]


def test_all_forms_of_a_result_agree():
    by_cell = pd.DataFrame([CHANGE + 1, CHANGE - 1])
    forms = [
        CHANGE.to_dict(),
        pd.DataFrame({"gene": GENES, "change": CHANGE.to_numpy()}),
        pd.DataFrame({"gene": GENES, "log_fold_change": CHANGE.to_numpy()}),
        by_cell,
        SimpleNamespace(gene_response=CHANGE),
        SimpleNamespace(log_fold_change=by_cell),
        SimpleNamespace(log_fold_change=by_cell.to_numpy(), genes=GENES),
        SimpleNamespace(mean_change=CHANGE.to_numpy(), var_names=pd.Index(GENES)),
        SimpleNamespace(gene_response=lambda: CHANGE),
    ]
    for form in forms:
        assert names_in(pl.perturbation(form)) == names_in(pl.perturbation(CHANGE))


def test_one_direction_only():
    ax = pl.perturbation(CHANGE[CHANGE > 0])
    assert names_in(ax) == ["ISG15", "MX1"]
    ax = pl.perturbation(CHANGE[CHANGE < 0], highlight=["CD3D"])
    assert [text.get_weight() for text in ax.texts] == ["normal", "bold"]


def test_labels():
    ax = pl.perturbation(CHANGE, title="Monocytes", xlabel="log2 fold change")
    assert ax.get_title(loc="left") == "Monocytes"
    assert ax.get_xlabel() == "log2 fold change"


def test_bad_results():
    with pytest.raises(EmptyDataError, match="moves no gene"):
        pl.perturbation(CHANGE * 0)
    with pytest.raises(NotFiniteError, match="'MX1'"):
        pl.perturbation(CHANGE.replace(1.0, np.inf))
    for useless in (object(), SimpleNamespace(genes=GENES), SimpleNamespace(change=np.ones(5))):
        with pytest.raises(InputError, match="neither"):
            pl.perturbation(useless)
    with pytest.raises(InputError, match="at least one gene"):
        pl.perturbation(CHANGE, 0)
