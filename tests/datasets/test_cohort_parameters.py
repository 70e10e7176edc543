"""The simulator's parameters: what is refused, by name, and what is understood."""

from __future__ import annotations

import numpy as np
import pytest

from sczoo.datasets import simulated_cohort
from sczoo.errors import InputError


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"n_cells": 0}, "n_cells=0"),
        ({"n_cells": 10.0}, "n_cells=10.0"),
        ({"n_donors": True}, "n_donors=True"),
        ({"n_genes": "many"}, "n_genes='many'"),
        ({"n_cell_types": -1}, "n_cell_types=-1"),
        ({"n_donors": 2, "n_batches": 3}, "raise n_donors"),
        ({"n_cells": 11}, "raise n_cells"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"dispersion": 0}, "dispersion=0"),
        ({"dispersion": float("nan")}, "dispersion=nan"),
        ({"depth": 0}, "depth=0"),
        ({"depth": float("inf")}, "depth=inf"),
        ({"depth": [100.0, -1.0]}, "depth="),
        ({"depth": [1.0, 2.0, 3.0]}, "one per batch"),
        ({"depth": "deep"}, "depth='deep'"),
        ({"depth_sd": -0.1}, "depth_sd=-0.1"),
        ({"gene_sd": 6}, "gene_sd=6"),
        ({"marker_fold": 0}, "marker_fold=0"),
        ({"n_markers": 101}, "lower them or raise n_genes"),
        ({"n_response_genes": -1}, "n_response_genes=-1"),
        ({"conditions": []}, "conditions="),
        ({"conditions": "control"}, "list of names"),
        ({"conditions": ["a", "a"]}, "names must differ"),
        ({"conditions": ["a/b"]}, "conditions="),
        ({"conditions": [1]}, "conditions="),
        ({"composition": 0}, "composition=0"),
        ({"batch_design": "mixed"}, "batch_design='mixed'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": None}, "seed=None"),
    ],
)
def test_bad_parameters_are_named(parameters, named):
    with pytest.raises(InputError) as caught:
        simulated_cohort(**parameters)
    assert named in str(caught.value)


def test_numpy_numbers_are_numbers():
    options = {"n_cells": 100, "n_genes": 30, "depth": 200.0, "seed": 3}
    plain = simulated_cohort(**options)
    other = simulated_cohort(
        n_cells=np.int64(100), n_genes=np.uint16(30), depth=np.float32(200), seed=np.int8(3)
    )
    assert (plain.X != other.X).nnz == 0


def test_counts_beyond_float32_are_refused():
    with pytest.raises(InputError, match="does not fit float32"):
        simulated_cohort(n_genes=1, n_cell_types=1, depth=1e7, depth_sd=2.0)


def test_the_smallest_cohort_is_one_cell():
    adata = simulated_cohort(1, 1, 1, 1, 1, conditions=["only"])
    assert adata.shape == (1, 1)
