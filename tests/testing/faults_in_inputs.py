"""Faults in reading, checking and batching what a model is trained on."""

from __future__ import annotations

import numpy as np
import torch
from faults import FaultyModel, caught_by
from scvi.data import fields
from scvi.dataloaders import DataSplitter
from zoo_toys import LinearModule

from sczoo.base._data import BatchSampler, ZooDataSplitter

# --- input ---------------------------------------------------------------------------------------


@caught_by(
    "refuses_nan",
    "refuses_infinity",
    "refuses_negative_values",
    "refuses_fractions",
    "refuses_duplicate_genes",
    "refuses_a_missing_layer",
    "refuses_no_cells",
    "refuses_a_view",
    "refuses_missing_categories_at_setup",
    "refuses_a_missing_column",
)
class ChecksNothing(FaultyModel):
    @classmethod
    def _check_setup(cls, adata, **kwargs):
        pass


@caught_by("refuses_nan", "refuses_duplicate_genes", "refuses_missing_categories_at_setup")
class WritesBeforeChecking(FaultyModel):
    @classmethod
    def _check_setup(cls, adata, **kwargs):
        adata.uns["setting_up"] = True
        super()._check_setup(adata, **kwargs)


@caught_by("refuses_nan", "refuses_infinity")
class ComplainsWithoutAPlace(FaultyModel):
    @classmethod
    def _check_setup(cls, adata, **kwargs):
        from sczoo.errors import NotFiniteError

        try:
            super()._check_setup(adata, **kwargs)
        except NotFiniteError as error:
            raise NotFiniteError("There is a value somewhere that is not finite.") from error


@caught_by("refuses_one_cell")
class TrainsOnOneCell(FaultyModel):
    _min_cells = 1


@caught_by("trains_on_a_layer")
class ReadsXInsteadOfTheLayer(FaultyModel):
    @classmethod
    def setup_anndata(cls, adata, *, layer=None, batch_key=None, labels_key=None, **kwargs):
        setup_locals = locals()
        registered = [
            fields.LayerField("X", None, is_count_data=False),
            fields.CategoricalObsField("batch", batch_key),
        ]
        cls._register(adata, registered, setup_locals, **kwargs)


@caught_by("trains_on_csc", "trains_on_dense_float64", "trains_on_a_backed_file")
class TakesEveryMatrixForCSR(FaultyModel):
    def train(self, *args, **kwargs):
        per_gene = np.bincount(self.adata.X.indices, minlength=len(self.var_names))
        with torch.no_grad():
            self.module.encoder.weight *= torch.as_tensor(per_gene[: len(self.var_names)] % 7)
        super().train(*args, **kwargs)


@caught_by("trains_on_integers")
class NeedsFloats(FaultyModel):
    def train(self, *args, **kwargs):
        if self.adata.X.dtype.kind != "f":
            raise TypeError("expected floats")
        super().train(*args, **kwargs)


class _DividesByDepth(LinearModule):
    def inference(self, x):
        return super().inference(x / x.sum(1, keepdim=True))


@caught_by("empty_cells")
class DividesByDepth(FaultyModel):
    _module_cls = _DividesByDepth


class _RaisesToAPower(LinearModule):
    def inference(self, x):
        return super().inference(x**9)


@caught_by("depths_from_one_to_a_million")
class Overflows(FaultyModel):
    _module_cls = _RaisesToAPower


@caught_by("silent_and_constant_genes")
class DividesBySpread(FaultyModel):
    def train(self, *args, **kwargs):
        spread = np.asarray(self.adata.X.toarray()).std(0)
        with torch.no_grad():
            self.module.encoder.weight /= torch.as_tensor(spread)
        super().train(*args, **kwargs)


@caught_by("trains_on_csr", "query_without_columns")
class GivesNaN(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        return super().get_latent_representation(adata, indices, batch_size) * np.nan


# --- batches -------------------------------------------------------------------------------------


@caught_by("batches_with_one_left_over")
class UsesTheSplitterOfScviTools(FaultyModel):
    class _data_splitter_cls(DataSplitter):
        def __init__(self, manager, seed=None, **kwargs):
            super().__init__(manager, **{**kwargs, "train_size": kwargs["train_size"] or 1.0})


class _EmptyLast(BatchSampler):
    def __len__(self):
        return super().__len__() + (self.n_obs % self.batch_size == 0)

    def __iter__(self):
        yield from super().__iter__()
        if self.n_obs % self.batch_size == 0:
            yield []


@caught_by("batches_that_fit")
class AddsAnEmptyBatch(FaultyModel):
    class _data_splitter_cls(ZooDataSplitter):
        def train_dataloader(self):
            loader = super().train_dataloader()
            loader.sampler.__class__ = _EmptyLast
            return loader


class _FixedBatch(LinearModule):
    def loss(self, tensors, *args, **kwargs):
        if len(tensors["X"]) != 16:
            raise RuntimeError("shapes do not match")
        return super().loss(tensors, *args, **kwargs)


@caught_by(
    "batches_with_two_left_over",
    "batch_larger_than_the_data",
    "validation_cells",
)
class NeedsFullBatches(FaultyModel):
    _module_cls = _FixedBatch


# --- categories ----------------------------------------------------------------------------------


@caught_by("query_without_columns", "missing_categories_in_a_query", "unseen_categories")
class NeedsAKnownBatch(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        self._require_trained()
        data = self.adata if adata is None else adata
        known = self.registry_["field_registries"]["batch"]["state_registry"]
        if not set(data.obs["batch"]) <= set(known["categorical_mapping"]):
            raise ValueError("Category not found in source registry.")
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("kinds_of_categories")
class NeedsCategoriesOfText(FaultyModel):
    @classmethod
    def _check_setup(cls, adata, *, categorical_keys=(), **kwargs):
        super()._check_setup(adata, categorical_keys=categorical_keys, **kwargs)
        for key in categorical_keys:
            if key is not None:
                adata.obs[key].str.strip()
