"""Random numbers of a run without privacy: decided by the public seed, so that it repeats."""

from __future__ import annotations

import numpy as np

from sczoo.privacy._noise import NoiseSource

__all__ = ["repeatable_source"]


def repeatable_source(seed: int) -> NoiseSource:
    """Return a source that repeats. Only for runs that claim no guarantee."""
    return NoiseSource(_generator=np.random.default_rng([seed, 20_231_103]))
