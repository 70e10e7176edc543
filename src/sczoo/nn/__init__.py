"""Layers and losses that more than one method uses."""

from __future__ import annotations

from sczoo.nn._sinkhorn import SinkhornResult, sinkhorn

__all__ = ["SinkhornResult", "sinkhorn"]
