"""Evaluation: clusterings, topics, gene sets and perturbations.

Thin over scikit-learn, igraph, faiss and gseapy, each imported with the first function that needs
it. Every function takes plain arrays or tables; nothing here knows a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sczoo.metrics._clustering import cluster_kmeans, cluster_leiden, cluster_leiden_k
    from sczoo.metrics._enrichment import (
        enrichment_counts,
        over_representation,
        preranked_enrichment,
    )
    from sczoo.metrics._gene_sets import read_gmt
    from sczoo.metrics._perturbation import nearest_condition_fraction, perturbation_correlation
    from sczoo.metrics._scores import clustering_scores, score_embedding
    from sczoo.metrics._topics import (
        interpretable_purity,
        max_topic_overlap,
        topic_coherence,
        topic_diversity,
        topic_quality,
    )

_HOMES = {
    "cluster_kmeans": "_clustering",
    "cluster_leiden": "_clustering",
    "cluster_leiden_k": "_clustering",
    "clustering_scores": "_scores",
    "enrichment_counts": "_enrichment",
    "interpretable_purity": "_topics",
    "max_topic_overlap": "_topics",
    "nearest_condition_fraction": "_perturbation",
    "over_representation": "_enrichment",
    "perturbation_correlation": "_perturbation",
    "preranked_enrichment": "_enrichment",
    "read_gmt": "_gene_sets",
    "score_embedding": "_scores",
    "topic_coherence": "_topics",
    "topic_diversity": "_topics",
    "topic_quality": "_topics",
}

__all__ = [
    "cluster_kmeans",
    "cluster_leiden",
    "cluster_leiden_k",
    "clustering_scores",
    "enrichment_counts",
    "interpretable_purity",
    "max_topic_overlap",
    "nearest_condition_fraction",
    "over_representation",
    "perturbation_correlation",
    "preranked_enrichment",
    "read_gmt",
    "score_embedding",
    "topic_coherence",
    "topic_diversity",
    "topic_quality",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"sczoo.metrics.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sczoo.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
