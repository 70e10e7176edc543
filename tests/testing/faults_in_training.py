"""Faults in random numbers, training, fine-tuning and what a class says about itself."""

from __future__ import annotations

import os
import random

import numpy as np
import torch
from faults import FaultyModel, caught_by, scale_weights
from scvi.data import fields

# --- random numbers ------------------------------------------------------------------------------


@caught_by("global_random_state_is_ignored", "callers_random_state_is_untouched")
class DrawsFromGlobalNumpy(FaultyModel):
    def __init__(self, adata=None, registry=None, n_latent: int = 4) -> None:
        super().__init__(adata, registry, n_latent)
        scale_weights(self, 1 + np.random.rand())  # noqa: NPY002
        self._finish_init(locals())


@caught_by("global_random_state_is_ignored", "callers_random_state_is_untouched")
class DrawsFromPython(FaultyModel):
    def train(self, *args, **kwargs):
        scale_weights(self, 1 + random.random())
        super().train(*args, **kwargs)


@caught_by("callers_random_state_is_untouched")
class SeedsTheCallersGenerators(FaultyModel):
    def train(self, *args, **kwargs):
        torch.manual_seed(0)
        super().train(*args, **kwargs)


@caught_by("same_seed_same_weights", "recorded_seed_repeats_the_run")
class DrawsFromTheSystem(FaultyModel):
    def train(self, *args, **kwargs):
        # six bytes: with one, two runs in 256 would agree and the fault could not be found
        scale_weights(self, 1 + int.from_bytes(os.urandom(6), "big") / 2**48)
        super().train(*args, **kwargs)


@caught_by("recorded_seed_repeats_the_run")
class ForgetsTheSeedItDrew(FaultyModel):
    def _seed(self):
        from scvi import settings

        return (
            settings.seed if settings.seed is not None else random.SystemRandom().getrandbits(30)
        )


@caught_by("inference_repeats", "order_of_indices", "a_view_as_query")
class SamplesAtInference(FaultyModel):
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        latent = super().get_latent_representation(adata, indices, batch_size)
        return latent + torch.randn(latent.shape).numpy()


# --- training ------------------------------------------------------------------------------------


@caught_by("needs_training_first")
class AnswersUntrained(FaultyModel):
    def _require_trained(self):
        pass


@caught_by("history")
class KeepsNoHistory(FaultyModel):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.history_ = None


@caught_by("provenance", "saved_without_barcodes")
class RecordsBarcodes(FaultyModel):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        del self.provenance_["data_sha256"]
        self.provenance_["first_cell"] = str(self.adata.obs_names[0])


@caught_by("training_goes_on")
class TrainsOnce(FaultyModel):
    def train(self, *args, **kwargs):
        if self.is_trained_:
            raise RuntimeError("already trained")
        super().train(*args, **kwargs)


@caught_by("interrupt_keeps_the_model")
class ForgetsWhenInterrupted(FaultyModel):
    def train(self, *args, **kwargs):
        try:
            super().train(*args, **kwargs)
        except KeyboardInterrupt:
            self.is_trained_ = False


@caught_by("evaluation_mode", "batch_size_changes_nothing")
class StaysInTrainingMode(FaultyModel):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        self.module.train()


# --- fine-tuning ---------------------------------------------------------------------------------


@caught_by("fine_tuning")
class SharesWeightsWhenFineTuned(FaultyModel):
    @classmethod
    def load_query_data(cls, adata, reference_model, **kwargs):
        model = super().load_query_data(adata, reference_model, **kwargs)
        model.module = getattr(reference_model, "module", model.module)
        return model


@caught_by("fine_tuned_models_are_released")
class KeepsFineTunedModels(FaultyModel):
    made: list = []  # noqa: RUF012 - the fault

    @classmethod
    def load_query_data(cls, adata, reference_model, **kwargs):
        cls.made.append(super().load_query_data(adata, reference_model, **kwargs))
        return cls.made[-1]


@caught_by("fine_tuning_from_a_folder", "load_with_data")
class AttachesKnownCategoriesOnly(FaultyModel):
    _optional_setup_keys = ()

    @classmethod
    def setup_anndata(
        cls,
        adata,
        *,
        layer=None,
        batch_key=None,
        labels_key=None,
        extend_categories=False,
        **kwargs,
    ):
        kwargs.pop("extend_categories", None)
        super().setup_anndata(
            adata, layer=layer, batch_key=batch_key, labels_key=labels_key, **kwargs
        )


# --- declaration ---------------------------------------------------------------------------------


@caught_by("describes_itself", "card_renders_and_validates")
class SaysNothingAboutItself(FaultyModel):
    _summary = ""
    _citation = ()


@caught_by("docstrings")
class LeavesAPlaceholder(FaultyModel):
    def train(self, *args, **kwargs):
        """Train the model with %(param_adata)s."""
        super().train(*args, **kwargs)


@caught_by("docstrings")
class LeavesAMethodUndocumented(FaultyModel):
    def something_new(self):
        return 1


@caught_by("class_name_is_unique")
class SCVI(FaultyModel):
    """A class of a name that scvi-tools has."""


@caught_by("arguments")
class NeedsDataToLoad(FaultyModel):
    def __init__(self, adata, registry=None, n_latent: int = 4) -> None:
        super().__init__(adata, registry, n_latent)


@caught_by("needs_setup_first")
class FailsObscurelyWithoutSetup(FaultyModel):
    def __init__(self, adata=None, registry=None, n_latent: int = 4) -> None:
        if adata is not None:
            adata.uns["_scvi_uuid"]
        super().__init__(adata, registry, n_latent)
        self._finish_init(locals())


@caught_by("main_matrix_is_x")
class RegistersAnotherName(FaultyModel):
    @classmethod
    def setup_anndata(cls, adata, *, layer=None, **kwargs):
        """Register the expression under another name."""
        setup_locals = locals()
        field = fields.LayerField("expression", layer, is_count_data=False)
        cls._register(adata, [field], setup_locals, **kwargs)


@caught_by("attributes_are_plain")
class HasAPropertyThatCannotBeLoaded(FaultyModel):
    @property
    def loading_(self):
        """Loadings of the first gene."""
        return 1.0


@caught_by("mudata_trains", "mudata_is_checked")
class ReadsTheWrongModality(FaultyModel):
    @classmethod
    def setup_mudata(
        cls, mdata, *, layer=None, batch_key=None, labels_key=None, modalities=None, **kwargs
    ):
        """Register whatever modality comes last."""
        setup_locals = locals()
        last = list(mdata.mod)[-1] if hasattr(mdata, "mod") else "rna"
        field = fields.MuDataLayerField("X", layer, mod_key=last, is_count_data=False)
        cls._register(mdata, [field], setup_locals, **kwargs)
