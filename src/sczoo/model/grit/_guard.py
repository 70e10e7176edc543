"""When not to believe the refinement: neighbourhoods that are consistently wrong.

Smoothing repairs scattered errors. Where a whole neighbourhood carries the wrong label it makes
the error firmer, and its mark is a class that swallows others: the variety of the labels falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sczoo.model.grit._graph import agreement

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["GuardName", "GuardReport", "inspect_refinement"]

GuardName = Literal["auto", "warn", "off"]

# A trained classifier's labels that lose this much of their entropy were drained, not repaired;
# a smaller loss is enough where most of the labels that changed went to the largest class.
LEAST_ENTROPY_KEPT = 0.82
LEAST_KEPT_WITH_SINK, LARGEST_SINK = 0.9, 0.55
LEAST_AGREEMENT = 0.5


@dataclass(frozen=True)
class GuardReport:
    """What the guard saw.

    Attributes
    ----------
    agreement
        Weighted share of neighbours that have the same raw label.
    entropy_kept
        Entropy of the distribution of the refined labels over that of the raw ones.
    into_largest
        Share of the changed labels that went to the class that was largest before.
    margin_before, margin_after
        Mean difference between the best and the second best score of a cell.
    edge_agreement_after
        As `agreement`, of the refined labels.
    collapsed
        Whether classes were drained into a few.
    refused
        Whether the raw scores were kept for that reason.
    warnings
        What the reader of the labels should know.
    """

    agreement: float
    entropy_kept: float
    into_largest: float
    margin_before: float
    margin_after: float
    edge_agreement_after: float
    collapsed: bool
    refused: bool
    warnings: tuple[str, ...]


def inspect_refinement(
    raw: np.ndarray,
    refined: np.ndarray,
    graph: csr_matrix,
    *,
    probability: bool,
    mode: GuardName = "auto",
) -> GuardReport:
    """Compare scores before and after the refinement, without any truth.

    Parameters
    ----------
    raw, refined
        ``(n_cells, n_classes)``.
    graph
        The graph.
    probability
        Whether the scores are those of a trained classifier. Scattered labels of a scorer with
        many candidates that are not there lose entropy rightly, so that only probabilities are
        refused.
    mode
        ``"auto"``: keep the raw scores where classes collapse. ``"warn"``: say so only.
        ``"off"``: say nothing.
    """
    before, after = raw.argmax(axis=1), refined.argmax(axis=1)
    n_classes = raw.shape[1]
    agreed = float(agreement(graph, before, before).mean())
    agreed_after = float(agreement(graph, after, after).mean())
    entropy = _entropy(before, n_classes)
    kept = _entropy(after, n_classes) / entropy if entropy > 0 else 1.0
    margin_before, margin_after = float(margin(raw).mean()), float(margin(refined).mean())
    changed = before != after
    largest = np.bincount(before, minlength=n_classes).argmax()
    sink = float((after[changed] == largest).mean()) if changed.any() else 0.0
    drained = kept < LEAST_ENTROPY_KEPT
    drained = drained or (kept < LEAST_KEPT_WITH_SINK and sink > LARGEST_SINK)
    collapsed = probability and drained
    refused = collapsed and mode == "auto"
    warnings = []
    if collapsed:
        done = (
            "The raw scores were kept; guard='warn' refines them all the same."
            if refused
            else "Consider the raw labels."
        )
        warnings.append(
            f"Refinement drains classes into a few: the labels keep {kept:.0%} of their entropy. "
            "This happens where the scores are wrong for whole neighbourhoods, such as those of a "
            f"classifier trained on another kind of data. {done}"
        )
    if agreed < LEAST_AGREEMENT:
        firmer = " although the refined scores are more certain" * (margin_after > margin_before)
        warnings.append(
            f"Neighbours have the same raw label in {agreed:.0%} of the pairs{firmer}: the scores "
            "fit these cells badly, or too many candidate classes are alike. Choose fewer "
            "candidates, and do not trust labels of low confidence."
        )
    if mode == "off":
        warnings = []
    return GuardReport(
        agreement=agreed,
        entropy_kept=float(kept),
        into_largest=sink,
        margin_before=margin_before,
        margin_after=margin_after,
        edge_agreement_after=agreed_after,
        collapsed=bool(collapsed),
        refused=bool(refused),
        warnings=tuple(warnings),
    )


def margin(scores: np.ndarray) -> np.ndarray:
    """Difference between the best and the second best score of each cell."""
    top = np.partition(scores, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def _entropy(labels: np.ndarray, n_classes: int) -> float:
    share = np.bincount(labels, minlength=n_classes) / max(len(labels), 1)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())
