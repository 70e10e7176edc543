"""Checks that a saved model comes back as it was, with or without data, in any process."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo import _compat
from sczoo.base import read_artefact
from sczoo.base._persistence import run_selftest
from sczoo.errors import ArtefactError, CorruptedArtefactError, InputError, SelfTestError
from sczoo.testing._case import weights_of
from sczoo.testing._expect import refuses, require, require_equal

if TYPE_CHECKING:
    from pathlib import Path

    from sczoo.testing._case import ModelCase


def _load(case: ModelCase, folder: Path | None = None, **kwargs: Any) -> Any:
    return case.model_class.load(folder or case.saved, accelerator="cpu", **kwargs)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_save_and_load(case: ModelCase) -> None:
    """Load a model with equal weights, arguments and provenance, which gives equal results."""
    loaded = _load(case)
    require_equal(case.embed(loaded, case.query(bare=True)), case.latent, "The loaded model")
    weights = weights_of(loaded)
    for name, weight in weights_of(case.model).items():
        require_equal(weights[name], weight, f"The loaded weight {name!r}")
    _require_arguments(case, _compat.flat_init_params(loaded.init_params_))
    require(loaded.provenance_ == case.model.provenance_, "The loaded provenance_ differs.")
    require(loaded.is_trained_, "The loaded model does not count as trained.")
    require(not loaded.module.training, "The loaded module is in training mode.")
    require(list(loaded.var_names) == list(case.model.var_names), "The loaded genes differ.")


def _require_arguments(case: ModelCase, loaded: dict[str, Any]) -> None:
    """Require every argument of the constructor to be known to the loaded model."""
    saved = _compat.flat_init_params(case.model.init_params_)
    require(loaded == saved, f"The loaded model has the arguments {loaded}, it had {saved}.")
    for name, parameter in inspect.signature(case.model_class.__init__).parameters.items():
        if name in ("self", "adata", "registry") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        require(
            name in loaded,
            f"The argument {name!r} of __init__ is lost: the last line of __init__ must be "
            "self._finish_init(locals()).",
        )
    for name, value in case.model_kwargs.items():
        require(
            bool(np.all(loaded.get(name) == value)),
            f"The loaded model has {name}={loaded.get(name)!r}, it was built with {value!r}.",
        )


def check_load_without_data(case: ModelCase) -> None:
    """Require that a model loads without data and says so when asked for its own cells."""
    loaded = _load(case)
    require(loaded.adata is None, "A model loaded without data has data.")
    with refuses(InputError, "adata", doing="Asking a model without data for its own cells"):
        case.embed(loaded)
    with refuses(InputError, doing="Training a model without data"):
        case.train(loaded)


def check_load_with_data(case: ModelCase) -> None:
    """Load with data, also of categories never seen, which can be trained on."""
    cells = case.query()
    for column in case.category_columns:
        if column != case.setup_kwargs.get("labels_key"):
            cells.obs[column] = pd.Categorical(["never-seen-before"] * cells.n_obs)
    loaded = _load(case, adata=cells)
    require_equal(case.embed(loaded), case.embed(_load(case), cells), "Results of the data given")
    case.train(loaded)


def check_load_refuses_other_genes(case: ModelCase) -> None:
    """Refuse to attach data whose genes are in another order or incomplete."""
    cells = case.cells()
    order = np.r_[1, 0, 2 : cells.n_vars]
    for wrong in (cells[:, order].copy(), cells[:, 1:].copy()):
        with refuses(InputError, "genes", doing="Attaching data with other genes"):
            _load(case, adata=wrong)


def check_save_refuses_to_overwrite(case: ModelCase) -> None:
    """Refuse an existing folder with ``overwrite=False``, leave it alone; ``True`` replaces it."""
    folder = case.folder / "twice"
    case.model.save(folder)
    before = _content(folder)
    with refuses(ArtefactError, "twice", doing="Saving into an existing folder"):
        case.model.save(folder)
    require(_content(folder) == before, "A refused save changed the folder.")
    case.model.save(folder, overwrite=True)
    require(_content(folder) == before, "Saving the same model twice gives different files.")


def check_selftest(case: ModelCase) -> None:
    """Agree with the stored self-test, which does not agree for other weights."""
    artefact = read_artefact(case.saved)
    loaded = _load(case)
    difference = run_selftest(loaded, artefact)
    require(difference is not None, "The saved model has no self-test.")
    other = case.fit(seed=12345)
    if not all(np.array_equal(w, weights_of(other)[n]) for n, w in weights_of(loaded).items()):
        with refuses(SelfTestError, doing="The self-test of a model with other weights"):
            run_selftest(other, artefact)


def check_altered_files_are_refused(case: ModelCase) -> None:
    """Require that a saved model of which one byte was changed does not load."""
    for name in sorted(_content(case.saved)):
        folder = case.folder / f"altered-{name}"
        case.model.save(folder)
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(bytes(content))
        with refuses(ArtefactError, doing=f"Loading with an altered {name}"):
            _load(case, folder)
        (folder / name).unlink()
        with refuses(CorruptedArtefactError, doing=f"Loading without {name}"):
            _load(case, folder)


def check_fresh_process_loads(case: ModelCase) -> None:
    """Require that a fresh process loads the saved model and gives equal results."""
    require_equal(case.fresh.latent(), case.latent, "The saved model in a fresh process")
