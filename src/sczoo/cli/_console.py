"""What the commands share: reading files, printing tables, checking paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from anndata import AnnData


def console() -> Any:
    from rich.console import Console

    return Console()


def new_table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def print_doctor(report: Any) -> None:
    table = new_table("", "Where", "Finding")
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}
    from rich.markup import escape

    for finding in report.findings:
        text = escape(finding.message)
        if finding.remedy:
            text += f"\n[dim]{escape(finding.remedy)}[/]"
        table.add_row(marks[finding.level], escape(finding.where), text)
    console().print(table)


def require_writable(path: Path) -> None:
    """Refuse a place that cannot be written, before hours of work are lost on it."""
    from sczoo.errors import InputError

    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            f"{path} cannot be written: {folder} is not a folder that you may write to. Choose "
            "another path."
        )


def read_cells(path: Path) -> AnnData:
    """Read an .h5ad file; anything wrong with it is a typed error that names the file."""
    from anndata import read_h5ad

    from sczoo.errors import InputError

    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        return read_h5ad(path)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as .h5ad ({type(error).__name__}: {error}). It may be damaged "
            "or of another format; write it with adata.write_h5ad."
        ) from error


def parse_options(pairs: list[str], hint: str, of: str, known: Iterable[str]) -> dict[str, Any]:
    """Parse ``name=value`` pairs; values are YAML scalars, so 30 is a number and none is None.

    Names other than those `known` of something are refused; `hint` is the option they came by.
    """
    import yaml

    options = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise typer.BadParameter(f"{pair!r} is not of the form name=value", param_hint=hint)
        if name not in known:
            raise typer.BadParameter(
                f"{of} has no argument {name!r}; it has {', '.join(sorted(known))}",
                param_hint=hint,
            )
        options[name] = None if value.lower() == "none" else yaml.safe_load(value)
    return options


def quiet_libraries() -> None:
    """Import the libraries that the command needs, and keep their chatter out of the terminal."""
    import logging
    import warnings

    import scvi  # noqa: F401 - sets up its own and Lightning's loggers, which come after

    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"(lightning|scvi|torch|anndata)(\.|$)")
