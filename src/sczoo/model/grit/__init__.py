"""GRIT: labels of cells refined on the graph of the cells."""

from __future__ import annotations

from sczoo.model.grit._model import GRIT

__all__ = ["GRIT"]
