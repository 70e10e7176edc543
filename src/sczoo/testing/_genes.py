"""Checks that a query's genes are matched by name, in any order and spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sczoo.base._genes import detect_namespace
from sczoo.errors import GeneOverlapError, SpeciesMismatchError
from sczoo.testing._expect import (
    CheckSkippedError,
    refuses,
    require,
    require_close,
    require_finite,
)

if TYPE_CHECKING:
    from sczoo.testing._case import ModelCase


def _with_genes(case: ModelCase, cells: AnnData, columns: np.ndarray) -> AnnData:
    """Choose columns (as ``adata[:, columns].copy()`` does, without its surprises)."""
    return cells[:, columns].copy()


def _renamed(cells: AnnData, names: list[str]) -> AnnData:
    """Rename the genes and forget every other column of ``var``."""
    cells.var = pd.DataFrame(index=names)
    return cells


def _symbols(case: ModelCase) -> list[str]:
    names = [str(name) for name in case.model.var_names]
    letters = sum(any(map(str.isalpha, name)) for name in names)
    if detect_namespace(names) != "symbol" or letters < len(names):
        raise CheckSkippedError("the genes of the cells given are not symbols")
    return names


def _ensembl_model(case: ModelCase) -> Any:
    """Return a model of Ensembl identifiers, with the symbols in ``var['symbol']``."""

    def fit() -> Any:
        cells = case.cells()
        symbols = list(cells.var_names)
        _renamed(cells, _identifiers(cells.n_vars)).var["symbol"] = symbols
        return case.fit(cells)

    return case.keep("ensembl", fit)


def _identifiers(n_genes: int) -> list[str]:
    return [f"ENSG{number:011d}" for number in range(7000, 7000 + n_genes)]


def check_permuted_genes(case: ModelCase) -> None:
    """Give equal results whatever the order of the query's genes, and of the training cells."""
    cells = case.query(bare=True)
    order = np.random.default_rng(2).permutation(cells.n_vars)
    latent = case.embed(case.model, _with_genes(case, cells, order))
    require_close(latent, case.latent, "The query with its genes in another order")
    own = case.cells()
    reversed_own = case.embed(case.model, _with_genes(case, own, np.arange(own.n_vars)[::-1]))
    require_close(
        reversed_own, case.embed(case.model, own), "The training cells with reversed genes"
    )


def check_extra_genes(case: ModelCase) -> None:
    """Give equal results if the query has genes that the model does not know."""
    cells = case.query(bare=True)
    extra = np.full((cells.n_obs, 25), 7.0, dtype=np.float32)
    names = [f"OTHER{number}" for number in range(25)]
    wide = AnnData(
        sparse.csr_matrix(np.hstack([extra, case.dense(cells)])),
        obs=cells.obs,
        var=pd.DataFrame(index=[*names, *cells.var_names]),
        obsm=dict(cells.obsm),
    )
    if case.layer is not None:
        wide.layers[case.layer] = wide.X.copy()
    require_close(case.embed(case.model, wide), case.latent, "The query with 25 extra genes")
    alignment = case.model.align_genes(wide)
    require(alignment.n_extra == 25, f"align_genes reports {alignment.n_extra} extra genes of 25.")
    require(alignment.coverage == 1, f"align_genes reports a coverage of {alignment.coverage}.")


def check_some_missing_genes(case: ModelCase) -> None:
    """Work with 12 % of the genes missing, and report which."""
    cells = case.query(bare=True)
    n_missing = max(1, round(0.12 * cells.n_vars))
    gone = np.random.default_rng(4).choice(cells.n_vars, n_missing, replace=False)
    few = _with_genes(case, cells, np.setdiff1d(np.arange(cells.n_vars), gone))
    require_finite(case.embed(case.model, few), few.n_obs, "The result with missing genes")
    alignment = case.model.align_genes(few)
    names = set(cells.var_names[gone])
    require(set(alignment.missing) == names, "align_genes does not report the missing genes.")
    expected = 1 - n_missing / cells.n_vars
    require(
        abs(alignment.coverage - expected) < 1e-9,
        f"align_genes reports a coverage of {alignment.coverage:.3f}, not {expected:.3f}.",
    )
    prepared = case.model_class.prepare_query_anndata(few, case.model)
    present = prepared.var["in_query"].to_numpy()
    require(list(prepared.var_names) == list(case.model.var_names), "A prepared query lacks genes")
    require(set(prepared.var_names[~present]) == names, "in_query does not mark missing genes.")
    require_close(
        case.embed(case.model, prepared),
        case.embed(case.model, few),
        "A query with missing genes, prepared first or passed directly",
    )


