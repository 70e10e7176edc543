"""What a private model says of itself: the report, and the block of the card."""

from __future__ import annotations

import math
from typing import Any

from sczoo.model.dpdcan._checks import ACKNOWLEDGED
from sczoo.model.dpdcan._run import GRADIENTS, PROJECTION
from sczoo.privacy._accounting import round_up

__all__ = ["card_block", "describe"]

_NONE = "No differential-privacy guarantee."
# what benchmarks/dpdcan_utility.py shows; said beside every guarantee
ALTERNATIVE = (
    "sczoo.privacy.dp_pca releases principal directions alone for the same epsilon. In the "
    "measurements of the user guide its clusters are level or slightly better with 8,000 cells "
    "and more at epsilon 4 and 8, and worse with fewer cells or a smaller epsilon"
)
_WHY = {
    "paper": (
        "the published scheme leaves part of the decoder without noise, which steers the "
        "gradients of the rest, and its contrastive loss mixes the cells of a minibatch"
    ),
    "noise": "the model was trained without noise",
}


def describe(model: Any) -> dict[str, Any]:
    """Build the report of :meth:`DPDCAN.get_privacy_report`."""
    facts = model.privacy_
    epsilon = model.epsilon
    ledger = model._ledger
    report: dict[str, Any] = {
        "guarantee": _NONE,
        "epsilon": epsilon,
        "delta": model.delta,
        "unit": model._unit,
        "mode": model._mode,
        "mechanism": _mechanism(model),
        "accountants": {},
        "covers": [],
        "not_covered": not_covered(model),
        "alternative": None,
        "releases": ledger.as_dicts(),
    }
    if epsilon is None:
        report["why_not"] = _WHY["paper" if model._mode == "paper" else "noise"]
        if model._mode == "paper" and facts["releases"] and model._noise_multiplier != 0:
            # what the published accounting would print
            report["nominal_epsilon"] = ledger.epsilon(facts["delta"], "rdp")
        return report
    report["guarantee"] = (
        f"(epsilon={round_up(epsilon, 4)}, delta={round_up(facts['delta'], 3)}) under adding or "
        f"removing ONE {model._unit}."
    )
    report["accountants"] = ledger.cross_check(facts["delta"])
    report["alternative"] = ALTERNATIVE
    report["covers"] = ["all weights, at every step", "everything stored"]
    if any(release.what == PROJECTION for release in ledger.releases):
        report["covers"].insert(1, "the projection")
    return report


def _mechanism(model: Any) -> str:
    parts = []
    for release in model._ledger.releases:
        if release.what == GRADIENTS:
            sampling = (
                f"Poisson sampling q={release.sampling_rate:.4g}"
                if model._mode != "paper"
                else "shuffled minibatches"
            )
            parts.append(
                f"DP-SGD (Adam is post-processing), {sampling}, noise multiplier "
                f"{release.noise_multiplier:.4g}, clip C={model._max_grad_norm:g}, "
                f"steps T={release.count}"
            )
        else:
            parts.append(
                f"Gaussian release of the {release.what}, {release.count} times, noise multiplier "
                f"{release.noise_multiplier:.4g}"
            )
    budget = model.privacy_.get("budget")
    if parts and budget is not None and model._mode != "paper":
        parts.append(f"budget epsilon {budget:g}")
    return "; ".join(parts) or "none"


def not_covered(model: Any) -> list[str]:
    """List what lies outside the guarantee."""
    genes = model.privacy_["genes"]
    source = genes["source"] or "not stated"
    numbers = "cells" if model._unit == "cell" else "donors, and of cells"
    listed = [
        "embeddings or labels of the training cells themselves",
        f"the list of genes (source: {source})",
        f"the number of {numbers}, which is treated as public",
        "the search for hyper-parameters: NOT charged",
        "figures that were measured with the training cells, such as attacks and scores on a card",
        "attacks on the finite precision of the noise: floating-point numbers, a generator that "
        "is keyed by the operating system but is no cipher",
    ]
    if "public_cells" in model.privacy_:
        listed.append(
            f"the {model.privacy_['public_cells']} cells that were given as public: no noise "
            "hides them"
        )
    if genes["acknowledged"]:
        listed[1] = ACKNOWLEDGED["gene_list"]
    if model._unit == "cell":
        listed.append("persons: whoever gave m cells has about m times epsilon")
    return listed


def card_block(model: Any) -> dict[str, Any]:
    """Plain values for provenance and card; ``epsilon`` is ``None`` without a guarantee."""
    epsilon = model.epsilon
    if epsilon is None:
        why = _WHY["paper" if model._mode == "paper" else "noise"]
        return {"epsilon": None, "statement": f"{_NONE[:-1]}: {why}."}
    return {
        "epsilon": math.ceil(epsilon * 1e6) / 1e6,
        "delta": model.delta,
        "unit": model._unit,
        "mechanism": _mechanism(model),
        "accountant": (f"PLD (RDP: {model._ledger.epsilon(model.privacy_['delta'], 'rdp'):.4g})"),
        "not_covered": not_covered(model),
        "alternative": ALTERNATIVE,
    }
