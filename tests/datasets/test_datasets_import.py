"""Importing sczoo.datasets is cheap; asking for the list stays cheap."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "scvi", "scanpy", "anndata", "h5py", "pandas", "scipy", "pooch"}


def loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(' '.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_import_loads_nothing_heavy():
    loaded = loaded_by("import sczoo.datasets")
    assert "sczoo.datasets" in loaded
    assert not loaded & (HEAVY | {"numpy", "pydantic", "yaml"})


def test_listing_loads_nothing_heavy():
    code = "import sczoo; sczoo.datasets.list_datasets(); dir(sczoo.datasets)"
    assert not loaded_by(code + "; sczoo.datasets.pbmc3k") & HEAVY


def test_loading_needs_neither_torch_nor_scvi_nor_scanpy():
    loaded = loaded_by("import sczoo; sczoo.datasets.kang_ifnb_demo()")
    assert "anndata" in loaded
    assert not loaded & {"torch", "scvi", "scanpy"}


def test_simulating_needs_neither_torch_nor_scvi_nor_scanpy():
    loaded = loaded_by("import sczoo; sczoo.datasets.simulated_cohort(n_cells=50)")
    assert not loaded & {"torch", "scvi", "scanpy"}
