"""The command that attacks a model, or synthetic cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sczoo.cli._app import Layer, Registry, app
from sczoo.cli._console import console, new_table, quiet_libraries, read_cells, require_writable


@app.command()
def audit(
    target: Annotated[
        str, typer.Argument(help="Model (name or folder), or an .h5ad file of synthetic cells.")
    ],
    members: Annotated[
        Path, typer.Option("--members", help="Cells that were in the training data, .h5ad.")
    ],
    others: Annotated[Path, typer.Option("--others", help="Cells that were not, .h5ad.")],
    donor_key: Annotated[str | None, typer.Option(help="Column of obs with donors.")] = None,
    twin: Annotated[
        str | None, typer.Option(help="The same model trained without privacy: name or folder.")
    ] = None,
    random_split: Annotated[
        bool,
        typer.Option(
            "--random-split", help="Membership was decided by a fair coin for each cell or donor."
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report as JSON.")
    ] = None,
    registry: Registry = None,
    layer: Layer = None,
) -> None:
    """Attack a model or synthetic cells: can it be told who was in the training data."""
    if output is not None:
        require_writable(output)
    inside, outside = read_cells(members), read_cells(others)
    quiet_libraries()
    from sczoo import privacy

    report = privacy.audit(
        _open(target, registry),
        inside,
        outside,
        donor_key=donor_key,
        twin=None if twin is None else _open(twin, registry),
        random_split=random_split,
        layer=layer,
    )
    table = new_table("Subject", "Level", "AUC (95 %)", "TPR at 1 % FPR", "Epsilon at least")
    for (subject, level), found in report.attacks.items():
        low, high = found.auc_ci95
        bound = report.bounds.get((subject, level))
        table.add_row(
            subject,
            level,
            f"{found.auc:.3f} ({low:.3f} to {high:.3f})",
            f"{found.tpr_at_1_fpr:.3f}",
            "" if bound is None else f"{bound.epsilon:.2f}",
        )
    table.add_row("chance", "", "0.500", "0.010", "")
    console().print(table)
    for note in report.notes:
        typer.echo(note)
    if report.claimed_epsilon is not None:
        typer.echo(report.card_block()["claim"])
    if output is not None:
        import json

        output.write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    if report.contradicted:
        raise typer.Exit(1)


def _open(target: str, registry: str | None) -> object:
    path = Path(target).expanduser()
    if path.suffix == ".h5ad":
        return read_cells(path)
    from sczoo.base._persistence import load_any
    from sczoo.hub import load

    if (path / "artefact.json").is_file():
        return load_any(path)
    return load(target, registry=registry)
