"""scE2TM: an embedded topic model of single cells, guided by outside knowledge."""

from __future__ import annotations

from sczoo.model.sce2tm._model import SCE2TM
from sczoo.model.sce2tm._module import SCE2TMModule
from sczoo.model.sce2tm._perturbation import PerturbationResult
from sczoo.model.sce2tm._trainingplan import SCE2TMTrainingPlan

__all__ = ["SCE2TM", "PerturbationResult", "SCE2TMModule", "SCE2TMTrainingPlan"]
