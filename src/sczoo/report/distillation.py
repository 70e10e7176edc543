"""The report about small training sets: what they teach, how like they are, what leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sczoo.errors import MissingKeyError
from sczoo.report._html import Figure, Report, Table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["distillation_report"]

_COLUMNS = ("set", "n_cells", "test", "kind", "measure", "classifier", "value", "reference")
_WHOLE = "whole"
_MEASURES = ("balanced_accuracy", "accuracy", "macro_f1")
_LIMITS = (
    "Research use only: not for diagnosis, prognosis or any decision about a patient's treatment.",
    "The classifiers were tested on the cells named above and on no others; a new tissue, "
    "technology or disease asks for a test of its own.",
    "Likeness says how typical the cells are, not how useful: cells made to teach classifiers are "
    "deeper and have fewer zeros than real ones.",
)


def distillation_report(
    frame: pd.DataFrame,
    *,
    small: AnnData | None = None,
    real: AnnData | None = None,
    title: str = "Small training sets",
) -> Report:
    """Build the report about an evaluation; :func:`write_report` makes an HTML file of it.

    Parameters
    ----------
    frame
        Result of :func:`sczoo.model.scdd.evaluate_distillation`.
    small
        The distilled set, for the facts about how it was made.
    real
        Real cells with the genes of `small`, to draw both in one picture.
    title
        Heading.

    Returns
    -------
    The report: warnings first, then facts, pictures, one table for each test and measure, what
    the cells look like beside real ones, what they give away, and what nobody should conclude.

    Raises
    ------
    MissingKeyError
        `frame` is not such a result.

    Examples
    --------
    >>> frame = evaluate_distillation(small, test, train=train, baselines=["pseudobulk"])
    >>> write_report(distillation_report(frame, small=small, real=train), "small.html")
    """
    for column in _COLUMNS:
        if column not in frame:
            raise MissingKeyError(
                f"The table has no column {column!r}; pass the result of evaluate_distillation."
            )
    utility = frame[frame["kind"] == "utility"]
    if utility.empty:
        raise MissingKeyError(
            "The table has no figures of what classifiers learned (kind 'utility'); pass the "
            "whole result of evaluate_distillation."
        )
    sets = [name for name in dict.fromkeys(utility["set"]) if name != _WHOLE]
    notice = frame.attrs.get("notice")
    if notice is None and small is not None:
        notice = dict(small.uns.get("scdd", {})).get("notice")
    classifiers = ", ".join(dict.fromkeys(utility["classifier"]))
    return Report(
        title=title,
        lead=(
            f"What classifiers ({classifiers}) learn from {len(sets)} small training set(s), "
            "tested on real cells that took no part."
        ),
        warnings=[str(notice)] if notice else [],
        facts=_facts(utility, small),
        figures=_figures(utility, sets, small, real),
        tables=[*_utility_tables(utility), *_other_tables(frame)],
        methods=_methods(utility, classifiers),
        limits=list(_LIMITS),
        provenance=_provenance(small),
    )


def _facts(utility: pd.DataFrame, small: AnnData | None) -> list[tuple[str, str]]:
    own = utility[(utility["measure"] == "balanced_accuracy") & (utility["test"] == "test")]
    mean = own.groupby("set")["value"].mean()
    ranked = mean.drop(_WHOLE, errors="ignore").sort_values(ascending=False)
    facts = [("Best small set", f"{ranked.index[0]}: mean balanced accuracy {ranked.iloc[0]:.3f}")]
    if _WHOLE in mean:
        n_cells = int(own[own["set"] == _WHOLE]["n_cells"].iloc[0])
        facts.append(("Whole set", f"{n_cells:,} cells: {mean[_WHOLE]:.3f}"))
    if small is None:
        return facts
    record = dict(small.uns.get("scdd", {}))
    facts.append(("Cells", f"{small.n_obs:,} of {small.n_vars:,} genes"))
    if "n_source_cells" in record:
        facts.append(("Made from", f"{int(record['n_source_cells']):,} cells"))
    if "source_bytes" in record:
        facts.append(("Counts of the source", f"{int(record['source_bytes']):,} bytes"))
    chosen = [
        (key, str(record[key]))
        for key in ("method", "matching", "emission", "codes_optimised", "seed")
        if key in record
    ]
    return [*facts, *((key.replace("_", " ").capitalize(), value) for key, value in chosen)]


def _figures(
    utility: pd.DataFrame, sets: list[Any], small: AnnData | None, real: AnnData | None
) -> list[Figure]:
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    from sczoo import pl

    figures = []
    own = utility[(utility["measure"] == "balanced_accuracy") & (utility["test"] == "test")]
    sized = own[own["set"] != _WHOLE].groupby("set")["n_cells"].nunique()
    if len(sets) > 1 or (sized > 1).any():
        axes = pl.distillation_accuracy(utility, show=False)
        figures.append(
            Figure.from_matplotlib(
                axes.figure, "Balanced accuracy, mean of the classifiers, against the cells."
            )
        )
        plt.close(axes.figure)
    if small is not None and real is not None:
        axes = pl.distilled(small, real, show=False)
        figures.append(
            Figure.from_matplotlib(
                axes.figure,
                "The small set (large points) over real cells, in principal components of the "
                "real ones.",
            )
        )
        plt.close(axes.figure)
    return figures


def _utility_tables(utility: pd.DataFrame) -> list[Table]:
    tables = []
    for test in dict.fromkeys(utility["test"]):
        for measure in _MEASURES:
            part = utility[(utility["test"] == test) & (utility["measure"] == measure)]
            if part.empty:
                continue
            names = list(dict.fromkeys(part["classifier"]))
            with_regret = bool(part["regret"].notna().any())
            rows = []
            for (name, n_cells), group in part.groupby(["set", "n_cells"], sort=False):
                values = group.groupby("classifier")["value"].mean()
                found = [f"{values[c]:.3f}" if c in values else "" for c in names]
                mean = (f"{values.mean():.3f}",)
                regret = (_or_empty(group["regret"].mean()),) if with_regret else ()
                rows.append((str(name), f"{n_cells:,}", *found, *mean, *regret))
            rows.sort(key=lambda row: row[2 + len(names)], reverse=True)
            caption = f"{measure.replace('_', ' ').capitalize()} on {test}"
            last = ["mean", "regret"] if with_regret else ["mean"]
            tables.append(Table(caption, ["set", "cells", *names, *last], rows))
    return tables


def _other_tables(frame: pd.DataFrame) -> list[Table]:
    tables = []
    for kind, caption in (
        ("fidelity", "Likeness to real cells; the reference is as many real cells, or the ideal"),
        ("privacy", "What leaks; the reference is what would be seen if nothing did"),
    ):
        part = frame[frame["kind"] == kind]
        if part.empty:
            continue
        names = zip(part["set"], part["measure"], strict=True)
        values = part[["value", "reference"]].to_numpy(dtype=float)
        rows = [
            (str(name), str(measure).replace("_", " "), f"{value:.3f}", _or_empty(reference))
            for (name, measure), (value, reference) in zip(names, values, strict=True)
        ]
        tables.append(Table(caption, ["set", "measure", "value", "reference"], rows))
    return tables


def _or_empty(value: float) -> str:
    return "" if value != value else f"{value:.3f}"


def _methods(utility: pd.DataFrame, classifiers: str) -> str:
    from sczoo import __version__

    tests = ", ".join(map(str, dict.fromkeys(utility["test"])))
    return (
        f"Classifiers ({classifiers}) were fitted on each small training set alone and tested on "
        f"real cells that took no part ({tests}), with sczoo {__version__}. Cells of classes that "
        "a training set lacks count as errors; balanced accuracy is the mean of the recalls of "
        "the classes."
    )


def _provenance(small: AnnData | None) -> dict[str, str]:
    if small is None:
        return {}
    record = dict(small.uns.get("scdd", {}))
    model = dict(record.get("model", {}))
    found = {
        "versions": ", ".join(
            f"{name} {version}" for name, version in dict(record.get("versions", {})).items()
        ),
        "seed": str(record.get("seed", "")),
        "seed of the model": str(model.get("seed", "")),
        "training data (SHA-256)": str(model.get("data_sha256", "")),
    }
    return {name: text for name, text in found.items() if text}
