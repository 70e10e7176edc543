"""Commands about cells: doctor, train, apply, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sczoo.cli._app import Layer, Registry, app
from sczoo.cli._console import (
    console,
    parse_options,
    print_doctor,
    quiet_libraries,
    read_cells,
    require_writable,
)


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

    adata = read_cells(data)
    report = sczoo.doctor(
        adata,
        layer=layer,
        scale=scale,  # type: ignore[arg-type]
        batch_key=batch_key,
        labels_key=labels_key,
    )
    print_doctor(report)
    if not report.ok:
        raise typer.Exit(1)


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
    setup: Annotated[
        list[str] | None,
        typer.Option(
            "--setup",
            help="Further argument of setup_anndata, such as donor_key=patient; repeatable.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing folder.")] = False,
) -> None:
    """Train a model and save it."""
    from sczoo.errors import ArtefactError

    if output.exists() and not overwrite:
        raise ArtefactError(f"{output} exists already; choose another folder or add --overwrite.")
    require_writable(output)
    adata = read_cells(data)
    quiet_libraries()
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
    keys = set(accepted) - {"adata", "kwargs", *wanted}
    further = parse_options(setup or [], "--setup", f"setup_anndata of {method}", keys)
    arguments = set(inspect.signature(model_class).parameters) - {"adata", "registry"}
    options = parse_options(option or [], "--set", method, arguments)
    model_class.setup_anndata(adata, **given, **further)
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
            require_writable(path)
    if report is not None and report.absolute() == output.absolute():
        raise InputError(f"--output and --report both name {output}; give the report its own.")
    adata = read_cells(query)
    quiet_libraries()
    import sczoo
    from sczoo.hub import load
    from sczoo.hub._transfer import usable
    from sczoo.report import write_report
    from sczoo.report.patient import patient_report, write_h5ad

    model = usable(load(name, registry=registry))
    result = sczoo.transfer(model, adata, layer=layer, min_coverage=min_coverage)
    write_h5ad(adata, output)
    typer.echo(result.alignment.summary())
    for warning in result.warnings:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    typer.echo(f"Wrote {output}: " + ", ".join(result.keys))
    if report is not None:
        made = patient_report(
            model,
            adata,
            result,
            source=name,
            query=query.name,
            limits=_limits_of(name, registry),
        )
        write_report(made, report)
        typer.echo(f"Wrote {report}")


def _limits_of(name: str, registry: str | None) -> list[str]:
    """Tell what the card of a published model says against relying on it."""
    from sczoo.hub import show
    from sczoo.hub._load import is_path

    if is_path(name):
        return []
    entry = show(name, registry)
    return [*entry.limits, *(f"Not to be used for: {use}" for use in entry.out_of_scope)]


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    max_epochs: Annotated[int | None, typer.Option(help="Train for fewer or more epochs.")] = None,
) -> None:
    """Train on real patients, publish, reload by name, apply to a patient never seen."""
    quiet_libraries()
    from sczoo._demo import run_demo

    run_demo(output, seed=seed, max_epochs=max_epochs, console=console())
