"""DP-PCA: the simple baseline that every private network must be shown beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sczoo.base._checks import check_categorical, check_input
from sczoo.base._genes import align_genes
from sczoo.base._reading import iter_row_blocks
from sczoo.errors import InputError, PrivacyError
from sczoo.privacy._accounting import Release, calibrate_noise
from sczoo.privacy._gene_list import check_gene_list
from sczoo.privacy._noise import NoiseSource
from sczoo.privacy._projection import leading_eigenvectors, unit_profiles, unit_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

__all__ = ["DPPCA", "dp_pca"]

# a matrix of genes x genes is made: 8 bytes for each entry
_MOST_GENES = 12_000


@dataclass(frozen=True)
class DPPCA:
    """Principal directions that were released with noise.

    Parameters
    ----------
    components
        Shape ``(genes, components)``, orthonormal columns.
    var_names
        The genes, in the order of the rows.
    epsilon, delta, unit
        The guarantee; epsilon is ``None`` if no noise was added.
    noise_multiplier
        Standard deviation of the noise; a unit changes the released matrix by at most 1.
    """

    components: np.ndarray
    var_names: np.ndarray
    epsilon: float | None
    delta: float
    unit: str
    noise_multiplier: float

    def transform(self, adata: AnnData, *, layer: str | None = None) -> np.ndarray:
        """Project cells, new or old; ``(cells, components)``, float32.

        Genes are matched by name; those that are missing count as zero. What is returned for a
        cell is a function of that cell, and is not covered by the guarantee.
        """
        alignment = align_genes(adata.var, [str(name) for name in self.var_names])
        parts = [np.zeros((0, self.components.shape[1]), dtype=np.float32)]
        for _, block in iter_row_blocks(adata, layer):
            parts.append(np.asarray(unit_profiles(alignment.apply(block)) @ self.components))
        return np.concatenate(parts).astype(np.float32)


def dp_pca(
    adata: AnnData,
    n_components: int = 10,
    *,
    epsilon: float = 4.0,
    delta: float | None = None,
    layer: str | None = None,
    donor_key: str | None = None,
    acknowledge: Sequence[str] = (),
    _source: NoiseSource | None = None,
) -> DPPCA:
    r"""Release principal directions of single cells with differential privacy, in one shot.

    Cells are log-normalised and scaled to unit length; :math:`\sum_i x_i x_i^\top` is released
    once with symmetric Gaussian noise, and its leading eigenvectors are post-processing. Not
    centred. It is hard to beat on small data; :class:`sczoo.model.DPDCAN` is reported beside it.

    Parameters
    ----------
    adata
        Raw counts.
    n_components
        Directions to keep.
    epsilon
        Epsilon of the release; infinity adds no noise.
    delta
        By default one in ten times the units, at most 1e-5.
    layer
        Layer with the counts.
    donor_key
        Column of ``obs`` with donors: the guarantee is then for donors, each of whom adds the
        mean over their cells.
    acknowledge
        ``["gene_list"]`` accepts genes that were chosen on these cells, which no epsilon covers.

    Returns
    -------
    The directions, with a method to project cells.

    Raises
    ------
    PrivacyError
        What was asked for would break the guarantee; the message says why.

    Examples
    --------
    >>> found = sczoo.privacy.dp_pca(adata, epsilon=4.0)
    >>> adata.obsm["X_dp_pca"] = found.transform(adata)
    """
    check_input(adata, layer=layer, min_cells=2)
    check_gene_list(adata, acknowledge)
    if not isinstance(epsilon, int | float | np.number):
        raise PrivacyError(f"epsilon={epsilon!r}: a positive number is needed.")
    if not 1 <= n_components <= adata.n_vars:
        raise InputError(f"n_components={n_components}: between 1 and {adata.n_vars} genes.")
    if adata.n_vars > _MOST_GENES:
        raise InputError(
            f"{adata.n_vars} genes: DP-PCA makes a matrix of genes x genes. Choose at most "
            f"{_MOST_GENES} genes from a public list."
        )
    units, n_units = None, adata.n_obs
    if donor_key is not None:
        check_categorical(adata, donor_key)
        donors, units = np.unique(adata.obs[donor_key].astype(str), return_inverse=True)
        n_units = len(donors)
        if n_units < 2:
            raise PrivacyError("There is one donor: nobody to hide among.")
    delta = min(1e-5, 0.1 / n_units) if delta is None else delta
    if delta >= 1 / n_units:
        raise PrivacyError(
            f"delta={delta:g} is not below 1/n = {1 / n_units:.2g}: publishing one record whole, "
            "chosen at random, would satisfy it."
        )
    noise = 0.0
    if epsilon != np.inf:
        noise = calibrate_noise(epsilon, delta, [Release(1.0, 1.0, 1, "second moments")])
    weights = unit_weights(units, adata.n_obs)
    moment = np.zeros((adata.n_vars, adata.n_vars))
    for rows, block in iter_row_blocks(adata, layer):
        moment += _second_moment(unit_profiles(block), weights[rows])
    source = _source or NoiseSource()
    if noise > 0:
        moment += noise * source.symmetric(adata.n_vars)
    return DPPCA(
        components=leading_eigenvectors(moment, n_components),
        var_names=np.asarray(adata.var_names, dtype=object),
        epsilon=None if noise == 0 else float(epsilon),
        delta=float(delta),
        unit="cell" if donor_key is None else "donor",
        noise_multiplier=noise,
    )


def _second_moment(unit: Any, weight: np.ndarray) -> np.ndarray:
    if sparse.issparse(unit):
        scaled = unit.multiply(np.sqrt(weight)[:, None]).tocsr()
        return (scaled.T @ scaled).toarray()
    scaled = unit * np.sqrt(weight)[:, None]
    return scaled.T @ scaled
