"""Real datasets with hashes, an embedded one that needs no network, and simulated cohorts.

=========================  ====================================================================
:func:`kang_ifnb_demo`     interferon-stimulated PBMC of eight donors, embedded in the package
:func:`load`               a named dataset; each is also a function: ``sczoo.datasets.pbmc3k()``
:func:`list_datasets`      what there is, with species, tissue, accession and licence
:func:`fetch`              the checked file of a named dataset, for backed reading
:func:`simulated_cohort`   donors, batches, depths, dropout and labels from a documented model
=========================  ====================================================================

Importing this module is cheap: anndata is imported when data are first read or simulated.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sczoo.datasets._embedded import kang_ifnb_demo
    from sczoo.datasets._fetch import fetch
    from sczoo.datasets._named import load
    from sczoo.datasets._simulate import simulated_cohort
    from sczoo.datasets._table import DatasetInfo, list_datasets

_HOME = {
    "DatasetInfo": "_table",
    "fetch": "_fetch",
    "kang_ifnb_demo": "_embedded",
    "list_datasets": "_table",
    "load": "_named",
    "simulated_cohort": "_simulate",
}

# with one function per named dataset, made when it is asked for
__all__ = [
    "DatasetInfo",
    "baron_human",
    "baron_mouse",
    "camp_cortex",
    "cbmc_cite",
    "fetch",
    "kang_ctrl_2511g",
    "kang_ifnb",
    "kang_ifnb_2000cells_9k_genes",
    "kang_ifnb_demo",
    "list_datasets",
    "load",
    "melanoma_til",
    "mixology_3cl",
    "mouse_bladder",
    "mouse_bladder_2100",
    "oligodendroglioma",
    "pancreas_cross_species",
    "pbmc3k",
    "pbmc4k_10x",
    "pbmc68k_reduced",
    "pbmc_facs_zheng",
    "pollen_log",
    "segerstolpe",
    "simulated_cohort",
    "treutlein_fibroblast",
    "worm_neuron",
    "yan_log",
    "zeisel_1464",
    "zeisel_3005_200g",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"sczoo.datasets.{_HOME[name]}"), name)
    elif name.startswith("_"):  # interpreters and debuggers ask for many private names
        raise AttributeError(f"module 'sczoo.datasets' has no attribute {name!r}")
    else:
        value = import_module("sczoo.datasets._named").loader(name)
        if value is None:
            raise AttributeError(
                f"module 'sczoo.datasets' has no attribute {name!r}; "
                "sczoo.datasets.list_datasets() shows the named datasets"
            )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
