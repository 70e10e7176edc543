"""Scorers: what gives each cell a score for each class, before GRIT refines it.

All follow one protocol, :class:`Scorer`: a ``name`` and ``score(adata, layer=None)`` that returns
:class:`Scores`. Yours can too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sczoo.model.grit.scorers._celltypist import CellTypistScorer
    from sczoo.model.grit.scorers._langcell import LangCellScorer
    from sczoo.model.grit.scorers._markers import MarkerScorer, marker_table, tissues
    from sczoo.model.grit.scorers._precomputed import attach_scores
    from sczoo.model.grit.scorers._protocol import Scorer, Scores
    from sczoo.model.grit.scorers._scanvi import SCANVIScorer

_HOMES = {
    "CellTypistScorer": "_celltypist",
    "LangCellScorer": "_langcell",
    "MarkerScorer": "_markers",
    "SCANVIScorer": "_scanvi",
    "Scorer": "_protocol",
    "Scores": "_protocol",
    "attach_scores": "_precomputed",
    "marker_table": "_markers",
    "tissues": "_markers",
}

__all__ = [
    "CellTypistScorer",
    "LangCellScorer",
    "MarkerScorer",
    "SCANVIScorer",
    "Scorer",
    "Scores",
    "attach_scores",
    "marker_table",
    "tissues",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"sczoo.model.grit.scorers.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sczoo.model.grit.scorers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
