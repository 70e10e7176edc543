"""Are fifty topics different from one another, and do their genes belong together?

Diversity is the share of top-ten entries whose gene occurs once over all topics, counted on exact
genes; coherence is NPMI over the Reactome and WikiPathways gene sets of MSigDB 2024.1 (the
original's figures are over all 3,917 canonical pathways of the same release, which also hold KEGG,
BioCarta and PID; those may not be shipped). Beside SCE2TM: the published algorithm
(``preset="paper"``, 100 epochs), with its own choice of genes and with the default one, and genes
drawn at random, scored by the same code.
Run: ``python benchmarks/sce2tm_topics.py``.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from _measure import QUIET, Results, cost, data_folder  # isort: skip

import numpy as np
import pandas as pd
import scvi
from sce2tm_clustering import read

import sczoo
from sczoo.metrics import max_topic_overlap, read_gmt, topic_coherence, topic_diversity

if TYPE_CHECKING:
    from anndata import AnnData

GENE_SETS = "resources/genesets_reactome_wikipathways_msigdb2024.1_hs.gmt.gz"
SETS = ("pbmc68k_reduced", "kang_101_107", "pbmc3k")
METHODS = ("sce2tm", "random", "paper", "paper_specific")
N_TOPICS, PAPER_EPOCHS = 50, 100


def top_genes(adata: AnnData, method: str, seed: int) -> pd.DataFrame:
    """Ten genes of each topic."""
    if method == "random":
        rng = np.random.default_rng(seed)
        genes = [rng.choice(adata.var_names, 10, replace=False) for _ in range(N_TOPICS)]
        topic = np.repeat(np.arange(N_TOPICS), 10)
        return pd.DataFrame({"topic": topic, "gene": np.concatenate(genes)})
    scvi.settings.seed = seed
    sczoo.model.SCE2TM.setup_anndata(adata)
    if method.startswith("paper"):
        model = sczoo.model.SCE2TM(adata, n_topics=N_TOPICS, preset="paper")
        model.train(max_epochs=PAPER_EPOCHS, **QUIET)
        return model.get_top_genes(10, score="beta" if method == "paper" else "specific")
    model = sczoo.model.SCE2TM(adata, n_topics=N_TOPICS)
    model.train(**QUIET)
    return model.get_top_genes(10)


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    gene_sets = read_gmt(data_folder() / GENE_SETS)
    results = Results(
        "sce2tm_topics",
        {"topics": N_TOPICS, "paper_epochs": PAPER_EPOCHS, "gene_sets": len(gene_sets)},
    )
    results.resume()
    done = {(row["set"], row["method"], row["seed"]) for row in results.rows}
    for method in arguments.methods:
        for name in arguments.sets:
            adata = read(name)
            del adata.obsm["log"]
            for seed in arguments.seeds:
                if (name, method, seed) in done:
                    continue
                with cost() as spent:
                    table = top_genes(adata, method, seed)
                results.add(
                    set=name,
                    method=method,
                    seed=seed,
                    genes=adata.n_vars,
                    diversity=topic_diversity(table),
                    coherence=topic_coherence(table, gene_sets),
                    largest_overlap=max_topic_overlap(table),
                    cpu_seconds=spent.cpu_seconds,
                )


if __name__ == "__main__":
    main()
