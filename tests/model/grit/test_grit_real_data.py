"""GRIT on real labelled cells, beside what else could be done with the same scores."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.semi_supervised import LabelSpreading

from sczoo.graph import leiden_of_graph
from sczoo.model import GRIT
from sczoo.model.grit._expression import Expression
from sczoo.model.grit._graph import one_hop
from sczoo.model.grit._guard import margin
from sczoo.model.grit._refinement import refine_scores
from sczoo.model.grit.scorers import attach_scores

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
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
    "Dendritic": "dendritic cell",
}
PANCREAS = {
    "alpha": "pancreatic alpha cell",
    "beta": "pancreatic beta cell",
    "ductal": "pancreatic ductal cell",
    "delta": "pancreatic delta cell",
    "gamma": "pancreatic PP cell",
    "endothelial": "endothelial cell",
}
PBMC3K = {
    "Naive CD4 T": "naive CD4 T cell",
    "Memory CD4 T": "memory CD4 T cell",
    "CD14+ Mono": "CD14 monocyte",
    "B": "B cell",
    "CD8 T": "cytotoxic CD8 T cell",
    "FCGR3A+ Mono": "CD16 monocyte",
    "NK": "natural killer cell",
    "DC": "dendritic cell",
    "Platelet": "platelet",
}
GLIOMA = {
    "Malignant": "malignant glioma cell",
    "Oligodendrocytes (non-malignant)": "oligodendrocyte",
    "Microglia/Macrophage": "microglial cell",
}


def read(path, names):
    adata = anndata.read_h5ad(path)
    adata = adata[adata.obs["cell_type"].isin(list(names))].copy()
    return adata, adata.obs["cell_type"].map(names).astype(str).to_numpy()


def refined(adata, truth):
    GRIT.setup_anndata(adata)
    model = GRIT(adata, classes=sorted(set(truth)))
    model.train(**QUIET)
    return model.refine()


def voted(codes, clusters):
    out = codes.copy()
    for cluster in np.unique(clusters):
        out[clusters == cluster] = np.bincount(codes[clusters == cluster]).argmax()
    return out


def test_sorted_blood_cells_beside_four_rivals(shared_data):
    adata, truth = read(shared_data("pbmc68k_reduced.h5ad"), ZHENG)
    result = refined(adata, truth)
    names = np.asarray(result.classes)
    accuracy = lambda codes: float((names[codes] == truth).mean())
    raw, after = accuracy(result.raw_codes), accuracy(result.codes)
    assert after >= raw + 0.11
    sure = np.argsort(-margin(result.raw), kind="stable")[:210]
    start = np.full(700, -1)
    start[sure] = result.raw_codes[sure]
    spread = LabelSpreading(kernel="knn", n_neighbors=15, max_iter=100)
    rivals = {
        "one hop": one_hop(result.graph, result.raw).argmax(1),
        "vote in clusters": voted(result.raw_codes, leiden_of_graph(result.graph)),
        "vote in small clusters": voted(
            result.raw_codes, leiden_of_graph(result.graph, resolution=5.0)
        ),
        "label spreading": spread.fit(result.embedding, start).transduction_,
    }
    for name, codes in rivals.items():
        assert after > accuracy(codes), name
    # not on a graph of strangers
    order = np.random.default_rng(0).permutation(700)
    shuffled = result.graph[order][:, order].tocsr()
    control = refine_scores(
        result.raw, result.classes, shuffled, result.settings, probability=False
    )
    assert accuracy(control.codes) <= raw
    # the more certain half is right in nine of ten
    best = np.argsort(-result.confidence, kind="stable")[:350]
    assert (result.labels == truth)[best].mean() >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "names", "gain"),
    [
        ("pbmc3k", PBMC3K, 0.07),
        ("baron_human", PANCREAS, 0.03),
        ("segerstolpe", PANCREAS, 0.01),
        ("oligodendroglioma", GLIOMA, 0.03),
    ],
)
def test_blood_pancreas_and_tumour(shared_data, name, names, gain):
    adata, truth = read(shared_data(f"{name}.h5ad"), names)
    result = refined(adata, truth)
    f1 = lambda labels: f1_score(
        truth, labels, average="macro", labels=sorted(set(truth)), zero_division=0
    )
    assert (result.labels == truth).mean() >= (result.raw_labels == truth).mean() + gain
    assert f1(result.labels) > f1(result.raw_labels)


@pytest.mark.slow
def test_guard_on_a_classifier_of_another_study_with_few_shared_genes(shared_data):
    """Trained on sorted cells, applied to unsorted ones by 191 genes: smoothing would do harm."""
    reference, types = read(shared_data("pbmc_facs_zheng.h5ad"), ZHENG)
    query, truth = read(shared_data("pbmc68k_reduced.h5ad"), ZHENG)
    rows = np.sort(np.random.default_rng(0).choice(reference.n_obs, 1500, replace=False))
    reference, types = reference[rows].copy(), types[rows]
    known = set(query.var_names)
    genes = [gene for gene in reference.var_names if gene in known]
    genes = list(np.random.default_rng(0).permutation(genes)[:191])
    x = [
        Expression(data).rows(np.arange(data.n_obs), data.var_names.get_indexer(genes))
        for data in (reference, query)
    ]
    mean, scale = x[0].mean(0), x[0].std(0) + 1e-6
    x = [np.clip((part - mean) / scale, -10, 10) for part in x]
    model = LogisticRegression(max_iter=100, C=0.05).fit(x[0], types)
    attach_scores(query, model.predict_proba(x[1]), list(model.classes_))
    GRIT.setup_anndata(query, logits_key="X_scores")
    grit = GRIT(query)
    grit.train(**QUIET)
    accuracy = lambda result: (result.labels == truth).mean()
    raw = (grit.refine().raw_labels == truth).mean()
    forced = accuracy(grit.refine(guard="off"))
    assert forced < raw - 0.01
    assert accuracy(grit.refine()) >= raw - 0.01
    assert any("drains classes" in warning for warning in grit.refine().warnings)
