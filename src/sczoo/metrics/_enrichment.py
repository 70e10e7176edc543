"""Gene-set enrichment of topics through gseapy, with local gene sets only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import (
    EmptyDataError,
    GeneOverlapError,
    InputError,
    NotFiniteError,
    OptionalDependencyError,
)
from sczoo.metrics._gene_sets import gene_set_collection
from sczoo.metrics._inputs import genes_by_topic

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import ModuleType

    import pandas as pd

    from sczoo.metrics._inputs import TopGenes
    from sczoo.metrics._topics import GeneSets

_ORA_COLUMNS = [
    "topic",
    "term",
    "overlap",
    "set_size",
    "p_value",
    "adjusted_p_value",
    "odds_ratio",
    "genes",
]
_GSEA_COLUMNS = {
    "Term": "term",
    "ES": "es",
    "NES": "nes",
    "NOM p-val": "p_value",
    "FDR q-val": "fdr",
    "Lead_genes": "leading_edge",
}


def over_representation(
    genes: TopGenes | Collection[str],
    gene_sets: GeneSets,
    *,
    background: Collection[str] | None = None,
) -> pd.DataFrame:
    """Test which gene sets hold more of some genes than chance would put there.

    One-sided hypergeometric test of each gene set that holds at least one of the genes (gseapy),
    adjusted by Benjamini and Hochberg over these sets, for each topic on its own.

    Parameters
    ----------
    genes
        A list of genes, or the top genes of several topics (see
        :func:`sczoo.metrics.topic_coherence`).
    gene_sets
        Mapping from the name of a set to its genes, or the path of a GMT file.
    background
        The genes that could have been chosen. Give the genes of the model: the default, all genes
        of the collection, makes sets of widely expressed genes look enriched.

    Returns
    -------
    pandas.DataFrame
        Sorted by topic and p value: ``topic`` (0 for a single list), ``term``, ``overlap`` and
        ``set_size`` (numbers of genes, within the background), ``p_value``,
        ``adjusted_p_value``, ``odds_ratio`` (gseapy's, 0.5 added to each cell of the table) and
        ``genes`` (those that overlap, joined by ``;``).

    Raises
    ------
    sczoo.errors.OptionalDependencyError
        gseapy is not installed.
    sczoo.errors.GeneOverlapError
        No gene at all is in both the background and a gene set.
    """
    import pandas as pd

    gseapy = _gseapy()
    collection = gene_set_collection(gene_sets)
    universe = {gene for members in collection.values() for gene in members}
    if background is not None:
        if isinstance(background, str) or len(background) == 0:
            raise EmptyDataError("background must be a list of genes that is not empty.")
        universe = {str(gene) for gene in background}
    within = {
        name: kept for name, members in collection.items() if (kept := universe & set(members))
    }
    topics = {
        topic: [str(gene) for gene in chosen if str(gene) in universe]
        for topic, chosen in genes_by_topic(_as_topics(genes)).items()
    }
    if not within or not any(topics.values()):
        raise GeneOverlapError(
            "No gene is in both the background and the gene sets. Use gene sets of the same "
            "species and namespace (symbols or Ensembl identifiers), in the same case."
        )
    tables = []
    for topic, chosen in topics.items():
        if not any(members.intersection(chosen) for members in within.values()):
            continue
        found = gseapy.enrich(
            gene_list=chosen,
            gene_sets={name: sorted(members) for name, members in within.items()},
            background=sorted(universe),
            outdir=None,
            no_plot=True,
        ).results
        overlap = found["Overlap"].str.split("/", expand=True).astype(int)
        tables.append(
            pd.DataFrame(
                {
                    "topic": [topic] * len(found),
                    "term": found["Term"],
                    "overlap": overlap[0],
                    "set_size": overlap[1],
                    "p_value": found["P-value"].astype(float),
                    "adjusted_p_value": found["Adjusted P-value"].astype(float),
                    "odds_ratio": found["Odds Ratio"].astype(float),
                    "genes": [";".join(sorted(hit.split(";"))) for hit in found["Genes"]],
                }
            ).sort_values(["p_value", "term"])
        )
    if not tables:
        return pd.DataFrame(columns=_ORA_COLUMNS)
    return pd.concat(tables, ignore_index=True)[_ORA_COLUMNS]


def preranked_enrichment(
    scores: pd.Series | pd.DataFrame | Mapping[str, float],
    gene_sets: GeneSets,
    *,
    n_permutations: int = 1000,
    min_size: int = 15,
    max_size: int = 500,
    random_state: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """Run gene-set enrichment analysis of all genes ranked by a score (gseapy's prerank).

    Parameters
    ----------
    scores
        Score of each gene, or a table of topics x genes such as a topic-gene matrix.
    gene_sets
        Mapping from the name of a set to its genes, or the path of a GMT file.
    n_permutations
        Permutations of the gene names for the null distribution.
    min_size, max_size
        Sets with fewer or more scored genes are left out.
    random_state
        Seed of the permutations.
    threads
        Threads of gseapy.

    Returns
    -------
    pandas.DataFrame
        ``topic``, ``term``, ``es`` and ``nes`` (enrichment score, raw and divided by the mean of
        its null of the same sign), ``p_value``, ``fdr`` (q value over the sets of the topic) and
        ``leading_edge`` (genes joined by ``;``), sorted by topic and descending ``nes``.

    Raises
    ------
    sczoo.errors.OptionalDependencyError
        gseapy is not installed.
    sczoo.errors.GeneOverlapError
        No gene set has between ``min_size`` and ``max_size`` of the scored genes.
    """
    import pandas as pd

    gseapy = _gseapy()
    table = _score_table(scores)
    known = set(table.columns)
    sized = {
        name: kept
        for name, members in gene_set_collection(gene_sets).items()
        if min_size <= len(kept := sorted(known.intersection(members))) <= max_size
    }
    if not sized:
        raise GeneOverlapError(
            f"No gene set has between {min_size} and {max_size} of the {len(known)} scored genes. "
            "Use gene sets of the same species and namespace, or lower min_size."
        )
    tables = []
    for topic, row in table.iterrows():
        found = gseapy.prerank(
            rnk=row.sort_values(ascending=False, kind="stable"),
            gene_sets=sized,
            min_size=min_size,
            max_size=max_size,
            permutation_num=n_permutations,
            seed=random_state,
            threads=threads,
            outdir=None,
            no_plot=True,
        ).res2d
        found = found.rename(columns=_GSEA_COLUMNS)[list(_GSEA_COLUMNS.values())]
        numbers = ["es", "nes", "p_value", "fdr"]
        found[numbers] = found[numbers].astype(float)
        found.insert(0, "topic", [topic] * len(found))
        tables.append(found.sort_values(["nes", "term"], ascending=[False, True]))
    return pd.concat(tables, ignore_index=True)


def enrichment_counts(table: pd.DataFrame, *, threshold: float = 0.01) -> dict[str, float]:
    """Count the enriched sets of a table over topics.

    Parameters
    ----------
    table
        What :func:`over_representation` or :func:`preranked_enrichment` returned.
    threshold
        A set counts where its adjusted p value, or its FDR, is at most this.

    Returns
    -------
    dict
        ``hits``: number of (topic, set) pairs; ``distinct``: number of different sets;
        ``distinct_per_hit``: their ratio, 1 where no two topics share a set (0 without hits).
    """
    column = "adjusted_p_value" if "adjusted_p_value" in table.columns else "fdr"
    if not {column, "term"} <= set(table.columns):
        raise InputError(
            "The table has no column 'term' with 'adjusted_p_value' or 'fdr': pass the result of "
            "over_representation or preranked_enrichment."
        )
    terms = table.loc[table[column].astype(float) <= threshold, "term"]
    hits, distinct = len(terms), terms.nunique()
    return {
        "hits": hits,
        "distinct": distinct,
        "distinct_per_hit": distinct / hits if hits else 0.0,
    }


def _as_topics(genes: Any) -> Any:
    """Wrap a plain list of genes as the genes of topic 0."""
    if not hasattr(genes, "columns") and not isinstance(genes, Mapping | str):
        genes = list(genes)
        if genes and all(isinstance(gene, str) for gene in genes):
            return {0: list(dict.fromkeys(genes))}
    return genes


def _score_table(scores: Any) -> pd.DataFrame:
    import pandas as pd

    table = scores if isinstance(scores, pd.DataFrame) else pd.Series(scores).to_frame(0).T
    table = table.astype(float)
    if table.size == 0:
        raise EmptyDataError("There are no scores to rank genes by.")
    if not table.columns.is_unique:
        twice: Hashable = table.columns[table.columns.duplicated()][0]
        raise InputError(f"Gene {twice!r} has two scores: make the gene names unique.")
    values = table.to_numpy()
    if not np.isfinite(values).all():
        row, column = map(int, np.argwhere(~np.isfinite(values))[0])
        raise NotFiniteError(
            f"The score of gene {table.columns[column]!r} in row {table.index[row]!r} is "
            f"{values[row, column]}: leave such genes out."
        )
    return table


def _gseapy() -> ModuleType:
    try:
        import gseapy
    except ImportError as error:
        raise OptionalDependencyError(
            "Gene-set enrichment needs gseapy: pip install 'sczoo[enrich]'."
        ) from error
    return gseapy
