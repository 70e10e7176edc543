"""One private run: which releases it plans, with how much noise, and what it has spent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from sczoo.errors import PrivacyBudgetError, PrivacyError
from sczoo.privacy._accounting import PrivacyLedger, Release, calibrate_noise, combined_noise

if TYPE_CHECKING:
    from collections.abc import Callable

    from sczoo.privacy._noise import NoiseSource

__all__ = ["GROUPS", "Mode", "PrivateRun", "check_delta", "default_delta", "plan_run"]

Mode = Literal["dp", "frozen-decoder", "split", "paper"]
PROFILE, PROJECTION, GRADIENTS, CENTRES = (
    "mean profile",
    "second moments",
    "gradients",
    "cluster sums",
)
# Shares of the budget, in 1/noise^2. The projection carries most of the result.
_SHARES = {PROFILE: 0.1, PROJECTION: 0.82, GRADIENTS: 0.03, CENTRES: 0.05}
CENTRE_ROUNDS = 3
# in the mode "split" the decoder gets less noise, relative to its own clipping norm
_SPLIT = {"encoder": 1.0, "decoder": 0.7}
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "dp": {"all": ("",)},
    "frozen-decoder": {"all": ("",)},
    "split": {"encoder": ("encoder", "centres"), "decoder": ("decoder",)},
    "paper": {"all": ("",)},
}


@dataclass
class PrivateRun:
    """What the training plan needs to know of a private run.

    Parameters
    ----------
    mode
        How the network is protected.
    unit
        ``"cell"`` or ``"donor"``.
    n_units, rate, n_steps, rows_per_unit
        Units in the training data, sampling probability, planned steps, rows drawn of a unit.
    noise
        Noise multiplier of each kind of release.
    group_noise, max_grad_norm
        Noise multiplier of the gradients, and clipping norm, for each group of parameters.
    delta
        Of the guarantee.
    ledger
        What has been released.
    source
        Random numbers that nobody can repeat; those of a repeatable run where nothing is private.
    on_spend
        Called after each release, before anybody can see it.
    """

    mode: str
    unit: str
    n_units: int
    rate: float
    n_steps: int
    rows_per_unit: int
    noise: dict[str, float]
    group_noise: dict[str, float]
    max_grad_norm: dict[str, float]
    delta: float
    ledger: PrivacyLedger
    source: NoiseSource
    phase_one_steps: int = 0
    budget: float | None = None
    verified: bool = field(default=False)
    on_spend: Callable[[PrivateRun], None] | None = None

    @property
    def private(self) -> bool:
        """Whether any noise is added."""
        return any(value > 0 for value in self.group_noise.values())

    @property
    def expected_units(self) -> float:
        """Expected units in a minibatch: the divisor, whatever the minibatch holds."""
        return self.rate * self.n_units

    def spend(self, what: str) -> None:
        """Account for one release."""
        rate = self.rate if what == GRADIENTS else 1.0
        self.ledger.spend(self.noise[what], sampling_rate=rate, what=what)
        if self.on_spend is not None:
            self.on_spend(self)

    def epsilon(self) -> float:
        """Epsilon spent so far."""
        return self.ledger.epsilon(self.delta)


def default_delta(n_units: int) -> float:
    """One in ten times the units, and at most 1e-5."""
    return min(1e-5, 0.1 / n_units)


def check_delta(delta: float, n_units: int, unit: str) -> None:
    """Refuse a delta at which publishing a whole random record would count as private."""
    if not (isinstance(delta, int | float) and math.isfinite(delta) and 0 < delta < 1):
        raise PrivacyError(f"target_delta={delta}: it must lie between 0 and 1.")
    if delta >= 1 / n_units:
        raise PrivacyError(
            f"target_delta={delta:g} is not below 1/n = {1 / n_units:.2g} for {n_units} {unit}s: "
            f"publishing one {unit} whole, chosen at random, would satisfy it. Use "
            f"{default_delta(n_units):.1g} or less, or leave it out."
        )


def plan_run(
    *,
    mode: str,
    unit: str,
    n_units: int,
    rate: float,
    n_steps: int,
    rows_per_unit: int,
    target_epsilon: float | None,
    delta: float,
    noise_multiplier: float | None,
    max_grad_norm: float,
    needs_projection: bool,
    n_clusters: int,
    ledger: PrivacyLedger,
    source: Any,
) -> PrivateRun:
    """Choose the noise of every release.

    Raises
    ------
    PrivacyBudgetError
        Earlier runs have spent the budget.
    """
    groups = GROUPS[mode]
    counts = {GRADIENTS: n_steps}
    if needs_projection:
        counts |= {PROFILE: 1, PROJECTION: 1}
    if n_clusters:
        counts[CENTRES] = CENTRE_ROUNDS
    total = sum(_SHARES[what] for what in counts)
    relative = {}
    for what, count in counts.items():
        effective = math.sqrt(count) * (rate if what == GRADIENTS else 1.0)
        relative[what] = effective / math.sqrt(_SHARES[what] / total)
    if noise_multiplier is not None:
        factor = noise_multiplier / relative[GRADIENTS]
    elif target_epsilon is None:
        factor = 0.0
    else:
        plan = [
            Release(relative[what], rate if what == GRADIENTS else 1.0, count, what)
            for what, count in counts.items()
        ]
        spent = ledger.epsilon(delta)
        if spent >= 0.999 * target_epsilon:
            raise PrivacyBudgetError(
                f"This model has spent epsilon {spent:.3g} of {target_epsilon:g} already. "
                "Training on would reveal more than was promised. Allow more for all runs "
                "together with train(target_epsilon=...), which the card will state, or make a "
                "new model."
            )
        factor = calibrate_noise(target_epsilon, delta, plan, ledger)
    noise = {what: factor * value for what, value in relative.items()}
    if mode == "split":
        # scaled so that both groups together are one release with the planned noise
        joint = combined_noise(*_SPLIT.values())
        group_noise = {name: noise[GRADIENTS] * _SPLIT[name] / joint for name in groups}
    else:
        group_noise = dict.fromkeys(groups, noise[GRADIENTS])
    private = factor > 0
    bound = max_grad_norm / math.sqrt(len(groups)) if private else math.inf
    return PrivateRun(
        mode=mode,
        unit=unit,
        n_units=n_units,
        rate=rate,
        n_steps=n_steps,
        rows_per_unit=rows_per_unit,
        noise=noise,
        group_noise=group_noise,
        max_grad_norm=dict.fromkeys(groups, bound),
        delta=delta,
        ledger=ledger,
        source=source,
        phase_one_steps=math.ceil(0.6 * n_steps) if n_clusters else n_steps,
        budget=target_epsilon,
    )


MODES = get_args(Mode)
