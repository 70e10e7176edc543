"""Plots, with scanpy's habits: give ``ax``, ``show``, ``save``; get Axes back.

Nothing is shown unless ``show=True``, nothing is written into the data, and the colours can be
told apart by people with colour-vision deficiency for up to eight groups.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sczoo.pl._cluster_stability import cluster_stability
    from sczoo.pl._depth_association import depth_association, scree
    from sczoo.pl._distillation import distillation_accuracy, distilled
    from sczoo.pl._embedding import embedding
    from sczoo.pl._graph_report import degree_distribution, graph_report
    from sczoo.pl._grit import label_confidence, label_confusion, label_flow
    from sczoo.pl._history import history
    from sczoo.pl._perturbation import perturbation
    from sczoo.pl._privacy import audit
    from sczoo.pl._topic_usage import topic_usage
    from sczoo.pl._topics import topics

_HOMES = {
    "cluster_stability": "_cluster_stability",
    "degree_distribution": "_graph_report",
    "graph_report": "_graph_report",
    "audit": "_privacy",
    "depth_association": "_depth_association",
    "distillation_accuracy": "_distillation",
    "distilled": "_distillation",
    "embedding": "_embedding",
    "history": "_history",
    "label_confidence": "_grit",
    "label_confusion": "_grit",
    "label_flow": "_grit",
    "perturbation": "_perturbation",
    "scree": "_depth_association",
    "topic_usage": "_topic_usage",
    "topics": "_topics",
}

__all__ = [
    "audit",
    "cluster_stability",
    "degree_distribution",
    "depth_association",
    "distillation_accuracy",
    "distilled",
    "embedding",
    "graph_report",
    "history",
    "label_confidence",
    "label_confusion",
    "label_flow",
    "perturbation",
    "scree",
    "topic_usage",
    "topics",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"sczoo.pl.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sczoo.pl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
