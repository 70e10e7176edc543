"""CellTypist as a scorer: the decision values or probabilities of a logistic regression.

A model of CellTypist is a pickle, which sczoo never opens: load it with celltypist where you trust
it, and pass the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import GeneOverlapError, InputError
from sczoo.model.grit._expression import Expression
from sczoo.model.grit.scorers._protocol import Scores, check_classes

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["CellTypistScorer"]

_CLIP = 10.0


class CellTypistScorer:
    """Scores of a CellTypist model, computed from its coefficients.

    Parameters
    ----------
    model
        A ``celltypist.models.Model`` (or its classifier, a scikit-learn logistic regression with
        ``coef_``, ``intercept_``, ``classes_`` and ``features``).
    kind
        ``"probability"``: CellTypist's probabilities, brought to a sum of one per cell, so that
        the guard can judge them. ``"decision"``: the decision values.
    min_genes
        Smallest number of the model's genes that the data must have.

    Examples
    --------
    >>> import celltypist
    >>> model = celltypist.models.Model.load("Immune_All_Low.pkl")
    >>> sczoo.model.GRIT(adata, scorer=CellTypistScorer(model))
    """

    name = "celltypist"

    def __init__(self, model: Any, *, kind: str = "probability", min_genes: int = 50) -> None:
        if isinstance(model, str) or hasattr(model, "__fspath__"):
            raise InputError(
                "A CellTypist model is a pickle, which sczoo does not open. Load it where you "
                "trust it, celltypist.models.Model.load(path), and pass the object."
            )
        if kind not in ("probability", "decision"):
            raise InputError(f"kind={kind!r} is not known: use 'probability' or 'decision'.")
        classifier = getattr(model, "classifier", model)
        needed = ("coef_", "intercept_", "classes_")
        if any(not hasattr(classifier, name) for name in needed):
            raise InputError(
                f"{type(model).__name__} is not a CellTypist model: it has no {', '.join(needed)}."
            )
        features = getattr(classifier, "features", None)
        if features is None:
            features = getattr(classifier, "feature_names_in_", None)
        if features is None:
            raise InputError("The model does not name its genes (classifier.features).")
        self.classes = check_classes(list(classifier.classes_), "The CellTypist model")
        self._genes = [str(gene) for gene in features]
        self._coef = np.atleast_2d(np.asarray(classifier.coef_, dtype=np.float64))
        self._intercept = np.atleast_1d(np.asarray(classifier.intercept_, dtype=np.float64))
        if self._coef.shape[1] != len(self._genes):
            raise InputError(
                f"The model has {self._coef.shape[1]} coefficients for {len(self._genes)} genes."
            )
        if len(self._coef) == 1:  # two classes share one set of coefficients
            self._coef = np.vstack([-self._coef, self._coef])
            self._intercept = np.concatenate([-self._intercept, self._intercept])
        scaler = getattr(model, "scaler", None)
        n_genes = len(self._genes)
        self._mean, self._scale = np.zeros(n_genes), np.ones(n_genes)
        self._scaled = scaler is not None
        if scaler is not None:
            if getattr(scaler, "mean_", None) is not None:
                self._mean = np.asarray(scaler.mean_, dtype=np.float64)
            if getattr(scaler, "scale_", None) is not None:
                self._scale = np.asarray(scaler.scale_, dtype=np.float64)
        self.kind, self.min_genes = kind, min_genes

    def score(self, adata: AnnData, *, layer: str | None = None) -> Scores:
        """Score cells; genes that they lack do not count."""
        place = {str(name): position for position, name in enumerate(adata.var_names)}
        columns = np.array([place.get(gene, -1) for gene in self._genes])
        here = np.flatnonzero(columns >= 0)
        if len(here) < min(self.min_genes, len(columns)):
            raise GeneOverlapError(
                f"{len(here)} of the model's {len(columns)} genes are in the data (such as "
                f"{self._genes[0]!r}); at least {self.min_genes} are needed."
            )
        # the library size is that of all genes, as CellTypist has it
        cells = Expression(adata, layer)
        coef = self._coef[:, here] / self._scale[here]
        values = np.zeros((adata.n_obs, len(self.classes)))
        for rows, block in cells.blocks(columns[here]):
            x = block.astype(np.float64)
            if self._scaled:
                z = np.minimum((x - self._mean[here]) / self._scale[here], _CLIP)
                values[rows] = z @ self._coef[:, here].T + self._intercept
            else:
                values[rows] = x @ coef.T + self._intercept
        notes: tuple[str, ...] = ()
        if len(here) < len(columns):
            notes = (f"{len(here)} of the {len(columns)} genes of the classifier are measured.",)
        if self.kind == "decision":
            return Scores(values.astype(np.float32), self.classes, False, notes)
        chance = 1.0 / (1.0 + np.exp(-np.clip(values, -500, 500)))
        chance /= np.maximum(chance.sum(axis=1, keepdims=True), 1e-300)
        return Scores(chance.astype(np.float32), self.classes, True, notes)
