"""The command ``annotate``: cell types for an .h5ad file, from a shell."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Any

import typer

from sczoo.cli._app import Layer, app
from sczoo.cli._console import quiet_libraries, read_cells, require_writable


@app.command()
def annotate(
    query: Annotated[Path, typer.Argument(help="The cells, an .h5ad file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The annotated .h5ad to write.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    scorer: Annotated[
        str, typer.Option(help="Who scores the cells: markers, precomputed or langcell.")
    ] = "markers",
    tissue: Annotated[
        list[str] | None,
        typer.Option(help="Candidates of a tissue, such as blood; repeatable."),
    ] = None,
    cell_type: Annotated[
        list[str] | None,
        typer.Option("--type", help="A candidate cell type by name; repeatable."),
    ] = None,
    logits_key: Annotated[
        str | None, typer.Option(help="Key of obsm with the scores, for precomputed.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of the weights, for langcell.")
    ] = None,
    layer: Layer = None,
    use_rep: Annotated[
        str | None, typer.Option(help="Key of obsm to find neighbours in; PCA by default.")
    ] = None,
    batch_key: Annotated[
        str | None, typer.Option(help="Column of obs whose batches the neighbours shall cross.")
    ] = None,
    lam: Annotated[float, typer.Option(help="Strength of the refinement.")] = 3.0,
    n_neighbors: Annotated[int, typer.Option(help="Neighbours of a cell.")] = 15,
    coverage: Annotated[
        float, typer.Option(help="Share of the cells to label; the others are unknown.")
    ] = 1.0,
    truth: Annotated[
        str | None, typer.Option(help="Column of obs with true types, for the report.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace existing files.")] = False,
) -> None:
    """Label cells by marker genes or any model's scores, refined on the graph of the cells."""
    from sczoo.errors import InputError, MissingKeyError

    _check_places(query, output, report, overwrite)
    known = ("markers", "precomputed", "langcell")
    if scorer not in known:
        raise InputError(f"--scorer {scorer} is not known; it is one of {', '.join(known)}.")
    if scorer == "precomputed" and logits_key is None:
        raise InputError("--scorer precomputed needs the scores: add --logits-key KEY_OF_OBSM.")
    if scorer == "langcell" and (checkpoint is None or not cell_type):
        raise InputError("--scorer langcell needs --checkpoint FOLDER and --type for each type.")
    adata = read_cells(query)
    if truth is not None and truth not in adata.obs:
        raise MissingKeyError(
            f"{query} has no column {truth!r} in obs; it has "
            f"{', '.join(map(str, adata.obs.columns))}."
        )
    quiet_libraries()
    import logging
    import warnings

    # warnings are printed below, once
    logging.getLogger("sczoo").setLevel(logging.ERROR)
    from sczoo.model import GRIT
    from sczoo.report import write_report
    from sczoo.report.labels import label_report
    from sczoo.report.patient import write_h5ad

    arguments: dict[str, Any] = {"lam": lam, "n_neighbors": n_neighbors, "scorer": scorer}
    if scorer == "langcell":
        from sczoo.model.grit.scorers import LangCellScorer

        assert checkpoint is not None
        arguments["scorer"] = LangCellScorer(checkpoint, cell_type)
    elif scorer == "markers":
        arguments |= {"tissue": tissue or None, "classes": cell_type or None}
    GRIT.setup_anndata(
        adata,
        layer=layer,
        logits_key=logits_key if scorer == "precomputed" else None,
        use_rep=use_rep,
        batch_key=batch_key,
    )
    with warnings.catch_warnings():
        # they are among those printed below
        warnings.simplefilter("ignore", UserWarning)
        model = GRIT(adata, **arguments)
    model.train(accelerator="cpu", enable_progress_bar=False, logger=False)
    model.annotate(adata, coverage=coverage, batch_key=batch_key)
    from sczoo import _compat

    for name in _compat.SETUP_TRACES_OBS:
        if name in adata.obs:
            del adata.obs[name]
    for name in _compat.SETUP_TRACES_UNS:
        adata.uns.pop(name, None)
    result = model.refine()
    changed = result.codes != result.raw_codes
    typer.echo(
        f"{adata.n_obs:,} cells, {len(model.classes)} candidate types, {changed.sum():,} labels "
        f"changed ({changed.mean():.1%})."
    )
    for name, n_cells in adata.obs["grit_label"].value_counts().head(10).items():
        typer.echo(f"  {n_cells:>8,}  {name}")
    for warning in result.warnings:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    if output is not None:
        write_h5ad(adata, output)
        typer.echo(f"Wrote {output}: obs['grit_label'] and others")
    if report is not None:
        write_report(label_report(model, adata, query=query.name, truth=truth), report)
        typer.echo(f"Wrote {report}")


def _check_places(query: Path, output: Path | None, report: Path | None, overwrite: bool) -> None:
    """Refuse places that cannot be written, before any work."""
    from sczoo.errors import InputError

    if output is None and report is None:
        raise InputError("Nothing would be written: add --output FILE.h5ad or --report FILE.html.")
    for path in (output, report):
        if path is None:
            continue
        if path.absolute() == query.absolute():
            raise InputError(f"{path} is the query itself; choose another name.")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; choose another name or add --overwrite.")
        require_writable(path)
    if output is not None and report is not None and output.absolute() == report.absolute():
        raise InputError(f"--output and --report both name {output}; give the report its own.")
