"""DPDCAN: a private autoencoder with contrastive views, whose epsilon is true."""

from __future__ import annotations

from sczoo.model.dpdcan._model import DPDCAN
from sczoo.model.dpdcan._module import DPDCANModule
from sczoo.model.dpdcan._trainingplan import DPDCANTrainingPlan

__all__ = ["DPDCAN", "DPDCANModule", "DPDCANTrainingPlan"]
