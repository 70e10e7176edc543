"""Arguments that make no sense, refused before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np

from sczoo.errors import InputError

__all__ = ["check_choices", "check_seed", "real_number", "whole_number"]

_LARGEST_SEED = 2**32 - 1


def whole_number(name: str, value: Any, low: int = 1) -> int:
    """Return `value` if it is a whole number of at least `low`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low:
        raise InputError(f"{name}={value!r}: it must be a whole number from {low}.")
    return int(value)


def check_seed(seed: Any) -> int:
    """Return `seed` if every library that draws takes it."""
    if whole_number("seed", seed, 0) > _LARGEST_SEED:
        raise InputError(f"seed={seed!r}: it must be a whole number from 0 to {_LARGEST_SEED}.")
    return int(seed)


def real_number(
    name: str, value: Any, low: float, high: float, *, above: bool = False, below: bool = False
) -> float:
    """Return `value` if it is a number from `low` to `high`.

    Parameters
    ----------
    above, below
        Whether `low` and `high` themselves are out.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    inside = number and (low < value if above else low <= value)
    inside = inside and (value < high if below else value <= high)
    if not inside:
        start = f"above {low:g}" if above else f"from {low:g}"
        end = f"below {high:g}" if below else f"at most {high:g}"
        raise InputError(f"{name}={value!r}: it must be a number {start} and {end}.")
    return float(value)


def check_choices(**given: tuple[Any, tuple[Any, ...]]) -> None:
    """Require that each argument is one of its choices."""
    for name, (value, choices) in given.items():
        if value not in choices:
            raise InputError(f"{name}={value!r} is not known; choose one of {choices}.")
