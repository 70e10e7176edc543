"""Commands about artefacts: list, show, pull, verify, publish."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from sczoo.cli._app import Registry, app
from sczoo.cli._console import (
    console,
    new_table,
    quiet_libraries,
    size,
)


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Names to show; * stands for anything.")] = "*",
    registry: Registry = None,
) -> None:
    """List the artefacts of the registries."""
    from sczoo.hub import list_artefacts

    table = new_table("Name", "Kind", "Method", "Status", "Size", "Summary")
    entries = list_artefacts(pattern, registry=registry)
    for entry in entries:
        table.add_row(
            f"{entry.id}:{entry.version}",
            entry.kind,
            entry.method,
            entry.status,
            size(entry.size),
            entry.summary,
        )
    if entries:
        console().print(table)
    else:
        where = registry or os.environ.get("SCZOO_REGISTRY") or "the zoo's own registry"
        typer.echo(
            f"No artefact matches {pattern!r} in {where}. Name another registry with --registry "
            "or SCZOO_REGISTRY; `sczoo publish` makes one."
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name, with :version for one that is not newest.")],
    registry: Registry = None,
) -> None:
    """Show the card of an artefact."""
    from rich.markdown import Markdown

    from sczoo.hub import card_text

    console().print(Markdown(card_text(name, registry=registry)))


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Name of an artefact.")],
    registry: Registry = None,
) -> None:
    """Fetch an artefact into the cache, check it, and print its folder."""
    from sczoo import hub

    typer.echo(str(hub.pull(name, registry=registry)))


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="Name of an artefact, or the folder of one.")],
    registry: Registry = None,
    figures: Annotated[
        bool, typer.Option(help="Measure the figures of the card again, where that is possible.")
    ] = True,
) -> None:
    """Check files, card and self-test of an artefact, and measure its figures again."""
    from sczoo import hub

    quiet_libraries()
    report = hub.verify(name, registry=registry, figures=figures)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="Name of an artefact of the zoo.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder to keep the result in.")
    ] = None,
    registry: Registry = None,
) -> None:
    """Train an artefact of the zoo again from its data, and compare."""
    from sczoo import hub

    quiet_libraries()
    report = hub.reproduce(name, output, registry=registry)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    name: Annotated[str, typer.Argument(help="Name in the registry, such as sce2tm/my-topics.")],
    registry: Annotated[str, typer.Option("--registry", "-r", help="Folder of the registry.")],
    card: Annotated[Path, typer.Option(help="YAML file with what the card must say.")],
    version: Annotated[int | None, typer.Option(help="Version; the next free one.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Content about single patients to allow, by the gate's name; repeatable."
        ),
    ] = None,
) -> None:
    """Publish a saved model: the release gate, the card, the registry."""
    from sczoo import hub

    quiet_libraries()
    entry = hub.publish(
        folder,
        name,
        version,
        registry=registry,
        card=hub.read_card(card),
        allow=tuple(allow or ()),
    )
    typer.echo(f"Published {entry.id}:{entry.version} in {registry}.")


@app.command()
def keygen(
    key: Annotated[Path, typer.Argument(help="New file for the private key; keep it secret.")],
) -> None:
    """Create a key for signing registries and print its public half."""
    from sczoo import hub

    public = hub.create_signing_key(key)
    typer.echo(public)
    typer.echo(f"Readers pin it to the registry's address: ADDRESS#{public}", err=True)


@app.command()
def sign(
    registry: Annotated[str, typer.Argument(help="Folder of the registry.")],
    key: Annotated[
        Path | None, typer.Option(help="File with the private key; SCZOO_SIGNING_KEY by default.")
    ] = None,
) -> None:
    """Sign a registry, so that readers can tell that nobody else changed it."""
    from sczoo import hub

    public = hub.sign_registry(registry, key)
    typer.echo(f"Signed {registry} with {public}.")
