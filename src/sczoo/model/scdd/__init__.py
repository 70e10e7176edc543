"""scDD: a labelled atlas distilled into a few cells per class, and what such sets are worth."""

from __future__ import annotations

from sczoo.model.scdd._dataset import is_small_set, save_dataset
from sczoo.model.scdd._dataset_classifier import DistilledClassifier
from sczoo.model.scdd._evaluation import (
    evaluate_distillation,
    evaluation_report,
    summarise_evaluation,
)
from sczoo.model.scdd._membership import exact_copies, memorisation, shadow_attack
from sczoo.model.scdd._model import SCDD
from sczoo.model.scdd._module import SCDDModule
from sczoo.model.scdd._selection import select_cells
from sczoo.model.scdd._trainingplan import AutoencoderPlan, DiffusionPlan, StudentPlan

__all__ = [
    "SCDD",
    "AutoencoderPlan",
    "DiffusionPlan",
    "DistilledClassifier",
    "SCDDModule",
    "StudentPlan",
    "evaluate_distillation",
    "evaluation_report",
    "exact_copies",
    "is_small_set",
    "memorisation",
    "save_dataset",
    "select_cells",
    "shadow_attack",
    "summarise_evaluation",
]
