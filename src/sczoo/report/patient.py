"""The report about a new patient to whom a model was applied, and safe writing of the data."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError
from sczoo.report._html import Figure, Report, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

_OUT_OF_SCOPE = (
    "Research use only: not for diagnosis, prognosis or any decision about a patient's treatment."
)
_MAX_POINTS = 20_000


def write_h5ad(adata: AnnData, path: str | os.PathLike[str]) -> Path:
    """Write `adata` so that a crash leaves the old file or the new one.

    Names with a slash, as older files of anndata have them, are written back as they were read.
    """
    import anndata

    # anndata 0.13 refuses the slash unless asked; before 0.12 there was nothing to ask
    option = {"disallow_forward_slash_in_h5ad": False}
    if not hasattr(anndata.settings, *option):
        option = {}
    target = Path(path).absolute()
    temporary = target.parent / f".{target.stem}.{secrets.token_hex(8)}.h5ad"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # created with the user's own umask: these are a patient's data
        with anndata.settings.override(**option):
            adata.write_h5ad(temporary, compression="gzip")
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"{target} could not be written ({error}); nothing was changed. Check free space and "
            "permissions, or choose another path."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return target


def method_paragraph(model: Any, n_cells: int, coverage: str) -> str:
    """Describe in words what was done, to paste into a manuscript."""
    recorded = model.provenance_.get("versions", {})
    from sczoo import __version__

    return (
        f"{n_cells:,} cells were analysed with the {type(model).__name__} method "
        f"as implemented in sczoo {__version__} on scvi-tools "
        f"{recorded.get('scvi-tools', 'of unknown version')}. The model had been trained on "
        f"{model.provenance_.get('n_cells', 'an unknown number of')} cells (random seed "
        f"{model.provenance_.get('seed', 'unknown')}) and was applied with its weights unchanged. "
        f"Genes were matched by name: {coverage}."
    )


def _citations(model: Any) -> list[str]:
    own = [
        " ".join(filter(None, [c.get("text", ""), f"doi:{c['doi']}" if c.get("doi") else ""]))
        for c in model._citation
    ]
    return [
        *own,
        "Gayoso A. et al. A Python library for probabilistic analysis of single-cell omics data. "
        "Nature Biotechnology 40, 163-166 (2022). doi:10.1038/s41587-021-01206-w",
        "Virshup I. et al. The scverse project provides a computational ecosystem for single-cell "
        "omics data analysis. Nature Biotechnology 41, 604-606 (2023). "
        "doi:10.1038/s41587-023-01733-8",
    ]


def _colours(adata: AnnData, method: str) -> list[str]:
    """Columns worth colouring by: the method's own, then the user's categories."""
    own = [c for c in (f"{method}_label", f"{method}_cluster") if c in adata.obs]
    others = [
        str(c)
        for c in adata.obs.columns
        if str(c) not in own
        and not str(c).startswith("_scvi")
        and adata.obs[c].dtype.name in ("category", "object", "string", "str", "bool")
        and 1 < adata.obs[c].nunique() <= 20
    ]
    return [*own, *others][:4]


def _figures(model: Any, adata: AnnData) -> list[Figure]:
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    from sczoo import pl

    figures = []
    shown = adata
    if adata.n_obs > _MAX_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(adata.n_obs, _MAX_POINTS, replace=False))
        shown = adata[rows].copy()
    colours = _colours(adata, model._method)
    if colours and adata.n_obs >= 3:
        n_rows, n_columns = -(-len(colours) // 2), min(2, len(colours))
        figure, axes = plt.subplots(
            n_rows, n_columns, figsize=(5.2 * n_columns, 4.4 * n_rows), squeeze=False
        )
        for axis in axes.ravel()[len(colours) :]:
            axis.set_axis_off()
        for axis, colour in zip(axes.ravel(), colours, strict=False):
            pl.embedding(shown, f"X_{model._method}", color=colour, ax=axis, show=False)
        figure.tight_layout()
        figures.append(
            Figure.from_matplotlib(
                figure, f"The cells in the model's space, by {', '.join(colours)}."
            )
        )
        plt.close(figure)
    if hasattr(model, "get_top_genes"):
        axes = pl.topics(model, show=False)
        figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
        figures.append(Figure.from_matplotlib(figure, "The genes that define each topic."))
        plt.close(figure)
    return figures


def patient_report(
    model: Any,
    adata: AnnData,
    result: Any,
    *,
    source: str,
    query: str,
    limits: Sequence[str] = (),
) -> Report:
    """Build the report about one application of a model.

    Parameters
    ----------
    model
        The model that was applied.
    adata
        The annotated data.
    result
        What :func:`sczoo.transfer` returned.
    source
        Name of the model.
    query
        Name of the data.
    limits
        What the model's card says of where it must not be trusted, and not be used.
    """
    alignment = result.alignment
    method = model._method
    facts = [
        ("Model", source),
        ("Method", f"{type(model).__name__}: {model._summary}"),
        ("Cells", f"{adata.n_obs:,}"),
        ("Genes", alignment.summary()),
        ("Written", ", ".join(result.keys)),
    ]
    if result.share_outside is not None:
        usual = model.domain["latent_limit"]
        facts.append(
            (
                "Outside what the model knows",
                f"{result.share_outside:.0%} of the cells (expected: up to {usual:.0%})",
            )
        )
    tables = []
    for column, caption in ((f"{method}_label", "Labels"), (f"{method}_cluster", "Clusters")):
        if column in adata.obs:
            sizes = adata.obs[column].value_counts()
            rows = [(name, int(n), f"{n / adata.n_obs:.1%}") for name, n in sizes.items() if n]
            tables.append(Table(caption, [column, "cells", "share"], rows))
    if alignment.missing:
        missing = [(name,) for name in alignment.missing[:50]]
        caption = f"Genes of the model that the query lacks ({len(alignment.missing)})"
        tables.append(Table(caption, ["gene"], missing))
    return Report(
        title=f"{query}: {source}",
        lead=f"What {type(model).__name__} found in {adata.n_obs:,} cells.",
        warnings=list(result.warnings),
        facts=facts,
        figures=_figures(model, adata),
        tables=tables,
        methods=method_paragraph(model, adata.n_obs, alignment.summary()),
        citations=_citations(model),
        limits=[_OUT_OF_SCOPE, *limits],
        provenance=_provenance(model),
    )


def _provenance(model: Any) -> dict[str, str]:
    record = model.provenance_
    versions = record.get("versions", {})
    return {
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "seed": str(record.get("seed", "unknown")),
        "genes (SHA-256)": str(record.get("genes_sha256", "unknown")),
        "training data (SHA-256)": str(record.get("data_sha256", "unknown")),
    }
