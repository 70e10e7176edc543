"""What a user asks of a trained GRIT."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sczoo.base._query import earlier_record
from sczoo.base._reading import resolve_indices
from sczoo.errors import InputError
from sczoo.model.grit._abstention import check_coverage
from sczoo.model.grit._refinement import Refinement, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

    from sczoo.model.grit._query import GraphName

__all__ = ["GRITResultsMixin"]


class GRITResultsMixin:
    """Labels, confidence, what changed, and results written into an AnnData.

    Every method takes cells never seen before. All cells of `adata` are refined together, on
    their own graph; ``indices`` chooses among the results.
    """

    def refine(
        self: Any,
        adata: AnnData | MuData | None = None,
        *,
        graph: GraphName = "own",
        batch_key: str | None = None,
        **settings: Any,
    ) -> Refinement:
        """Refine cells and return all that is known about them.

        Parameters
        ----------
        adata
            New cells; the model's own by default. The own graph is kept, so that refining again
            with another ``lam`` takes a fraction of a second.
        graph
            ``"own"``: the new cells are scored against each other and connected among themselves.
            ``"model"``: scored and connected with the means and components of the training cells,
            for a few new cells. ``"reference"``: each new cell is refined by its nearest training
            cells, which are not changed; the model must hold them.
        batch_key
            Column of ``adata.obs`` whose batches the graph shall cross.
        **settings
            ``lam``, ``laplacian``, ``guard`` and others of the constructor, for this call.

        Returns
        -------
        :class:`~sczoo.model.grit._refinement.Refinement`
        """
        self._require_trained()
        unknown = sorted(set(settings) - {f.name for f in fields(Settings)})
        if unknown:
            raise InputError(
                f"refine has no setting {unknown[0]!r}; it has "
                f"{', '.join(f.name for f in fields(Settings))}."
            )
        if adata is None and self.adata is None:
            raise InputError(
                "This model was loaded without data: pass the cells to work on as adata=."
            )
        if adata is None and graph == "own" and batch_key is None:
            if self._state is None:
                self._state = self._refine_data(self.adata)
            result = self._state
        else:
            data = self.adata if adata is None else adata
            result = self._refine_data(data, graph=graph, batch_key=batch_key)
        return result.with_settings(self.module.device, **settings) if settings else result

    def _rows(
        self, n_cells: int, indices: Sequence[int] | None, batch_size: int | None
    ) -> np.ndarray:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
        return resolve_indices(indices, n_cells)

    def get_refined_scores(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        graph: GraphName = "own",
        batch_key: str | None = None,
    ) -> np.ndarray:
        """Refined scores, ``(n_cells, n_classes)``, float32, columns as in ``classes``.

        Parameters
        ----------
        adata, graph, batch_key
            As in :meth:`refine`.
        indices
            Cells to return, in this order.
        batch_size
            Of no effect: every label depends on all cells.
        """
        result = self.refine(adata, graph=graph, batch_key=batch_key)
        return result.refined[self._rows(result.n_cells, indices, batch_size)]

    def _main_result(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Refined scores; coordinates of cells that have no scores, such as a self-test's."""
        model: Any = self
        key = model._setup_arguments.get("logits_key")
        if (
            adata is None
            or model._scorer_name == "markers"
            or (key is not None and key in model._expression(adata).obsm)
        ):
            return self.get_refined_scores(adata, indices=indices, batch_size=batch_size)
        model._require_trained()
        rows = self._rows(adata.n_obs, indices, batch_size)
        return model._coordinates(adata)[rows]

    def predict(
        self,
        adata: AnnData | MuData | None = None,
        soft: bool = False,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        raw: bool = False,
        coverage: float = 1.0,
        unknown: str = "unknown",
        graph: GraphName = "own",
        batch_key: str | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Label cells.

        Parameters
        ----------
        adata, graph, batch_key
            As in :meth:`refine`.
        soft
            Return probabilities instead of labels: a data frame of cells and classes.
        indices
            Cells to return, in this order.
        batch_size
            Of no effect: every label depends on all cells.
        raw
            Return the labels before the refinement.
        coverage
            Share of the cells that get a label; the least confident others are called `unknown`.
        unknown
            Name for cells without a label.

        Returns
        -------
        Labels ``(n_cells,)``, or probabilities ``(n_cells, n_classes)``.
        """
        check_coverage(coverage)
        result = self.refine(adata, graph=graph, batch_key=batch_key)
        rows = self._rows(result.n_cells, indices, batch_size)
        if soft:
            values = result.probabilities()[rows]
            return pd.DataFrame(values, result.obs_names[rows], list(result.classes))
        if raw:
            return result.raw_labels[rows]
        return result.table(coverage, unknown)["label"].to_numpy(dtype=object)[rows]

    def get_confidence(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        *,
        coverage: float = 1.0,
        graph: GraphName = "own",
    ) -> pd.DataFrame:
        """Label, raw label, confidence, margin, agreement of neighbours and change of each cell.

        Parameters
        ----------
        adata, graph
            As in :meth:`refine`.
        indices
            Cells to return, in this order.
        coverage
            Share of the cells that get a label.
        """
        check_coverage(coverage)
        result = self.refine(adata, graph=graph)
        return result.table(coverage).iloc[self._rows(result.n_cells, indices, None)]

    def get_label_flow(
        self, adata: AnnData | MuData | None = None, *, graph: GraphName = "own"
    ) -> pd.DataFrame:
        """Cells by label before (rows) and after (columns) the refinement."""
        return self.refine(adata, graph=graph).flow()

    def get_shrinkage(
        self, adata: AnnData | MuData | None = None, *, graph: GraphName = "own"
    ) -> pd.DataFrame:
        """Per class: cells before and after, signal kept, coherence, and the factor applied."""
        return self.refine(adata, graph=graph).shrinkage.copy()

    def predict_parents(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        *,
        threshold: float = 0.7,
        graph: GraphName = "own",
    ) -> pd.DataFrame:
        """Name each cell by the most specific Cell Ontology term that is probable enough.

        Parameters
        ----------
        adata, graph
            As in :meth:`refine`.
        indices
            Cells to return, in this order.
        threshold
            Smallest probability of a name, summed over all classes that are kinds of it.

        Returns
        -------
        ``label``, ``term`` and ``probability`` of each cell.
        """
        result = self.refine(adata, graph=graph)
        return result.back_off(threshold).iloc[self._rows(result.n_cells, indices, None)]

    def annotate(
        self: Any,
        adata: AnnData | MuData,
        *,
        key_added: str | None = None,
        coverage: float = 1.0,
        graph: GraphName = "own",
        batch_key: str | None = None,
    ) -> dict[str, str]:
        """Write labels and what is known about them into `adata`.

        Everything is computed before anything is written. Updates `adata` with the following
        fields (``key`` is `key_added`, or ``grit``):

        ``adata.obsm["X_<key>"]``
            Refined scores, one column per class.
        ``adata.obs["<key>_label"]``, ``adata.obs["<key>_raw_label"]``
            Labels after and before the refinement.
        ``adata.obs["<key>_confidence"]``, ``adata.obs["<key>_changed"]``
            Confidence, and whether the label changed.
        ``adata.uns["sczoo"]["<key>"]``
            Method, classes, settings, what the guard saw, versions and the gene alignment.

        Parameters
        ----------
        adata
            Any cells.
        key_added
            Prefix of the fields.
        coverage
            Share of the cells that get a label; the least confident others are ``"unknown"``.
        graph, batch_key
            As in :meth:`refine`.

        Returns
        -------
        The keys written and what each holds.
        """
        self._require_trained()
        check_coverage(coverage)
        record = earlier_record(adata)
        result = self.refine(adata, graph=graph, batch_key=batch_key)
        genes = {}
        if self._needs_expression:
            genes = self._query_alignment(self._expression(adata)).as_dict()
        return write_refinement(
            adata,
            result,
            record,
            key=key_added or self._method,
            coverage=coverage,
            entry={
                "method": self._method,
                "genes": genes,
                "scorer": self._scorer_name,
                "versions": dict(self.provenance_.get("versions", {})),
                "seed": self.provenance_.get("seed", -1),
            },
        )


def write_refinement(
    adata: Any,
    result: Refinement,
    record: dict[str, Any],
    *,
    key: str,
    coverage: float,
    entry: dict[str, Any],
) -> dict[str, str]:
    """Write a refinement into `adata`; see :meth:`GRITResultsMixin.annotate`."""
    table = result.table(coverage)
    before, after = result.energy()
    columns = {
        f"{key}_label": (pd.Categorical(table["label"]), "refined label"),
        f"{key}_raw_label": (pd.Categorical(table["raw_label"]), "label before the refinement"),
        f"{key}_confidence": (table["confidence"].to_numpy(np.float32), "confidence"),
        f"{key}_changed": (table["changed"].to_numpy(), "whether the label changed"),
    }
    written = {f"obsm['X_{key}']": "refined scores"}
    adata.obsm[f"X_{key}"] = result.refined
    for name, (values, what) in columns.items():
        adata.obs[name] = values
        written[f"obs['{name}']"] = what
    guard = result.guard
    record[key] = {
        **entry,
        "classes": list(result.classes),
        "lam": float(result.settings.lam),
        "laplacian": result.settings.laplacian,
        "coverage": float(coverage),
        "n_iterations": len(result.residuals) - 1,
        "residual": float(result.residuals[-1]),
        "energy_before": before,
        "energy_after": after,
        "edge_agreement_before": guard.agreement,
        "edge_agreement_after": guard.edge_agreement_after,
        "entropy_kept": guard.entropy_kept,
        "refused": guard.refused,
        "warnings": list(result.warnings),
    }
    adata.uns["sczoo"] = record
    return written
