"""Distil one pancreas study, annotate another: inDrop cells (Baron) to Smart-seq2 (Segerstolpe).

Cells of the types that both studies name, on the genes that both have. Each method's cells train
four classifiers, which are tested on the other study. Run:
``python benchmarks/scdd_cross_study.py``.
"""

from __future__ import annotations

import logging

import scvi
from _measure import QUIET, Results, labelled
from scdd_accuracy import judge

from sczoo.model import SCDD
from sczoo.model.scdd import select_cells


def main() -> None:
    """Measure and write rows."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    results = Results("scdd_cross_study", {"source": "baron_human", "test": "segerstolpe"})
    source, test = labelled("baron_human"), labelled("segerstolpe")
    genes = [gene for gene in source.var_names if gene in set(test.var_names)]
    both = set(source.obs["cell_type"]) & set(test.obs["cell_type"])
    source = source[source.obs["cell_type"].isin(both), genes].copy()
    test = test[test.obs["cell_type"].isin(both), genes].copy()
    scvi.settings.seed = 0
    SCDD.setup_anndata(source, labels_key="cell_type")
    model = SCDD(source)
    model.train(**{key: value for key, value in QUIET.items() if key != "logger"})
    for per_class in (1, 5, 10):
        sets = {"scdd": model.distill(per_class)}
        for method in ("random", "kmedoids", "pseudobulk"):
            sets[method] = select_cells(source, method, per_class, labels_key="cell_type")
        for name, small in sets.items():
            found = judge(small.X, small.obs["cell_type"], test)
            results.add(method=name, per_class=per_class, n_cells=small.n_obs, **found)
    whole = judge(source.X, source.obs["cell_type"], test)
    results.add(method="whole", per_class=0, n_cells=source.n_obs, **whole)


if __name__ == "__main__":
    main()
