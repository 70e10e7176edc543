"""The zoo's own models pass the battery: one test per check."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from sczoo.testing import ModelCase, list_checks

pytestmark = pytest.mark.skipif(
    find_spec("sczoo.model.sce2tm._model") is None, reason="SCE2TM has no model class yet"
)
SLOW = set(list_checks(slow=True))
# Checks that do not apply to the method, each with the reason.
SKIP: dict[str, str] = {}


@pytest.fixture(scope="module")
def case():
    from sczoo.model import SCE2TM

    with ModelCase(SCE2TM, model_kwargs={"n_topics": 5}, skip=SKIP) as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in list_checks()],
)
def test_sce2tm_keeps_the_contract(case, name):
    result = case.run(name)
    if result.outcome == "skipped":
        pytest.skip(result.message)
    result.raise_if_failed()
