"""sczoo: a zoo of single-cell RNA-seq models on scvi-tools.

Importing :mod:`sczoo` is cheap: torch, scvi-tools and scanpy are imported with the first use of
something that needs them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("sczoo")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_SUBMODULES = {
    "base",
    "datasets",
    "errors",
    "graph",
    "hub",
    "metrics",
    "model",
    "nn",
    "pl",
    "privacy",
    "report",
    "testing",
}
_FUNCTIONS = {"doctor": "sczoo.base", "load": "sczoo.hub", "transfer": "sczoo.hub"}

if TYPE_CHECKING:
    from sczoo import (
        base,
        datasets,
        errors,
        graph,
        hub,
        metrics,
        model,
        nn,
        pl,
        privacy,
        report,
        testing,
    )
    from sczoo.base import doctor
    from sczoo.hub import load, transfer

__all__ = [
    "__version__",
    "base",
    "datasets",
    "doctor",
    "errors",
    "graph",
    "hub",
    "load",
    "metrics",
    "model",
    "nn",
    "pl",
    "privacy",
    "report",
    "testing",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"sczoo.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'sczoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
