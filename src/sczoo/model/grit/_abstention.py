"""Saying "unknown", or the name of a parent, where a label is not certain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sczoo.errors import InputError
from sczoo.model.grit.ontology import cell_ontology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ancestor_labels", "check_coverage", "kept_at_coverage"]


def check_coverage(coverage: float) -> float:
    """Require a share of the cells."""
    valid = isinstance(coverage, int | float | np.number) and not isinstance(coverage, bool)
    if not valid or not 0 < float(coverage) <= 1:
        raise InputError(
            f"coverage={coverage!r}: it is the share of cells that get a label, above 0 and at "
            "most 1."
        )
    return float(coverage)


def kept_at_coverage(confidence: np.ndarray, coverage: float) -> np.ndarray:
    """Choose the most confident cells: exactly ``round(coverage * n_cells)`` of them.

    Returns
    -------
    Mask of the cells that keep their label.
    """
    n_kept = round(check_coverage(coverage) * len(confidence))
    kept = np.zeros(len(confidence), dtype=bool)
    kept[np.argsort(-confidence, kind="stable")[:n_kept]] = True
    return kept


def ancestor_labels(
    probabilities: np.ndarray,
    classes: Sequence[str],
    terms: Mapping[str, str],
    threshold: float,
) -> pd.DataFrame:
    """Name the most specific term of the Cell Ontology that is probable enough.

    The probability of a term is that of all classes that are kinds of it.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_classes)``, rows sum to one.
    classes
        Names of the classes.
    terms
        Identifier of each class in the Cell Ontology; classes without one have no parent.
    threshold
        Smallest probability of a name.

    Returns
    -------
    ``label`` (a class, or the name of a parent; ``"unknown"`` where not even the root is probable
    enough), ``term`` and ``probability``; one row per cell.
    """
    if not 0 < threshold <= 1:
        raise InputError(
            f"threshold={threshold!r}: a probability above 0 and at most 1 is needed."
        )
    ontology = cell_ontology()
    nodes: dict[str, tuple[str, int]] = {}
    members: dict[str, list[int]] = {}
    for column, name in enumerate(classes):
        term = terms.get(name)
        if term is None or term not in ontology.names:
            nodes[f"\0{name}"] = (name, 10**6)
            members[f"\0{name}"] = [column]
            continue
        for ancestor in ontology.ancestors(term):
            depth = len(ontology.ancestors(ancestor))
            nodes.setdefault(ancestor, (ontology.names[ancestor], depth))
            members.setdefault(ancestor, []).append(column)
        # under its own name, and deeper than its term
        nodes[f"\0{name}"] = (name, 10**6)
        members[f"\0{name}"] = [column]
    # the most specific first; among equals the one with fewer classes
    order = sorted(nodes, key=lambda node: (-nodes[node][1], len(members[node]), node))
    n_cells = len(probabilities)
    label = np.full(n_cells, "unknown", dtype=object)
    found = np.full(n_cells, "", dtype=object)
    chosen = np.zeros(n_cells)
    rank = np.full(n_cells, -1)
    for node in order:
        total = probabilities[:, members[node]].sum(axis=1)
        name, depth = nodes[node]
        # of two equally deep names the more probable wins
        better = (total >= threshold) & ((rank < depth) | ((rank == depth) & (total > chosen)))
        label[better], chosen[better], rank[better] = name, total[better], depth
        found[better] = terms.get(name, "") if node.startswith("\0") else node
    return pd.DataFrame({"label": label, "term": found, "probability": chosen})
