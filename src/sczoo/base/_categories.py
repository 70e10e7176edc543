"""Categories of new data, made comparable with those of a model."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo import _compat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

MAPPING = "categorical_mapping"
ORIGINAL = "original_key"
_UNKNOWN = "unknown"


@contextmanager
def text_categories(
    registry: dict[str, Any], adata: AnnData, *, optional: set[str]
) -> Iterator[dict[str, Any]]:
    """For the time of a set-up, let the categories of `adata` and of a model all be text.

    scvi-tools sorts a model's categories together with the new ones, which fails for a mixture of
    text and numbers: a hospital that numbers its batches, or data without the column.

    Parameters
    ----------
    registry
        The model's registry; not modified.
    adata
        The new data. Its columns are put back afterwards.
    optional
        Columns that may be missing; they are filled with a category that no cell of the model
        had.

    Yields
    ------
    A copy of the registry whose categories are text.
    """
    registry = copy.deepcopy(registry)
    columns: dict[str, pd.Series | None] = {}
    for field in registry[_compat.FIELD_REGISTRIES].values():
        state = field.get(_compat.STATE_REGISTRY) or {}
        name = state.get(ORIGINAL)
        # without a column, scvi-tools registers one of its own making
        if MAPPING not in state or not isinstance(name, str) or name.startswith("_scvi_"):
            continue
        if name not in adata.obs and name not in optional:
            continue
        state[MAPPING] = np.array([str(value) for value in state[MAPPING]], dtype=object)
        columns[name] = adata.obs[name] if name in adata.obs else None
        if name not in adata.obs:
            unknown = str(state.get("unlabeled_category", _UNKNOWN))
            adata.obs[name] = pd.Categorical([unknown] * adata.n_obs)
        else:
            # missing values stay missing: the set-up refuses them
            text = adata.obs[name].astype(object).map(str, na_action="ignore")
            adata.obs[name] = pd.Categorical(text)
    try:
        yield registry
    finally:
        for name, column in columns.items():
            if column is None:
                del adata.obs[name]
            else:
                adata.obs[name] = column
