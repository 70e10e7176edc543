"""Checks that the same seed gives the same weights, whatever else the process does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import settings

from sczoo.testing._case import weights_of
from sczoo.testing._expect import require, require_equal
from sczoo.testing._quiet import disturb_random_states, random_states, seeded

if TYPE_CHECKING:
    from sczoo.testing._case import ModelCase


def _require_same_weights(found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    require(found.keys() == expected.keys(), f"{what}: the weights have other names.")
    for name, weight in expected.items():
        require_equal(found[name], weight, f"{what}, weight {name!r}")


def check_same_seed_same_weights(case: ModelCase) -> None:
    """Require that training twice with one seed in one process gives equal weights bit by bit."""
    _require_same_weights(
        weights_of(case.fit()), weights_of(case.model), "A second run with the same seed"
    )


def check_global_random_state_is_ignored(case: ModelCase) -> None:
    """Ignore the state of Python's, numpy's and torch's global generators in training."""
    disturb_random_states(98765)
    _require_same_weights(
        weights_of(case.fit()), weights_of(case.model), "A run with another global random state"
    )


def check_callers_random_state_is_untouched(case: ModelCase) -> None:
    """Require that neither building, training nor inference moves the caller's generators."""
    model: Any = None

    def build() -> None:
        nonlocal model
        case.set_up(cells)
        model = case.model_class(cells, **case.model_kwargs)

    cells, query = case.cells(), case.query(bare=True)
    steps = {
        "Setting up and building a model": build,
        "Training": lambda: model.train(**case.train_kwargs),
        "Inference": lambda: case.embed(model, query),
        "Saving": lambda: model.save(case.folder / "random-state"),
        "Loading": lambda: case.model_class.load(case.folder / "random-state", accelerator="cpu"),
    }
    with seeded(3):
        disturb_random_states(1234)
        for doing, step in steps.items():
            before = random_states()
            step()
            after = random_states()
            for name, old, new in zip(("Python", "numpy", "torch"), before, after, strict=True):
                require(_same_state(old, new), f"{doing} drew from {name}'s global generator.")


def _same_state(old: Any, new: Any) -> bool:
    if isinstance(old, tuple):
        return len(old) == len(new) and all(map(_same_state, old, new))
    equal = old == new
    return bool(equal.all()) if hasattr(equal, "all") else bool(equal)


def check_recorded_seed_repeats_the_run(case: ModelCase) -> None:
    """Draw and record a seed where none is set; the recorded one gives the same weights again."""

    def fit() -> Any:
        cells = case.cells()
        case.set_up(cells)
        model: Any = case.model_class(cells, **case.model_kwargs)
        model.train(**case.train_kwargs)
        return model

    with seeded(None):
        require(settings.seed is None, "scvi.settings.seed could not be unset.")
        first = fit()
    seed = first.provenance_.get("seed")
    require(isinstance(seed, int), f"provenance_ records the seed {seed!r}.")
    with seeded(seed):
        second = fit()
    _require_same_weights(
        weights_of(second), weights_of(first), f"A run with the recorded seed {seed}"
    )


def check_inference_repeats(case: ModelCase) -> None:
    """Give equal results bit by bit when asked twice, whatever the global random state."""
    disturb_random_states(4711)
    again = case.embed(case.model, case.query(bare=True))
    require_equal(again, case.latent, "The representation of the same cells, asked twice")


def check_fresh_process_trains_equally(case: ModelCase) -> None:
    """Give equal weights for the same seed in a fresh process with another PYTHONHASHSEED."""
    _require_same_weights(
        case.fresh.weights(), weights_of(case.model), "The same seed in a fresh process"
    )
