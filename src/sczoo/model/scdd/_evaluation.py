"""Judging small training sets: what classifiers learn from them, and what they give away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sczoo.base._checks import check_input
from sczoo.base._reading import matrix_of, read_rows
from sczoo.errors import GeneOverlapError, InputError, MissingKeyError
from sczoo.model.scdd._arguments import check_seed
from sczoo.model.scdd._classifiers import CLASSIFIERS, check_classifiers, fit_predict
from sczoo.model.scdd._fidelity import fidelity as fidelity_figures
from sczoo.model.scdd._membership import memorisation
from sczoo.model.scdd._output import NOT_ANONYMOUS, UNS_KEY
from sczoo.model.scdd._selection import select_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["evaluate_distillation", "evaluation_report", "summarise_evaluation"]

_WHOLE = "whole"
_MEASURES = ("accuracy", "balanced_accuracy", "macro_f1")
_MIN_SHARED_GENES = 10
# What a figure would be if nothing were wrong, where that is known beforehand.
_IDEAL = {
    "mean_gene_r": 1.0,
    "gene_gene_r": 1.0,
    "library_size_ks": 0.0,
    "n_genes_ks": 0.0,
    "exact_copies": 0.0,
    "closer_to_source": 0.5,
    "attack_auc": 0.5,
    "attack_tpr": 0.01,
}


@dataclass(frozen=True)
class _Cells:
    """Counts with class codes; codes are positions in the common list of classes."""

    counts: sparse.csr_matrix
    codes: np.ndarray
    genes: pd.Index


def evaluate_distillation(
    distilled: AnnData | Mapping[str, AnnData],
    test: AnnData,
    *,
    train: AnnData | None = None,
    labels_key: str | None = None,
    layer: str | None = None,
    classifiers: Sequence[str] = CLASSIFIERS,
    baselines: Sequence[str] | str = (),
    cross_study: Mapping[str, AnnData] | None = None,
    fidelity: bool = True,
    privacy: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Judge distilled or selected cells by real cells that took no part.

    Every classifier is fitted on the small set alone. Cells of classes that the small set lacks
    count as errors.

    Parameters
    ----------
    distilled
        A small set, of :meth:`sczoo.model.SCDD.distill` or :func:`select_cells`, or several by
        name. Their counts are read from ``X``.
    test
        Real, labelled cells that took no part in the distillation.
    train
        The cells that the small sets were made from. With them the whole set is judged too,
        regret is measured against it, and memorisation is looked for.
    labels_key
        Column with the classes in all data; by default that which the small set names.
    layer
        Layer with counts in `test`, `train` and `cross_study`; ``None`` for ``X``.
    classifiers
        Of ``"lr"`` (logistic regression), ``"mlp"``, ``"knn"``, ``"rf"`` (random forest), which
        read log-normalised values, and ``"scanvi"``, which reads counts. One classifier is not a
        benchmark: dense averages please the first three and fail with trees.
    baselines
        Methods of :func:`select_cells` to judge beside; they choose as many cells per class as
        the first small set has on average. They need `train`.
    cross_study
        Further test sets by name, such as another study; genes are matched by name and those that
        both have are used.
    fidelity
        Also compare the cells with the test cells; the reference is the same figure for as many
        real cells (the noise floor), or the ideal.
    privacy
        Also look for copies, memorisation and membership; needs `train`.
    seed
        Seed of classifiers and draws.

    Returns
    -------
    One row per figure: ``set``, ``n_cells``, ``test``, ``kind`` (``"utility"``, ``"fidelity"`` or
    ``"privacy"``), ``measure``, ``classifier``, ``value``; ``reference``: of utility, what the
    same classifier reaches with the whole set; ``regret``: by how much the value falls short of
    the best classifier of the whole set. Distilled is not anonymous:
    ``frame.attrs["notice"]`` says so in words.

    Raises
    ------
    InputError
        An argument makes no sense, or the data cannot be used.
    GeneOverlapError
        A test set shares fewer than ten genes with a small set.

    Examples
    --------
    >>> frame = evaluate_distillation(small, test, train=train, baselines=["random", "pseudobulk"])
    >>> summarise_evaluation(frame)
    """
    sets = dict(distilled) if isinstance(distilled, Mapping) else {"distilled": distilled}
    if not sets:
        raise InputError("There is no small set to judge: pass an AnnData, or several by name.")
    classifiers = check_classifiers(classifiers)
    baselines = (baselines,) if isinstance(baselines, str) else tuple(baselines)
    seed = check_seed(seed)
    first = next(iter(sets.values()))
    labels_key = labels_key or _labels_key(first)
    tests = {"test": test, **dict(cross_study or {})}
    if "test" in (cross_study or {}) or _WHOLE in sets:
        raise InputError("The names 'test' and 'whole' are taken; choose others.")
    if train is None and baselines:
        raise InputError("Baselines are chosen from the training cells: pass train=.")
    if train is not None:
        per_class = max(1, round(first.n_obs / first.obs[labels_key].nunique()))
        for name in baselines:
            if name in sets:
                raise InputError(f"A small set is called {name!r}, as a baseline is; rename it.")
            sets[name] = select_cells(
                train,
                name,  # type: ignore[arg-type]
                per_class,
                labels_key=labels_key,
                layer=layer,
                rare="drop",
                seed=seed,
            )
    classes: dict[Any, int] = {}
    prepared = {name: _read(cells, labels_key, None, classes) for name, cells in sets.items()}
    source = None if train is None else _read(train, labels_key, layer, classes)
    held_out = {name: _read(cells, labels_key, layer, classes) for name, cells in tests.items()}
    rows: list[dict[str, Any]] = []
    if source is not None:
        rows += _utility(_WHOLE, source, held_out, classifiers, seed)
    for name, cells in prepared.items():
        rows += _utility(name, cells, held_out, classifiers, seed)
        if fidelity:
            rows += _fidelity(name, cells, held_out["test"], source, seed)
        if privacy and source is not None:
            rows += _privacy(name, cells, source, held_out["test"], seed)
    return _frame(rows)


def _labels_key(small: AnnData) -> str:
    key = small.uns.get(UNS_KEY, {}).get("labels_key") if hasattr(small, "uns") else None
    if key is None:
        raise MissingKeyError(
            "The small set does not say which column holds the classes: pass labels_key=."
        )
    return str(key)


def _read(adata: AnnData, labels_key: str, layer: str | None, classes: dict[Any, int]) -> _Cells:
    adata = adata.copy() if getattr(adata, "is_view", False) else adata
    check_input(adata, layer=layer, scale="counts", categorical_keys=[labels_key])
    labels = adata.obs[labels_key].astype(str).to_numpy()
    for label in sorted(set(labels)):
        classes.setdefault(label, len(classes))
    counts = read_rows(matrix_of(adata, layer), np.arange(adata.n_obs))
    codes = np.array([classes[label] for label in labels])
    return _Cells(sparse.csr_matrix(counts), codes, adata.var_names)


def _on_shared_genes(a: _Cells, b: _Cells, name: str) -> tuple[Any, Any]:
    """Take the counts of both over the genes that both have, in the order of the first."""
    if a.genes.equals(b.genes):
        return a.counts, b.counts
    places = b.genes.get_indexer(a.genes)
    kept = np.flatnonzero(places >= 0)
    if len(kept) < _MIN_SHARED_GENES:
        raise GeneOverlapError(
            f"The test set {name!r} shares {len(kept)} genes with the small set; at least "
            f"{_MIN_SHARED_GENES} are needed. Bring both to the same gene names first."
        )
    return a.counts[:, kept], b.counts[:, places[kept]]


