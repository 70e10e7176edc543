"""Small cells, quickly trained private models."""

from __future__ import annotations

import numpy as np
import pytest

QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


@pytest.fixture
def cells():
    from sczoo.testing._cells import example_cells

    adata = example_cells(240, seed=2)
    adata.obs["donor"] = [f"person-{i % 24}" for i in range(240)]
    return adata


@pytest.fixture
def fit(cells):
    """Set up, build and train; arguments of the constructor, or of train in `train`."""

    def fitted(adata=None, *, donor_key=None, train=None, **arguments):
        from sczoo.model import DPDCAN

        data = (cells if adata is None else adata).copy()
        DPDCAN.setup_anndata(data, donor_key=donor_key)
        model = DPDCAN(data, **({"n_latent": 5} | arguments))
        model.train(**(QUIET | {"max_epochs": 3, "batch_size": 40} | (train or {})))
        return model

    return fitted


@pytest.fixture
def known_noise():
    """Return a source of noise that tests can repeat."""
    from sczoo.privacy import NoiseSource

    return lambda seed=0: NoiseSource(_generator=np.random.default_rng(seed))
