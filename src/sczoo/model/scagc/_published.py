"""The steps of the model that the published computation does in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sczoo.errors import InputError
from sczoo.model.scagc._anchors import MOST_ANCHORS, anchor_groups, group_means
from sczoo.model.scagc._clustering import centres_of
from sczoo.model.scagc._data import dense_blocks
from sczoo.model.scagc._results import LearnedCells

if TYPE_CHECKING:
    from sczoo.model.scagc._reference import ReferenceState

__all__ = ["PublishedMixin"]


class PublishedMixin:
    """Module, state and results of ``preset="reference"``."""

    def _prepare_reference(self, adata: Any, likelihood: str) -> None:
        """Replace module and plan by the published ones."""
        from sczoo.model.scagc._reference import (
            MOST_REFERENCE_CELLS,
            ReferenceModule,
            ReferencePlan,
        )

        if likelihood != "zinb":
            raise InputError(f"likelihood={likelihood!r}: the published computation has 'zinb'.")
        if adata is not None and adata.n_obs > MOST_REFERENCE_CELLS:
            raise InputError(
                f"preset='reference' holds several cells x cells matrices, and there are "
                f"{adata.n_obs} cells; it takes at most {MOST_REFERENCE_CELLS}. Use the default "
                "preset, or fewer cells."
            )
        published: Any = self
        published._module_cls = ReferenceModule
        published._training_plan_cls = ReferencePlan

    @torch.no_grad()
    def _components(self) -> np.ndarray:
        """Principal components of all cells."""
        model: Any = self
        module = model.module
        module.eval()
        blocks = dense_blocks(model._expression(model.adata), model._layer)
        return np.concatenate(
            [module.components(x.to(module.device)).cpu().numpy() for _, x in blocks]
        )

    def _new_state(self, batch_size: int) -> ReferenceState:
        from sczoo.model.scagc._reference import ReferenceState

        model: Any = self
        components = self._components()
        if batch_size < len(components):
            raise InputError(
                f"batch_size={batch_size} for {len(components)} cells: the published computation "
                "sees all cells at once. Leave batch_size out."
            )
        model.module.n_neighbors = min(model._argument("n_neighbors"), len(components) - 1)
        adaptive = model._graph == "adaptive"
        return ReferenceState(components, model.module.n_neighbors, adaptive=adaptive)

    @torch.no_grad()
    def _conclude_reference(self, state: ReferenceState) -> None:
        model: Any = self
        module = model.module
        module.eval()
        blocks = dense_blocks(model._expression(model.adata), model._layer)
        scaled = torch.cat([module.scale(x.to(module.device)) for _, x in blocks])
        adjacency = state.adjacency.to(module.device)
        hidden = module.hidden(scaled, adjacency)
        z = module.second(hidden, adjacency).cpu().numpy()
        if not module.clustered:
            n_clusters = model._argument("n_clusters")
            labels = state.partition(n_clusters, model._seed())
            module.set_centres(centres_of(z, labels, n_clusters or int(labels.max()) + 1))
            module.centres.requires_grad_(False)
        groups = anchor_groups(z, MOST_ANCHORS, seed=model._seed())
        passed = torch.cat([scaled, hidden], dim=1).cpu().numpy()
        module.set_anchors(group_means(state.components, groups), group_means(passed, groups))
        model._learned = LearnedCells(
            latent=z,
            graph=state.learned_graph(),
            static_graph=state.first_graph,
            history=dict(state.history),
        )
        model._record_what_was_found()
