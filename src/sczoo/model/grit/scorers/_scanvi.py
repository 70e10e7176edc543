"""SCANVI as a scorer: the label probabilities of a trained scvi-tools model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo import _compat
from sczoo.errors import InputError
from sczoo.model.grit.scorers._protocol import Scores, check_classes, check_scores

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["SCANVIScorer"]


class SCANVIScorer:
    """Scores of a trained ``scvi.model.SCANVI``, or of any model with ``predict(soft=True)``.

    Parameters
    ----------
    model
        The model. ``predict(adata, soft=True)`` must give a data frame of probabilities, one
        column per class.

    Examples
    --------
    >>> scanvi = scvi.model.SCANVI.load_query_data(adata, "reference/")
    >>> scanvi.train(max_epochs=100)
    >>> sczoo.model.GRIT(adata, scorer=SCANVIScorer(scanvi))
    """

    name = "scanvi"

    def __init__(self, model: Any) -> None:
        if not callable(getattr(model, "predict", None)):
            raise InputError(f"{type(model).__name__} has no method predict(adata, soft=True).")
        if getattr(model, "is_trained_", True) is False:
            raise InputError("The model is not trained yet: call its train() first.")
        self._model = model

    def score(self, adata: AnnData, *, layer: str | None = None) -> Scores:
        """Score cells that the model can read; genes must be its own, in its order."""
        own = getattr(self._model, "adata", None)
        names = getattr(own, "var_names", None)
        if names is not None and list(map(str, names)) != list(map(str, adata.var_names)):
            raise InputError(
                "The genes of the cells are not those of the scvi-tools model, or in another "
                "order, which it would not notice. Call its prepare_query_anndata(adata, model) "
                "first."
            )
        # scvi-tools marks the cells that it reads: those of the caller stay as they were
        cells = adata.copy()
        for entry in _compat.SETUP_TRACES_UNS:
            cells.uns.pop(entry, None)
        cells.obs = cells.obs.drop(columns=[c for c in _compat.SETUP_TRACES_OBS if c in cells.obs])
        found = self._model.predict(cells, soft=True)
        if not hasattr(found, "columns"):
            raise InputError("predict(soft=True) must give a data frame with class names.")
        classes = check_classes(list(found.columns), "The scvi-tools model")
        values = check_scores(found.to_numpy(), adata.n_obs, "The probabilities of the model")
        total = values.sum(axis=1, keepdims=True)
        return Scores((values / np.where(total > 0, total, 1.0)).astype(np.float32), classes, True)
