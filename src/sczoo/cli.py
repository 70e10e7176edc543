"""The command line: ``sczoo --help``.

Commands import what they need when they run, so that ``sczoo --help`` and ``sczoo list`` answer at
once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from anndata import AnnData

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


# --- looking around ---------------------------------------------------------------------------


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Names to show; * stands for anything.")] = "*",
    registry: Registry = None,
) -> None:
    """List the artefacts of the registries."""
    from sczoo.hub import list_artefacts

    table = _table("Name", "Kind", "Method", "Status", "Size", "Summary")
    entries = list_artefacts(pattern, registry=registry)
    for entry in entries:
        table.add_row(
            f"{entry.id}:{entry.version}",
            entry.kind,
            entry.method,
            entry.status,
            _bytes(entry.size),
            entry.summary,
        )
    if entries:
        _console().print(table)
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

    _console().print(Markdown(card_text(name, registry=registry)))


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
) -> None:
    """Check hashes and schema of an artefact and re-run its self-test."""
    from sczoo import hub

    _quiet_libraries()
    report = hub.verify(name, registry=registry)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def doctor(
    data: Annotated[Path, typer.Argument(help="An .h5ad file.")],
    layer: Layer = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with batches.")] = None,
    labels_key: Annotated[str | None, typer.Option(help="Column of obs with labels.")] = None,
    scale: Annotated[
        str, typer.Option(help="What the matrix is meant to hold: counts, log1p or any.")
    ] = "counts",
) -> None:
    """Examine a dataset and report everything that could spoil a run."""
    import sczoo

    adata = _read(data)
    report = sczoo.doctor(
        adata,
        layer=layer,
        scale=scale,  # type: ignore[arg-type]
        batch_key=batch_key,
        labels_key=labels_key,
    )
    _print_doctor(report)
    if not report.ok:
        raise typer.Exit(1)


# --- working ----------------------------------------------------------------------------------


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="Method, such as sce2tm.")],
    data: Annotated[Path, typer.Argument(help="Training data, an .h5ad file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model.")],
    layer: Layer = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with batches.")] = None,
    labels_key: Annotated[str | None, typer.Option(help="Column of obs with labels.")] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="Epochs; the method's own default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="Argument of the model, as name=value; repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing folder.")] = False,
) -> None:
    """Train a model and save it."""
    from sczoo.errors import ArtefactError

    if output.exists() and not overwrite:
        raise ArtefactError(f"{output} exists already; choose another folder or add --overwrite.")
    _require_writable(output)
    adata = _read(data)
    _quiet_libraries()
    import inspect

    import scvi

    from sczoo.model import get_model_class

    model_class = get_model_class(method)
    scvi.settings.seed = seed
    wanted = {"layer": layer, "batch_key": batch_key, "labels_key": labels_key}
    accepted = inspect.signature(model_class.setup_anndata).parameters
    given = {key: value for key, value in wanted.items() if value is not None}
    unknown = sorted(set(given) - set(accepted))
    if unknown:
        raise typer.BadParameter(f"{method} does not take --{unknown[0].replace('_', '-')}")
    options = _options(option or [])
    arguments = sorted(set(inspect.signature(model_class).parameters) - {"adata", "registry"})
    for name in options:
        if name not in arguments:
            raise typer.BadParameter(
                f"{method} has no argument {name!r}; it has {', '.join(arguments)}",
                param_hint="--set",
            )
    model_class.setup_anndata(adata, **given)
    model = model_class(adata, **options)
    try:
        model.train(**({} if max_epochs is None else {"max_epochs": max_epochs}))
    except KeyboardInterrupt:
        # hours of training are worth keeping, but not at the price of an older, finished model
        if model.is_trained_ and not output.exists():
            model.save(output)
            typer.echo(f"Stopped before the end: the weights of the last step are in {output}.")
        else:
            typer.echo(f"Stopped: nothing was written to {output}.")
        raise typer.Exit(130) from None
    model.save(output, overwrite=overwrite)
    typer.echo(
        f"Saved in {output}. Publish it with: sczoo publish {output} NAME --registry FOLDER"
    )


@app.command()
def apply(
    name: Annotated[str, typer.Argument(help="Name of a model, or the folder of one.")],
    query: Annotated[Path, typer.Argument(help="A new patient's data, an .h5ad file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The annotated .h5ad to write.")],
    report: Annotated[Path | None, typer.Option(help="Also write an HTML report here.")] = None,
    registry: Registry = None,
    layer: Layer = None,
    min_coverage: Annotated[
        float | None, typer.Option(help="Smallest acceptable share of the model's genes.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace existing files.")] = False,
) -> None:
    """Apply a model to a new patient's cells."""
    from sczoo.errors import InputError

    for path in (output, report):
        if path is not None and path.exists() and not overwrite:
            raise InputError(f"{path} exists already; choose another name or add --overwrite.")
        if path is not None:
            _require_writable(path)
    if report is not None and report.absolute() == output.absolute():
        raise InputError(f"--output and --report both name {output}; give the report its own.")
    adata = _read(query)
    _quiet_libraries()
    import sczoo
    from sczoo.hub import load
    from sczoo.report import write_report
    from sczoo.report.patient import patient_report, write_h5ad

    model = load(name, registry=registry)
    result = sczoo.transfer(model, adata, layer=layer, min_coverage=min_coverage)
    write_h5ad(adata, output)
    typer.echo(result.alignment.summary())
    for warning in result.warnings:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    typer.echo(f"Wrote {output}: " + ", ".join(result.keys))
    if report is not None:
        write_report(patient_report(model, adata, result, source=name, query=query.name), report)
        typer.echo(f"Wrote {report}")


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

    _quiet_libraries()
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
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    max_epochs: Annotated[int | None, typer.Option(help="Train for fewer or more epochs.")] = None,
) -> None:
    """Train on real patients, publish, reload by name, apply to a patient never seen."""
    _quiet_libraries()
    from sczoo._demo import run_demo

    run_demo(output, seed=seed, max_epochs=max_epochs, console=_console())


# --- helpers of the commands ------------------------------------------------------------------


def _console() -> Any:
    from rich.console import Console

    return Console()


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _print_doctor(report: Any) -> None:
    table = _table("", "Where", "Finding")
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "error": "[red]error[/]"}
    from rich.markup import escape

    for finding in report.findings:
        text = escape(finding.message)
        if finding.remedy:
            text += f"\n[dim]{escape(finding.remedy)}[/]"
        table.add_row(marks[finding.level], escape(finding.where), text)
    _console().print(table)


def _require_writable(path: Path) -> None:
    """Refuse a place that cannot be written, before hours of work are lost on it."""
    from sczoo.errors import InputError

    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            f"{path} cannot be written: {folder} is not a folder that you may write to. Choose "
            "another path."
        )


def _read(path: Path) -> AnnData:
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


def _options(pairs: list[str]) -> dict[str, Any]:
    """Parse ``name=value`` pairs; values are YAML scalars, so 30 is a number and none is None."""
    import yaml

    options = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise typer.BadParameter(f"{pair!r} is not of the form name=value", param_hint="--set")
        options[name] = None if value.lower() == "none" else yaml.safe_load(value)
    return options


def _quiet_libraries() -> None:
    """Import the libraries that the command needs, and keep their chatter out of the terminal."""
    import logging
    import warnings

    import scvi  # noqa: F401 - sets up its own and Lightning's loggers, which come after

    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"(lightning|scvi|torch|anndata)(\.|$)")


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
