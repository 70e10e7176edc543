"""Topics of tumours, scored on patients that were not in the training.

``oligodendroglioma`` (184 cells of five patients: malignant cells of four, normal cells of few
types): leave one patient out, fit on the others, take the topic that tells malignant from normal
best on the training patients (sign included), score the left-out patient's cells by it. ``fit``
and ``score`` in a row say how the model was fitted and what of its topics was the score:
``program`` is ``get_topic_scores``, how much a cell expresses the genes of the topic. The AUROC of
each patient with both kinds is given, and that of all left-out cells together.

``melanoma_til`` (1,448 immune cells of 19 patients, 15 with fewer than 40 cells): the topic
most different between responders' and others' cells on the training patients, five folds of
patients; AUROC over cells, and over patients' mean scores. Response is a property of a patient:
the number that counts is 19.
Run: ``python benchmarks/sce2tm_tumour.py``.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from _measure import QUIET, Results, cost, labelled  # isort: skip

import numpy as np
import scanpy as sc
import scvi
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import sczoo

if TYPE_CHECKING:
    from anndata import AnnData

N_GENES = 2000


TRIES: dict[str, dict[str, Any]] = {
    "default": {},
    "ten topics": {"n_topics": 10},
    "principal components": {},
}
"""Ways to fit; the last one is no topic model, for comparison."""


def fitted_scores(
    train: AnnData, query: AnnData, way: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every kind of score for both; genes are chosen on the training cells."""
    log = train.copy()
    linear = float(log.X.max()) > 20
    if linear:
        sc.pp.normalize_total(log, target_sum=1e4)
        sc.pp.log1p(log)
    genes = np.ones(log.n_vars, dtype=bool)
    if log.n_vars > N_GENES:
        sc.pp.highly_variable_genes(log, n_top_genes=N_GENES)
        genes = log.var["highly_variable"].to_numpy()
    if way == "principal components":
        other = query.copy()
        if linear:
            sc.pp.normalize_total(other, target_sum=1e4)
            sc.pp.log1p(other)
        values = [np.asarray(sparse.csr_matrix(x[:, genes].X).todense()) for x in (log, other)]
        found = PCA(30, random_state=0).fit(values[0])
        logits = found.transform(values[0]), found.transform(values[1])
        return {
            "component": logits,
            "contrast of two": (contrasts(logits[0]), contrasts(logits[1])),
        }
    train = train[:, genes].copy()
    sczoo.model.SCE2TM.setup_anndata(train)
    model = sczoo.model.SCE2TM(train, **TRIES[way])
    model.train(**QUIET)
    logits = model.get_latent_representation(), model.get_latent_representation(query)
    return {
        "program": (model.get_topic_scores(), model.get_topic_scores(query)),
        **{name: (of(logits[0]), of(logits[1])) for name, of in OF_LOGITS.items()},
    }


def shares(logits: np.ndarray) -> np.ndarray:
    """Logarithm of the topic proportions."""
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def contrasts(logits: np.ndarray) -> np.ndarray:
    """Differences of all pairs of logits: log ratios of two topics."""
    first, second = np.triu_indices(logits.shape[1], 1)
    return logits[:, first] - logits[:, second]


OF_LOGITS = {"logit": lambda x: x, "share": shares, "contrast of two": contrasts}
"""Scores of the topic logits: that of one topic, its share of the cell, or a difference of two."""


def best_topic(values: np.ndarray, positive: np.ndarray) -> tuple[int, float]:
    """Column with the largest AUROC in either direction, and its sign."""
    area = np.array([roc_auc_score(positive, column) for column in values.T])
    topic = int(np.argmax(np.abs(area - 0.5)))
    return topic, 1.0 if area[topic] >= 0.5 else -1.0


