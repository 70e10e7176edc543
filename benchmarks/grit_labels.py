"""Labels by the embedded markers before and after GRIT, beside what else could be done with them.

On every labelled set, with the defaults and the types of the set as candidates: accuracy and
macro-F1 of the raw labels, of GRIT, and, on the same scores and the same graph, of a one-hop
average, of majority voting in Leiden clusters (resolution 1, and 5 as CellTypist over-clusters),
and of scikit-learn's LabelSpreading from the 30 % most certain cells; the shuffled-graph control;
accuracy of the most confident 80 % and 50 %; recall per class.

``role`` says what a set was used for: defaults (number of components, Laplacian, rare types, the
definition of confidence) were chosen on the sets "tuned"; "seen" sets were looked at in the same
tables; "untouched" ones were first scored by this script, after everything was fixed.

Run: ``python benchmarks/grit_labels.py``.
"""

from __future__ import annotations

from _measure import QUIET, Results, labelled  # isort: skip

import sys

import numpy as np
import scvi
from anndata import AnnData  # noqa: TC002 - named in signatures that readers look up
from sklearn.metrics import f1_score
from sklearn.semi_supervised import LabelSpreading

from sczoo.graph import leiden_of_graph
from sczoo.model import GRIT
from sczoo.model.grit._graph import one_hop
from sczoo.model.grit._guard import margin
from sczoo.model.grit._refinement import refine_scores

PANCREAS = {
    "alpha": "pancreatic alpha cell",
    "beta": "pancreatic beta cell",
    "ductal": "pancreatic ductal cell",
    "delta": "pancreatic delta cell",
    "gamma": "pancreatic PP cell",
    "endothelial": "endothelial cell",
}
ZHENG = {
    "CD14+ Monocyte": "CD14 monocyte",
    "CD19+ B": "B cell",
    "CD34+": "hematopoietic stem cell",
    "CD4+/CD25 T Reg": "regulatory T cell",
    "CD4+/CD45RA+/CD25- Naive T": "naive CD4 T cell",
    "CD4+/CD45RO+ Memory": "memory CD4 T cell",
    "CD56+ NK": "natural killer cell",
    "CD8+ Cytotoxic T": "cytotoxic CD8 T cell",
    "CD8+/CD45RA+ Naive Cytotoxic": "naive CD8 T cell",
}
# set -> (tissue, role, names of its types in the marker table)
SETS: dict[str, tuple[str, str, dict[str, str]]] = {
    "pbmc68k_reduced": ("blood", "seen", ZHENG | {"Dendritic": "dendritic cell"}),
    "pbmc3k": (
        "blood",
        "tuned",
        {
            "Naive CD4 T": "naive CD4 T cell",
            "Memory CD4 T": "memory CD4 T cell",
            "CD14+ Mono": "CD14 monocyte",
            "B": "B cell",
            "CD8 T": "cytotoxic CD8 T cell",
            "FCGR3A+ Mono": "CD16 monocyte",
            "NK": "natural killer cell",
            "DC": "dendritic cell",
            "Platelet": "platelet",
        },
    ),
    "kang_ifnb": (
        "blood",
        "tuned",
        {
            "CD4 T cells": "CD4 T cell",
            "CD14+ Monocytes": "CD14 monocyte",
            "B cells": "B cell",
            "CD8 T cells": "CD8 T cell",
            "NK cells": "natural killer cell",
            "FCGR3A+ Monocytes": "CD16 monocyte",
            "Dendritic cells": "dendritic cell",
            "Megakaryocytes": "megakaryocyte",
        },
    ),
    "pbmc_facs_zheng": ("blood", "tuned", ZHENG | {"CD4+ T Helper2": "T-helper 2 cell"}),
    "baron_mouse": (
        "pancreas, mouse",
        "tuned",
        PANCREAS
        | {
            "quiescent_stellate": "pancreatic stellate cell",
            "activated_stellate": "pancreatic stellate cell",
            "macrophage": "macrophage",
            "B_cell": "B cell",
            "T_cell": "T cell",
            "schwann": "Schwann cell",
        },
    ),
    "baron_human": ("pancreas", "seen", PANCREAS),
    "segerstolpe": ("pancreas", "seen", PANCREAS),
    "oligodendroglioma": (
        "brain tumour",
        "seen",
        {
            "Malignant": "malignant glioma cell",
            "Oligodendrocytes (non-malignant)": "oligodendrocyte",
            "Microglia/Macrophage": "microglial cell",
        },
    ),
    # names of clusters, not of types: the closest types of the table
    "melanoma_til": (
        "melanoma",
        "seen",
        {
            "Memory T-cells": "memory CD8 T cell",
            "Cytotoxicity": "cytotoxic CD8 T cell",
            "Exhausted Cd8+ cells": "exhausted T cell",
            "Exhausted/HS Cd8+ cells": "exhausted T cell",
            "Regulatory T-cells": "regulatory T cell",
            "Monocytes": "monocyte",
        },
    ),
    "zeisel_1464": (
        "brain, mouse",
        "untouched",
        {
            "pyramidal CA1": "glutamatergic neuron",
            "interneurons": "GABAergic interneuron",
            "endothelial-mural": "endothelial cell",
        },
    ),
    "camp_cortex": (
        "fetal brain",
        "untouched",
        {
            "AP1": "radial glial cell",
            "AP2": "radial glial cell",
            "BP1": "neural progenitor cell",
            "BP2": "neural progenitor cell",
            "N1": "neuron",
            "N2": "neuron",
            "N3": "neuron",
        },
    ),
}


