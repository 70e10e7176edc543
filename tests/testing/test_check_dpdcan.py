"""DPDCAN passes the battery, with noise and without: one test per check."""

from __future__ import annotations

import pytest

from sczoo.testing import ModelCase, list_checks

SLOW = set(list_checks(slow=True))
_SECRET = (
    "noise and sampling come from the operating system and cannot be repeated: whoever could "
    "repeat them could subtract the noise. The same model without noise passes this check."
)
SKIP = {
    "same_seed_same_weights": _SECRET,
    "global_random_state_is_ignored": _SECRET,
    "recorded_seed_repeats_the_run": _SECRET,
    "fresh_process_trains_equally": _SECRET,
    # these train twice and compare the models
    "trains_on_csc": _SECRET,
    "trains_on_dense_float64": _SECRET,
    "trains_on_integers": _SECRET,
    "trains_on_a_layer": _SECRET,
    "trains_on_a_backed_file": _SECRET,
    "mudata_trains": _SECRET,
}
# a noise multiplier sets no limit to the budget, so that the battery may train on
PRIVATE = {"noise_multiplier": 1.0, "n_latent": 5}
CASES = {
    "private": (PRIVATE, SKIP),
    "no-noise": ({"noise_multiplier": 0.0, "n_latent": 5}, {}),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    from sczoo.model import DPDCAN

    arguments, skip = CASES[request.param]
    with ModelCase(DPDCAN, model_kwargs=arguments, skip=skip) as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in list_checks()],
)
def test_dpdcan_keeps_the_contract(case, name):
    result = case.run(name)
    if result.outcome == "skipped":
        pytest.skip(result.message)
    result.raise_if_failed()
