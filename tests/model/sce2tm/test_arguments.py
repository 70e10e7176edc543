"""Constructor arguments: refused when they make no sense, kept when presets change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sczoo.errors import InputError
from sczoo.model import SCE2TM

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"n_hidden": 0},
        {"n_embedding": -3},
        {"n_topics": 1},
        {"n_topics": 2.5},
        {"n_topics": "abc"},
        {"n_topics": True},
        {"ecr_weight": -1},
        {"prior_weight": "heavy"},
        {"guidance_weight": float("nan")},
        {"dropout_rate": 7},
        {"dropout_rate": 1.0},
        {"preset": "best"},
        {"guidance": "stars"},
    ],
)
def test_senseless_arguments_are_named(counts, arguments):
    SCE2TM.setup_anndata(counts)
    (name,) = arguments
    with pytest.raises(InputError, match=name):
        SCE2TM(counts, **{"n_topics": 4, **arguments})


def test_a_saved_model_outlives_its_preset(counts, tmp_path, monkeypatch):
    import sczoo.model.sce2tm._model as model_file
    import sczoo.model.sce2tm._module as module_file

    default = model_file.PRESETS["default"]
    small = dataclasses.replace(default, n_topics=5)
    other = dataclasses.replace(
        default, n_topics=7, n_hidden=9, n_embedding=11, prior_weight=3.0, ecr_weight=1.0
    )
    for file in (model_file, module_file):
        monkeypatch.setattr(file, "PRESETS", {**file.PRESETS, "default": small})
    SCE2TM.setup_anndata(counts)
    model = SCE2TM(counts)
    model.train(**QUIET)
    model.save(tmp_path / "model")
    for file in (model_file, module_file):
        monkeypatch.setattr(file, "PRESETS", {**file.PRESETS, "default": other})
    loaded = SCE2TM.load(tmp_path / "model", accelerator="cpu")
    assert loaded.module.n_topics == 5
    assert loaded.module.prior_weight == default.prior_weight
    assert loaded.module.ecr_weight == default.ecr_weight
    np.testing.assert_array_equal(
        loaded.get_latent_representation(counts), model.get_latent_representation()
    )
