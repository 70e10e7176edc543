"""The command line: ``sczoo --help``.

Each file holds the commands of one subject and registers them with the application. They import
what they need when they run, so that ``sczoo --help`` and ``sczoo list`` answer at once.
"""

from __future__ import annotations

import os
import sys

import typer

from sczoo.cli import _annotate, _artefacts, _audit, _cells  # noqa: F401 - importing registers the commands
from sczoo.cli._app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; errors of sczoo become one line and exit status 1."""
    from sczoo.errors import SczooError

    # The models are small: more threads gain little on a free machine, and on a shared one they
    # wait for each other and cost an order of magnitude. OMP_NUM_THREADS overrides.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        app()
    except SczooError as error:
        typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.secho("Stopped.", fg="red", err=True)
        sys.exit(130)