def _utility(
    name: str, cells: _Cells, tests: Mapping[str, _Cells], classifiers: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    rows = []
    for test_name, test in tests.items():
        counts, query = _on_shared_genes(cells, test, test_name)
        present = np.unique(test.codes)
        for classifier in classifiers:
            found = fit_predict(classifier, counts, cells.codes, [query], seed=seed)[0]
            options = {"labels": present, "average": "macro", "zero_division": 0}
            figures = {
                "accuracy": accuracy_score(test.codes, found),
                "balanced_accuracy": recall_score(test.codes, found, **options),
                "macro_f1": f1_score(test.codes, found, **options),
            }
            rows += [
                _row(name, cells, "utility", measure, value, test_name, classifier)
                for measure, value in figures.items()
            ]
    return rows


def _fidelity(
    name: str, cells: _Cells, test: _Cells, source: _Cells | None, seed: int
) -> list[dict[str, Any]]:
    counts, real = _on_shared_genes(cells, test, "test")
    found = fidelity_figures(counts, cells.codes, real, test.codes, seed=seed)
    floor: dict[str, float] = {}
    if source is not None:
        rng = np.random.default_rng(seed)
        rows = []
        for code, wanted in zip(*np.unique(cells.codes, return_counts=True), strict=True):
            places = np.flatnonzero(source.codes == code)
            rows.append(rng.choice(places, min(wanted, len(places)), replace=False))
        chosen = np.concatenate(rows)
        drawn, real = _on_shared_genes(source, test, "test")
        floor = fidelity_figures(drawn[chosen], source.codes[chosen], real, test.codes, seed=seed)
    return [
        _row(name, cells, "fidelity", key, value, reference=floor.get(key, _IDEAL.get(key)))
        for key, value in found.items()
    ]


def _privacy(
    name: str, cells: _Cells, source: _Cells, test: _Cells, seed: int
) -> list[dict[str, Any]]:
    counts, train = _on_shared_genes(cells, source, "train")
    _, unseen = _on_shared_genes(cells, test, "test")
    if unseen.shape[1] != train.shape[1]:
        raise InputError("train and test have other genes than each other; bring them together.")
    found = memorisation(counts, train, unseen, seed=seed)
    return [
        _row(name, cells, "privacy", key, value, reference=_IDEAL.get(key))
        for key, value in found.items()
    ]


def _row(
    name: str,
    cells: _Cells,
    kind: str,
    measure: str,
    value: float,
    test: str = "test",
    classifier: str = "",
    reference: float | None = None,
) -> dict[str, Any]:
    return {
        "set": name,
        "n_cells": len(cells.codes),
        "test": test,
        "kind": kind,
        "measure": measure,
        "classifier": classifier,
        "value": float(value),
        "reference": np.nan if reference is None else float(reference),
    }


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    frame["regret"] = np.nan
    whole = frame[(frame["set"] == _WHOLE) & (frame["kind"] == "utility")]
    for (test, measure), part in whole.groupby(["test", "measure"]):
        here = (
            (frame["kind"] == "utility") & (frame["test"] == test) & (frame["measure"] == measure)
        )
        same = dict(zip(part["classifier"], part["value"], strict=True))
        frame.loc[here, "reference"] = frame.loc[here, "classifier"].map(same).astype(float)
        frame.loc[here, "regret"] = part["value"].max() - frame.loc[here, "value"]
    frame.attrs["notice"] = NOT_ANONYMOUS
    return frame


def summarise_evaluation(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per small set: utility averaged over the classifiers, fidelity, privacy.

    Parameters
    ----------
    frame
        Result of :func:`evaluate_distillation`.

    Returns
    -------
    Indexed by the name of the set, best mean balanced accuracy first.
    """
    utility = frame[frame["kind"] == "utility"].copy()
    test = utility["test"].where(utility["test"] != "test", "")
    utility["column"] = utility["measure"] + test.map(lambda name: f" ({name})" if name else "")
    table = utility.pivot_table("value", "set", "column", aggfunc="mean")
    own = utility[(utility["test"] == "test") & (utility["measure"] == "balanced_accuracy")]
    table.insert(0, "n_cells", own.groupby("set")["n_cells"].first())
    if own["regret"].notna().any():
        table["regret"] = own.groupby("set")["regret"].mean()
    others = frame[frame["kind"] != "utility"]
    if len(others):
        table = table.join(others.pivot_table("value", "set", "measure", aggfunc="first"))
    table.columns.name = None
    return table.sort_values("balanced_accuracy", ascending=False)


def evaluation_report(frame: pd.DataFrame) -> str:
    """Write the evaluation as a page of Markdown, with what it does and does not say.

    Parameters
    ----------
    frame
        Result of :func:`evaluate_distillation`.
    """
    table = summarise_evaluation(frame)
    lines = ["# Evaluation of small training sets", ""]
    utility = frame[(frame["kind"] == "utility") & (frame["measure"] == "balanced_accuracy")]
    for test in utility["test"].unique():
        part = utility[utility["test"] == test]
        wide = part.pivot_table("value", "set", "classifier", sort=False)
        wide["mean"] = wide.mean(axis=1)
        wide.insert(0, "cells", part.groupby("set")["n_cells"].first())
        if part["regret"].notna().any():
            # against the best classifier of the whole set, as everywhere
            wide["regret"] = part.groupby("set")["regret"].mean()
        lines += [f"## Balanced accuracy on {test}", "", *_markdown(wide), ""]
    for kind, title in (("fidelity", "Likeness to real cells"), ("privacy", "What leaks")):
        part = frame[frame["kind"] == kind]
        if len(part):
            wide = part.pivot_table("value", "set", "measure", sort=False)
            wide.loc["reference"] = part.groupby("measure")["reference"].mean()
            lines += [f"## {title}", "", *_markdown(wide), ""]
    best = table.drop(index=_WHOLE, errors="ignore").index[0]
    lines += [f"Best small set by mean balanced accuracy: {best}.", "", f"**{NOT_ANONYMOUS}**", ""]
    return "\n".join(lines)


def _markdown(table: pd.DataFrame) -> list[str]:
    head = ["", *map(str, table.columns)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, row in table.iterrows():
        cells = [
            f"{value:.0f}" if column == "cells" else f"{value:.3f}"
            for column, value in row.items()
        ]
        lines.append("| " + " | ".join([str(name), *cells]) + " |")
    return lines