def check_too_few_genes(case: ModelCase) -> None:
    """Refuse a query with half of the genes, with the share in the message."""
    cells = case.query(bare=True)
    half = _with_genes(case, cells, np.arange(cells.n_vars // 2))
    fragment = f"{cells.n_vars // 2} of {cells.n_vars} genes"
    with refuses(GeneOverlapError, fragment, doing="A query with half of the genes"):
        case.embed(case.model, half)
    with refuses(GeneOverlapError, fragment, doing="Preparing a query with half of the genes"):
        case.model_class.prepare_query_anndata(half, case.model)
    with refuses(GeneOverlapError, doing="A query that shares no gene"):
        case.embed(case.model, _renamed(cells, [f"OTHER{n}" for n in range(cells.n_vars)]))


def check_lower_case_symbols(case: ModelCase) -> None:
    """Match symbols in lower case, give equal results and report them as renamed."""
    names = _symbols(case)
    cells = _renamed(case.query(bare=True), [name.lower() for name in names])
    require_close(case.embed(case.model, cells), case.latent, "The query in lower case")
    renamed = case.model.align_genes(cells).renamed
    changed = [(name.lower(), name) for name in names if name.lower() != name]
    require(sorted(renamed) == sorted(changed), "align_genes does not report the renamed genes.")


def check_mouse_symbols(case: ModelCase) -> None:
    """Refuse symbols in the title case of mouse genes: letters do not make orthologues."""
    names = _symbols(case)
    if sum(name.isupper() for name in names) < 0.9 * len(names):
        raise CheckSkippedError("the genes of the cells given are not human symbols")
    cells = _renamed(case.query(bare=True), [name.capitalize() for name in names])
    with refuses(SpeciesMismatchError, "species", doing="A query with mouse symbols"):
        case.embed(case.model, cells)


def check_versioned_identifiers(case: ModelCase) -> None:
    """Match Ensembl identifiers with version suffixes and give equal results."""
    model = _ensembl_model(case)
    cells = case.query(bare=True)
    plain = case.embed(model, _renamed(cells.copy(), _identifiers(cells.n_vars)))
    versioned = [f"{name}.{number % 9 + 1}" for number, name in enumerate(model.var_names)]
    latent = case.embed(model, _renamed(cells, versioned))
    require_close(latent, plain, "The query with versioned identifiers")
    renamed = model.align_genes(cells).renamed
    require(len(renamed) == cells.n_vars, f"align_genes reports {len(renamed)} renamed genes.")


def check_the_other_namespace(case: ModelCase) -> None:
    """Take a query of symbols for a model of Ensembl identifiers that knows the symbols."""
    names = _symbols(case)
    model = _ensembl_model(case)
    cells = case.query(bare=True)
    plain = case.embed(model, _renamed(cells.copy(), _identifiers(cells.n_vars)))
    latent = case.embed(model, _renamed(cells, names))
    require_close(latent, plain, "The query with symbols for a model of identifiers")


def check_mouse_identifiers(case: ModelCase) -> None:
    """Refuse Ensembl identifiers of mouse for a model of human ones."""
    model = _ensembl_model(case)
    cells = case.query(bare=True)
    mouse = [name.replace("ENSG", "ENSMUSG") for name in _identifiers(cells.n_vars)]
    with refuses(SpeciesMismatchError, "species", doing="A query with mouse identifiers"):
        case.embed(model, _renamed(cells, mouse))
