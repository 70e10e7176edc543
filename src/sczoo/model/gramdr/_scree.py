"""How many components: a number, a share of the variance, or the bend of the scree."""

from __future__ import annotations

import numpy as np

from sczoo.errors import InputError

__all__ = ["check_n_latent", "n_components", "scree_bend"]


def scree_bend(eigenvalues: np.ndarray) -> int:
    """Cattell-Nelson-Gorsuch test: where the slope of the scree changes most.

    For every position the least-squares slopes over three eigenvalues and over the next three are
    compared; the number of components is the position of the largest increase plus two.

    Parameters
    ----------
    eigenvalues
        Non-negative, descending; at least six.
    """
    values = np.asarray(eigenvalues, dtype=float)
    values = values[values >= 0]
    if len(values) < 6:
        return len(values)
    slopes = (values[2:] - values[:-2]) / 2.0  # least squares over three equidistant points
    return int(np.argmax(slopes[3:] - slopes[:-3])) + 2


def n_components(n_latent: int | float | str, eigenvalues: np.ndarray, positive: float) -> int:
    """Turn the argument ``n_latent`` into a number of components.

    Parameters
    ----------
    n_latent
        Whole number; share of the positive eigenvalue mass; ``"scree"`` or ``"all"``.
    eigenvalues
        Positive eigenvalues found, descending.
    positive
        Sum of all positive eigenvalues, also of those not computed.
    """
    found = len(eigenvalues)
    if n_latent == "all":
        return found
    if n_latent == "scree":
        return min(max(scree_bend(eigenvalues), 1), found)
    if isinstance(n_latent, float):
        share = np.cumsum(eigenvalues) / max(positive, 1e-300)
        return min(int(np.searchsorted(share, n_latent - 1e-12)) + 1, found)
    return min(int(n_latent), found)


def check_n_latent(n_latent: object) -> None:
    """Refuse what is neither a whole number, a share, ``"scree"`` nor ``"all"``."""
    if isinstance(n_latent, str) and n_latent in ("scree", "all"):
        return
    whole = isinstance(n_latent, int | np.integer) and not isinstance(n_latent, bool)
    if whole and n_latent >= 1:  # type: ignore[operator]
        return
    if isinstance(n_latent, float | np.floating) and 0 < n_latent < 1:
        return
    raise InputError(
        f"n_latent={n_latent!r}: give a whole number of components, a share of the variance "
        "between 0 and 1, 'scree' or 'all'."
    )
