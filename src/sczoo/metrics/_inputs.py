"""What the metrics accept: an embedding, labels, top genes of topics."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import EmptyDataError, InputError, MissingValuesError, NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    TopGenes = (
        pd.DataFrame | Mapping[Any, Collection[Any]] | Collection[Collection[Any]] | ArrayLike
    )


def embedding(X: Any, name: str = "X") -> NDArray[np.floating]:
    """Return a finite matrix of cells x dimensions."""
    from scipy.sparse import issparse

    if issparse(X):
        raise InputError(f"{name} is sparse: pass an embedding, or {name}.toarray().")
    matrix = np.asarray(X)
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number):
        raise InputError(
            f"{name} must be a numeric matrix of cells x dimensions, not {matrix.dtype} of shape "
            f"{matrix.shape}."
        )
    if matrix.size == 0:
        raise EmptyDataError(f"{name} has shape {matrix.shape}: there is nothing to score.")
    finite = np.isfinite(matrix)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise NotFiniteError(
            f"{name} holds {float(matrix[row, column])} at row {row}, column {column}. Remove "
            "such cells or recompute the matrix."
        )
    return matrix


def codes(labels: Any, name: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return integer codes and the values they stand for, sorted; refuse missing labels."""
    import pandas as pd

    values = pd.Series(labels).reset_index(drop=True)
    missing = values.isna()
    if missing.any():
        raise MissingValuesError(
            f"{name} has {missing.sum()} missing value(s), the first at cell "
            f"{missing.to_numpy().argmax()}. Leave these cells out."
        )
    code, kinds = pd.factorize(values.astype(object), sort=False)
    return code.astype(np.int64), np.asarray(kinds, dtype=object)


def same_length(first: int, second: int, names: tuple[str, str]) -> None:
    """Refuse two columns about different numbers of cells."""
    if first != second:
        raise InputError(
            f"{names[0]} has {first} cells and {names[1]} has {second}: they must be about the "
            "same cells, in the same order."
        )


def genes_by_topic(top_genes: TopGenes) -> dict[Hashable, list[Hashable]]:
    """Bring top genes into one form: the genes of each topic, best first.

    Takes a long table (columns ``topic``, ``gene`` and, if there, ``rank``), a wide table or
    matrix (one row per topic), a mapping from topic to genes, or a list of lists.
    """
    topics = _read_topics(top_genes)
    if not topics:
        raise EmptyDataError("There are no topics in top_genes.")
    for topic, genes in topics.items():
        if not genes:
            raise EmptyDataError(f"Topic {topic!r} has no genes.")
        if len(set(genes)) != len(genes):
            twice = next(gene for gene in genes if genes.count(gene) > 1)
            raise InputError(f"Topic {topic!r} names gene {twice!r} twice.")
    return topics


def _read_topics(top_genes: Any) -> dict[Hashable, list[Hashable]]:
    import pandas as pd

    if isinstance(top_genes, pd.DataFrame):
        if {"topic", "gene"} <= set(top_genes.columns):
            table = top_genes
            if "rank" in table.columns:
                table = table.sort_values("rank", kind="stable")
            groups = table.groupby("topic", sort=False, observed=True)["gene"]
            found = {topic: genes.tolist() for topic, genes in groups}
            return {topic: found[topic] for topic in top_genes["topic"].unique()}
        return {
            topic: [gene for gene in row.tolist() if not pd.isna(gene)]
            for topic, row in top_genes.iterrows()
        }
    if isinstance(top_genes, Mapping):
        return {topic: list(genes) for topic, genes in top_genes.items()}
    if isinstance(top_genes, str) or any(isinstance(genes, str) for genes in top_genes):
        raise InputError(
            "top_genes must hold one list of genes per topic, and holds single genes: wrap the "
            "list of one topic in another list."
        )
    return {topic: list(genes) for topic, genes in enumerate(top_genes)}
