"""Shared fixtures: real data where they are, a small model that keeps the zoo's contract."""

from __future__ import annotations

import os
from pathlib import Path

# one thread per process: on shared machines more threads cost an order of magnitude
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "scvi" in sys.modules:
        sys.modules["scvi"].settings.seed = 0


@pytest.fixture(scope="session")
def shared_data():
    """Return the path of a file of the shared data, or skip naming it."""

    def find(name: str) -> Path:
        for folder in (os.environ.get("SCZOO_DATA_DIR"), SHARED):
            if folder and (Path(folder) / name).exists():
                return Path(folder) / name
        pytest.skip(f"needs the shared data file {name} (set SCZOO_DATA_DIR to its folder)")

    return find


@pytest.fixture(scope="session")
def toy_class():
    """Return the smallest model that keeps the contract: a linear autoencoder of log counts."""
    import torch
    from scvi.data.fields import CategoricalObsField, LayerField
    from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
    from scvi.train import TrainingPlan

    from sczoo.base import ZooModelClass

    class ToyModule(BaseModuleClass):
        def __init__(self, n_input: int, n_latent: int) -> None:
            super().__init__()
            self.encoder = torch.nn.Linear(n_input, n_latent)
            self.decoder = torch.nn.Linear(n_latent, n_input)

        def _get_inference_input(self, tensors, **kwargs):
            return {"x": tensors["X"]}

        @auto_move_data
        def inference(self, x):
            return {"z": self.encoder(torch.log1p(x))}

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
            raise AttributeError("the toy does not sample")

    class ToyModel(ZooModelClass):
        _method = "toy"
        _module_cls = ToyModule
        _training_plan_cls = TrainingPlan

        def __init__(self, adata=None, registry=None, n_latent: int = 4) -> None:
            super().__init__(adata, registry)
            self.module = self._build_module(n_input=len(self.var_names), n_latent=n_latent)
            self._finish_init(locals())

        @classmethod
        def setup_anndata(cls, adata, *, layer=None, batch_key=None, **kwargs):
            setup_locals = locals()
            cls._check_setup(adata, layer=layer, categorical_keys=[batch_key])
            fields = [
                LayerField("X", layer, is_count_data=False),
                CategoricalObsField("batch", batch_key),
            ]
            cls._register(adata, fields, setup_locals, **kwargs)

        def train(self, max_epochs=2, batch_size=64, accelerator="cpu", devices=1, **kwargs):
            kwargs.setdefault("enable_progress_bar", False)
            self._train(
                max_epochs=max_epochs,
                batch_size=batch_size,
                accelerator=accelerator,
                devices=devices,
                **kwargs,
            )

        def get_latent_representation(self, adata=None, indices=None, batch_size=None):
            self._require_trained()
            parts = [
                self.module.inference(batch["X"])["z"].detach().cpu().numpy()
                for batch in self._iter_batches(adata, indices, batch_size)
            ]
            return np.concatenate(parts) if parts else np.zeros((0, 4), dtype=np.float32)

    return ToyModel


@pytest.fixture
def counts():
    """Return an AnnData of 150 cells, 40 genes: Poisson counts in CSR, two batches."""
    from anndata import AnnData
    from scipy import sparse

    rng = np.random.default_rng(0)
    profile = rng.gamma(0.5, 2.0, size=(3, 40))
    kind = rng.integers(3, size=150)
    adata = AnnData(sparse.csr_matrix(rng.poisson(profile[kind] * 2).astype(np.float32)))
    adata.var_names = [f"GENE{i}" for i in range(40)]
    adata.obs_names = [f"cell{i}" for i in range(150)]
    adata.obs["batch"] = np.where(rng.random(150) < 0.5, "donor_a", "donor_b")
    adata.obs["cell_type"] = [f"type{k}" for k in kind]
    return adata
