"""Checks of batches, donors and labels that the model has not seen, or that are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sczoo.errors import MissingKeyError, MissingValuesError
from sczoo.testing._expect import refuses, require, require_close, require_finite
from sczoo.testing._snapshot import Snapshot

if TYPE_CHECKING:
    from sczoo.testing._case import ModelCase


def check_refuses_missing_categories_at_setup(case: ModelCase) -> None:
    """Refuse a categorical column with missing values, naming column and cell."""
    for column in case.need_categories():
        cells = case.cells()
        values = cells.obs[column].astype(object)
        values.iloc[13] = np.nan
        cells.obs[column] = values.to_numpy()
        before = Snapshot(cells)
        names = (repr(column), str(cells.obs_names[13]))
        with refuses(MissingValuesError, *names, doing=f"Setting up {column!r} with NaN"):
            case.set_up(cells)
        before.require_unchanged("Refusing missing categories")


def check_refuses_a_missing_column(case: ModelCase) -> None:
    """Refuse a set-up that names a column which does not exist."""
    for column in case.need_categories():
        cells = case.cells()
        del cells.obs[column]
        before = Snapshot(cells)
        with refuses(MissingKeyError, repr(column), doing=f"Setting up without {column!r}"):
            case.set_up(cells)
        before.require_unchanged("Refusing a missing column")


def check_kinds_of_categories(case: ModelCase) -> None:
    """Take categories as text, numbers, ordered, or with levels that no cell has."""
    columns = case.need_categories()
    for column in columns:
        values = case.cells().obs[column].astype(str)
        levels = sorted(set(values))
        kinds = {
            "text": values.astype(object).to_numpy(),
            "unused levels": pd.Categorical(values, categories=[*levels, "nobody"]),
            "ordered": pd.Categorical(values, categories=levels[::-1], ordered=True),
        }
        if column not in (case.setup_kwargs.get("labels_key"),):
            kinds["numbers"] = pd.Categorical(values).codes.astype(np.int64)
        for kind, content in kinds.items():
            cells = case.cells()
            cells.obs[column] = content
            model = case.fit(cells, train={"max_epochs": 1})
            latent = case.embed(model, case.query(bare=True))
            require_finite(latent, len(latent), f"The result with {column!r} as {kind}")


def check_unseen_categories(case: ModelCase) -> None:
    """Give finite results for batches, donors and labels that it has never seen."""
    query = case.query()
    for column in query.obs.columns:
        query.obs[column] = pd.Categorical([f"never-seen-{n % 3}" for n in range(query.n_obs)])
    latent = case.embed(case.model, query)
    require_finite(latent, query.n_obs, "The result for unseen categories")
    require_close(latent, case.latent, "Cells with unseen categories, and with none")


def check_query_without_columns(case: ModelCase) -> None:
    """Give finite results for a query without any column in ``obs``."""
    query = case.query(bare=True)
    require(not len(query.obs.columns), "The bare query has columns.")
    require_finite(case.embed(case.model, query), query.n_obs, "The result without obs columns")


def check_missing_categories_in_a_query(case: ModelCase) -> None:
    """Give finite results for a query whose categories are missing for some cells."""
    columns = case.need_categories()
    query = case.query()
    for column in columns:
        values = query.obs[column].astype(object)
        values.iloc[::2] = np.nan
        query.obs[column] = pd.Categorical(values)
    latent = case.embed(case.model, query)
    require_finite(latent, query.n_obs, "The result with missing categories")
