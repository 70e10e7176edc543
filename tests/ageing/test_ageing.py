"""What earlier versions wrote is still read, and still says the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from packaging.version import Version
from scipy import sparse

import sczoo
from sczoo import hub

FOLDER = Path(__file__).parent
RELEASES = sorted((path.parent for path in FOLDER.glob("*/cells.npz")), key=lambda p: p.name)
SAVED = sorted(path.parent for path in FOLDER.glob("*/*/said.npz"))


def _release():
    spec = importlib.util.spec_from_file_location("_ageing_release", FOLDER / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells_of(release: Path) -> AnnData:
    with np.load(release / "cells.npz", allow_pickle=False) as stored:
        cells = AnnData(sparse.csr_matrix(stored["counts"].astype(np.float32)))
        cells.var_names = stored["genes"].astype(str)
    cells.obs_names = [f"cell{number}" for number in range(cells.n_obs)]
    return cells


def test_every_method_is_kept():
    newest = max(RELEASES, key=lambda path: Version(path.name))
    kept = {path.name for path in SAVED if path.parent == newest}
    assert kept == {name.lower() for name in _release().MODELS} | {"scdd-cells"}
    assert set(_release().MODELS) == {name for name in sczoo.model.__all__ if name[0].isupper()}


@pytest.mark.parametrize("saved", SAVED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_saved_model_says_what_it_said(saved):
    now = _release().said_about(sczoo.load(saved / "model"), cells_of(saved.parent))
    with np.load(saved / "said.npz", allow_pickle=False) as stored:
        assert set(stored) <= set(now), "later versions may say more, not less"
        for key in stored:
            before = stored[key]
            if before.dtype.kind == "f":
                np.testing.assert_allclose(now[key], before, rtol=1e-5, atol=1e-5, err_msg=key)
            else:
                np.testing.assert_array_equal(now[key], before, err_msg=key)


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_registry_can_still_be_read(release):
    registry = release / "registry"
    entries = hub.read_registry(registry)[0].entries
    assert [entry.name for entry in entries] == ["sce2tm/old:1"]
    assert hub.verify("sce2tm/old:1", registry=registry).ok
    assert "still be read" in hub.card_text("sce2tm/old", registry=registry)


def test_what_was_written_holds_no_pickle():
    kept = [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".py"]
    assert kept
    assert not [path for path in kept if path.suffix in {".pt", ".pkl", ".pickle", ".joblib"}]
    assert sum(path.stat().st_size for path in kept) < 3e6
