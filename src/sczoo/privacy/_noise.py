"""Noise and sampling that nobody can repeat.

A guarantee holds against everyone who does not know the random numbers. A seed that is written
down, such as the public ``scvi.settings.seed``, would let anybody subtract the noise, so the
generator is keyed by the operating system and its state is never stored.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

import numpy as np
import torch

from sczoo.errors import PrivacyError

__all__ = ["NoiseSource"]

# pairs of numbers at a time: what one step needs stays in the processor's cache
_PAIRS = 1 << 15
_LENGTH_BITS, _ANGLE_BITS = 40, 24


class NoiseSource:
    """Random numbers for one run, keyed with 384 bits from the operating system.

    Parameters
    ----------
    seed
        Only ``None``. Anything else is refused, with the reason.

    Notes
    -----
    Philox in counter mode with a secret key and a secret counter. Noise is drawn as 32- or 64-bit
    floating-point numbers: attacks on their lowest bits are not excluded. In 32 bits no number
    is beyond 7.45, which a normal number is once in 10^13 draws.
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
        if np.dtype(dtype) != np.float32:
            return self._generator.standard_normal(shape, dtype=dtype)
        drawn = np.empty(shape, dtype=np.float32)
        self._fill(drawn.reshape(-1))
        return drawn

    def _fill(self, drawn: np.ndarray) -> None:
        """Fill with normal numbers by the transform of Box and Muller, two from 64 random bits.

        The noise of a step is one number for every weight; numpy's own draws take twice as long.
        """
        for start in range(0, len(drawn), 2 * _PAIRS):
            part = torch.from_numpy(drawn[start : start + 2 * _PAIRS])
            n_pairs = (len(part) + 1) // 2
            bits = self._generator.integers(0, 1 << 64, n_pairs, dtype=np.uint64)
            high = torch.from_numpy((bits >> np.uint64(_ANGLE_BITS)).view(np.int64))
            low = torch.from_numpy((bits & np.uint64((1 << _ANGLE_BITS) - 1)).view(np.int64))
            # in (0, 1]; in 64 bits, for the logarithm near 1 decides the smallest lengths
            share = high.double().add_(1.0).mul_(2.0**-_LENGTH_BITS)
            length = share.log_().mul_(-2.0).sqrt_().float()
            angle = low.float().mul_(2.0 * math.pi * 2.0**-_ANGLE_BITS)
            torch.mul(length, angle.cos(), out=part[:n_pairs])
            rest = len(part) - n_pairs
            torch.mul(length[:rest], angle[:rest].sin(), out=part[n_pairs:])

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
