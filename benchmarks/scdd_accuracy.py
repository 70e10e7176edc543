"""What classifiers learn from distilled cells, against choosing and pooling cells.

For each set and split (80/20 by class): one SCDD is trained on the training cells, and at 1, 5, 10
and 50 cells per class its distilled cells, with three seeds of distilling, and those of every
baseline train four classifiers (logistic regression, MLP, kNN, random forest), which are tested on
the other cells. Every method gives whole counts; random choice and pools are drawn with the same
three seeds, the other baselines with one. ``pseudobulk`` is the baseline as ``select_cells``
offers it, pools of at least five cells; ``pseudobulk_unmerged`` does without that rule and so
copies cells.

Beginnings and emissions of SCDD were designed on ``TUNED``, earlier with the test cells of split
0, the present ones (few telling genes, nothing put aside) with those of split 7; ``LOOKED_AT`` was
seen while an earlier version was designed; ``CONFIRMED`` took part in one choice, that candidates
are judged by a logistic regression without intercepts, with the test cells of split 7. Run:
``python benchmarks/scdd_accuracy.py`` (hours on one core; rows are written as they come, and rows
that are there already are kept).
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
import scvi
from _measure import QUIET, Results, cost, labelled
from scipy import sparse
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from sczoo.base._normalise import log_normalise
from sczoo.model import SCDD
from sczoo.model.scdd import exact_copies, select_cells
from sczoo.model.scdd._budget import class_budget
from sczoo.model.scdd._classifiers import CLASSIFIERS, fit_predict
from sczoo.model.scdd._selection import pool_cells, principal_components

TUNED = ("worm_neuron", "pbmc4k_10x")
LOOKED_AT = ("mouse_bladder",)
CONFIRMED = ("cbmc_cite",)
METHODS = ("random", "stratified", "herding", "kmeans", "kmedoids", "geosketch", "pseudobulk")
BASELINES = (*METHODS, "pseudobulk_unmerged")
SIZES = (1, 5, 10, 50)
N_GENES, MOST_CELLS = 2000, 5000


def split_of(name: str, split: int):
    """Training and test cells, on the genes that vary most among the training cells."""
    adata = labelled(name, MOST_CELLS)
    adata = adata[adata.obs["cell_type"] != "unassigned"].copy()
    labels = adata.obs["cell_type"].astype(str)
    adata = adata[labels.map(labels.value_counts()) >= 10].copy()
    rows = train_test_split(
        np.arange(adata.n_obs), test_size=0.2, stratify=adata.obs["cell_type"], random_state=split
    )
    train, test = (adata[np.sort(part)].copy() for part in rows)
    if train.n_vars > N_GENES + 100:
        values = log_normalise(train.X)
        mean = np.asarray(values.mean(axis=0)).ravel()
        variance = np.asarray(values.multiply(values).mean(axis=0)).ravel() - mean**2
        genes = np.sort(np.argsort(-variance, kind="stable")[:N_GENES])
        train, test = train[:, genes].copy(), test[:, genes].copy()
    train = train[np.asarray(train.X.sum(axis=1)).ravel() > 0].copy()
    return train, test[np.asarray(test.X.sum(axis=1)).ravel() > 0].copy()


def judge(counts, labels, test) -> dict[str, float]:
    """Balanced accuracy of each classifier and their mean."""
    classes = sorted(set(map(str, labels)) | set(test.obs["cell_type"].astype(str)))
    codes = np.array([classes.index(str(label)) for label in labels])
    truth = np.array([classes.index(str(label)) for label in test.obs["cell_type"]])
    found = {
        name: balanced_accuracy_score(
            truth, fit_predict(name, sparse.csr_matrix(counts), codes, [test.X])[0]
        )
        for name in CLASSIFIERS
    }
    return {**found, "mean": float(np.mean(list(found.values())))}


def unmerged(train, per_class: int):
    """Pseudobulk without the rule that pools have five cells."""
    codes = train.obs["cell_type"].astype("category").cat.codes.to_numpy().astype(int)
    names = train.obs["cell_type"].astype("category").cat.categories
    budget = class_budget(np.bincount(codes), per_class)
    points = principal_components(train.X)
    rng = np.random.default_rng(0)
    pooled, made = pool_cells(train.X, codes, budget, points, rng=rng, min_pool=1)
    return sparse.csr_matrix(pooled), names[made]


def model_of(name: str, split: int, train, folder: Path) -> tuple[SCDD, float]:
    """Train an SCDD, or load the one that an earlier pass trained."""
    scvi.settings.seed = split
    SCDD.setup_anndata(train, labels_key="cell_type")
    place = folder / f"{name}-{split}"
    if place.exists():
        return SCDD.load(place, train, accelerator="cpu"), float("nan")
    model = SCDD(train)
    with cost() as spent:
        model.train(**{k: v for k, v in QUIET.items() if k != "logger"})
    model.save(place, include_categories=["cell_type"])
    return model, spent.cpu_seconds


def main() -> None:
    """Measure everything that is not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=[*TUNED, *LOOKED_AT, *CONFIRMED])
    parser.add_argument("--splits", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--methods", nargs="*", default=["scdd", *BASELINES, "whole"])
    parser.add_argument("--models", default=str(Path(tempfile.gettempdir()) / "scdd-models"))
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    results = Results(
        "scdd_accuracy",
        {
            "tuned": TUNED,
            "looked_at": LOOKED_AT,
            "confirmed": CONFIRMED,
            "sizes": SIZES,
            "test_share": 0.2,
        },
    )
    results.resume()
    done = {(r["set"], r["split"], r["method"], r["per_class"], r["seed"]) for r in results.rows}
    for seed in arguments.seeds:
        for split in arguments.splits:
            for name in arguments.sets:
                run(name, split, seed, arguments, done, results)


def run(
    name: str, split: int, seed: int, arguments: argparse.Namespace, done: set, results: Results
) -> None:
    """All methods on one split with one seed."""
    train, test = split_of(name, split)
    model = None

    def add(method: str, per_class: int, make) -> None:
        key = (name, split, method, per_class, seed)
        if key in done or method not in arguments.methods:
            return
        with cost() as spent:
            counts, labels, extra = make()
        results.add(
            set=name,
            split=split,
            seed=seed,
            method=method,
            per_class=per_class,
            n_cells=counts.shape[0],
            **judge(counts, labels, test),
            copies=float(exact_copies(counts, train.X).mean()) if method != "whole" else None,
            cpu_seconds=spent.cpu_seconds,
            **extra,
        )

    def chosen(method: str, per_class: int):
        small = select_cells(
            train, method, per_class, labels_key="cell_type", rare="drop", seed=seed
        )
        return small.X, small.obs["cell_type"], {}

    def distilled(per_class: int):
        nonlocal model
        extra = {}
        if model is None:
            model, seconds = model_of(name, split, train, Path(arguments.models))
            extra = {"train_cpu_seconds": seconds}
        with cost() as spent:
            small = model.distill(per_class, min_cells_per_class=3, seed=seed)
        record = small.uns["scdd"]
        extra |= {
            "distill_cpu_seconds": spent.cpu_seconds,
            "emission": f"{record['emission']}:{record['emission_threshold']:g}",
            "emission_genes": record["emission_genes"],
            "codes_optimised": record["codes_optimised"],
            "init": record["init"],
            "pool_weight": record["pool_weight"],
        }
        return small.X, small.obs["cell_type"], extra

    for per_class in arguments.sizes:
        add("scdd", per_class, lambda n=per_class: distilled(n))
        if seed == 0:
            add("pseudobulk_unmerged", per_class, lambda n=per_class: (*unmerged(train, n), {}))
        for method in METHODS:
            if seed == 0 or (method in ("random", "pseudobulk") and per_class < 50):
                add(method, per_class, lambda m=method, n=per_class: chosen(m, n))
    if seed == 0:
        add("whole", 0, lambda: (train.X, train.obs["cell_type"], {}))


if __name__ == "__main__":
    main()
