"""``sczoo.doctor``: everything that could spoil a run, found before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sczoo.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.base._checks import InputScale, MatrixScan

Level = Literal["error", "warning", "ok"]


@dataclass(frozen=True)
class Finding:
    """One finding: how bad, where, what, and what to do."""

    level: Level
    where: str
    message: str
    remedy: str = ""


@dataclass
class DoctorReport:
    """The findings of :func:`doctor`.

    Attributes
    ----------
    findings
        In the order of the checks.
    """

    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no error (warnings are allowed)."""
        return not any(finding.level == "error" for finding in self.findings)

    def add(self, level: Level, where: str, message: str, remedy: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(level, where, message, remedy))

    def to_frame(self) -> pd.DataFrame:
        """One row per finding."""
        columns = ["level", "where", "message", "remedy"]
        rows = [[getattr(f, c) for c in columns] for f in self.findings]
        return pd.DataFrame(rows, columns=columns)

    def __str__(self) -> str:
        lines = []
        for finding in self.findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            lines.append(f"[{finding.level}] {finding.where}: {finding.message}{remedy}")
        return "\n".join(lines)


def doctor(
    adata: AnnData,
    layer: str | None = None,
    *,
    scale: InputScale = "counts",
    batch_key: str | None = None,
    labels_key: str | None = None,
) -> DoctorReport:
    """Examine `adata` and report everything that could spoil training or transfer.

    Nothing is modified and nothing is raised for bad data: the findings tell.

    Parameters
    ----------
    adata
        The data.
    layer
        Layer to examine, ``None`` for ``adata.X``.
    scale
        What the matrix is meant to hold; see :func:`sczoo.base.check_input`.
    batch_key, labels_key
        Columns of ``adata.obs`` that will be used.

    Returns
    -------
    :class:`DoctorReport`

    Examples
    --------
    >>> report = sczoo.doctor(adata, layer="counts")
    >>> print(report)
    """
    from sczoo.base._checks import (
        check_categorical,
        check_gene_names,
        check_structure,
        place_of,
        raise_for_counts,
        raise_for_scan,
        scan_matrix,
    )

    report = DoctorReport()
    try:
        check_structure(adata, layer=layer, allow_view=True)
    except InputError as error:
        report.add("error", type(error).__name__, str(error))
        return report
    report.add("ok", "shape", f"{adata.n_obs:,} cells, {adata.n_vars:,} genes")
    if adata.is_view:
        report.add(
            "warning",
            "adata",
            "a view of another AnnData, which setup_anndata would have to write into",
            "make it real before training: adata = adata.copy()",
        )
    try:
        check_gene_names(adata)
    except InputError as error:
        report.add("error", "genes", str(error))
    try:
        scan = scan_matrix(adata, layer)
    except InputError as error:
        report.add("error", place_of(layer), str(error))
        return report
    try:
        raise_for_scan(adata, scan, layer, scale)
        if scale == "log1p":
            raise_for_counts(scan, layer)
        kind = "whole numbers" if scan.whole_numbers else "real numbers"
        report.add("ok", place_of(layer), f"{kind} up to {scan.maximum:g}")
    except InputError as error:
        report.add("error", place_of(layer), str(error))
    _depth_findings(report, scan, layer)
    _gene_findings(report, adata, scan)
    for key in (batch_key, labels_key):
        if key is None:
            continue
        try:
            check_categorical(adata, key)
        except InputError as error:
            report.add("error", f"adata.obs[{key!r}]", str(error))
            continue
        _category_findings(report, adata, key)
    return report


def _depth_findings(report: DoctorReport, scan: MatrixScan, layer: str | None) -> None:
    empty = int((scan.cell_detected == 0).sum())
    if empty:
        report.add(
            "warning",
            "cells",
            f"{empty:,} cell(s) have no expressed gene",
            "filter them with scanpy.pp.filter_cells(adata, min_genes=1) or more",
        )
    totals = scan.cell_totals[np.isfinite(scan.cell_totals)]
    if scan.whole_numbers and totals.size:
        low, median, high = np.quantile(totals, [0.05, 0.5, 0.95])
        report.add(
            "ok",
            "depth",
            f"median {median:,.0f} counts per cell (5 % below {low:,.0f}, 5 % above {high:,.0f})",
        )


def _gene_findings(report: DoctorReport, adata: AnnData, scan: MatrixScan) -> None:
    from sczoo.base._genes import detect_namespace

    names = [str(name) for name in adata.var_names]
    namespace = detect_namespace(names)
    label = {"symbol": "gene symbols", "ensembl": "Ensembl identifiers"}[namespace]
    report.add("ok", "genes", f"{label}, such as {', '.join(names[:3])}")
    silent = int((scan.gene_totals == 0).sum())
    if silent:
        report.add(
            "warning",
            "genes",
            f"{silent:,} gene(s) are zero in every cell",
            "harmless; scanpy.pp.filter_genes(adata, min_cells=3) saves time",
        )
    if adata.n_vars > 10_000:
        report.add(
            "warning",
            "genes",
            f"{adata.n_vars:,} genes make training slow",
            "select some thousand variable genes, e.g. scanpy.pp.highly_variable_genes",
        )


def _category_findings(report: DoctorReport, adata: AnnData, key: str) -> None:
    counts: Any = pd.Series(adata.obs[key].astype(str)).value_counts()
    rare = counts[counts < 10]
    report.add("ok", f"adata.obs[{key!r}]", f"{len(counts)} categories")
    if len(rare):
        report.add(
            "warning",
            f"adata.obs[{key!r}]",
            f"{len(rare)} categories have fewer than 10 cells, the smallest is {rare.index[-1]!r}",
            "merge them or expect them to be learnt badly",
        )
