"""Results of GramDR: cells in components, components in genes, and how much to trust them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from sczoo import _compat
from sczoo.errors import InputError
from sczoo.model.gramdr._conditional import ConditionalScores
from sczoo.model.gramdr._gram import corrected_gram_of
from sczoo.model.gramdr._projection import as_float32
from sczoo.model.gramdr._spectrum import positive_mass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

__all__ = ["GramResultsMixin"]

Scores = Literal["gram", "conditional"]


class GramResultsMixin:
    """What a trained model says about cells and genes."""

    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        scores: Scores = "gram",
    ) -> np.ndarray:
        """Return the coordinates of each cell.

        The cells of the fit get their coordinates in the corrected Gram matrix; other cells, also
        a part of those of the fit passed as an object of its own, are projected.

        Parameters
        ----------
        adata
            Cells; the model's own by default. Genes are matched by name, and genes that are
            missing count as not observed. With an explicit mask a query brings its own.
        indices
            Cells to use, in this order.
        batch_size
            Cells read at a time.
        scores
            ``"gram"``: linear in the values, and inner products are those of the corrected Gram
            matrix. ``"conditional"``, for masks: the mean given what was observed in the cell,
            by least squares with the variance of each component as prior. Cells of which little
            was seen scatter less, so their neighbours are purer, and cells of the fit and others
            are treated alike; it takes longer, by the square of the number of components.

        Returns
        -------
        Cells x components, float32. A cell without any observation lies at the origin.

        Raises
        ------
        InputError
            If `scores` is not known, or is ``"conditional"`` with ``mask="counts"``.
        """
        model: Any = self
        model._require_trained()
        self._check_scores(scores)
        reader, source = model._reader(adata, indices, batch_size)
        if scores == "conditional":
            given = ConditionalScores(model.module.gene_state(), self._loadings())
            nothing = np.zeros((0, given.loadings.shape[1]))
            return as_float32(np.concatenate([nothing, *(given(block) for block in reader)]))
        joint = model._is_fitted_data(reader, source)
        if joint and model._normaliser == "pairwise":
            if model._joint is not None:
                return as_float32(model._joint[reader.indices])
            joint = False
        projector = model._projector(reader, joint)
        parts = [projector(block) for block in reader]
        empty = np.zeros((0, int(projector.state.n_kept)))
        return as_float32(np.concatenate([empty, *parts]))

    def _check_scores(self, scores: Any) -> None:
        model: Any = self
        if scores not in get_args(Scores):
            raise InputError(f"scores={scores!r} is not known; choose one of {get_args(Scores)}.")
        if scores == "conditional" and model._mask == "counts":
            raise InputError(
                "scores='conditional' is for masks: with mask='counts' every value is observed. "
                "Leave scores='gram'."
            )

    def get_explained_variance(self) -> pd.DataFrame:
        """Return how much of the variance each component explains.

        Returns
        -------
        One row per component: ``eigenvalue`` of the corrected Gram matrix, its ``ratio`` to the
        trace (the variance that is left once noise and missingness are accounted for; estimates
        may sum to more than one) and the ``cumulative`` ratio.
        """
        model: Any = self
        model._require_trained()
        state = model.module.gene_state()
        values = state.eigenvalues[: int(state.n_kept)]
        ratio = values / float(state.total) if float(state.total) > 0 else values * np.nan
        return pd.DataFrame(
            {"eigenvalue": values, "ratio": ratio, "cumulative": np.cumsum(ratio)},
            index=self._component_names(len(values)),
        )

    def get_feature_loadings(self) -> pd.DataFrame:
        """Return what a unit of each component adds to each gene.

        For masks in units of the values; for counts in units of the scaled rates
        (``gene_scaling="poisson"``: Poisson standard deviations at unit depth).

        Returns
        -------
        Genes x components. Genes that were never observed have zeros.
        """
        model: Any = self
        model._require_trained()
        loadings = self._loadings()
        return pd.DataFrame(
            loadings, index=model.var_names, columns=self._component_names(loadings.shape[1])
        )

    def _loadings(self) -> np.ndarray:
        """Regression of the values on the coordinates, ``(D, K)``."""
        model: Any = self
        state = model.module.gene_state()
        k = int(state.n_kept)
        total = state.loadings[:, :, :k].sum(axis=0)
        exposure = state.co_observed.sum(axis=0) / state.mass.sum()
        if model._normaliser in ("paper", "ht"):
            exposure = state.rate / np.sqrt(state.rate @ state.rate)
            if model._normaliser == "ht":
                exposure = np.ones_like(state.rate)
        return np.divide(
            total, exposure[:, None], out=np.zeros_like(total), where=exposure[:, None] > 0
        )

    @staticmethod
    def _component_names(n: int) -> list[str]:
        return [f"component_{number}" for number in range(1, n + 1)]

    def get_panels(self) -> pd.DataFrame:
        """Return which genes each batch was found to have measured (``mask="counts"``).

        Returns
        -------
        Batches x genes, bool. A gene without counts in a batch counts as not measured if at least
        ten were expected; a gene without counts anywhere is ``False`` throughout.
        """
        model: Any = self
        model._require_trained()
        if model._mask != "counts":
            raise InputError("With a mask of values, the mask says what each batch measured.")
        panel = model.module.gene_state().panel > 0
        state = model._check_field("batch").get(_compat.STATE_REGISTRY) or {}
        names = [str(name) for name in state.get("categorical_mapping", ())]
        return pd.DataFrame(
            panel, index=names if len(names) == len(panel) else None, columns=model.var_names
        )

    def get_reliability(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        r"""Return how well each cell is placed.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.

        Returns
        -------
        One row per cell. ``observed``: number of observed values, for counts the depth.
        ``standard_error``: root mean square over the components of the error to expect,
        :math:`\sigma_i\lVert M_i\circ W_k\rVert/n_i`. ``reliability``: share of the variance of
        the coordinates that is not that error, from 0 (nothing known) to 1. With
        :math:`\sigma_i^2` the noise of the values and the signal in what was not observed.
        """
        model: Any = self
        model._require_trained()
        reader, source = model._reader(adata, indices, batch_size)
        projector = model._projector(reader, model._is_fitted_data(reader, source))
        state = projector.state
        k = int(state.n_kept)
        prior = np.maximum(state.latent_variance[:k], 1e-300)
        square = (projector.loadings**2) * 1.0
        rows: list[np.ndarray] = []
        for block in reader:
            encoded = projector.encode(block)
            r, between, _ = projector.scales(block, encoded)
            seen = encoded.observed > 0
            error = np.zeros((len(r), k))
            for code, loadings in enumerate(square):
                if block.pattern is None:  # Poisson noise of the scaled rate of each gene
                    noise = (state.scale**2 * state.mean) @ loadings
                    spread = np.divide(
                        noise,
                        encoded.observed[:, None],
                        out=np.zeros_like(error),
                        where=seen[:, None],
                    )
                else:
                    # noise of what was seen, and the chance of what was not
                    absent = 1.0 - encoded.observed / reader.n_genes
                    variance = state.residual_variance + absent * state.signal_variance
                    spread = np.asarray(block.pattern @ loadings) * variance[:, None]
                shared = between[:, code, None] ** 2
                error += np.divide(spread, shared, out=np.zeros_like(error), where=shared > 0)
            share = np.where(seen[:, None], prior / (prior + error), 0.0)
            rows.append(
                np.column_stack(
                    [
                        encoded.observed,
                        np.where(seen, np.sqrt(error.mean(axis=1)), np.inf),
                        (share * prior).sum(axis=1) / prior.sum(),
                    ]
                )
            )
        table = np.concatenate([np.zeros((0, 3)), *rows])
        return pd.DataFrame(
            table,
            columns=["observed", "standard_error", "reliability"],
            index=source.obs_names[reader.indices],
        )

    def get_gram(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Return corrected inner products between cells, per gene.

        Parameters
        ----------
        adata, indices
            As of :meth:`get_latent_representation`; at most 5,000 cells.

        Returns
        -------
        Cells x cells, float64, symmetric; not necessarily positive semi-definite.
        """
        model: Any = self
        model._require_trained()
        reader, source = model._reader(adata, indices)
        joint = model._is_fitted_data(reader, source)
        return corrected_gram_of(reader, model._projector(reader, joint))

    def get_distances(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Return corrected distances between cells, from :meth:`get_gram`.

        Parameters
        ----------
        adata, indices
            As of :meth:`get_gram`.

        Returns
        -------
        Cells x cells, float64. Squared distances are unbiased and can come out negative; those
        are returned as zero.
        """
        gram = self.get_gram(adata, indices)
        own = np.diag(gram)
        squared = own[:, None] + own - 2 * gram
        np.fill_diagonal(squared, 0.0)
        return np.sqrt(np.maximum(squared, 0.0))

    def get_observation_probabilities(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Return the estimated probability that a value is observed.

        Parameters
        ----------
        adata, indices
            As of :meth:`get_latent_representation`.

        Returns
        -------
        Cells x genes, between 0 and 1.
        """
        model: Any = self
        model._require_trained()
        if model._mask == "counts":
            raise InputError(
                "With mask='counts' every value is observed; what varies is the depth, which "
                "get_reliability() returns."
            )
        reader, source = model._reader(adata, indices)
        projector = model._projector(reader, model._is_fitted_data(reader, source))
        state = projector.state
        parts = [np.zeros((0, reader.n_genes))]
        for block in reader:
            observed = np.asarray(block.pattern.sum(axis=1), dtype=float).ravel()
            rate = state.rate / max(float(state.rate.mean()), 1e-300)
            parts.append(np.clip(observed[:, None] / reader.n_genes * rate, 0.0, 1.0))
        return np.concatenate(parts)

    def impute(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        *,
        keep_observed: bool = True,
        target_sum: float = 1e4,
        scores: Scores = "gram",
    ) -> np.ndarray:
        """Return what the components predict for every gene.

        Parameters
        ----------
        adata, indices
            As of :meth:`get_latent_representation`.
        keep_observed
            For masks: leave observed values as they are.
        target_sum
            For counts: depth to which the predicted rates are scaled.
        scores
            As of :meth:`get_latent_representation`.

        Returns
        -------
        Cells x genes, float32, dense: choose `indices` for large data.
        """
        model: Any = self
        latent = self.get_latent_representation(adata, indices, scores=scores)
        latent = latent.astype(np.float64)
        reader, _ = model._reader(adata, indices)
        state = model.module.gene_state()
        loadings = self._loadings()
        out = np.empty((reader.n_cells, reader.n_genes), dtype=np.float32)
        for block in reader:
            predicted = latent[block.rows] @ loadings.T
            if block.pattern is None:
                rate = np.divide(
                    predicted, state.scale, out=np.zeros_like(predicted), where=state.scale > 0
                )
                out[block.rows] = np.maximum(state.mean + rate, 0.0) * target_sum
                continue
            predicted += state.centre
            if keep_observed:
                seen = _dense(block.pattern) > 0
                predicted = np.where(seen, _dense(block.values), predicted)
            out[block.rows] = predicted
        return out

    def get_diagnostics(self, seed: int = 0) -> dict[str, float]:
        r"""Return figures that say how far to trust the fit; reads the training cells again.

        Parameters
        ----------
        seed
            Seed of the estimate of the spectrum's mass for more than 1,500 cells.

        Returns
        -------
        ``n_components``; ``positive_mass`` and ``negative_mass``, the sums of positive and of
        absolute negative eigenvalues; ``negative_share``, their ratio: small where the correction
        is mild, and near one where there are many more cells than genes or noise dominates;
        ``explained``, the share of the positive mass in the components; and
        ``subtracted``, the share of the diagonal that was noise or missingness.
        """
        model: Any = self
        model._require_trained()
        reader, source = model._reader()
        if not model._is_fitted_data(reader, source):
            raise InputError(
                "The data attached to this model are not those it was trained on; diagnostics "
                "describe the fit. Attach the training data."
            )
        operator = model._operator(reader)
        positive, negative = positive_mass(lambda v: operator(v)[0], operator.shape[0], seed)
        state = model.module.gene_state()
        kept = float(state.eigenvalues.sum())
        removed = float(operator._shrink.sum(dtype=np.float64))
        diagonal = float(operator.diagonal.sum())
        return {
            "n_components": float(state.n_kept),
            "positive_mass": positive,
            "negative_mass": negative,
            "negative_share": negative / positive if positive > 0 else float("inf"),
            "explained": kept / positive if positive > 0 else float("nan"),
            "subtracted": removed / (removed + diagonal) if removed + diagonal > 0 else 0.0,
        }


def _dense(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix)
