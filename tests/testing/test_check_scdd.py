"""SCDD passes the battery: one test per check."""

from __future__ import annotations

import pytest

from sczoo.testing import ModelCase, list_checks

SLOW = set(list_checks(slow=True))
# Checks that do not apply to the method, each with the reason.
SKIP: dict[str, str] = {}


@pytest.fixture(scope="module")
def case():
    from sczoo.model import SCDD

    with ModelCase(
        SCDD,
        model_kwargs={"n_latent": 6, "n_hidden": 32, "denoiser_hidden": 16, "denoiser_layers": 1},
        train_kwargs={"max_steps_diffusion": 4, "max_steps_student": 4},
        skip=SKIP,
    ) as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in list_checks()],
)
def test_scdd_keeps_the_contract(case, name):
    result = case.run(name)
    if result.outcome == "skipped":
        pytest.skip(result.message)
    result.raise_if_failed()
