"""Annotating new cells with a distilled set: a classifier fitted on the spot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from sczoo.base._normalise import log_normalise
from sczoo.base._query import QueryMixin, earlier_record
from sczoo.base._transfer import TransferMixin
from sczoo.errors import InputError
from sczoo.model.scdd._arguments import check_seed
from sczoo.model.scdd._classifiers import check_classifiers, fit_scores
from sczoo.model.scdd._dataset import is_small_set
from sczoo.model.scdd._output import UNS_KEY

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

__all__ = ["DistilledClassifier"]

_COMPONENTS = 10


class DistilledClassifier(QueryMixin, TransferMixin):
    """A classifier that learns from distilled cells and annotates any others.

    It is fitted for each query anew, on the genes that the query has: so a gene that is missing
    is no zero that the classifier could mistake for silence.

    Parameters
    ----------
    distilled
        What :meth:`sczoo.model.SCDD.distill` or ``sczoo.load`` returned.
    classifier
        ``"lr"``, ``"mlp"``, ``"knn"``, ``"rf"`` or ``"scanvi"``.
    seed
        Seed of the fit.

    Examples
    --------
    >>> sczoo.transfer("scdd/pancreas", new_patient)
    """

    _method: ClassVar[str] = "scdd"
    _summary: ClassVar[str] = "a classifier fitted on distilled cells"
    _citation: ClassVar[list[dict[str, str]]] = [{"doi": "10.1016/j.knosys.2025.114610"}]
    _scale = "counts"
    _layer = None
    _allow_missing = False
    _companion_layers: ClassVar[tuple[str, ...]] = ()
    _alternative_genes = None
    is_trained_ = True

    def __init__(self, distilled: AnnData, classifier: str = "lr", *, seed: int = 0) -> None:
        if not is_small_set(distilled):
            raise InputError(
                "This AnnData is not a distilled set: uns['scdd'] does not say which column holds "
                "the classes."
            )
        self.classifier = check_classifiers(classifier)[0]
        self.seed = check_seed(seed)
        record = dict(distilled.uns[UNS_KEY])
        labels = distilled.obs[str(record["labels_key"])].astype("category")
        labels = labels.cat.remove_unused_categories()
        self.class_names = np.asarray(labels.cat.categories, dtype=object)
        self._codes = labels.cat.codes.to_numpy().astype(np.int64)
        self._counts = sparse.csr_matrix(distilled.X).astype(np.float32)
        self.var_names = np.asarray(distilled.var_names, dtype=object)
        self.adata = None
        self.module = SimpleNamespace(device=torch.device("cpu"))
        self.provenance_ = dict(record.get("provenance", record))
        self.domain: dict[str, Any] = {}

    def _gene_importance(self) -> None:
        return None

    def _require_trained(self) -> None:
        pass

    def _expression(self, data: AnnData | MuData) -> AnnData:
        from anndata import AnnData

        if not isinstance(data, AnnData):
            raise InputError(
                f"Expected an AnnData with counts, got {type(data).__name__}; pass the modality "
                "with the expression."
            )
        return data

    def _read(self, adata: AnnData) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Read the counts over the genes that both have, and say which these are."""
        parts, mask = [], np.ones(len(self.var_names), dtype=bool)
        for batch in self._iter_batches(adata, batch_size=1024):
            mask = batch["gene_mask"].numpy()
            parts.append(sparse.csr_matrix(batch["X"].numpy()))
        return sparse.vstack(parts, format="csr")[:, mask], mask

    def predict(self, adata: AnnData, *, soft: bool = False) -> np.ndarray | pd.DataFrame:
        """Classify cells.

        Parameters
        ----------
        adata
            Cells with raw counts.
        soft
            Return probabilities instead.

        Returns
        -------
        Names of the classes, ``(n_cells,)``, or a table of probabilities.
        """
        query, mask = self._read(adata)
        present, (scores,) = fit_scores(
            self.classifier, self._counts[:, mask], self._codes, [query], seed=self.seed
        )
        names = self.class_names[present]
        if soft:
            return pd.DataFrame(scores, index=adata.obs_names, columns=names)
        return names[scores.argmax(axis=1)]

    def get_latent_representation(self, adata: AnnData) -> np.ndarray:
        """Place cells among the principal components of the distilled cells.

        Returns
        -------
        Cells x at most 10 components, float32.
        """
        from sklearn.decomposition import PCA

        query, mask = self._read(adata)
        ours = log_normalise(self._counts[:, mask]).toarray()
        n_components = max(1, min(_COMPONENTS, min(ours.shape) - 1))
        space = PCA(n_components, svd_solver="full").fit(ours)
        parts = [
            space.transform(log_normalise(query[start : start + 2048]).toarray())
            for start in range(0, query.shape[0], 2048)
        ]
        return np.concatenate(parts).astype(np.float32)

    def annotate(self, adata: Any, *, key_added: str | None = None) -> dict[str, str]:
        """Write labels into `adata`; everything is computed before anything is written.

        Updates `adata` with the following fields (``key`` is `key_added` or ``"scdd"``):

        ``adata.obs["<key>_label"]``
            The class of each cell.
        ``adata.obs["<key>_confidence"]``
            The probability that the classifier gives it.
        ``adata.obsm["X_<key>"]``
            The cells among the principal components of the distilled ones.
        ``adata.uns["sczoo"]["<key>"]``
            Classifier, versions and the gene alignment.
        """
        key = key_added or self._method
        record = earlier_record(adata)
        alignment = self._query_alignment(adata)
        table = self.predict(adata, soft=True)
        points = self.get_latent_representation(adata)
        assert isinstance(table, pd.DataFrame)
        labels = table.columns.to_numpy()[table.to_numpy().argmax(axis=1)]
        adata.obs[f"{key}_label"] = pd.Categorical(labels, categories=list(self.class_names))
        adata.obs[f"{key}_confidence"] = table.to_numpy().max(axis=1).astype(np.float32)
        adata.obsm[f"X_{key}"] = points
        record[key] = {
            "method": self._method,
            "classifier": self.classifier,
            "genes": alignment.as_dict(),
            "seed": int(self.seed),
        }
        adata.uns["sczoo"] = record
        return {
            f"obs['{key}_label']": "predicted label",
            f"obs['{key}_confidence']": "probability of the label",
            f"obsm['X_{key}']": "principal components of the distilled cells",
        }
