"""Results of DPDCAN: embeddings, clusters, and what was spent."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from sczoo import _compat
from sczoo.errors import InputError, PrivacyError
from sczoo.graph import leiden
from sczoo.model.dpdcan._report import card_block, describe
from sczoo.privacy._canaries import GradientCanaries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData
    from mudata import MuData

__all__ = ["PrivateResultsMixin"]


class PrivateResultsMixin:
    """What a trained model says about cells, and about its own privacy."""

    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the embedding of each cell.

        The guarantee covers the weights, not this result: the embedding of a **training** cell is
        a function of that cell and must not be published. Embeddings of other people's cells
        tell nothing of the training cells.

        Parameters
        ----------
        adata
            Cells, of the training data or new; the model's own by default. Genes are matched by
            name.
        indices
            Cells to use, in this order.
        batch_size
            Cells at a time.

        Returns
        -------
        Cells x latent dimensions, float32.
        """
        model: Any = self
        return model._latent(adata, indices, batch_size)

    def get_cluster_assignments(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        n_clusters: int | None = None,
        resolution: float = 1.0,
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> np.ndarray:
        """Cluster cells by their embeddings. No label takes part.

        Made on the spot from the cells given, and not part of what is shared.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.
        n_clusters
            Number of clusters, by k-means. By default the nearest of the trained centres if there
            are any, else Leiden communities.
        resolution, n_neighbors
            Of the Leiden algorithm.
        seed
            Seed of the algorithm.

        Returns
        -------
        Cluster of each cell, integers.
        """
        model: Any = self
        latent = self.get_latent_representation(adata, indices, batch_size)
        if n_clusters is not None:
            from sklearn.cluster import KMeans

            if not 1 <= n_clusters <= len(latent):
                raise InputError(
                    f"n_clusters={n_clusters}: it must lie between 1 and {len(latent)} cells."
                )
            return KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(latent)
        if model.module.centres is not None:
            with torch.inference_mode():
                z = torch.as_tensor(latent, device=model.module.device)
                return model.module.centres(z).argmin(1).cpu().numpy()
        return leiden(latent, resolution=resolution, n_neighbors=n_neighbors, seed=seed)

    # --- privacy ------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float | None:
        """Epsilon that was spent, by PLD; ``None`` where nothing can be claimed."""
        model: Any = self
        if not model._claims or not model.privacy_["releases"]:
            return None
        spent = model._ledger.epsilon(model.privacy_["delta"])
        return spent if math.isfinite(spent) else None

    @property
    def delta(self) -> float | None:
        """Delta of the guarantee; ``None`` where nothing can be claimed."""
        model: Any = self
        return None if self.epsilon is None else float(model.privacy_["delta"])

    def get_privacy_report(self) -> dict[str, Any]:
        """Return what was spent, how, and what it does not cover; plain values.

        Returns
        -------
        dict
            ``"guarantee"`` in a sentence, ``"epsilon"`` and ``"delta"`` (``None`` without a
            guarantee), ``"unit"``, ``"mechanism"``, ``"accountants"`` (epsilon by PLD, PRV and
            RDP), ``"covers"``, ``"not_covered"``, ``"alternative"`` (where a simpler method is
            as good), ``"releases"``.
        """
        model: Any = self
        model._require_trained()
        return describe(model)

    def audit_training(
        self, n_canaries: int = 1000, *, confidence: float = 0.95, **train_kwargs: Any
    ) -> dict[str, Any]:
        """Train a copy with planted gradients and bound its epsilon from below.

        A bound above the claim would prove the training wrong; one below proves nothing, but
        shows how much of the claim the sharpest attack on the gradients can reach. The copy is
        thrown away: this spends no budget of the model.

        Parameters
        ----------
        n_canaries
            Planted units, at most as many as trained numbers.
        confidence
            Of the bound.
        **train_kwargs
            Of :meth:`train`.

        Returns
        -------
        dict
            ``"lower_bound"``, ``"claimed"``, ``"contradicted"``, ``"delta"``, ``"canaries"``,
            ``"correct"`` of ``"guesses"``.
        """
        model: Any = self
        if not model._claims:
            raise PrivacyError(
                "audit_training plants gradients of the clipping norm's length: a run without "
                "noise, or of the published scheme, has no claim to compare with."
            )
        if model.adata is None:
            raise InputError("This model was loaded without data, so its training has no audit.")
        copy = type(model)(
            registry=deepcopy(model.registry_), **_compat.flat_init_params(model.init_params_)
        )
        _compat.attach(copy, model.adata, model.adata_manager)
        trainable = sum(p.numel() for p in copy.module.parameters())
        if model._mode == "frozen-decoder":
            trainable -= sum(p.numel() for p in copy.module.decoder.parameters())
        planted = GradientCanaries(min(n_canaries, trainable))
        plan = {**dict(train_kwargs.pop("plan_kwargs", None) or {}), "canaries": planted}
        copy.train(plan_kwargs=plan, **train_kwargs)
        bound = planted.bound(copy.privacy_["delta"], confidence)
        return {
            "lower_bound": bound.epsilon,
            "claimed": copy.epsilon,
            "contradicted": bound.epsilon > copy.epsilon,
            "delta": bound.delta,
            "canaries": bound.n,
            "correct": bound.correct,
            "guesses": bound.guesses,
        }

    def _saved_provenance(self) -> dict[str, Any]:
        """Return the record of the training, with what has been spent until now."""
        model: Any = self
        return {**model.provenance_, **self._privacy_provenance()} if model.provenance_ else {}

    def _privacy_provenance(self) -> dict[str, Any]:
        return {"privacy": card_block(self)}
