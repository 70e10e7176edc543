"""The content of a report, and its rendering by jinja2 with everything escaped."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sczoo.base._files import write_file_atomically
from sczoo.errors import InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from matplotlib.figure import Figure as MatplotlibFigure


@dataclass(frozen=True)
class Figure:
    """A picture with its caption; `png` holds the bytes of a PNG file."""

    caption: str
    png: bytes

    @classmethod
    def from_matplotlib(cls, figure: MatplotlibFigure, caption: str, *, dpi: int = 130) -> Figure:
        """Render a matplotlib figure."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
        return cls(caption, buffer.getvalue())

    @property
    def data_uri(self) -> str:
        """The picture as text that a browser shows without another file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Table:
    """A table with its caption."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass
class Report:
    """What a report says, in the order in which it is shown.

    Attributes
    ----------
    title, lead
        Heading, and one sentence under it.
    warnings
        What the reader must know before anything else.
    facts
        Name and value pairs, shown as a small table.
    figures, tables
        Pictures and tables.
    methods
        A paragraph to paste into a manuscript.
    citations
        References to cite, one text each.
    limits
        What the results must not be used for.
    provenance
        Versions, seeds and hashes.
    """

    title: str
    lead: str = ""
    warnings: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    methods: str = ""
    citations: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def render_report(report: Report) -> str:
    """Render a report to HTML; every text in it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sczoo.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("report.html.j2").render(report=report)


def write_report(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write a report as one HTML file; an existing file is replaced in one step."""
    target = Path(path).absolute()
    document = render_report(report).encode("utf-8")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file_atomically(target, document)
    except OSError as error:
        raise InputError(
            f"The report {target} could not be written ({error}). Check free space and "
            "permissions, or choose another path."
        ) from error
    return target
