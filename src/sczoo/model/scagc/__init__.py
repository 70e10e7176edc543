"""scAGC: clustering on a graph of cells that learns, in minibatches."""

from __future__ import annotations

from sczoo.model.scagc._model import SCAGC
from sczoo.model.scagc._module import SCAGCModule
from sczoo.model.scagc._trainingplan import SCAGCTrainingPlan

__all__ = ["SCAGC", "SCAGCModule", "SCAGCTrainingPlan"]
