"""GramDR passes the battery: one test per check."""

from __future__ import annotations

import pytest

from sczoo.model import GramDR
from sczoo.testing import ModelCase, list_checks

SLOW = set(list_checks(slow=True))
# Checks that do not apply to the method, each with the reason.
SKIP: dict[str, str] = {}


@pytest.fixture(scope="module")
def case():
    with ModelCase(GramDR, model_kwargs={"n_latent": 8}, skip=SKIP) as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in list_checks()],
)
def test_gramdr_keeps_the_contract(case, name):
    result = case.run(name)
    if result.outcome == "skipped":
        pytest.skip(result.message)
    result.raise_if_failed()
