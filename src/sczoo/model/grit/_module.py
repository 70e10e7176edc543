"""What a GRIT keeps of the data it was trained on: means, loadings and shares, no cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data

from sczoo.model.grit._pca import Components

__all__ = ["GRITModule"]

_REFERENCE = ("reference_embedding", "reference_scores")


class GRITModule(BaseModuleClass):
    """Fitted values of a GRIT.

    Parameters
    ----------
    n_genes
        Genes of the model.
    n_components
        Principal components.
    n_classes
        Classes.

    Attributes
    ----------
    gene_mean, gene_scale
        Mean and standard deviation of log-normalised expression, ``(n_genes,)``.
    loadings
        Of the principal components, ``(n_genes, n_components)``; zero for genes not used.
    raw_share, refined_share
        Share of the training cells with each label, ``(n_classes,)``.
    guard_statistics
        Agreement of neighbours, entropy kept, margins before and after, agreement after.
    """

    def __init__(self, n_genes: int, n_components: int, n_classes: int) -> None:
        super().__init__()
        # scvi-tools finds the device of a module by its parameters
        self.anchor = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.register_buffer("gene_mean", torch.zeros(n_genes))
        self.register_buffer("gene_scale", torch.zeros(n_genes))
        self.register_buffer("loadings", torch.zeros(n_genes, n_components))
        self.register_buffer("raw_share", torch.zeros(n_classes))
        self.register_buffer("refined_share", torch.zeros(n_classes))
        self.register_buffer("guard_statistics", torch.zeros(5))
        for name in _REFERENCE:
            self.register_buffer(name, None, persistent=False)

    @property
    def components(self) -> Components:
        """The principal components, as arrays."""
        loadings = self.loadings.cpu().numpy()
        used = np.abs(loadings).any(axis=1)
        return Components(
            self.gene_mean.cpu().numpy().astype(np.float64),
            np.where(used, self.gene_scale.cpu().numpy().astype(np.float64), 0.0),
            loadings,
        )

    def keep(self, **values: np.ndarray) -> None:
        """Copy fitted values into the buffers of their names."""
        for name, value in values.items():
            buffer = getattr(self, name)
            buffer.copy_(torch.as_tensor(np.asarray(value), dtype=buffer.dtype))

    @property
    def has_reference(self) -> bool:
        """Whether the module holds the training cells' embedding and refined scores."""
        return self.reference_embedding is not None

    def keep_reference(self, embedding: np.ndarray, scores: np.ndarray, *, saved: bool) -> None:
        """Hold an embedding and refined scores of the training cells."""
        for name, value in zip(_REFERENCE, (embedding, scores), strict=True):
            tensor = torch.as_tensor(value, dtype=torch.float32, device=self.anchor.device)
            self.register_buffer(name, tensor.contiguous(), persistent=saved)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # a reference has as many rows as it was saved with
        for name in _REFERENCE:
            stored = state_dict.get(prefix + name)
            if stored is not None:
                self.register_buffer(name, torch.empty_like(stored), persistent=True)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _get_inference_input(self, tensors: dict, **kwargs: Any) -> dict:
        return {"x": tensors["X"]}

    @auto_move_data
    def inference(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Project log-normalised expression ``(n, n_genes)`` on the principal components."""
        scale = torch.where(self.gene_scale > 0, self.gene_scale, torch.inf)
        return {"z": ((x - self.gene_mean) / scale).clamp(-10, 10) @ self.loadings}

    def _get_generative_input(self, tensors: dict, inference_outputs: dict, **kwargs: Any) -> dict:
        return {"z": inference_outputs["z"]}

    @auto_move_data
    def generative(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Expression that the principal components stand for, ``(n, n_genes)``."""
        return {"x": z @ self.loadings.T * self.gene_scale + self.gene_mean}

    def loss(
        self, tensors: dict, inference_outputs: dict, generative_outputs: dict, **kwargs: Any
    ) -> LossOutput:
        """Squared error of the reconstruction by principal components; not used in training."""
        per_cell = ((generative_outputs["x"] - tensors["X"]) ** 2).sum(1)
        return LossOutput(loss=per_cell.mean(), reconstruction_loss=per_cell)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: GRIT labels cells and does not generate any."""
        from sczoo.errors import InputError

        raise InputError("GRIT labels cells; it does not generate any.")
