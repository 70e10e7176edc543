"""Privacy: accounting, clipped and noised gradients, audits and attacks on any model or dataset.

Importing this package is cheap; torch, opacus and dp-accounting come with what needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sczoo.privacy._accounting import PrivacyLedger, calibrate_noise, combined_noise
    from sczoo.privacy._clipping import UnitGradients
    from sczoo.privacy._dp_pca import DPPCA, dp_pca
    from sczoo.privacy._layers import Centres, Offset
    from sczoo.privacy._noise import NoiseSource
    from sczoo.privacy._sampling import PoissonSampler

_HOMES = {
    "DPPCA": "_dp_pca",
    "Centres": "_layers",
    "NoiseSource": "_noise",
    "Offset": "_layers",
    "PoissonSampler": "_sampling",
    "PrivacyLedger": "_accounting",
    "UnitGradients": "_clipping",
    "calibrate_noise": "_accounting",
    "combined_noise": "_accounting",
    "dp_pca": "_dp_pca",
}

__all__ = [
    "DPPCA",
    "Centres",
    "NoiseSource",
    "Offset",
    "PoissonSampler",
    "PrivacyLedger",
    "UnitGradients",
    "calibrate_noise",
    "combined_noise",
    "dp_pca",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"sczoo.privacy.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sczoo.privacy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
