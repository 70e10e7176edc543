"""Arguments of the constructor that make sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_choice", "check_numbers"]

_RANGES: dict[str, tuple[type, float, float]] = {
    "n_clusters": (int, 1, np.inf),
    "n_neighbors": (int, 1, np.inf),
    "n_candidates": (int, 1, np.inf),
    "n_top_genes": (int, 2, np.inf),
    "n_latent": (int, 1, np.inf),
    "n_hidden": (int, 1, np.inf),
    "n_anchors": (int, 0, np.inf),
    "similarity_scale": (float, 0, np.inf),
    "balance": (float, 0, np.inf),
    "dropout_rate": (float, 0, 1),
    "contrast_weight": (float, 0, np.inf),
    "adjacency_weight": (float, 0, np.inf),
    "cluster_weight": (float, 0, np.inf),
}


def check_numbers(values: Mapping[str, Any]) -> None:
    """Require sizes and weights that make sense; the message names the argument."""
    for name, (kind, low, below) in _RANGES.items():
        value = values[name]
        if value is None and name in ("n_clusters", "n_neighbors", "n_candidates"):
            continue
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        number = whole or (kind is float and isinstance(value, float | np.floating))
        if not number or not low <= value < below:
            what = "a whole number" if kind is int else "a number"
            limits = f"at least {low}" if below == np.inf else f"from {low} to below {below}"
            raise InputError(f"{name}={value!r}: it must be {what} {limits}.")


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Require one of the words that an argument may be."""
    if value not in choices:
        raise InputError(f"{name}={value!r} is not known; choose one of {choices}.")
