"""``sczoo demo``: the whole promise once, on real patients' cells, without a network."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError, SelfTestError
from sczoo.recipes._figures import clustering_metrics, held_out_clustering
from sczoo.recipes.sce2tm_pbmc_interferon import HELD_OUT, card

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from rich.console import Console

    from sczoo.recipes._figures import Score

INTERFERON_GENES = ("ISG15", "IFI6", "ISG20", "LY6E", "IFITM3")
NAME = "sce2tm/kang-interferon"
REGISTRY = "registry"
_MARKER = ".sczoo-demo"


def run_demo(output: Path, *, seed: int, max_epochs: int | None, console: Console) -> None:
    """Run the demonstration and write its results into `output`.

    Parameters
    ----------
    output
        Folder for the results; results of an earlier demo in it are replaced, anything else is
        left alone.
    seed
        Random seed.
    max_epochs
        Epochs of training; the model's default where ``None``.
    console
        Where to print.

    Raises
    ------
    InputError
        The folder holds something that is not from a demo.
    """
    import scvi

    import sczoo
    from sczoo.hub import load, publish

    started = time.perf_counter()
    output = _fresh_folder(output)
    scvi.settings.seed = seed

    console.rule("1. Real cells: PBMC of eight donors, control and interferon-beta")
    adata = sczoo.datasets.kang_ifnb_demo()
    report = sczoo.doctor(adata, labels_key="cell_type")
    for finding in report.findings:
        console.print(f"   {finding.level:8}{finding.where}: {finding.message}", highlight=False)
    held_out = (adata.obs["patient"].astype(str) == HELD_OUT).to_numpy()
    reference, patient = adata[~held_out].copy(), adata[held_out].copy()
    console.print(
        f"   {HELD_OUT} ({patient.n_obs:,} cells) is held out; "
        f"{reference.n_obs:,} cells of the others are for training."
    )

    console.rule("2. Train the topic model SCE2TM on the other patients")
    sczoo.model.SCE2TM.setup_anndata(reference)
    model = sczoo.model.SCE2TM(reference)
    model.train(max_epochs)

    console.rule("3. Publish it into a local registry, behind the release gate")
    latent = model.get_latent_representation(patient)
    measured, baselines = held_out_clustering(latent, reference, patient)
    command = f"sczoo demo --seed {seed}"
    stated = {
        **card(model, command),
        "metrics": clustering_metrics(measured, baselines, HELD_OUT, command),
    }
    registry = output / REGISTRY
    entry = publish(model, NAME, registry=registry, card=stated)
    console.print(f"   Published {entry.name}: {entry.size / 1e6:.1f} MB, no pickle, no barcodes.")

    console.rule("4. Load it by name, as a stranger would, and apply it to the patient")
    stranger = load(f"{NAME}:{entry.version}", registry=registry)
    result = sczoo.transfer(stranger, patient)
    console.print(f"   {result.alignment.summary()}")
    latent = stranger.get_latent_representation(patient)
    repeated, _ = held_out_clustering(latent, reference, patient, baselines=False)
    if abs(repeated["ari"].value - measured["ari"].value) > 1e-6:
        raise SelfTestError("The reloaded model does not reproduce the figures on its card.")
    moved, baseline = moving_topics(stranger, patient), baselines["pca_50"]
    _write_results(output, stranger, patient, result, measured, baseline, moved, entry)

    console.rule("Result")
    _print_table(console, result, measured, baseline, moved, time.perf_counter() - started)
    console.print(f"Open {output / 'report.html'} in a browser; everything is in {output}.")


def _fresh_folder(output: Path) -> Path:
    output = output.absolute()
    if output.exists() and any(output.iterdir()) and not (output / _MARKER).exists():
        raise InputError(
            f"{output} holds files that are not from a demo; choose another folder with --output."
        )
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    (output / _MARKER).write_text("This folder is replaced by the next sczoo demo.\n")
    return output


# --- figures ----------------------------------------------------------------------------------


def moving_topics(model: Any, patient: AnnData, n_topics: int = 3) -> list[dict[str, Any]]:
    """Find the topics that move most between control and stimulated cells of one patient.

    The shift of a topic is the difference of its mean logit, stimulated minus control, within
    each cell type with at least 20 cells of both, averaged over the types. Within types, because
    the two conditions hold the types in different proportions.
    """
    logits = model.get_latent_representation(patient)
    stimulated = (patient.obs["condition"].astype(str) == "stim").to_numpy()
    types = patient.obs["cell_type"].astype(str).to_numpy()
    shifts = []
    for kind in np.unique(types):
        cells = types == kind
        if (cells & stimulated).sum() < 20 or (cells & ~stimulated).sum() < 20:
            continue
        shifts.append(logits[cells & stimulated].mean(0) - logits[cells & ~stimulated].mean(0))
    shift = np.mean(shifts, axis=0)
    top = model.get_top_genes(10)
    order = np.argsort(-np.abs(shift))[:n_topics]
    names = list(dict.fromkeys(top["topic"]))
    return [
        {
            "topic": names[k],
            "shift": float(shift[k]),
            "genes": top.loc[top["topic"] == names[k], "gene"].tolist(),
        }
        for k in order
    ]


# --- output -----------------------------------------------------------------------------------


def _write_results(
    output: Path,
    model: Any,
    patient: AnnData,
    result: Any,
    measured: dict[str, Score],
    baseline: dict[str, Score],
    moved: list[dict[str, Any]],
    entry: Any,
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from sczoo import pl
    from sczoo.hub import pull
    from sczoo.report import Figure, Table, write_report
    from sczoo.report.patient import patient_report, write_h5ad

    write_h5ad(patient, output / f"{HELD_OUT}.h5ad")
    folder = pull(entry.name, registry=output / REGISTRY)
    shutil.copyfile(folder / "card.md", output / "card.md")

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6))
    for axis, colour in zip(axes, ("cell_type", "condition"), strict=True):
        pl.embedding(patient, f"X_{model._method}", color=colour, ax=axis, show=False)
    figure.tight_layout()
    figure.savefig(output / "embedding.png", dpi=150)
    plt.close(figure)
    topics = pl.topics(
        model, topics=[m["topic"] for m in moved], highlight=INTERFERON_GENES, show=False
    )
    figure = np.ravel(np.asarray(topics, dtype=object))[0].figure
    figure.savefig(output / "topics.png", dpi=150, bbox_inches="tight")
    plt.close(figure)

    report = patient_report(
        model, patient, result, source=entry.name, query=f"{HELD_OUT} (Kang et al. 2018)"
    )
    report.figures = [
        Figure(
            f"The cells of {HELD_OUT}, whom the model has never seen.",
            (output / "embedding.png").read_bytes(),
        ),
        Figure(
            "The topics that interferon moves most in this patient.",
            (output / "topics.png").read_bytes(),
        ),
    ]
    rows = [(name.upper(), str(measured[name]), str(baseline[name])) for name in ("ari", "nmi")]
    report.tables = [
        Table(
            "Agreement with the known cell types, label-free clustering",
            ["score", "SCE2TM, frozen", "PCA of the training cells"],
            rows,
        ),
        Table(
            "Topics that move between control and stimulated cells",
            ["topic", "shift (logits)", "top genes"],
            [(m["topic"], f"{m['shift']:+.2f}", ", ".join(m["genes"])) for m in moved],
        ),
        *report.tables,
    ]
    write_report(report, output / "report.html")


def _print_table(
    console: Console,
    result: Any,
    measured: dict[str, Score],
    baseline: dict[str, Score],
    moved: list[dict[str, Any]],
    seconds: float,
) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("Genes", result.alignment.summary())
    for name in ("ari", "nmi"):
        table.add_row(
            f"{name.upper()}, {HELD_OUT}",
            f"{measured[name]}  (PCA and the same clustering: {baseline[name].value:.3f})",
        )
    for move in moved:
        genes = ", ".join(
            f"[bold green]{gene}[/]" if gene in INTERFERON_GENES else gene
            for gene in move["genes"]
        )
        table.add_row(f"Topic {move['topic']}, moved {move['shift']:+.1f}", genes)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = kilobytes / (2**30 if sys.platform == "darwin" else 2**20)
    table.add_row("Time, peak memory", f"{seconds:.0f} s, {memory:.1f} GiB")
    console.print(table)
