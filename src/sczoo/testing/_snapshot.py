"""Proof that a call left an AnnData as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sczoo.testing._expect import require

_MAPPINGS = ("layers", "obsm", "varm", "obsp", "varp")


class Snapshot:
    """A deep copy of what an AnnData or MuData holds, to compare with later.

    Parameters
    ----------
    data
        The object; backed matrices are read.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.content = _content(data)

    def require_unchanged(self, doing: str) -> None:
        """Fail the check if anything in the object differs from the time of the snapshot."""
        now = _content(self.data)
        changed = sorted(
            {
                place
                for place in self.content.keys() | now.keys()
                if place not in self.content
                or place not in now
                or not _same(self.content[place], now[place])
            }
        )
        require(not changed, f"{doing} changed the AnnData in: {', '.join(changed[:5])}.")


def _content(data: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, modality in getattr(data, "mod", {}).items():
        found.update(_content(modality, f"{prefix}mod[{name!r}]."))
    for axis in ("obs", "var"):
        frame = getattr(data, axis)
        found[f"{prefix}{axis} columns"] = list(frame.columns)
        found[f"{prefix}{axis}_names"] = frame.index.copy(deep=True)
        for column in frame.columns:
            found[f"{prefix}{axis}[{column!r}]"] = frame[column].copy(deep=True)
    for mapping in _MAPPINGS:
        for key, value in getattr(data, mapping, {}).items():
            found[f"{prefix}{mapping}[{key!r}]"] = _copied(value)
    for key, value in data.uns.items():
        found[f"{prefix}uns[{key!r}]"] = _copied(value)
    if hasattr(data, "X"):
        found[f"{prefix}X"] = _copied(data.X)
    if getattr(data, "raw", None) is not None:
        found[f"{prefix}raw"] = _copied(data.raw.X)
    return found


def _copied(value: Any) -> Any:
    if isinstance(value, dict) or (hasattr(value, "items") and not hasattr(value, "dtypes")):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    if not isinstance(value, np.ndarray) and not sparse.issparse(value) and hasattr(value, "file"):
        value = value[:]  # a matrix in a file
    elif type(value).__name__.endswith("Dataset"):
        value = value[:]
    return value.copy() if hasattr(value, "copy") else value


def _same(before: Any, now: Any) -> bool:
    if type(before) is not type(now):
        return False
    if isinstance(before, dict):
        return before.keys() == now.keys() and all(_same(before[k], now[k]) for k in before)
    if isinstance(before, list):
        return len(before) == len(now) and all(map(_same, before, now))
    if isinstance(before, pd.Series | pd.DataFrame | pd.Index):
        dtypes = "dtypes" if isinstance(before, pd.DataFrame) else "dtype"
        same_types = np.all(getattr(before, dtypes) == getattr(now, dtypes))
        return bool(before.equals(now) and same_types)
    if sparse.issparse(before):
        return (
            before.format == now.format
            and before.shape == now.shape
            and all(_same(getattr(before, part), getattr(now, part)) for part in _parts(before))
        )
    if isinstance(before, np.ndarray):
        return (
            before.dtype == now.dtype
            and before.shape == now.shape
            and np.array_equal(before, now, equal_nan=before.dtype.kind in "fc")
        )
    return bool(np.all(before == now)) or before is now


def _parts(matrix: Any) -> tuple[str, ...]:
    return ("data", "indices", "indptr") if hasattr(matrix, "indptr") else ("data",)
