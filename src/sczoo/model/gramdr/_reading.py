"""How a GramDR model reads cells: its own, or those of a new patient."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo import _compat
from sczoo.base._provenance import digest_block
from sczoo.base._reading import iter_row_blocks, resolve_indices
from sczoo.errors import InputError
from sczoo.model.gramdr._consensus import observed_by_vote
from sczoo.model.gramdr._projection import Projector
from sczoo.model.gramdr._rows import RowReader

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._genes import GeneAlignment

__all__ = ["ReadingMixin"]


class ReadingMixin:
    """Readers of cells, and whether they are those of the fit."""

    def _reader(
        self,
        adata: AnnData | MuData | None = None,
        indices: Any = None,
        batch_size: int | None = None,
    ) -> tuple[RowReader, AnnData]:
        """Return a reader of any cells, aligned and checked, and where they come from."""
        model: Any = self
        data = model.adata if adata is None else adata
        if data is None:
            raise InputError(
                "This model was loaded without data: pass the cells to work on as adata=."
            )
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
        source = model._expression(data)
        layer = model._layer
        model._check_query_structure(source, layer)
        alignment = model._query_alignment(source)
        consensus = None
        if model._mask == "consensus":
            clusters = model.module.consensus_state()

            def consensus(values: np.ndarray) -> np.ndarray:
                return observed_by_vote(values, clusters)

        reader = RowReader(
            source,
            layer,
            model._mask,
            model._mask_layer,
            n_genes=len(model.var_names),
            indices=resolve_indices(indices, source.n_obs),
            batch=self._batch_codes(data),
            alignment=alignment,
            check=lambda block, rows: model._check_query_block(source, block, rows, alignment),
            consensus=consensus,
        )
        if batch_size is not None:
            reader.block_rows = min(batch_size, reader.block_rows)
        return reader, source

    def _batch_codes(self, data: AnnData | MuData) -> np.ndarray:
        model: Any = self
        if model.module.panel.shape[0] == 1:
            return np.zeros(data.n_obs, dtype=np.int64)
        return model._category_codes(data, "batch")

    def _projector(self, reader: RowReader, joint: bool) -> Projector:
        model: Any = self
        return Projector(
            model.module.gene_state(),
            model._normaliser,
            clip=model._clip,
            weight_power=model._weight_power,
            present=reader.present,
            joint=joint,
        )

    def _is_fitted_data(self, reader: RowReader, source: AnnData) -> bool:
        """Whether these are the very cells of the fit, whoever holds them and in what storage."""
        model: Any = self
        if source.n_obs != model.provenance_.get("n_cells") or (reader.batch < 0).any():
            return False
        alignment = reader.alignment
        if alignment is not None and not alignment.present.all():
            return False
        digest = hashlib.sha256()
        for _, block in iter_row_blocks(source, model._layer):
            digest_block(digest, block if alignment is None else alignment.apply(block))
        if digest.hexdigest() != model.provenance_.get("data_sha256"):
            return False
        return mask_digest(source, model._mask_layer, alignment) == model.fitted_on_

    def _check_field(self, name: str) -> dict[str, Any]:
        model: Any = self
        return model.registry_[_compat.FIELD_REGISTRIES].get(name, {})


def mask_digest(adata: AnnData, mask_layer: str | None, alignment: GeneAlignment | None) -> str:
    """SHA-256 of the mask in the model's order of genes; ``""`` without a layer of its own."""
    if mask_layer is None:
        return ""
    digest = hashlib.sha256()
    for _, block in iter_row_blocks(adata, mask_layer):
        digest_block(digest, block if alignment is None else alignment.apply(block))
    return digest.hexdigest()
