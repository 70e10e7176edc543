"""The assertions that checks are made of; each failure is a sentence."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo.errors import SczooError
from sczoo.testing._report import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator


class CheckSkippedError(Exception):
    """Raised by a check that does not apply; the message says why."""


def require(condition: Any, message: str) -> None:
    """Fail the check with `message` unless `condition` holds."""
    if not condition:
        raise CheckFailedError(message)


@contextmanager
def refuses(error: type[Exception], *fragments: str, doing: str) -> Iterator[None]:
    """Require the block to raise `error` with every fragment in its message.

    A remedy is part of the promise: an error of a few words does not pass.
    """
    try:
        yield
    except error as raised:
        text = str(raised)
        for fragment in fragments:
            require(
                fragment in text,
                f"{doing} gives {type(raised).__name__}, but the message does not name "
                f"{fragment!r}: {text}",
            )
        require(len(text) > 30, f"{doing} gives an error that does not explain itself: {text!r}")
    except CheckFailedError:
        raise
    except Exception as raised:
        expected = f"a sczoo.errors.{error.__name__}"
        if issubclass(error, SczooError) and not isinstance(raised, SczooError):
            expected += " (a typed error)"
        raise CheckFailedError(
            f"{doing} should give {expected}, but gives {type(raised).__name__}: {raised}"
        ) from raised
    else:
        raise CheckFailedError(f"{doing} is accepted; it should give {error.__name__}.")


def require_finite(values: Any, n_rows: int, what: str) -> None:
    """Require one finite row for each cell."""
    values = np.asarray(values)
    require(values.ndim == 2, f"{what} has shape {values.shape}; it should have two axes.")
    require(len(values) == n_rows, f"{what} has {len(values)} rows for {n_rows} cells.")
    bad = np.argwhere(~np.isfinite(values))
    require(not bad.size, f"{what} is not finite, first in row {bad[0, 0] if bad.size else ''}.")


def require_history(model: Any) -> None:
    """Require a training history of finite numbers."""
    require(bool(model.history), "history is empty after training.")
    for name, values in model.history.items():
        numbers = pd.DataFrame(values).to_numpy(dtype=float)
        require(numbers.size > 0, f"history[{name!r}] has no rows.")
        require(bool(np.isfinite(numbers).all()), f"history[{name!r}] is not finite.")


def require_close(found: Any, expected: Any, what: str, tolerance: float = 1e-5) -> None:
    """Require two arrays to agree to `tolerance`, relative to the largest expected value."""
    found, expected = np.asarray(found), np.asarray(expected)
    require(
        found.shape == expected.shape,
        f"{what}: the shapes differ, {found.shape} and {expected.shape}.",
    )
    if not found.size:
        return
    scale = max(1e-12, float(np.abs(expected).max()))
    difference = float(np.abs(found.astype(np.float64) - expected).max()) / scale
    require(
        difference <= tolerance,
        f"{what}: the values differ by {difference:.2g} of the largest (allowed {tolerance:g}).",
    )


def require_equal(found: Any, expected: Any, what: str) -> None:
    """Require two arrays to be equal bit by bit."""
    found, expected = np.asarray(found), np.asarray(expected)
    require(
        found.shape == expected.shape and found.dtype == expected.dtype,
        f"{what}: {found.dtype}{found.shape} and {expected.dtype}{expected.shape} differ.",
    )
    different = int((found != expected).sum())
    require(not different, f"{what}: {different} of {found.size} values differ.")
