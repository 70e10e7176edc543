"""Which topics differ between groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, mannwhitneyu

from sczoo.errors import InputError, MissingKeyError, TooFewCellsError

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

__all__ = ["DifferentialTopicsMixin", "group_codes"]

_Q_VALUE = 0.05
_DIFFERENCE = 1.0
_COLUMNS = ["topic", "group", "within", "difference", "p_value", "q_value", "specific", "n_cells"]


def group_codes(data: Any, key: str) -> np.ndarray:
    """Values of a column of ``obs`` as text; missing ones as ``None``."""
    if key not in data.obs:
        raise MissingKeyError(
            f"adata.obs has no column {key!r}; it has {sorted(map(str, data.obs.columns))}."
        )
    column = data.obs[key]
    values = column.astype(str).to_numpy(dtype=object)
    values[pd.isna(column).to_numpy()] = None
    return values


class DifferentialTopicsMixin:
    """Differential topics."""

    def differential_topics(
        self,
        groupby: str,
        adata: AnnData | MuData | None = None,
        *,
        group: str | None = None,
        reference: str | None = None,
        within: str | None = None,
        min_cells: int = 5,
        q_value: float = _Q_VALUE,
        difference: float = _DIFFERENCE,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Compare the topic logits of groups of cells.

        For every topic and group: the mean logit in the group minus that in the reference, and a
        two-sided Mann-Whitney test, corrected over all tests by Benjamini and Hochberg. Cells
        count as independent, which cells of one donor are not: read the p-values as a ranking.

        Parameters
        ----------
        groupby
            Column of ``obs`` with the groups.
        adata
            Cells, of the training data or new; the model's own by default.
        group
            Compare this group alone; all by default.
        reference
            Group to compare with; all other cells by default.
        within
            Column of ``obs``, such as the cell type, within whose values to compare. Effects that
            hold in one cell type are rarely seen over all.
        min_cells
            Groups with fewer cells on either side are left out.
        q_value, difference
            A topic is called specific below this q-value and beyond this absolute difference.
        batch_size
            Cells at a time.

        Returns
        -------
        Table with the columns ``topic``, ``group``, ``within``, ``difference``, ``p_value``,
        ``q_value``, ``specific`` and ``n_cells``, the largest absolute differences first.
        """
        model: Any = self
        model._require_trained()
        data = model.adata if adata is None else adata
        if data is None:
            raise InputError("This model was loaded without data: pass adata=.")
        groups = group_codes(data, groupby)
        strata = group_codes(data, within) if within is not None else None
        known = sorted({value for value in groups if value is not None})
        for name in (group, reference):
            if name is not None and name not in known:
                raise MissingKeyError(f"obs[{groupby!r}] has no value {name!r}; it has {known}.")
        chosen = [g for g in (known if group is None else [group]) if g != reference]
        latent = model.get_latent_representation(adata, batch_size=batch_size)
        parts = []
        levels = [None] if strata is None else sorted({s for s in strata if s is not None})
        for level in levels:
            inside = np.ones(len(groups), bool) if strata is None else strata == level
            for name in chosen:
                first = inside & (groups == name)
                others = groups == reference if reference is not None else groups != name
                second = inside & others & (groups != None)  # noqa: E711 - element by element
                if min(first.sum(), second.sum()) >= min_cells:
                    parts.append(_compare(latent[first], latent[second], name, level))
        if not parts:
            raise TooFewCellsError(
                f"No two groups of obs[{groupby!r}] have at least min_cells={min_cells} cells"
                f"{'' if within is None else f' within one value of obs[{within!r}]'}."
            )
        table = pd.concat(parts, ignore_index=True)
        table["q_value"] = false_discovery_control(table["p_value"].to_numpy())
        table["specific"] = (table["q_value"] < q_value) & (table["difference"].abs() > difference)
        order = np.lexsort((table["topic"], -table["difference"].abs()))
        return table.iloc[order][_COLUMNS].reset_index(drop=True)


def _compare(first: np.ndarray, second: np.ndarray, name: str, level: str | None) -> pd.DataFrame:
    test = mannwhitneyu(first, second, axis=0, method="asymptotic")
    return pd.DataFrame(
        {
            "topic": np.arange(first.shape[1]),
            "group": name,
            "within": level,
            "difference": first.mean(axis=0) - second.mean(axis=0),
            # a topic that is the same in all cells has no test
            "p_value": np.nan_to_num(test.pvalue, nan=1.0),
            "n_cells": len(first),
        }
    )
