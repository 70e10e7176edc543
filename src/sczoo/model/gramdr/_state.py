"""What a fitted model keeps: arrays with a value per gene, batch or component, none per cell."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NORMALISERS", "GeneState", "NormaliserName"]

NormaliserName = Literal["depth", "rank1", "pairwise", "paper", "ht"]
NORMALISERS: tuple[str, ...] = ("auto", "rank1", "pairwise", "paper", "ht")


@dataclass
class GeneState:
    r"""Gene-side parameters of a corrected Gram matrix (``B`` batches, ``D`` genes, ``K`` parts).

    Attributes
    ----------
    mean
        :math:`\mu_s`: mean of the observed values, for counts the pooled rate; ``(D,)``.
    centre
        What is subtracted: `mean`, for counts the pooled rate after clipping; ``(D,)``.
    scale
        :math:`\sqrt{a_s}`: weight of a gene in the Gram matrix; ``(D,)``.
    panel
        1 where a batch measured a gene; ``(B, D)``.
    co_observed
        :math:`q_b = \sum_{i\in b} M_i r_i`; ``(B, D)``.
    mass
        :math:`R_b = \sum_{i\in b} r_i^2`; ``(B,)``.
    coupling
        :math:`H_{bb'}`: co-observation of two batches is :math:`r_i r_j H_{bb'}`; ``(B, B)``.
    rate
        :math:`g_s`: share of the cells in which a gene was observed; ``(D,)``.
    rate_scale
        Divisor of the published estimate of the observation rates; ``()``.
    weight_scale
        Row scale at which a cell has weight one; ``()``.
    loadings
        :math:`W_b`, the linear projection of each batch; ``(B, D, K)``.
    eigenvalues
        :math:`\lambda_k`, descending, zero for parts not kept; ``(K,)``.
    latent_variance
        Mean square of each coordinate over the training cells; ``(K,)``.
    n_kept
        Number of components kept; ``()``.
    total
        Trace of the weighted Gram matrix; ``()``.
    residual_variance, signal_variance
        Variance of a value that the components do not explain, and that they do; ``()``.
    """

    mean: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    panel: np.ndarray
    co_observed: np.ndarray
    mass: np.ndarray
    coupling: np.ndarray
    rate: np.ndarray
    rate_scale: np.ndarray
    weight_scale: np.ndarray
    loadings: np.ndarray
    eigenvalues: np.ndarray
    latent_variance: np.ndarray
    n_kept: np.ndarray
    total: np.ndarray
    residual_variance: np.ndarray
    signal_variance: np.ndarray

    @classmethod
    def empty(cls, n_genes: int, n_batch: int, n_components: int) -> GeneState:
        """Return the state before training: the right shapes, nothing fitted."""
        return cls(
            mean=np.zeros(n_genes),
            centre=np.zeros(n_genes),
            scale=np.ones(n_genes),
            panel=np.ones((n_batch, n_genes)),
            co_observed=np.ones((n_batch, n_genes)),
            mass=np.ones(n_batch),
            coupling=np.ones((n_batch, n_batch)),
            rate=np.ones(n_genes),
            rate_scale=np.ones(()),
            weight_scale=np.ones(()),
            loadings=np.zeros((n_batch, n_genes, n_components)),
            eigenvalues=np.zeros(n_components),
            latent_variance=np.zeros(n_components),
            n_kept=np.zeros((), dtype=np.int64),
            total=np.ones(()),
            residual_variance=np.ones(()),
            signal_variance=np.zeros(()),
        )

    @classmethod
    def names(cls) -> list[str]:
        """Names of the arrays."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> GeneState:
        """Build the state from a mapping of arrays."""
        return cls(**{name: np.asarray(arrays[name]) for name in cls.names()})

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {name: np.asarray(getattr(self, name)) for name in self.names()}
