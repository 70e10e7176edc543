"""What a trained model says about cells: their latents and their class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from sczoo.base._reading import resolve_indices
from sczoo.model.scdd._module import EMBEDDING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from mudata import MuData

__all__ = ["LatentsMixin"]

_BLOCK = 1024


class LatentsMixin:
    """Encoding, decoding and classifying cells."""

    @torch.inference_mode()
    def get_latent_representation(
        self: Any,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the latent mean of each cell.

        Parameters
        ----------
        adata
            Cells, of the training data or new; the model's own by default. Genes are matched by
            name; genes that are missing count as unknown, not as zero.
        indices
            Cells to use, in this order.
        batch_size
            Cells at a time.

        Returns
        -------
        Cells x latent dimensions, float32.
        """
        parts = [out["mean"].cpu().numpy() for out in self._outputs(adata, indices, batch_size)]
        return np.concatenate([np.zeros((0, self.module.n_latent), dtype=np.float32), *parts])

    @torch.inference_mode()
    def predict(
        self: Any,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        soft: bool = False,
    ) -> np.ndarray | pd.DataFrame:
        """Classify cells by the class head on the latents.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.
        soft
            Return probabilities instead.

        Returns
        -------
        Names of the classes, ``(n_cells,)``, or a table of probabilities, cells x classes. A
        saved model numbers its classes unless they were saved by name.
        """
        module = self.module
        parts = [
            module.class_head(out["mean"]).softmax(dim=1).cpu().numpy()
            for out in self._outputs(adata, indices, batch_size)
        ]
        table = np.concatenate([np.zeros((0, module.n_labels), dtype=np.float32), *parts])
        if soft:
            return pd.DataFrame(table, columns=self.class_names)
        return self.class_names[table.argmax(axis=1)]

    @torch.inference_mode()
    def get_normalized_expression(
        self: Any,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        library_size: float = 1.0,
    ) -> np.ndarray:
        """Return each cell's expression as the decoder shows it, without noise and batch.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.
        library_size
            Sum of each row.

        Returns
        -------
        Cells x genes, float32.
        """
        parts = [
            (self.module.decoder(out["mean"]).exp() * library_size).cpu().numpy()
            for out in self._outputs(adata, indices, batch_size)
        ]
        return np.concatenate([np.zeros((0, len(self.var_names)), dtype=np.float32), *parts])

    def _outputs(
        self: Any, adata: Any, indices: Any, batch_size: int | None
    ) -> Iterator[dict[str, torch.Tensor]]:
        self._require_trained()
        self.module.eval()
        embedding, start = self._query_embedding(adata, indices), 0
        for batch in self._iter_batches(adata, indices, batch_size):
            n = len(batch["X"])
            known = None
            if embedding is not None:
                known = torch.as_tensor(embedding[start : start + n], device=batch["X"].device)
            start += n
            yield self.module.inference(batch["X"], embedding=known, gene_mask=batch["gene_mask"])

    def _query_embedding(self: Any, adata: Any, indices: Any) -> np.ndarray | None:
        """Return the outside embedding of a query that has it, for an encoder that reads it."""
        if not self.module.n_embedding or self.module.embedding_mode != "concat":
            return None
        data = self.adata if adata is None else adata
        key = self._setup_arguments.get("embedding_key")
        if data is None or key is None or key not in getattr(data, "obsm", {}):
            return None
        values = data.obsm[key]
        values = values.toarray() if sparse.issparse(values) else np.asarray(values)
        if values.ndim != 2 or values.shape[1] != self.module.n_embedding:
            return None
        return values[resolve_indices(indices, data.n_obs)].astype(np.float32)

    @torch.no_grad()
    def _encode_rows(self: Any, rows: np.ndarray) -> np.ndarray:
        """Latent means of the model's own cells, also before the first stage is complete."""
        module = self.module
        was_training = module.training
        module.eval()
        keys = [REGISTRY_KEYS.X_KEY]
        if module.n_embedding and EMBEDDING in self.adata_manager.data_registry:
            keys.append(EMBEDDING)
        dataset = self.adata_manager.create_torch_dataset(data_and_attributes=keys)
        parts = [np.zeros((0, module.n_latent), dtype=np.float32)]
        for start in range(0, len(rows), _BLOCK):
            # file-backed data come back in ascending order whatever was asked for
            chunk = rows[start : start + _BLOCK]
            order = np.argsort(chunk, kind="stable")
            values = {
                key: torch.as_tensor(np.asarray(value), device=module.device)
                for key, value in dataset[chunk[order]].items()
            }
            found = module.inference(
                values[REGISTRY_KEYS.X_KEY].float(), embedding=values.get(EMBEDDING)
            )["mean"]
            part = np.empty((len(chunk), module.n_latent), dtype=np.float32)
            part[order] = found.cpu().numpy()
            parts.append(part)
        module.train(was_training)
        return np.concatenate(parts)
