"""Cells to check models with: small, with names that would be recognised anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

# A prime that is no other size here: an array of this length is an array of one value per cell.
N_CELLS = 211
N_GENES = 60
N_KINDS = 4


def example_cells(
    n_cells: int = N_CELLS,
    n_genes: int = N_GENES,
    *,
    seed: int = 0,
    patients: tuple[str, ...] = ("Ingrid-Musterfrau", "Erika-Beispiel"),
    scale: str = "counts",
) -> AnnData:
    """Draw cells of four kinds from a few patients.

    Parameters
    ----------
    n_cells, n_genes
        Size.
    seed
        Seed of the cells; the profiles of the kinds are always the same.
    patients
        Names of the patients, as ``obs["batch"]`` and ``obs["donor"]``.
    scale
        ``"log1p"`` gives log-normalised values, everything else Poisson counts.

    Returns
    -------
    AnnData with a CSR float32 ``X``, ``obs`` columns ``batch``, ``donor`` and ``cell_type``,
    upper-case gene symbols as ``var_names`` and Ensembl identifiers in ``var["ensembl_id"]``.
    """
    from anndata import AnnData

    profile = np.random.default_rng(20).gamma(0.4, 2.0, size=(N_KINDS, n_genes))
    profile /= profile.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    kind = rng.integers(N_KINDS, size=n_cells)
    kind[:N_KINDS] = np.arange(N_KINDS)[:n_cells]
    depth = rng.lognormal(np.log(6.0 * n_genes), 0.3, size=n_cells)
    matrix = rng.poisson(profile[kind] * depth[:, None]).astype(np.float32)
    # no gene and no cell is silent by chance: that is a check of its own
    matrix[np.arange(n_cells), np.arange(n_cells) % n_genes] += 1
    if scale == "log1p":
        matrix = np.log1p(1e4 * matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    batch = rng.integers(len(patients), size=n_cells)
    batch[: len(patients)] = np.arange(len(patients))[:n_cells]
    adata = AnnData(
        sparse.csr_matrix(matrix),
        obs=pd.DataFrame(
            {
                "batch": pd.Categorical([f"batch-{b}-of-hospital" for b in batch]),
                "donor": pd.Categorical([patients[b] for b in batch]),
                "cell_type": pd.Categorical([f"celltype-{'ABCD'[k]}-of-study" for k in kind]),
            },
            index=[f"BARCODE-{seed}-{number:05d}-ACGTACGT" for number in range(n_cells)],
        ),
        var=pd.DataFrame(
            {"ensembl_id": [f"ENSG{number:011d}" for number in range(100, 100 + n_genes)]},
            index=[f"GENE{number}A" for number in range(n_genes)],
        ),
    )
    return adata


def plant_names(adata: AnnData, columns: list[str], keep: set[Any]) -> AnnData:
    """Copy `adata` with recognisable barcodes and categories, to search saved files for.

    Parameters
    ----------
    adata
        The data.
    columns
        Columns of ``obs`` whose categories are renamed.
    keep
        Categories with a meaning to the model, left as they are.
    """
    planted = adata.copy()
    planted.obs_names = [f"BARCODE-{number:06d}-ACGTACGT" for number in range(adata.n_obs)]
    for column in columns:
        values = planted.obs[column]
        names = {
            value: value if value in keep else f"planted-{column}-{number}-Musterfrau"
            for number, value in enumerate(pd.unique(values))
        }
        planted.obs[column] = pd.Categorical(values.map(names).astype(str))
    return planted
