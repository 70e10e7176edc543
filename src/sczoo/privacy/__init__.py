"""Privacy: accounting, clipped and noised gradients, audits and attacks on any model or dataset.

Importing this package is cheap; torch, opacus and dp-accounting come with what needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sczoo.privacy._accounting import PrivacyLedger, calibrate_noise, combined_noise
    from sczoo.privacy._audit import AuditBound, multi_run_bound, one_run_bound
    from sczoo.privacy._canaries import GradientCanaries
    from sczoo.privacy._clipping import UnitGradients
    from sczoo.privacy._dp_pca import DPPCA, dp_pca
    from sczoo.privacy._layers import Centres, Offset
    from sczoo.privacy._leakage import nearest_synthetic
    from sczoo.privacy._membership import (
        Membership,
        advantage_bound,
        cell_scores,
        donor_scores,
        membership,
    )
    from sczoo.privacy._noise import NoiseSource
    from sczoo.privacy._report import AuditReport, audit
    from sczoo.privacy._sampling import PoissonSampler

_HOMES = {
    "AuditBound": "_audit",
    "AuditReport": "_report",
    "Centres": "_layers",
    "DPPCA": "_dp_pca",
    "GradientCanaries": "_canaries",
    "Membership": "_membership",
    "NoiseSource": "_noise",
    "Offset": "_layers",
    "PoissonSampler": "_sampling",
    "PrivacyLedger": "_accounting",
    "UnitGradients": "_clipping",
    "advantage_bound": "_membership",
    "audit": "_report",
    "calibrate_noise": "_accounting",
    "cell_scores": "_membership",
    "combined_noise": "_accounting",
    "donor_scores": "_membership",
    "dp_pca": "_dp_pca",
    "membership": "_membership",
    "multi_run_bound": "_audit",
    "nearest_synthetic": "_leakage",
    "one_run_bound": "_audit",
}

__all__ = [
    "DPPCA",
    "AuditBound",
    "AuditReport",
    "Centres",
    "GradientCanaries",
    "Membership",
    "NoiseSource",
    "Offset",
    "PoissonSampler",
    "PrivacyLedger",
    "UnitGradients",
    "advantage_bound",
    "audit",
    "calibrate_noise",
    "cell_scores",
    "combined_noise",
    "donor_scores",
    "dp_pca",
    "membership",
    "multi_run_bound",
    "nearest_synthetic",
    "one_run_bound",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"sczoo.privacy.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sczoo.privacy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
