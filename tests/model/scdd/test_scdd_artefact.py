"""An atlas of twenty types fits into an e-mail, whatever the emission."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from sczoo.model import SCDD
from sczoo.model.scdd import exact_copies, save_dataset
from sczoo.testing._quiet import seeded

N_TYPES, N_GENES = 20, 2000


@pytest.fixture(scope="module")
def atlas():
    rng = np.random.default_rng(0)
    common = rng.gamma(0.3, 1.0, N_GENES)
    profiles = common * rng.lognormal(0.0, 0.8, (N_TYPES, N_GENES))
    profiles /= profiles.sum(axis=1, keepdims=True)
    kind = np.arange(N_TYPES * 60) % N_TYPES
    depth = rng.lognormal(np.log(3000), 0.4, len(kind))
    counts = rng.poisson(rng.gamma(2.0, profiles[kind] * depth[:, None] / 2.0))
    adata = AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.obs["cell_type"] = pd.Categorical([f"type {k}" for k in kind])
    adata.obs_names = [f"cell-{number}" for number in range(len(kind))]
    return adata


@pytest.fixture(scope="module")
def model(atlas):
    with seeded(0):
        SCDD.setup_anndata(atlas, labels_key="cell_type")
        model = SCDD(atlas)
        model.train(
            8,
            max_steps_diffusion=60,
            max_steps_student=40,
            accelerator="cpu",
            devices=1,
            enable_progress_bar=False,
        )
    return model


@pytest.mark.slow
@pytest.mark.parametrize("emission", ["mode", "typical", "level", "mixed", "half", "nb"])
def test_twenty_types_at_ten_cells_are_less_than_a_megabyte(model, atlas, emission, tmp_path):
    """Counts of a droplet experiment: 3,000 a cell, of which the emissions show most."""
    small = model.distill(10, init="pools", pool_weight=0.5, matching="none", emission=emission)
    assert small.n_obs == 10 * N_TYPES
    assert not exact_copies(small.X, atlas.X).any()
    folder = save_dataset(small, tmp_path / "atlas")
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 1_000_000, f"{size:,} bytes"
