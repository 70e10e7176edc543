"""SCAGC passes the battery: one test per check."""

from __future__ import annotations

import pytest

from sczoo.testing import ModelCase, list_checks

SLOW = set(list_checks(slow=True))
# Checks that do not apply to the method, each with the reason.
SKIP = {
    "results_of_the_training_cells": (
        "the training cells are embedded on their learned graph, the same cells passed as a query "
        "attach to the anchors as any new cell does; tests/model/scagc compares the two"
    ),
}


@pytest.fixture(scope="module")
def case():
    from sczoo.model.scagc import SCAGC

    with ModelCase(SCAGC, model_kwargs={"n_clusters": 4}, skip=SKIP) as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in list_checks()],
)
def test_scagc_keeps_the_contract(case, name):
    result = case.run(name)
    if result.outcome == "skipped":
        pytest.skip(result.message)
    result.raise_if_failed()
