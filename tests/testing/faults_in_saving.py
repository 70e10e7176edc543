"""Faults in what is saved, and in loading it."""

from __future__ import annotations

import os
import shutil
from unittest import mock

import numpy as np
import torch
from faults import FaultyModel, caught_by, scale_weights
from zoo_toys import LinearModule

from sczoo.errors import ArtefactError

# --- saved models --------------------------------------------------------------------------------


@caught_by("saved_without_donors_and_categories")
class SavesDonors(FaultyModel):
    _saved_attributes = ("donors_",)

    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.donors_ = sorted(set(self.adata.obs["donor"]))


@caught_by("saved_without_barcodes", "attributes_are_plain", "release_gate")
class SavesBarcodes(FaultyModel):
    _saved_attributes = ("cells_",)

    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.cells_ = [str(name) for name in self.adata.obs_names[:40]]


@caught_by("saved_without_donors_and_categories")
class HidesDonorsInTheWeights(FaultyModel):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        names = "|".join(sorted(set(self.adata.obs["donor"])))
        hidden = torch.frombuffer(bytearray(names.encode("utf-16-le")), dtype=torch.uint8)
        self.module.register_buffer("hidden", hidden)


@caught_by("saved_without_history")
class SavesHistory(FaultyModel):
    _saved_attributes = ("losses",)

    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.losses = {name: frame.iloc[:, 0].tolist() for name, frame in self.history.items()}


@caught_by("saved_without_history")
class HidesACurveUnderAnotherName(FaultyModel):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.domain["quantiles"] = self.history["train_loss"].iloc[:, 0].tolist()


@caught_by("saved_without_history")
class HidesACurveInTheWeights(FaultyModel):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        curve = torch.as_tensor(self.history["elbo_train"].to_numpy(dtype="float32"))
        self.module.register_buffer("calibration", curve.flatten())


@caught_by("saved_without_values_per_cell")
class SavesOneValuePerCell(FaultyModel):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.module.register_buffer("totals", torch.as_tensor(self.adata.X.sum(1)).flatten())


@caught_by("selftest_cells_are_synthetic")
class TestsItselfOnPatients(FaultyModel):
    def save(self, dir_path, overwrite=False, *, include_categories=()):
        patients = self.adata.X[:32].toarray().astype(np.uint16)
        with mock.patch("sczoo.base._persistence.selftest_cells", return_value=patients):
            super().save(dir_path, overwrite, include_categories=include_categories)


@caught_by("categories_by_name_only")
class SavesNoCategoriesEver(FaultyModel):
    def save(self, dir_path, overwrite=False, *, include_categories=()):
        super().save(dir_path, overwrite)


@caught_by("categories_by_name_only", "saved_without_donors_and_categories")
class SavesAllCategories(FaultyModel):
    def save(self, dir_path, overwrite=False, *, include_categories=()):
        super().save(dir_path, overwrite, include_categories=("batch", "cell_type"))


@caught_by("never_unpickles")
class SavesWithTorch(FaultyModel):
    def save(self, dir_path, overwrite=False, *, include_categories=()):
        super().save(dir_path, overwrite, include_categories=include_categories)
        torch.save({}, os.path.join(dir_path, "model.pt"))


class _HalfSaved(LinearModule):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("shift", torch.zeros(1), persistent=False)

    def inference(self, x):
        return {"z": super().inference(x)["z"] + self.shift}


@caught_by(
    "save_and_load",
    "selftest",
    "fresh_process_loads",
    "published_model_loads_by_name",
    "mudata_trains",
)
class SavesHalfOfItsState(FaultyModel):
    _module_cls = _HalfSaved

    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.module.shift += 3


@caught_by("save_and_load", model_kwargs={"n_latent": 4, "scale": 2.0})
class ForgetsItsArguments(FaultyModel):
    def __init__(self, adata=None, registry=None, n_latent: int = 4, scale: float = 1.0) -> None:
        super().__init__(adata, registry, n_latent)
        self.scale = scale


@caught_by("load_without_data")
class InventsCellsOnLoad(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        if adata is None and self.adata is None:
            return np.zeros((0, 4), dtype=np.float32)
        return super().get_latent_representation(adata, indices, batch_size)


@caught_by("load_refuses_other_genes")
class AttachesAnyGenes(FaultyModel):
    def _attach(self, adata):
        super()._attach(self.prepare_query_anndata(adata, self))


@caught_by("save_refuses_to_overwrite")
class AlwaysOverwrites(FaultyModel):
    def save(self, dir_path, overwrite=False, *, include_categories=()):
        super().save(dir_path, True, include_categories=include_categories)


@caught_by("altered_files_are_refused")
class LoadsWhateverIsThere(FaultyModel):
    last = None

    def save(self, dir_path, overwrite=False, *, include_categories=()):
        super().save(dir_path, overwrite, include_categories=include_categories)
        type(self).last = str(dir_path) + "-copy"
        shutil.copytree(dir_path, type(self).last)

    @classmethod
    def load(cls, dir_path, adata=None, accelerator="auto", device="auto"):
        try:
            return super().load(dir_path, adata, accelerator, device)
        except ArtefactError:
            return super().load(cls.last, adata, accelerator, device)


@caught_by("fresh_process_trains_equally")
class DependsOnTheHashSeed(FaultyModel):
    def train(self, *args, **kwargs):
        scale_weights(self, 1 + hash("any text") % 1009)
        super().train(*args, **kwargs)
