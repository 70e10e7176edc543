"""The application, and the options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="sczoo",
    help="A zoo of single-cell RNA-seq models: train, share and apply them to new patients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Registry = Annotated[
    str | None,
    typer.Option("--registry", "-r", help="Folder or https address of a registry to look in."),
]
Layer = Annotated[
    str | None, typer.Option("--layer", help="Layer with the expression; X by default.")
]


def _version(requested: bool) -> None:
    if requested:
        from sczoo import __version__

        typer.echo(f"sczoo {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass
