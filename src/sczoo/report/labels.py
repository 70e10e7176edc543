"""The report about labels: what they were, what they became, how sure they are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import MissingKeyError
from sczoo.report._html import Figure, Report, Table
from sczoo.report.patient import _OUT_OF_SCOPE, _citations, _provenance

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["label_report"]

_MOST_ROWS = 40


def label_report(
    model: Any, adata: AnnData, *, query: str, key: str = "grit", truth: str | None = None
) -> Report:
    """Build the report about the labels that a GRIT wrote into `adata`.

    Parameters
    ----------
    model
        The model.
    adata
        Cells after ``model.annotate(adata)``.
    query
        Name of the data.
    key
        Prefix of the columns that were written.
    truth
        Column of ``obs`` with true types, where they are known.
    """
    record = dict(adata.uns.get("sczoo", {}).get(key, {}))
    if not record or f"{key}_label" not in adata.obs:
        raise MissingKeyError(
            f"adata holds no labels under {key!r}: call model.annotate(adata) first."
        )
    raw = adata.obs[f"{key}_raw_label"].astype(str)
    refined = adata.obs[f"{key}_label"].astype(str)
    changed = adata.obs[f"{key}_changed"].to_numpy(dtype=bool)
    facts = [
        ("Cells", f"{adata.n_obs:,}"),
        ("Scores", f"{record['scorer']}, {len(record['classes'])} candidate types"),
        ("Labels changed", f"{changed.sum():,} ({changed.mean():.1%})"),
        ("Labels given", f"{(refined != 'unknown').mean():.1%} of the cells"),
        (
            "Neighbours of one label",
            f"{record['edge_agreement_before']:.0%} before, {record['edge_agreement_after']:.0%} "
            "after",
        ),
        ("Roughness of the scores", f"{record['energy_after']:.0%} of before"),
        (
            "Solver",
            f"{record['n_iterations']} iterations, relative residual {record['residual']:.1g}",
        ),
    ]
    if record.get("refused"):
        facts.insert(3, ("Refinement", "refused by the guard: the raw labels were kept"))
    tables = [_types(raw, refined, adata.obs[f"{key}_confidence"]), _changes(raw, refined)]
    if truth is not None:
        accuracy, table = _truth(adata, truth, raw, refined)
        facts.append(("Agreement with " + truth, accuracy))
        tables.insert(0, table)
    return Report(
        title=f"{query}: cell types",
        lead=f"Labels of {adata.n_obs:,} cells, refined on the graph of the cells.",
        warnings=[str(warning) for warning in record.get("warnings", [])],
        facts=facts,
        figures=_figures(adata, key, truth),
        tables=tables,
        methods=_methods(record, adata.n_obs),
        citations=_citations(model),
        limits=[
            _OUT_OF_SCOPE,
            "A type that is not among the candidates cannot be found; its cells get the label of "
            "the closest candidate.",
            "Confidence orders the cells; it is not the probability of being right.",
        ],
        provenance=_provenance(model),
    )


def _methods(record: dict[str, Any], n_cells: int) -> str:
    from sczoo import __version__

    return (
        f"{n_cells:,} cells were scored for {len(record['classes'])} cell types "
        f"({record['scorer']}) and the scores refined on the nearest-neighbour graph of the cells "
        f"by GRIT (regularisation {record['lam']:g}, Laplacian {record['laplacian']!r}) as "
        f"implemented in sczoo {__version__}. "
        f"{record['coverage']:.0%} of the cells, the most confident, were labelled."
    )


def _types(raw: pd.Series, refined: pd.Series, confidence: pd.Series) -> Table:
    names = sorted(set(raw) | set(refined))
    before, after = raw.value_counts(), refined.value_counts()
    middle = confidence.groupby(refined.to_numpy(), observed=True).median()
    rows = [
        (
            name,
            int(before.get(name, 0)),
            int(after.get(name, 0)),
            f"{after.get(name, 0) / len(refined):.1%}",
            f"{middle[name]:.2f}" if name in middle else "",
        )
        for name in sorted(names, key=lambda n: (-after.get(n, 0), n))
    ]
    return Table("Cell types", ["type", "before", "after", "share", "median confidence"], rows)


def _changes(raw: pd.Series, refined: pd.Series) -> Table:
    moved = raw.to_numpy() != refined.to_numpy()
    pairs = Counter(zip(raw[moved], refined[moved], strict=True))
    rows = [(*pair, n) for pair, n in pairs.most_common(_MOST_ROWS)]
    return Table("What became what", ["before", "after", "cells"], rows)


def _truth(adata: AnnData, truth: str, raw: pd.Series, refined: pd.Series) -> tuple[str, Table]:
    if truth not in adata.obs:
        raise MissingKeyError(
            f"adata.obs has no {truth!r}; it has {', '.join(map(str, adata.obs.columns))}."
        )
    true = adata.obs[truth]
    known = true.notna().to_numpy()
    true = true.astype(str)
    rows = []
    for name in sorted(set(true[known])):
        cells = known & (true == name).to_numpy()
        most = refined[cells].value_counts()
        rows.append(
            (
                name,
                int(cells.sum()),
                f"{(raw[cells] == name).mean():.2f}",
                f"{(refined[cells] == name).mean():.2f}",
                f"{most.index[0]} ({most.iloc[0] / cells.sum():.0%})",
            )
        )
    before, after = (
        float(np.mean(labels[known].to_numpy() == true[known].to_numpy()))
        for labels in (raw, refined)
    )
    table = Table(
        f"Compared with {truth}", ["type", "cells", "before", "after", "mostly called"], rows
    )
    return f"{before:.1%} before, {after:.1%} after", table


def _figures(adata: AnnData, key: str, truth: str | None) -> list[Figure]:
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    from sczoo import pl

    drawn: list[tuple[Any, str]] = [
        (pl.label_flow(adata, key), "Labels before and after the refinement."),
        (pl.label_confidence(adata, key), "Confidence of the cells of each label."),
    ]
    if truth is not None:
        axes = pl.label_confusion(adata, truth, key)
        drawn.append((axes[0], f"What the cells of each {truth} were called; rows sum to one."))
    figures = []
    for axis, caption in drawn:
        figures.append(Figure.from_matplotlib(axis.figure, caption))
        plt.close(axis.figure)
    return figures
