"""Noise and sampling that nobody can repeat.

A guarantee holds against everyone who does not know the random numbers. A seed that is written
down, such as the public ``scvi.settings.seed``, would let anybody subtract the noise, so the
generator is keyed by the operating system and its state is never stored.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from sczoo.errors import PrivacyError

__all__ = ["NoiseSource"]


class NoiseSource:
    """Random numbers for one run, keyed with 384 bits from the operating system.

    Parameters
    ----------
    seed
        Only ``None``. Anything else is refused, with the reason.

    Notes
    -----
    Philox in counter mode with a secret key and a secret counter. Noise is drawn as 32- or 64-bit
    floating-point numbers: attacks on their lowest bits are not excluded.
    """

    def __init__(
        self, seed: None = None, *, _generator: np.random.Generator | None = None
    ) -> None:
        if seed is not None:
            raise PrivacyError(
                f"seed={seed!r}: noise and sampling of a private run cannot have a seed. Whoever "
                "knows it can recompute the noise, subtract it and read the data. Leave it out; "
                "scvi.settings.seed still decides the initial weights, which hold no data."
            )
        if _generator is None:
            key, counter = secrets.randbits(128), secrets.randbits(256)
            _generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        self._generator = _generator

    def normal(self, shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """Draw standard normal numbers, independent of all drawn before."""
        return self._generator.standard_normal(shape, dtype=dtype)

    def symmetric(self, size: int) -> np.ndarray:
        r"""Draw a symmetric matrix for a release of :math:`\sum_i v_i v_i^\top`.

        A unit with :math:`\lVert v v^\top \rVert_F \le 1` changes the upper triangle, with
        off-diagonal entries counted :math:`\sqrt 2` times, by at most 1 in norm; so the diagonal
        has variance 1 and the rest 1/2.

        Returns
        -------
        Array of shape ``(size, size)``, float64.
        """
        upper = np.triu(self.normal((size, size), np.float64), 1) / np.sqrt(2.0)
        return upper + upper.T + np.diag(self.normal(size, np.float64))

    def poisson(self, n_units: int, rate: float) -> np.ndarray:
        """Choose each of `n_units` independently with probability `rate`; possibly none."""
        return np.flatnonzero(self._generator.random(n_units) < rate)

    def random(self, shape: int | tuple[int, ...]) -> np.ndarray:
        """Draw uniform numbers in [0, 1), float64."""
        return self._generator.random(shape)

    def integers(self, high: int | np.ndarray, shape: Any = None) -> np.ndarray:
        """Draw whole numbers from 0 to below `high`."""
        return self._generator.integers(high, size=shape)
