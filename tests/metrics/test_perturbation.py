from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from sczoo.errors import EmptyDataError, InputError, MissingKeyError, NotFiniteError
from sczoo.metrics import nearest_condition_fraction, perturbation_correlation


@given(st.integers(2, 60), st.integers(0, 10**6), st.floats(0.1, 100), st.floats(-50, 50))
@settings(max_examples=60, deadline=None)
def test_equals_scipy_and_ignores_scale(n_genes, seed, scale, shift):
    predicted, observed = np.random.default_rng(seed).normal(size=(2, n_genes))
    r = perturbation_correlation(predicted, observed)
    assert r == pytest.approx(pearsonr(predicted, observed)[0], abs=1e-9)
    assert perturbation_correlation(predicted * scale + shift, observed) == pytest.approx(
        r, abs=1e-6
    )


def test_rows_are_cell_types():
    predicted, observed = np.random.default_rng(0).normal(size=(2, 3, 40))
    r = perturbation_correlation(predicted, observed)
    expected = [pearsonr(a, b)[0] for a, b in zip(predicted, observed, strict=True)]
    np.testing.assert_allclose(r, expected)


def test_genes_are_matched_by_name():
    rng = np.random.default_rng(1)
    genes = [f"G{number}" for number in range(30)]
    observed = pd.Series(rng.normal(size=30), genes)
    predicted = observed.sample(frac=1, random_state=0)
    assert perturbation_correlation(predicted, observed) == pytest.approx(1)
    table = pd.DataFrame([observed, -observed], index=["T", "B"])
    shuffled = table.loc[["B", "T"], predicted.index]
    np.testing.assert_allclose(perturbation_correlation(shuffled, table), [1, 1])
    with pytest.raises(InputError, match="different genes"):
        perturbation_correlation(predicted.rename({"G3": "other"}), observed)
    with pytest.raises(InputError, match="different rows"):
        perturbation_correlation(table.rename({"T": "NK"}), table)
    with pytest.raises(InputError, match="not unique"):
        perturbation_correlation(predicted.rename({"G3": "G4"}), observed)


def test_undefined_correlations():
    change = np.arange(5.0)
    with pytest.raises(InputError, match="not defined"):
        perturbation_correlation(np.zeros(5), change)
    with pytest.raises(InputError, match="same genes"):
        perturbation_correlation(change[:4], change)
    with pytest.raises(EmptyDataError):
        perturbation_correlation([1.0], [2.0])
    with pytest.raises(NotFiniteError, match="observed_change"):
        perturbation_correlation(change, [0, 1, 2, 3, np.nan])


def test_nearest_condition():
    reference = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    conditions = ["ctrl"] * 3 + ["stim"] * 3
    cells = [[0.4], [9.0], [5.9], [6.1]]
    assert nearest_condition_fraction(cells, reference, conditions, "stim") == 0.5
    assert nearest_condition_fraction(cells, reference, conditions, "ctrl") == 0.5
    # three nearest of 5.9 are 2, 10 and 1: two of three are controls
    three = nearest_condition_fraction(cells, reference, conditions, "stim", n_neighbors=3)
    assert three == 0.5
    # a tie is not a majority
    two = nearest_condition_fraction([[6.1]], reference, conditions, "stim", n_neighbors=2)
    assert two == 0
    with pytest.raises(MissingKeyError, match="There are: ctrl, stim"):
        nearest_condition_fraction(cells, reference, conditions, "treated")
    with pytest.raises(InputError, match="6 cells"):
        nearest_condition_fraction(cells, reference, conditions[:5], "stim")
