"""GRIT passes the battery: one test per check."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from small_models import MARKERS

from sczoo.testing import ModelCase, list_checks

pytestmark = pytest.mark.skipif(
    find_spec("sczoo.model.grit._model") is None, reason="GRIT has no model class yet"
)
SLOW = set(list_checks(slow=True))
# Checks that do not apply to the method, each with the reason.
SKIP = {
    "a_view_as_query": "every label depends on all cells given, so that a part of the cells has "
    "labels of its own; tests/model/grit/test_grit_model.py compares a view with its copy"
}


@pytest.fixture(scope="module")
def case():
    from sczoo.model import GRIT

    arguments = {"markers": MARKERS, "n_components": 10}
    with ModelCase(GRIT, model_kwargs=arguments, skip=SKIP) as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in list_checks()],
)
def test_grit_keeps_the_contract(case, name):
    result = case.run(name)
    if result.outcome == "skipped":
        pytest.skip(result.message)
    result.raise_if_failed()
