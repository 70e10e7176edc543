"""Probabilities of a classifier trained on another study, before and after GRIT.

A multinomial logistic regression on standardised log-normalised values of the thousand most
variable shared genes, as CellTypist's, is trained on one study and applied to another; with
``--scanvi`` also SCANVI once. ``default`` is the label after GRIT with its defaults, ``forced``
with ``guard="warn"``. The rows with ``genes`` below the shared ones repeat the known failure:
scores that are wrong for whole neighbourhoods because few genes are shared.

The guard's thresholds were chosen on the pairs of the roles "tuned" and "few genes"; those "held
out" were first scored by this script.

Run: ``python benchmarks/grit_transfer.py [--scanvi]``.
"""

from __future__ import annotations

from _measure import QUIET, Results, labelled  # isort: skip

import sys

import numpy as np
import scvi
from anndata import AnnData  # noqa: TC002 - named in signatures that readers look up
from grit_labels import SETS, scores_of
from sklearn.linear_model import LogisticRegression

from sczoo.model import GRIT
from sczoo.model.grit._expression import Expression
from sczoo.model.grit.scorers import SCANVIScorer, attach_scores

COARSE = {
    "naive CD4 T cell": "CD4 T cell",
    "memory CD4 T cell": "CD4 T cell",
    "regulatory T cell": "CD4 T cell",
    "T-helper 2 cell": "CD4 T cell",
    "cytotoxic CD8 T cell": "CD8 T cell",
    "naive CD8 T cell": "CD8 T cell",
    "CD16 monocyte": "monocyte",
    "CD14 monocyte": "monocyte",
    "platelet": "megakaryocyte",
}
# reference, query, coarse types, genes (0: all that are shared), role
PAIRS = [
    ("baron_human", "segerstolpe", False, 0, "tuned"),
    ("segerstolpe", "baron_human", False, 0, "tuned"),
    ("pbmc3k", "kang_ifnb", True, 0, "tuned"),
    ("kang_ifnb", "pbmc3k", True, 0, "tuned"),
    ("pbmc_facs_zheng", "pbmc68k_reduced", False, 0, "tuned"),
    ("pbmc68k_reduced", "pbmc_facs_zheng", False, 0, "tuned"),
    ("pbmc3k", "pbmc68k_reduced", True, 0, "tuned"),
    ("pbmc3k", "pbmc_facs_zheng", True, 0, "tuned"),
    ("pbmc_facs_zheng", "pbmc3k", True, 0, "tuned"),
    ("pbmc_facs_zheng", "kang_ifnb", True, 0, "tuned"),
    ("kang_ifnb", "pbmc_facs_zheng", True, 0, "tuned"),
    ("kang_ifnb", "pbmc68k_reduced", True, 0, "tuned"),
    ("pbmc68k_reduced", "pbmc3k", False, 0, "tuned"),
    ("pbmc68k_reduced", "kang_ifnb", True, 0, "tuned"),
    ("baron_human:human2", "baron_human:human4", False, 0, "held out"),
    ("kang_ifnb:donor_101", "kang_ifnb:donor_1488", True, 0, "held out"),
    ("pbmc3k", "pbmc68k_reduced", False, 191, "few genes"),
    ("pbmc_facs_zheng", "pbmc68k_reduced", False, 191, "few genes"),
    ("pbmc_facs_zheng", "pbmc68k_reduced", True, 191, "few genes"),
]
_MOST = 2500


def read(name: str, coarse: bool, n_cells: int = _MOST) -> tuple[AnnData, np.ndarray]:
    """Cells of a set, or of one of its patients after a colon, and their types."""
    name, _, patient = name.partition(":")
    adata, names = labelled(name), SETS[name][2]
    keep = adata.obs["cell_type"].isin(list(names))
    if patient:
        which = adata.obs["patient"].astype(str)
        patients = sorted(set(which))
        # patients are named differently by different sources
        patient = next((p for p in patients if patient.split("_")[-1] in p), patients[-1])
        keep &= (which == patient).to_numpy()
    adata = adata[keep].copy()
    if adata.n_obs > n_cells:
        rows = np.random.default_rng(0).choice(adata.n_obs, n_cells, replace=False)
        adata = adata[np.sort(rows)].copy()
    truth = adata.obs["cell_type"].map(names).astype(str)
    return adata, (truth.replace(COARSE) if coarse else truth).to_numpy()