def read(name: str) -> tuple[AnnData, np.ndarray]:
    """Cells with a known type of a set, and the types' names in the marker table."""
    adata, names = labelled(name), SETS[name][2]
    adata = adata[adata.obs["cell_type"].isin(list(names))].copy()
    return adata, adata.obs["cell_type"].map(names).astype(str).to_numpy()


def scores_of(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro-F1 over the true types."""
    f1 = f1_score(truth, labels, average="macro", labels=sorted(set(truth)), zero_division=0)
    return float((labels == truth).mean()), float(f1)


def voted(codes: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Majority vote in each cluster."""
    out = codes.copy()
    for cluster in np.unique(clusters):
        inside = clusters == cluster
        out[inside] = np.bincount(codes[inside]).argmax()
    return out


def spread(result, share: float = 0.3) -> np.ndarray:
    """LabelSpreading from the most certain cells, in the embedding of the graph."""
    sure = np.argsort(-margin(result.raw), kind="stable")[: int(share * result.n_cells)]
    start = np.full(result.n_cells, -1)
    start[sure] = result.raw_codes[sure]
    model = LabelSpreading(kernel="knn", n_neighbors=15, max_iter=100)
    return model.fit(result.embedding, start).transduction_


def measure(name: str, out: Results) -> None:
    """Measure one set."""
    adata, truth = read(name)
    GRIT.setup_anndata(adata)
    model = GRIT(adata, classes=sorted(set(truth)))
    model.train(**QUIET)
    result = model.refine()
    classes = np.asarray(result.classes, dtype=object)
    order = np.random.default_rng(0).permutation(result.n_cells)
    shuffled = refine_scores(
        result.raw,
        result.classes,
        result.graph[order][:, order].tocsr(),
        result.settings,
        probability=False,
    )
    labels = {
        "raw": result.raw_codes,
        "grit": result.codes,
        "grit_without_rare_rule": model.refine(keep_rare=False).codes,
        "grit_sym_as_published": model.refine(keep_rare=False, laplacian="sym").codes,
        "one_hop": one_hop(result.graph, result.raw).argmax(1),
        "leiden_1_vote": voted(result.raw_codes, leiden_of_graph(result.graph)),
        "leiden_5_vote": voted(result.raw_codes, leiden_of_graph(result.graph, resolution=5.0)),
        "label_spreading": spread(result),
        "shuffled_graph": shuffled.codes,
    }
    row: dict[str, object] = {
        "data": name,
        "tissue": SETS[name][0],
        "role": SETS[name][1],
        "n_cells": result.n_cells,
        "n_classes": len(classes),
        "scored": ", ".join(result.notes) or "all",
    }
    for method, codes in labels.items():
        row[f"{method}_accuracy"], row[f"{method}_macro_f1"] = scores_of(classes[codes], truth)
    right = classes[result.codes] == truth
    best = np.argsort(-result.confidence, kind="stable")
    for share in (0.8, 0.5):
        row[f"accuracy_at_{share:.0%}"] = right[best[: round(share * len(best))]].mean()
    row["gain"] = row["grit_accuracy"] - row["raw_accuracy"]  # type: ignore[operator]
    row["neighbour_agreement"] = result.guard.agreement
    row["entropy_kept"] = result.guard.entropy_kept
    row["recall"] = {
        str(kind): {
            "cells": int((truth == kind).sum()),
            "before": round(float((classes[result.raw_codes] == kind)[truth == kind].mean()), 3),
            "after": round(float((classes[result.codes] == kind)[truth == kind].mean()), 3),
        }
        for kind in sorted(set(truth))
    }
    out.add(**row)


def main() -> None:
    """Measure all sets, or those named."""
    scvi.settings.seed = 0
    names = sys.argv[1:] or list(SETS)
    out = Results("grit_labels", {"sets": names, "lam": 3.0, "n_neighbors": 15})
    for name in names:
        measure(name, out)


if __name__ == "__main__":
    main()
