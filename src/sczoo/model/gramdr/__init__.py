"""GramDR: principal components corrected for depth and missing values."""

from sczoo.model.gramdr._gram import corrected_gram
from sczoo.model.gramdr._model import GramDR
from sczoo.model.gramdr._trainingplan import GramDRTrainingPlan

__all__ = ["GramDR", "GramDRTrainingPlan", "corrected_gram"]