def shared_genes(one: AnnData, two: AnnData, n_genes: int) -> list[str]:
    """Genes of both, in the order of the first; `n_genes` of them by chance if not 0."""
    known = set(two.var_names)
    genes = [gene for gene in one.var_names if gene in known]
    if n_genes:
        genes = list(np.random.default_rng(0).permutation(genes)[:n_genes])
    return genes


def regression(reference: AnnData, types: np.ndarray, query: AnnData, genes: list[str]):
    """Probabilities of a logistic regression and its classes."""
    x = [
        Expression(data).rows(np.arange(data.n_obs), data.var_names.get_indexer(genes))
        for data in (reference, query)
    ]
    chosen = np.argsort(-x[0].var(0))[:1000]
    x = [part[:, chosen] for part in x]
    mean, scale = x[0].mean(0), x[0].std(0) + 1e-6
    x = [np.clip((part - mean) / scale, -10, 10) for part in x]
    model = LogisticRegression(max_iter=100, C=0.05).fit(x[0], types)
    return model.predict_proba(x[1]), list(model.classes_)


def refined(query: AnnData, truth: np.ndarray, **options) -> dict[str, object]:
    """Accuracy before, after with the defaults, and after whatever the guard says."""
    model = GRIT(query, **options)
    model.train(**QUIET)
    result, forced = model.refine(), model.refine(guard="warn")
    row: dict[str, object] = {}
    for name, labels in (
        ("raw", result.raw_labels),
        ("default", result.labels),
        ("forced", forced.labels),
    ):
        row[f"{name}_accuracy"], row[f"{name}_macro_f1"] = scores_of(labels, truth)
    row["gain"] = row["default_accuracy"] - row["raw_accuracy"]  # type: ignore[operator]
    row["forced_gain"] = row["forced_accuracy"] - row["raw_accuracy"]  # type: ignore[operator]
    row["guard_refused"] = result.guard.refused
    row["agreement"] = result.guard.agreement
    row["entropy_kept"] = forced.guard.entropy_kept
    row["into_largest"] = forced.guard.into_largest
    return row


def by_regression(out: Results) -> None:
    """All pairs by logistic regression."""
    for reference_name, query_name, coarse, n_genes, role in PAIRS:
        reference, types = read(reference_name, coarse, 1500)
        query, truth = read(query_name, coarse)
        genes = shared_genes(reference, query, n_genes)
        chance, classes = regression(reference, types, query, genes)
        attach_scores(query, chance, classes)
        GRIT.setup_anndata(query, logits_key="X_scores")
        out.add(
            scorer="logistic regression",
            reference=reference_name,
            query=query_name,
            coarse=coarse,
            genes=len(genes),
            role=role,
            n_cells=query.n_obs,
            **refined(query, truth),
        )


def by_scanvi(out: Results) -> None:
    """SCANVI from one pancreas study to another."""
    reference, types = read("baron_human", False, 1500)
    query, truth = read("segerstolpe", False)
    genes = shared_genes(reference, query, 0)
    reference, query = reference[:, genes].copy(), query[:, genes].copy()
    reference.obs["type"], query.obs["type"] = types, "unknown"
    reference.obs["study"], query.obs["study"] = "baron", "segerstolpe"
    scvi.model.SCVI.setup_anndata(reference, batch_key="study", labels_key="type")
    quiet = {**QUIET, "early_stopping": False}
    vae = scvi.model.SCVI(reference, n_latent=10)
    vae.train(max_epochs=40, **quiet)
    scanvi = scvi.model.SCANVI.from_scvi_model(vae, "unknown")
    scanvi.train(max_epochs=10, **quiet)
    # frozen: as a model that was downloaded
    query.obs["study"] = "baron"
    GRIT.setup_anndata(query)
    out.add(
        scorer="SCANVI",
        reference="baron_human",
        query="segerstolpe",
        coarse=False,
        genes=len(genes),
        role="held out",
        n_cells=query.n_obs,
        **refined(query, truth, scorer=SCANVIScorer(scanvi)),
    )


def main() -> None:
    """Measure."""
    scvi.settings.seed = 0
    out = Results("grit_transfer", {"scanvi": "--scanvi" in sys.argv, "most_cells": _MOST})
    by_regression(out)
    if "--scanvi" in sys.argv:
        by_scanvi(out)


if __name__ == "__main__":
    main()
