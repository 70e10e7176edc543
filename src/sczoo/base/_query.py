"""Inference on any data: aligned by name, in the order asked for, without a trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import settings

from sczoo import _compat
from sczoo.base._checks import (
    MatrixScan,
    check_structure,
    raise_for_counts,
    raise_for_scan,
    scan_block,
)
from sczoo.base._reading import iter_row_blocks, resolve_indices
from sczoo.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._genes import GeneAlignment


class QueryMixin:
    """Reading query data for a model.

    The data are read in blocks of rows and never registered with scvi-tools: the object of the
    caller is not written to, not kept, and a file-backed one is streamed.
    """

    def _iter_batches(
        self,
        adata: AnnData | MuData | None = None,
        indices: Any = None,
        batch_size: int | None = None,
        *,
        registry_keys: tuple[str, ...] = (),
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Yield minibatches for inference, in the order of `indices`.

        Parameters
        ----------
        adata
            Any data with enough of the model's genes; the model's own by default.
        indices
            Rows to read, in this order.
        batch_size
            Cells in a minibatch; ``scvi.settings.batch_size`` by default.
        registry_keys
            Categorical fields to read too, such as ``"batch"``: codes of shape ``(n, 1)``, -1
            for categories that the model does not know and for absent columns.

        Yields
        ------
        dict
            ``"X"``: float32, ``(n, n_genes)``; ``"gene_mask"``: bool, ``(n_genes,)``, the genes
            that the query has; and the codes asked for. All on the module's device.
        """
        model: Any = self
        data = model.adata if adata is None else adata
        if data is None:
            raise InputError(
                "This model was loaded without data: pass the cells to work on as adata=."
            )
        source = model._expression(data)
        layer = model._layer
        self._check_query_structure(source, layer)
        alignment = self._query_alignment(source)
        rows = resolve_indices(indices, source.n_obs)
        batch_size = settings.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
        device = model.module.device
        mask = torch.as_tensor(alignment.present, device=device)
        codes = {key: self._category_codes(data, key) for key in registry_keys}
        for block_rows, block in iter_row_blocks(source, layer, rows):
            aligned = alignment.apply(block)
            self._check_query_block(source, aligned, block_rows, alignment)
            for start in range(0, len(block_rows), batch_size):
                part = aligned[start : start + batch_size]
                dense = part.toarray() if sparse.issparse(part) else part
                batch = {
                    "X": torch.as_tensor(np.asarray(dense, dtype=np.float32), device=device),
                    "gene_mask": mask,
                }
                chosen = block_rows[start : start + batch_size]
                for key, values in codes.items():
                    batch[key] = torch.as_tensor(values[chosen, None], device=device)
                yield batch

    def _query_alignment(self, source: AnnData) -> GeneAlignment:
        """Match the genes; honours the mask that ``prepare_query_anndata`` wrote."""
        model: Any = self
        # whoever prepared the query has accepted its coverage; but the mark may be another model's
        if "in_query" in source.var and [str(n) for n in source.var_names] == list(
            model.var_names
        ):
            alignment = model.align_genes(source, 0.0)
            object.__setattr__(alignment, "present", source.var["in_query"].to_numpy(dtype=bool))
            return alignment
        return model.align_genes(source)

    def _check_query_structure(self, source: AnnData, layer: str | None) -> None:
        if layer is not None and layer not in source.layers:
            raise MissingKeyError(
                f"The model reads the layer {layer!r}, which the query does not have. If its X "
                f"holds the same kind of values, set adata.layers[{layer!r}] = adata.X.copy() or "
                "call prepare_query_anndata(adata, model, layer=...)."
            )
        model: Any = self
        for name in model._companion_layers:
            if name not in source.layers:
                raise MissingKeyError(
                    f"The model also reads the layer {name!r}, which the query does not have; it "
                    f"has {sorted(map(str, source.layers.keys()))}. Add it for these cells too."
                )
        if source.is_view:  # reading a view is harmless
            if layer is None and source.X is None:
                raise InputError("adata.X is None.")
            return
        names = source.var_names
        if names.is_unique:
            check_structure(source, layer=layer)

    def _check_query_block(
        self, source: AnnData, aligned: Any, rows: np.ndarray, alignment: GeneAlignment
    ) -> None:
        """Check the values of one block; names in errors are the query's own cells."""
        model: Any = self
        scan = MatrixScan(len(rows), aligned.shape[1])
        scan_block(scan, aligned, 0, allow_missing=model._allow_missing)
        if model._scale == "log1p":
            raise_for_counts(scan, model._layer)
        if scan.whole_numbers or not (
            scan.first_not_finite or scan.first_negative or scan.first_fraction
        ):
            return
        named = _Names(source.obs_names[rows], model.var_names, source)
        raise_for_scan(named, scan, model._layer, model._scale)

    def _category_codes(self, data: AnnData | MuData, registry_key: str) -> np.ndarray:
        """Codes of a categorical field in the model's own order; -1 for what it does not know."""
        model: Any = self
        field = model.registry_[_compat.FIELD_REGISTRIES].get(registry_key, {})
        state = field.get(_compat.STATE_REGISTRY) or {}
        key = state.get("original_key")
        unknown = np.full(data.n_obs, -1, dtype=np.int64)
        if key is None or "categorical_mapping" not in state or key not in data.obs:
            return unknown
        mapping = pd.Index([str(value) for value in state["categorical_mapping"]])
        return mapping.get_indexer(data.obs[key].astype(str)).astype(np.int64)

    def annotate(self, adata: AnnData | MuData, *, key_added: str | None = None) -> dict[str, str]:
        """Write the model's results into `adata`.

        Everything is computed before anything is written. Updates `adata` with the following
        fields, where the method has them (``key`` is `key_added`, or the method's name):

        ``adata.obsm["X_<key>"]``
            The latent representation.
        ``adata.obs["<key>_cluster"]``
            Cluster assignments.
        ``adata.obs["<key>_label"]``
            Predicted labels.
        ``adata.uns["sczoo"]["<key>"]``
            Method, versions and the gene alignment.

        Returns
        -------
        The keys written and what each holds.
        """
        model: Any = self
        model._require_trained()
        key = key_added or model._method
        record = earlier_record(adata)
        alignment = self._query_alignment(model._expression(adata))
        latent = model.get_latent_representation(adata)
        obs: dict[str, Any] = {}
        written = {f"obsm['X_{key}']": "latent representation"}
        if hasattr(model, "get_cluster_assignments"):
            obs[f"{key}_cluster"] = pd.Categorical(
                np.asarray(model.get_cluster_assignments(adata)).astype(str)
            )
            written[f"obs['{key}_cluster']"] = "cluster"
        if hasattr(model, "predict"):
            obs[f"{key}_label"] = pd.Categorical(np.asarray(model.predict(adata)).astype(str))
            written[f"obs['{key}_label']"] = "predicted label"
        adata.obsm[f"X_{key}"] = latent
        for name, values in obs.items():
            adata.obs[name] = values
        record[key] = {
            "method": model._method,
            "genes": alignment.as_dict(),
            "versions": dict(model.provenance_.get("versions", {})),
            "seed": model.provenance_.get("seed", -1),
        }
        adata.uns["sczoo"] = record
        return written


def earlier_record(adata: AnnData | MuData) -> dict[str, Any]:
    """Copy what earlier calls wrote into ``uns["sczoo"]``; call before anything is written."""
    record = adata.uns.get("sczoo", {})
    if not isinstance(record, Mapping):
        raise InputError(
            f"adata.uns['sczoo'] holds a {type(record).__name__}, where sczoo keeps its records. "
            "Move it to another key."
        )
    return dict(record)


class _Names:
    """The names that error messages need, for rows of a block instead of the whole object."""

    def __init__(self, obs_names: pd.Index, var_names: np.ndarray, source: AnnData) -> None:
        self.obs_names = obs_names
        self.var_names = var_names
        self.n_obs = source.n_obs
        self.layers = source.layers
        self.raw = source.raw
        self.X = source.X
