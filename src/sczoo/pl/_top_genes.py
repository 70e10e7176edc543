"""Top genes of anything that has topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sczoo.errors import InputError, MissingKeyError
from sczoo.metrics._inputs import genes_by_topic

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


class TopicGenes(NamedTuple):
    """The top genes of one topic, best first."""

    topic: Hashable
    genes: list[str]
    scores: list[float] | None


def top_genes(model: Any, n_genes: int, topics: Sequence[Any] | None) -> list[TopicGenes]:
    """Ask a model for the top genes of its topics.

    Takes anything with ``get_top_genes(n)``, which gives a long table (topic, rank, gene, score)
    or a wide one (topics x ranks), or else with ``get_topic_gene_matrix()``; or such a table.
    """
    if n_genes < 1:
        raise InputError(f"n_genes={n_genes}: ask for at least one gene.")
    if hasattr(model, "get_top_genes"):
        found = _read_table(model.get_top_genes(n_genes), n_genes)
    elif hasattr(model, "get_topic_gene_matrix"):
        found = _read_matrix(model, n_genes)
    elif hasattr(model, "columns") or isinstance(model, dict | list | tuple):
        found = _read_table(model, n_genes)
    else:
        raise InputError(
            f"{type(model).__name__} has neither get_top_genes nor get_topic_gene_matrix: it has "
            "no topics to draw."
        )
    return found if topics is None else _choose(found, topics)


def topic_title(topic: Any) -> str:
    """Return how a topic is called in a picture."""
    if isinstance(topic, int | np.integer):
        return f"Topic {topic}"
    words = str(topic).replace("_", " ")
    return words[:1].upper() + words[1:]


def _read_table(table: Any, n_genes: int) -> list[TopicGenes]:
    genes = genes_by_topic(table)
    scores: dict[Any, list[float]] = {}
    if {"topic", "gene", "score"} <= set(getattr(table, "columns", ())):
        known = table.set_index(["topic", "gene"])["score"]
        scores = {topic: [float(known[topic, g]) for g in gs] for topic, gs in genes.items()}
    return [
        TopicGenes(
            topic,
            [str(gene) for gene in listed[:n_genes]],
            scores[topic][:n_genes] if topic in scores else None,
        )
        for topic, listed in genes.items()
    ]


def _read_matrix(model: Any, n_genes: int) -> list[TopicGenes]:
    matrix = model.get_topic_gene_matrix()
    values = np.asarray(matrix, dtype=float)
    if hasattr(matrix, "columns"):
        names, topics = list(matrix.columns), list(matrix.index)
    else:
        names, topics = list(model.var_names), list(range(len(values)))
    if values.ndim != 2 or values.shape != (len(topics), len(names)):
        raise InputError(
            f"get_topic_gene_matrix() has shape {values.shape}: topics x {len(names)} genes are "
            "needed."
        )
    best = np.argsort(-values, axis=1, kind="stable")[:, :n_genes]
    return [
        TopicGenes(topic, [str(names[g]) for g in row], [float(v) for v in values[k, row]])
        for k, (topic, row) in enumerate(zip(topics, best, strict=True))
    ]


def _choose(found: list[TopicGenes], topics: Sequence[Any]) -> list[TopicGenes]:
    by_name = {entry.topic: entry for entry in found}
    chosen = []
    for topic in topics:
        if topic in by_name:
            chosen.append(by_name[topic])
        elif isinstance(topic, int | np.integer) and 0 <= topic < len(found):
            chosen.append(found[topic])
        else:
            raise MissingKeyError(
                f"There is no topic {topic!r}. There are {len(found)}, from "
                f"{found[0].topic!r} to {found[-1].topic!r}."
            )
    if not chosen:
        raise InputError("topics is empty: name at least one topic, or leave it out for all.")
    return chosen