def across_folds(
    adata: AnnData, positive: np.ndarray, folds: list[list[str]], way: str
) -> dict[str, tuple[np.ndarray, list[dict[str, object]]]]:
    """Score every cell by the models of the fold that leaves its patient out."""
    patients = adata.obs["patient"].astype(str).to_numpy()
    found: dict[str, tuple[np.ndarray, list[dict[str, object]]]] = {}
    for fold in folds:
        held = np.isin(patients, fold)
        fitted = fitted_scores(adata[~held].copy(), adata[held].copy(), way)
        for name, (before, after) in fitted.items():
            score, rows = found.setdefault(name, (np.zeros(adata.n_obs), []))
            topic, sign = best_topic(before, positive[~held])
            scale = before[:, topic].std()
            score[held] = sign * (after[:, topic] - before[:, topic].mean()) / scale
            both = len(np.unique(positive[held])) == 2
            rows.append(
                {
                    "held_out": fold,
                    "left_out": " ".join(fold),
                    "cells": int(held.sum()),
                    "positive": int(positive[held].sum()),
                    "topic": topic,
                    "auroc_train": roc_auc_score(positive[~held], sign * before[:, topic]),
                    "auroc": roc_auc_score(positive[held], score[held]) if both else None,
                }
            )
    return found


def glioma(results: Results, seed: int, way: str) -> None:
    """Malignant cells of unseen patients."""
    adata = labelled("oligodendroglioma")
    positive = adata.obs["malignant"].astype(str).isin(["True", "malignant", "yes", "1"])
    positive = positive.to_numpy()
    patients = sorted(adata.obs["patient"].astype(str).unique())
    with cost() as spent:
        found = across_folds(adata, positive, [[patient] for patient in patients], way)
    for name, (score, rows) in found.items():
        what = {"set": "oligodendroglioma", "fit": way, "score": name, "seed": seed}
        for row in rows:
            results.add(**what, **row)
        results.add(
            **what,
            held_out=["every patient in turn"],
            left_out="all",
            cells=adata.n_obs,
            positive=int(positive.sum()),
            auroc=roc_auc_score(positive, score),
            cpu_seconds=spent.cpu_seconds,
        )


def responders(results: Results, seed: int, way: str) -> None:
    """Cells of unseen responders to checkpoint therapy."""
    adata = labelled("melanoma_til")
    positive = (adata.obs["condition"] == "Responder").to_numpy()
    patients = adata.obs["patient"].astype(str).to_numpy()
    names = np.random.default_rng(seed).permutation(np.unique(patients))
    kind = {name: bool(positive[patients == name][0]) for name in names}
    ordered = [n for n in names if kind[n]] + [n for n in names if not kind[n]]
    folds = [list(ordered[start::5]) for start in range(5)]
    with cost() as spent:
        found = across_folds(adata, positive, folds, way)
    for name, (score, rows) in found.items():
        what = {"set": "melanoma_til", "fit": way, "score": name, "seed": seed}
        for row in rows:
            results.add(**what, **row)
        per_patient = np.array([score[patients == patient].mean() for patient in names])
        results.add(
            **what,
            held_out=["every fold in turn"],
            left_out="all",
            cells=adata.n_obs,
            positive=int(positive.sum()),
            auroc=roc_auc_score(positive, score),
            patients=len(names),
            auroc_of_patients=roc_auc_score([kind[n] for n in names], per_patient),
            cpu_seconds=spent.cpu_seconds,
        )


SETS = {"oligodendroglioma": glioma, "melanoma_til": responders}


def main() -> None:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--fits", nargs="+", default=list(TRIES), choices=list(TRIES))
    arguments = parser.parse_args()
    results = Results("sce2tm_tumour", {"genes": N_GENES})
    results.resume()
    done = {(r["set"], r["fit"], r["seed"]) for r in results.rows if "cpu_seconds" in r}
    for seed in arguments.seeds:
        for way in arguments.fits:
            for name in arguments.sets:
                without_seed = way == "principal components" and seed != arguments.seeds[0]
                if (name, way, seed) not in done and not without_seed:
                    scvi.settings.seed = seed
                    SETS[name](results, seed, way)


if __name__ == "__main__":
    main()
