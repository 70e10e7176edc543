"""Topics of tumours, scored on patients that were not in the training.

``oligodendroglioma`` (184 cells of five patients: malignant cells of four, normal cells of few
types): leave one patient out, fit on the others, take the topic whose logit tells malignant from
normal best on the training patients (sign included), score the left-out patient's cells by it.
The AUROC of each patient with both kinds is given, and that of all left-out cells together.

``melanoma_til`` (1,448 immune cells of 19 patients, 15 with fewer than 40 cells): the topic
most different between responders' and others' cells on the training patients, five folds of
patients; AUROC over cells, and over patients' mean scores. Response is a property of a patient:
the number that counts is 19.
Run: ``python benchmarks/sce2tm_tumour.py``.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from _measure import QUIET, Results, cost, labelled  # isort: skip

import numpy as np
import scanpy as sc
import scvi
from sklearn.metrics import roc_auc_score

import sczoo

if TYPE_CHECKING:
    from anndata import AnnData

N_GENES = 2000


def fitted_logits(train: AnnData, query: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Topic logits of both; genes are chosen on the training cells."""
    log = train.copy()
    if float(log.X.max()) > 20:
        sc.pp.normalize_total(log, target_sum=1e4)
        sc.pp.log1p(log)
    if log.n_vars > N_GENES:
        sc.pp.highly_variable_genes(log, n_top_genes=N_GENES)
        train = train[:, log.var["highly_variable"].to_numpy()].copy()
    sczoo.model.SCE2TM.setup_anndata(train)
    model = sczoo.model.SCE2TM(train)
    model.train(**QUIET)
    return model.get_latent_representation(), model.get_latent_representation(query)


def best_topic(logits: np.ndarray, positive: np.ndarray) -> tuple[int, float]:
    """Topic with the largest AUROC in either direction, and its sign."""
    area = np.array([roc_auc_score(positive, column) for column in logits.T])
    topic = int(np.argmax(np.abs(area - 0.5)))
    return topic, 1.0 if area[topic] >= 0.5 else -1.0


def across_folds(
    adata: AnnData, positive: np.ndarray, folds: list[list[str]]
) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Score every cell by the model of the fold that leaves its patient out."""
    patients = adata.obs["patient"].astype(str).to_numpy()
    score, rows = np.zeros(adata.n_obs), []
    for fold in folds:
        held = np.isin(patients, fold)
        train, query = adata[~held].copy(), adata[held].copy()
        before, after = fitted_logits(train, query)
        topic, sign = best_topic(before, positive[~held])
        scale = before[:, topic].std()
        score[held] = sign * (after[:, topic] - before[:, topic].mean()) / scale
        both = len(np.unique(positive[held])) == 2
        rows.append(
            {
                "held_out": fold,
                "cells": int(held.sum()),
                "positive": int(positive[held].sum()),
                "topic": topic,
                "auroc_train": roc_auc_score(positive[~held], sign * before[:, topic]),
                "auroc": roc_auc_score(positive[held], score[held]) if both else None,
            }
        )
    return score, rows


def glioma(results: Results, seed: int) -> None:
    """Malignant cells of unseen patients."""
    adata = labelled("oligodendroglioma")
    positive = adata.obs["malignant"].astype(str).isin(["True", "malignant", "yes", "1"])
    positive = positive.to_numpy()
    patients = sorted(adata.obs["patient"].astype(str).unique())
    with cost() as spent:
        score, rows = across_folds(adata, positive, [[patient] for patient in patients])
    for row in rows:
        results.add(set="oligodendroglioma", seed=seed, **row)
    results.add(
        set="oligodendroglioma",
        seed=seed,
        held_out=["every patient in turn"],
        cells=adata.n_obs,
        positive=int(positive.sum()),
        auroc=roc_auc_score(positive, score),
        cpu_seconds=spent.cpu_seconds,
    )


def responders(results: Results, seed: int) -> None:
    """Cells of unseen responders to checkpoint therapy."""
    adata = labelled("melanoma_til")
    positive = (adata.obs["condition"] == "Responder").to_numpy()
    patients = adata.obs["patient"].astype(str).to_numpy()
    names = np.random.default_rng(seed).permutation(np.unique(patients))
    kind = {name: bool(positive[patients == name][0]) for name in names}
    ordered = [n for n in names if kind[n]] + [n for n in names if not kind[n]]
    folds = [list(ordered[start::5]) for start in range(5)]
    with cost() as spent:
        score, rows = across_folds(adata, positive, folds)
    for row in rows:
        results.add(set="melanoma_til", seed=seed, **row)
    per_patient = np.array([score[patients == name].mean() for name in names])
    results.add(
        set="melanoma_til",
        seed=seed,
        held_out=["every fold in turn"],
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
    arguments = parser.parse_args()
    results = Results("sce2tm_tumour", {"genes": N_GENES})
    results.resume()
    done = {(row["set"], row["seed"]) for row in results.rows if "cpu_seconds" in row}
    for seed in arguments.seeds:
        for name in arguments.sets:
            if (name, seed) not in done:
                scvi.settings.seed = seed
                SETS[name](results, seed)


if __name__ == "__main__":
    main()
