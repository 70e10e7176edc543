"""Reports to hand over: one self-contained HTML file, warnings first."""

from __future__ import annotations

from sczoo.report._html import Figure, Report, Table, render_report, write_report
from sczoo.report.distillation import distillation_report

__all__ = ["Figure", "Report", "Table", "distillation_report", "render_report", "write_report"]
