"""Checks of fine-tuning a trained model on a new patient's cells."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo import _compat
from sczoo.testing._case import weights_of
from sczoo.testing._expect import require, require_close, require_equal, require_finite
from sczoo.testing._snapshot import Snapshot

if TYPE_CHECKING:
    from sczoo.testing._case import ModelCase


def _patient(case: ModelCase) -> Any:
    """Return a new patient: genes in another order, some missing, categories never seen."""
    cells = case.query()
    order = np.random.default_rng(8).permutation(cells.n_vars)
    cells = cells[:, order[: -max(1, cells.n_vars // 12)]].copy()
    for column in case.category_columns:
        if column != case.setup_kwargs.get("labels_key"):
            cells.obs[column] = "never-seen-before"
    return cells


def check_fine_tuning(case: ModelCase) -> None:
    """Fine-tune on a new patient; the reference and the patient's data stay as they were."""
    patient = _patient(case)
    before, weights = Snapshot(patient), weights_of(case.model)
    tuned = case.model_class.load_query_data(patient, case.model, accelerator="cpu")
    require_close(
        case.embed(tuned, case.query(bare=True)),
        case.latent,
        "The model before fine-tuning, and the reference",
    )
    case.train(tuned)
    require_finite(case.embed(tuned), patient.n_obs, "The result of the fine-tuned model")
    require_finite(case.embed(tuned, patient), patient.n_obs, "The result for the patient")
    before.require_unchanged("Fine-tuning")
    for name, weight in weights_of(case.model).items():
        require_equal(weight, weights[name], f"Fine-tuning changed the reference's {name!r}")


def check_fine_tuning_from_a_folder(case: ModelCase) -> None:
    """Fine-tune a saved model, on cells without any column in ``obs`` but the labels."""
    query = case.query(bare=True)
    labels = case.setup_kwargs.get("labels_key")
    if labels is not None:
        query.obs[labels] = case.query().obs[labels].to_numpy()
    tuned = case.model_class.load_query_data(query, case.saved, accelerator="cpu")
    case.train(tuned)
    require_finite(case.embed(tuned), query.n_obs, "The result of the fine-tuned model")


def check_fine_tuned_models_are_released(case: ModelCase) -> None:
    """Require that a fine-tuned model that is let go takes its patient's cells with it."""

    def tune() -> tuple[Any, Any]:
        model = case.model_class.load_query_data(_patient(case), case.model, accelerator="cpu")
        return weakref.ref(model), weakref.ref(model.adata)

    tune()
    gc.collect()
    held = _compat.managers_held(case.model_class)
    alive = [reference for _ in range(3) for reference in tune()]
    gc.collect()
    kept = sum(reference() is not None for reference in alive)
    require(not kept, f"{kept} of {len(alive)} objects of fine-tuned models are still in memory.")
    now = _compat.managers_held(case.model_class)
    require(now == held, f"scvi-tools holds {now - held} more objects after three models.")


def check_prepared_query(case: ModelCase) -> None:
    """Prepare a query with the model's genes and its own annotation, which gives equal results."""
    patient = _patient(case)
    patient.obsm["X_something"] = np.ones((patient.n_obs, 2))
    prepared = case.model_class.prepare_query_anndata(patient, case.model)
    require(
        list(prepared.var_names) == list(case.model.var_names),
        "The prepared query has other genes than the model, or another order.",
    )
    require(
        prepared.obs_names.equals(patient.obs_names),
        "The prepared query has other cells than the query.",
    )
    require(not prepared.is_view, "The prepared query is a view.")
    for column in patient.obs.columns:
        same = pd.Series(patient.obs[column]).astype(str) == prepared.obs[column].astype(str)
        require(bool(same.all()), f"obs[{column!r}] was not kept.")
    require("X_something" in prepared.obsm, "obsm was not kept.")
    found, given = case.matrix(prepared), case.matrix(patient)
    require(
        found.dtype == given.dtype and type(found) is type(given),
        f"The matrix became {type(found).__name__} of {found.dtype}, "
        f"it was {type(given).__name__} of {given.dtype}.",
    )
    require_close(
        case.embed(case.model, prepared),
        case.embed(case.model, patient),
        "A query prepared first, or passed directly",
    )
