"""A small SCDD, trained once for the tests that only look at it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
SMALL = {"n_latent": 8, "n_hidden": 64, "denoiser_hidden": 64, "denoiser_layers": 2}
SHORT = {"max_epochs": 40, "max_steps_diffusion": 500, "max_steps_student": 400}


def make_cells(n_cells=400, seed=0, n_kinds=5):
    """Cells of five kinds, with overlapping profiles, negative binomial noise and two batches."""
    from anndata import AnnData
    from scipy import sparse

    profile = np.random.default_rng(5).gamma(0.5, 1.0, size=(n_kinds, 80)) + 0.02
    profile = 0.7 * profile + 0.3 * profile.mean(axis=0)
    profile /= profile.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    kind = np.arange(n_cells) % n_kinds
    batch = rng.random(n_cells) < np.where(kind == 0, 0.8, 0.3)
    depth = rng.lognormal(np.log(300), 0.4, n_cells)
    mean = profile[kind] * depth[:, None]
    counts = rng.poisson(rng.gamma(2.0, mean / 2.0)).astype(np.float32)
    counts[:, 0] += 1
    adata = AnnData(sparse.csr_matrix(counts))
    adata.var_names = [f"GENE{i}" for i in range(80)]
    adata.obs_names = [f"cell-of-{seed}-number-{i}" for i in range(n_cells)]
    adata.obs["label"] = pd.Categorical([f"kind {k}" for k in kind])
    adata.obs["site"] = pd.Categorical(np.where(batch, "north", "south"))
    adata.obs["donor"] = pd.Categorical([f"d{k % 3}" for k in kind])
    adata.obsm["X_outside"] = (
        np.eye(n_kinds)[kind] @ np.random.default_rng(6).normal(size=(n_kinds, 12))
        + 0.3 * rng.normal(size=(n_cells, 12))
    ).astype(np.float32)
    return adata


@pytest.fixture
def cells():
    return make_cells()


@pytest.fixture(scope="session")
def new_cells():
    return make_cells


def fit(adata, *, setup=None, train=None, **kwargs):
    import scvi

    from sczoo.model import SCDD
    from sczoo.testing._quiet import seeded

    with seeded(0):
        assert scvi.settings.seed == 0
        SCDD.setup_anndata(adata, labels_key="label", **(setup or {}))
        model = SCDD(adata, **{**SMALL, **kwargs})
        model.train(**{**SHORT, **QUIET, **(train or {})})
    return model


@pytest.fixture(scope="session")
def train_scdd():
    """Train a small SCDD on some cells."""
    return fit


@pytest.fixture(scope="session")
def model():
    """A trained model with batches; tests must not change it."""
    return fit(make_cells(), setup={"batch_key": "site"})
