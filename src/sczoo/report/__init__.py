"""Reports to hand over: one self-contained HTML file, warnings first."""

from __future__ import annotations

from sczoo.report._html import Figure, Report, Table, render_report, write_report

__all__ = ["Figure", "Report", "Table", "render_report", "write_report"]
