"""How well the topics of a model can be read: coherence, diversity, purity."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import GeneOverlapError
from sczoo.metrics._gene_sets import gene_set_collection
from sczoo.metrics._inputs import codes, embedding, genes_by_topic, same_length

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from os import PathLike

    from numpy.typing import ArrayLike, NDArray

    from sczoo.metrics._inputs import TopGenes

    GeneSets = Mapping[str, Collection[str]] | str | PathLike[str]


def topic_coherence(
    top_genes: TopGenes, gene_sets: GeneSets, *, per_topic: bool = False
) -> float | NDArray[np.float64]:
    r"""Normalised pointwise mutual information of top genes in a gene-set collection.

    The gene sets are the documents. With :math:`p(g)` the fraction of sets that hold gene *g* and
    :math:`p(g, h)` the fraction that hold both, a pair scores

    .. math:: \mathrm{NPMI}(g, h) = \frac{\ln[p(g, h) / (p(g) p(h))]}{-\ln p(g, h)}

    and 0 where the two never occur together, one is in no set, or both are in every set. A topic
    scores the mean over the pairs of its top genes; the result is the mean over topics.

    Parameters
    ----------
    top_genes
        The top genes of each topic, ten by convention: a table with columns ``topic`` and
        ``gene``, a table or list with one row per topic, or a mapping from topic to genes.
    gene_sets
        Mapping from the name of a set to its genes, or the path of a GMT file. The value depends
        on the collection: compare only within one.
    per_topic
        Return one value per topic.

    Returns
    -------
    Between -1 and 1, higher is more coherent; no unit.

    Raises
    ------
    sczoo.errors.GeneOverlapError
        None of the genes is in the collection, for example because of upper and lower case.
    """
    topics = genes_by_topic(top_genes)
    wanted = {gene for genes in topics.values() for gene in genes}
    collection = gene_set_collection(gene_sets)
    sets_of = _inverted_index(wanted, collection)
    n_sets = len(collection)
    means = [
        np.mean(
            [
                _npmi(sets_of.get(one, frozenset()), sets_of.get(other, frozenset()), n_sets)
                for one, other in combinations(genes, 2)
            ]
            or [0.0]
        )
        for genes in topics.values()
    ]
    return np.asarray(means, dtype=np.float64) if per_topic else float(np.mean(means))


def topic_diversity(top_genes: TopGenes) -> float:
    """Return the fraction of top genes that belong to one topic only.

    (Number of entries whose gene occurs exactly once over all topics) / (number of entries).
    This is stricter than the usual count of distinct genes: a gene that two topics share counts
    for neither. Genes are compared as they are, so HLA-A and HLA-B are two genes.

    Parameters
    ----------
    top_genes
        The top genes of each topic, as names or as gene indices (see :func:`topic_coherence`).

    Returns
    -------
    Between 0 (every gene is shared) and 1 (no gene is).
    """
    from collections import Counter

    topics = genes_by_topic(top_genes)
    times = Counter(gene for genes in topics.values() for gene in genes)
    return sum(count == 1 for count in times.values()) / times.total()


def topic_quality(top_genes: TopGenes, gene_sets: GeneSets) -> float:
    """Return coherence times diversity.

    Parameters
    ----------
    top_genes
        The top genes of each topic (see :func:`topic_coherence`).
    gene_sets
        Mapping from the name of a set to its genes, or the path of a GMT file.

    Returns
    -------
    :func:`topic_coherence` x :func:`topic_diversity`; no unit.
    """
    return float(topic_coherence(top_genes, gene_sets)) * topic_diversity(top_genes)


def max_topic_overlap(top_genes: TopGenes) -> float:
    """Return the largest share of top genes that two topics have in common.

    Parameters
    ----------
    top_genes
        The top genes of each topic (see :func:`topic_coherence`).

    Returns
    -------
    Shared genes / genes of the shorter list, for the pair where this is largest: 1 means that a
    topic occurs twice. 0 with a single topic.
    """
    sets = [set(genes) for genes in genes_by_topic(top_genes).values()]
    return max(
        (len(one & other) / min(len(one), len(other)) for one, other in combinations(sets, 2)),
        default=0.0,
    )


def interpretable_purity(topics: ArrayLike, labels: ArrayLike) -> float:
    """Return the purity of the clusters made by each cell's strongest topic.

    Parameters
    ----------
    topics
        Cells x topics: proportions or logits (both have the same strongest topic).
    labels
        Known label of each cell.

    Returns
    -------
    Sum over topics of the count of the most frequent label among its cells, divided by the number
    of cells: above 0, at most 1. It rises with the number of topics.
    """
    strongest = embedding(topics, "topics").argmax(axis=1)
    truth, kinds = codes(labels, "labels")
    same_length(len(strongest), len(truth), ("topics", "labels"))
    table = np.zeros((strongest.max() + 1, len(kinds)), dtype=np.int64)
    np.add.at(table, (strongest, truth), 1)
    return float(table.max(axis=1).sum() / len(truth))


def _inverted_index(
    wanted: set[Any], collection: Mapping[str, Collection[str]]
) -> dict[Any, frozenset[int]]:
    """Find the sets that hold each wanted gene, as their positions in the collection."""
    holds: dict[Any, set[int]] = {}
    for number, genes in enumerate(collection.values()):
        for gene in wanted.intersection(genes):
            holds.setdefault(gene, set()).add(number)
    if not holds:
        raise GeneOverlapError(_why_no_overlap(wanted, collection))
    return {gene: frozenset(numbers) for gene, numbers in holds.items()}


def _why_no_overlap(wanted: set[Any], collection: Mapping[str, Collection[str]]) -> str:
    example = sorted(map(str, wanted))[0]
    message = f"None of the {len(wanted)} top genes (such as {example}) is in the gene sets."
    folded = {str(gene).upper() for genes in collection.values() for gene in genes}
    if any(str(gene).upper() in folded for gene in wanted):
        return (
            f"{message} They match in another case: convert the names if both are of the same "
            "species, or take gene sets of the right species."
        )
    return f"{message} Both must be symbols, or both Ensembl identifiers, of one species."


def _npmi(one: frozenset[int], other: frozenset[int], n_sets: int) -> float:
    both = len(one & other)
    if both == 0 or both == n_sets:
        return 0.0
    together = both / n_sets
    return float(np.log(together * n_sets * n_sets / (len(one) * len(other))) / -np.log(together))
