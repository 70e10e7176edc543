"""Running the three stages on one split of the cells, and the constants between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from sczoo.base._checks import scan_matrix
from sczoo.base._data import ZooDataSplitter
from sczoo.base._provenance import fingerprint
from sczoo.base._reading import iter_row_blocks
from sczoo.base._training import plain
from sczoo.errors import InputError, TooFewCellsError
from sczoo.model.scdd._latent_data import LatentData, SortedDataSplitter, epochs_for
from sczoo.model.scdd._module import EMBEDDING
from sczoo.model.scdd._trainingplan import AutoencoderPlan, DiffusionPlan, StudentPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STAGES", "StagesMixin"]

STAGES = ("autoencoder", "diffusion", "student")
_PLANS: dict[str, type] = {
    "autoencoder": AutoencoderPlan,
    "diffusion": DiffusionPlan,
    "student": StudentPlan,
}
_LATENT_BATCH = 256
_CLIP = 10.0
# ends of flows that the student learns from, up to a number after which more change nothing
_PAIRS_PER_STEP, _PAIRS = 8, (64, 8000)
_MIN_SD = 1e-3


class StagesMixin:
    """Training in stages."""

    _data_splitter_cls = SortedDataSplitter

    def _train_stages(
        self: Any,
        stages: tuple[str, ...],
        *,
        max_epochs: int,
        batch_size: int,
        n_steps: Mapping[str, int],
        split: Mapping[str, Any],
        plan_kwargs: dict[str, Any],
        early_stopping: bool,
        **trainer_kwargs: Any,
    ) -> None:
        if self.adata is None:
            raise InputError("This model was loaded without data, so it cannot be trained.")
        if self.adata.n_obs < max(2, self._min_cells):
            raise TooFewCellsError(
                f"The data have {self.adata.n_obs} cell(s); SCDD needs at least 2 to train."
            )
        options = dict(split)
        rows = self._split(options, reuse="autoencoder" not in stages)
        cpu, earlier = 0.0, self.history_ if isinstance(self.history_, dict) else {}
        merged = dict(earlier)
        for stage in stages:
            common = {"batch_size": batch_size, **trainer_kwargs}
            # scvi-tools keeps of a further run only what an earlier run recorded too
            self.history_ = None
            try:
                if stage == "autoencoder":
                    self._set_data_constants(rows[0])
                    common.setdefault("gradient_clip_val", _CLIP)
                    self._train(
                        plan_cls=AutoencoderPlan,
                        plan_kwargs=plan_kwargs,
                        max_epochs=max_epochs,
                        early_stopping=early_stopping,
                        datasplitter_kwargs={**options, "external_indexing": rows},
                        **common,
                    )
                    self._set_latent_constants(rows[0])
                else:
                    epochs, steps = epochs_for(n_steps[stage])
                    extra: dict[str, Any] = {"p_uncond": self._p_uncond}
                    if stage == "student":
                        pairs = np.clip(_PAIRS_PER_STEP * n_steps[stage], *_PAIRS)
                        extra = {"n_pairs": int(pairs)}
                    self._train(
                        plan_cls=_PLANS[stage],
                        plan_kwargs={"seed": self._seed(), **extra},
                        max_epochs=epochs,
                        datamodule=self._latent_data(rows, steps),
                        **common,
                    )
            finally:
                merged = _joined(merged, self.history_)
                self.history_ = merged
            cpu += self.provenance_["cpu_seconds"]
        if stages:
            self.provenance_["cpu_seconds"] = round(cpu, 2)
            self.provenance_["arguments"]["train"] = plain(
                {
                    "stages": list(stages),
                    "max_epochs": max_epochs,
                    "batch_size": batch_size,
                    "max_steps_diffusion": n_steps["diffusion"],
                    "max_steps_student": n_steps["student"],
                    "train_size": split["train_size"],
                    "early_stopping": early_stopping,
                    "plan_kwargs": plan_kwargs,
                }
            )

    def _split(self: Any, options: dict[str, Any], reuse: bool) -> list[np.ndarray]:
        """Split the cells, before anything else reads them; later stages keep the split."""
        known = [
            getattr(self, f"{part}_indices_", None) for part in ("train", "validation", "test")
        ]
        if reuse and known[0] is not None:
            empty = np.zeros(0, dtype=np.int64)
            return [empty if part is None else np.asarray(part) for part in known]
        indexing = options.pop("external_indexing", None)
        splitter = ZooDataSplitter(
            self.adata_manager,
            seed=self._seed(),
            external_indexing=indexing,
            **{
                key: options.pop(key)
                for key in ("train_size", "validation_size", "shuffle_set_split")
                if key in options
            },
        )
        splitter.setup()
        parts = (splitter.train_idx, splitter.val_idx, splitter.test_idx)
        rows = [np.sort(np.asarray(part, dtype=np.int64)) for part in parts]
        if reuse:
            self._require_same_cells(
                rows[0],
                "the stages that are missing must see the training cells of the autoencoder. "
                "Split as in the first call, with the same seed; or load the model with its "
                "training cells alone",
            )
        return rows

    def _training_rows(self: Any) -> np.ndarray:
        """Rows that were trained on; of a loaded model all, if they are the cells it knew.

        Which cells were in the split is not saved, as it says something about single cells. So
        those that were put aside can only be told by the fingerprint of the others.
        """
        rows = self.train_indices_
        if rows is not None:
            return np.sort(np.asarray(rows))
        self._require_same_cells(
            None,
            "distilling reads all cells that are attached, also those that were put aside for "
            "validation or test. Load the model with its training cells alone",
        )
        return np.arange(self.adata.n_obs)

    def _require_same_cells(self: Any, rows: np.ndarray | None, why: str) -> None:
        known = self.provenance_.get("data_sha256")
        if known is None or self._fine_tuning:
            return
        if fingerprint(self._expression(self.adata), self._layer, rows) != known:
            n_cells = self.adata.n_obs if rows is None else len(rows)
            raise InputError(
                f"These {n_cells} cells are not the {self.provenance_.get('n_cells')} cells that "
                f"this SCDD was trained on: {why}: SCDD.load(folder, adata[training_rows].copy())."
            )

    # --- constants ----------------------------------------------------------------------------

    def _set_data_constants(self: Any, rows: np.ndarray) -> None:
        """Set aggregates of the training cells that encoding and emission need."""
        if self._fine_tuning:
            return
        source = self._expression(self.adata)
        module = self.module
        totals = np.zeros(len(rows))
        gene_sums = np.zeros(source.n_vars)
        start = 0
        for chunk, block in iter_row_blocks(source, self._layer, rows):
            sums = np.asarray(block.sum(axis=1), dtype=np.float64).ravel()
            totals[start : start + len(chunk)] = sums
            gene_sums += np.asarray(block.sum(axis=0), dtype=np.float64).ravel()
            start += len(chunk)
        target = float(np.median(totals[totals > 0])) if (totals > 0).any() else 1.0
        means = np.zeros(source.n_vars)
        start = 0
        for chunk, block in iter_row_blocks(source, self._layer, rows):
            scale = target / np.maximum(totals[start : start + len(chunk)], 1.0)
            values = sparse.diags(scale) @ sparse.csr_matrix(block).astype(np.float64)
            means += np.asarray(values.log1p().sum(axis=0)).ravel()
            start += len(chunk)
        codes = self._codes_of(REGISTRY_KEYS.LABELS_KEY)[rows]
        batch = self._codes_of(REGISTRY_KEYS.BATCH_KEY)[rows]
        if (codes >= 0).any():  # else a query, all of whose classes are new
            module.set_constants(
                **_tables(
                    codes, batch, np.log(np.maximum(totals, 1.0)), module.n_labels, module.n_batch
                )
            )
        module.set_constants(
            target_total=max(target, 1.0),
            gene_share=(gene_sums + 1e-8) / (gene_sums + 1e-8).sum(),
            gene_mean=means / len(rows),
        )
        if module.n_embedding:
            values = self._embedding_values()[rows]
            spread = values.std(axis=0)
            module.set_constants(
                embedding_mean=values.mean(axis=0),
                embedding_sd=np.where(spread > 1e-8, spread, 1.0),
            )

    def _set_latent_constants(self: Any, rows: np.ndarray) -> None:
        """Mean and spread of the latents: diffusion needs them at unit scale."""
        if self._fine_tuning:
            return
        latents = self._encode_rows(rows)
        self.module.set_constants(
            latent_mean=latents.mean(axis=0),
            latent_sd=np.maximum(latents.std(axis=0), _MIN_SD),
        )

    def _latent_data(self: Any, rows: list[np.ndarray], steps: int) -> LatentData:
        module = self.module
        with torch.no_grad():
            latents = module.standardise(
                torch.as_tensor(self._encode_rows(rows[0]), device=module.device)
            )
        codes = self._codes_of(REGISTRY_KEYS.LABELS_KEY)[rows[0]]
        conditions = codes[:, None]
        if module.n_batch:
            batch = self._codes_of(REGISTRY_KEYS.BATCH_KEY)[rows[0]]
            conditions = np.stack([codes, batch], axis=1)
        return LatentData(
            latents.cpu().numpy(),
            conditions,
            train_idx=rows[0],
            val_idx=rows[1],
            test_idx=rows[2],
            batch_size=_LATENT_BATCH,
            n_steps=steps,
            seed=self._seed(),
        )

    def _codes_of(self: Any, name: str) -> np.ndarray:
        """Codes of a categorical field for all cells; -1 for what the model does not know."""
        known = self.module.n_labels if name == REGISTRY_KEYS.LABELS_KEY else self.module.n_batch
        if name not in self.adata_manager.data_registry or known == 0:
            return np.full(self.adata.n_obs, -1, dtype=np.int64)
        values = np.asarray(self.adata_manager.get_from_registry(name)).ravel().astype(np.int64)
        return np.where(values < known, values, -1)

    def _embedding_values(self: Any) -> np.ndarray:
        values = self.adata_manager.get_from_registry(EMBEDDING)
        values = values.toarray() if sparse.issparse(values) else np.asarray(values)
        return values.astype(np.float32)

    def _record_run(self: Any, *args: Any, **kwargs: Any) -> None:
        """Record the run; what is said about the data is of the training cells alone."""
        super()._record_run(*args, **kwargs)  # type: ignore[misc]
        rows = self.train_indices_
        if self.adata is None or rows is None or len(rows) == self.adata.n_obs:
            return
        from anndata import AnnData

        source = self._expression(self.adata)
        matrix = source.X if self._layer is None else source.layers[self._layer]
        scan = scan_matrix(AnnData(matrix[np.sort(rows)]))
        shares = self.domain["quantiles"]
        self.domain["total_per_cell"] = np.quantile(scan.cell_totals, shares).round(3).tolist()
        self.domain["genes_per_cell"] = np.quantile(scan.cell_detected, shares).tolist()


def _tables(
    codes: np.ndarray, batch: np.ndarray, log_total: np.ndarray, n_labels: int, n_batch: int
) -> dict[str, np.ndarray]:
    """Share of each class, of each batch in it, and mean and spread of its log library."""
    known = codes >= 0
    sizes = np.bincount(codes[known], minlength=n_labels).astype(float)
    between = np.zeros((n_labels, max(1, n_batch)))
    if n_batch:
        both = known & (batch >= 0)
        np.add.at(between, (codes[both], batch[both]), 1.0)
        between /= np.maximum(between.sum(axis=1, keepdims=True), 1.0)
    divisor = np.maximum(sizes, 1.0)
    mean = np.bincount(codes[known], log_total[known], minlength=n_labels) / divisor
    square = np.bincount(codes[known], log_total[known] ** 2, minlength=n_labels) / divisor
    return {
        "class_share": sizes / sizes.sum(),
        "batch_share": between,
        "library_mean": mean,
        "library_sd": np.sqrt(np.maximum(square - mean**2, 0.0)),
    }


def _joined(
    earlier: dict[str, pd.DataFrame], new: dict[str, pd.DataFrame] | None
) -> dict[str, pd.DataFrame]:
    """Append the curves of a run to those before it."""
    joined = dict(earlier)
    for name, curve in (new or {}).items():
        before = joined.get(name)
        if before is not None:
            curve = curve.copy()
            curve.index = np.arange(len(before), len(before) + len(curve))
            curve.index.name = before.index.name
            curve = pd.concat([before, curve])
        joined[name] = curve
    return joined
