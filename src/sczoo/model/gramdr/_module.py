"""The module: gene-side parameters as buffers, and the linear maps between cells and parts."""

from __future__ import annotations

from typing import Any

import torch
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data

from sczoo.model.gramdr._consensus import ConsensusState
from sczoo.model.gramdr._state import GeneState

__all__ = ["GramDRModule"]


class GramDRModule(BaseModuleClass):
    """Parameters of a corrected Gram matrix; nothing in it is learnt by gradients.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_batch
        Number of batches with panels of their own.
    n_components
        Number of components that can be kept.
    consensus
        Whether zeros are judged by clusters, whose gene-side description is then kept too.
    """

    def __init__(self, n_genes: int, n_batch: int, n_components: int, consensus: bool) -> None:
        super().__init__()
        self.n_genes = n_genes
        self.has_consensus = consensus
        for name, array in GeneState.empty(n_genes, n_batch, n_components).arrays().items():
            self.register_buffer(name, torch.from_numpy(array))
        if consensus:
            for name, array in ConsensusState.empty(n_genes).arrays().items():
                self.register_buffer(f"consensus_{name}", torch.from_numpy(array))

    @property
    def device(self) -> torch.device:
        """Device of the buffers; there are no parameters to ask."""
        return self.loadings.device

    def gene_state(self) -> GeneState:
        """Return the gene-side parameters as numpy arrays (copies)."""
        return GeneState.from_arrays(
            {name: getattr(self, name).detach().cpu().numpy().copy() for name in GeneState.names()}
        )

    def set_gene_state(self, state: GeneState) -> None:
        """Replace the gene-side parameters."""
        for name, array in state.arrays().items():
            getattr(self, name).copy_(torch.from_numpy(array))

    def consensus_state(self) -> ConsensusState | None:
        """Return the clusters that judge zeros, if the mask needs them."""
        if not self.has_consensus:
            return None
        return ConsensusState.from_arrays(
            {
                name: getattr(self, f"consensus_{name}").detach().cpu().numpy().copy()
                for name in ConsensusState.names()
            }
        )

    def set_consensus_state(self, state: ConsensusState) -> None:
        """Replace the clusters that judge zeros."""
        for name, array in state.arrays().items():
            getattr(self, f"consensus_{name}").copy_(torch.from_numpy(array))

    # --- the linear maps, as scvi-tools names them ---------------------------------------------

    def _get_inference_input(self, tensors: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"rows": tensors["rows"], "shared": tensors["shared"]}

    @auto_move_data
    def inference(self, rows: torch.Tensor, shared: torch.Tensor) -> dict[str, torch.Tensor]:
        """Project rows ``(m, D)`` with co-observation ``(m, B)`` on the components."""
        products = torch.einsum("md,bdk->mbk", rows.to(self.loadings), self.loadings)
        weight = torch.where(shared > 0, 1.0 / shared, torch.zeros_like(shared))
        return {"z": torch.einsum("mbk,mb->mk", products, weight.to(products))}

    def _get_generative_input(
        self, tensors: dict[str, Any], inference_outputs: dict[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        return {"z": inference_outputs["z"]}

    @auto_move_data
    def generative(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the components predict for centred values, ``(m, D)``."""
        return {"rows": z @ self.loadings.sum(dim=0).T}

    def loss(
        self,
        tensors: dict[str, Any],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        **kwargs: Any,
    ) -> LossOutput:
        """Squared error of the prediction, for information: nothing is trained on it."""
        rows = tensors["rows"].to(self.loadings)
        per_cell = ((generative_outputs["rows"] - rows) ** 2).sum(dim=1)
        return LossOutput(
            loss=per_cell.mean(),
            reconstruction_loss=per_cell,
            kl_local=torch.zeros_like(per_cell),
        )

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a corrected Gram matrix is no generative model."""
        raise AttributeError("GramDR estimates a Gram matrix; it has nothing to sample from.")
