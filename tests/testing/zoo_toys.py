"""Small models to check the battery with: one that keeps the contract, many that break it.

They live in a module of their own because a fresh process must be able to import them by name.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scvi.data import fields
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from scvi.train import TrainingPlan

from sczoo.base import ZooModelClass
from sczoo.base._checks import check_input


class LinearModule(BaseModuleClass):
    """A linear autoencoder of log counts."""

    def __init__(self, n_input: int, n_latent: int) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(n_input, n_latent)
        self.norm = torch.nn.BatchNorm1d(n_latent)
        self.decoder = torch.nn.Linear(n_latent, n_input)

    def _get_inference_input(self, tensors, **kwargs):
        return {"x": tensors["X"]}

    @auto_move_data
    def inference(self, x):
        return {"z": self.norm(self.encoder(torch.log1p(x)))}

    def _get_generative_input(self, tensors, inference_outputs, **kwargs):
        return {"z": inference_outputs["z"]}

    @auto_move_data
    def generative(self, z):
        return {"log_x": self.decoder(z)}

    def loss(self, tensors, inference_outputs, generative_outputs, **kwargs):
        error = (generative_outputs["log_x"] - torch.log1p(tensors["X"])) ** 2
        per_cell = error.sum(1)
        return LossOutput(
            loss=per_cell.mean(),
            reconstruction_loss=per_cell,
            kl_local=torch.zeros_like(per_cell),
        )

    def sample(self, *args, **kwargs):
        raise AttributeError("a linear autoencoder does not sample")


class ToyLinear(ZooModelClass):
    """A linear autoencoder with batch normalisation that keeps the zoo's contract.

    Parameters
    ----------
    adata
        Data that went through ``setup_anndata``.
    registry
        Registry of a saved model.
    n_latent
        Number of latent dimensions.
    """

    _method = "toy_linear"
    _module_cls = LinearModule
    _training_plan_cls = TrainingPlan
    _summary = "A linear autoencoder of log counts, to test the battery with"
    _citation: ClassVar = [
        {"text": "On lines and planes of closest fit", "doi": "10.1080/14786440109462720"}
    ]

    def __init__(self, adata=None, registry=None, n_latent: int = 4) -> None:
        super().__init__(adata, registry)
        self.module = self._build_module(n_input=len(self.var_names), n_latent=n_latent)
        self._finish_init(locals())

    @classmethod
    def setup_anndata(cls, adata, *, layer=None, batch_key=None, labels_key=None, **kwargs):
        """Register the expression, the batch and the labels of `adata`."""
        setup_locals = locals()
        cls._check_setup(adata, layer=layer, categorical_keys=[batch_key, labels_key])
        registered = [
            fields.LayerField("X", layer, is_count_data=False),
            fields.CategoricalObsField("batch", batch_key),
            fields.CategoricalObsField("labels", labels_key),
        ]
        cls._register(adata, registered, setup_locals, **kwargs)

    @classmethod
    def setup_mudata(
        cls, mdata, *, layer=None, batch_key=None, labels_key=None, modalities=None, **kwargs
    ):
        """Register the expression, the batch and the labels of a modality of `mdata`."""
        setup_locals = locals()
        names = cls._modalities(mdata, modalities, setup_locals)
        keys = [
            (key, names[name])
            for name, key in (("batch_key", batch_key), ("labels_key", labels_key))
        ]
        check_input(
            mdata.mod[names.layer],
            layer=layer,
            categorical_keys=[k for k, place in keys if k and place == names.layer],
        )
        registered = [
            fields.MuDataLayerField("X", layer, mod_key=names.layer, is_count_data=False),
            fields.MuDataCategoricalObsField("batch", batch_key, mod_key=names.batch_key),
            fields.MuDataCategoricalObsField("labels", labels_key, mod_key=names.labels_key),
        ]
        cls._register(mdata, registered, setup_locals, **kwargs)

    def train(self, max_epochs=2, batch_size=64, accelerator="cpu", devices=1, **kwargs):
        """Train with Adam."""
        self._train(
            max_epochs=max_epochs,
            batch_size=batch_size,
            accelerator=accelerator,
            devices=devices,
            **kwargs,
        )

    @torch.inference_mode()
    def get_latent_representation(self, adata=None, indices=None, batch_size=None):
        """Return the latent representation, shape ``(n_cells, n_latent)``."""
        self._require_trained()
        parts = [
            self.module.inference(batch["X"])["z"].cpu().numpy()
            for batch in self._iter_batches(adata, indices, batch_size)
        ]
        empty = np.zeros((0, self.module.norm.num_features), dtype=np.float32)
        return np.concatenate([empty, *parts])
