"""Scoring, connecting and refining any cells: the model's own, or new ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS

from sczoo import _compat
from sczoo.base._checks import check_categorical
from sczoo.base._reading import iter_row_blocks
from sczoo.errors import InputError, MissingKeyError, NotTrainedError
from sczoo.model.grit._expression import Expression
from sczoo.model.grit._graph import build_graph, read_graph
from sczoo.model.grit._pca import fit_components, project
from sczoo.model.grit._refinement import Refinement, refine_scores
from sczoo.model.grit.scorers._markers import locate, marker_scores, moments
from sczoo.model.grit.scorers._precomputed import read_scores
from sczoo.model.grit.scorers._protocol import Scores, check_scores

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from scipy.sparse import csr_matrix

    from sczoo.base._checks import InputScale

__all__ = ["GRITQueryMixin", "GraphName"]

GraphName = Literal["own", "model", "reference"]


@dataclass
class _Cells:
    """The cells to refine, and their expression where anything needs it."""

    source: AnnData
    expression: Any  # an Expression or None


class GRITQueryMixin:
    """From cells to a :class:`~sczoo.model.grit._refinement.Refinement`."""

    @property
    def _needs_expression(self: Any) -> bool:
        """Whether anything is computed from the expression, so that its genes matter."""
        given = self._setup_arguments
        graph_given = given.get("use_rep") or given.get("connectivities_key")
        return self._scorer_name == "markers" or graph_given is None

    @property
    def _scale(self: Any) -> InputScale:
        given = self._setup_arguments
        graph_given = given.get("use_rep") or given.get("connectivities_key")
        return "any" if given.get("logits_key") and graph_given else self._input_scale

    def _refine_own(self: Any) -> Refinement:
        """Refine the model's own cells, and fit what the module keeps."""
        return self._refine_data(self.adata, graph="own", fitting=True)

    def _refine_data(
        self: Any,
        data: AnnData | MuData,
        *,
        graph: GraphName = "own",
        batch_key: str | None = None,
        fitting: bool = False,
    ) -> Refinement:
        if graph not in get_args(GraphName):
            raise InputError(f"graph={graph!r} is not known: use one of {get_args(GraphName)}.")
        if graph == "reference" and not self._has_reference():
            raise NotTrainedError(
                "graph='reference' needs the training cells' embedding and scores, which a saved "
                "model does not hold by default. Save it with save(..., include_reference=True), "
                "or use graph='own'."
            )
        cells = self._read_cells(data, checked=fitting)
        scores = self._score(cells, own=graph == "own", fitting=fitting)
        embedding, connected = self._connect(cells, data, graph, batch_key, fitting)
        result = refine_scores(
            scores.values,
            self._classes,
            connected,
            self._settings,
            probability=scores.probability,
            terms=self._terms,
            obs_names=cells.source.obs_names,
            notes=tuple(dict.fromkeys((*self._notes, *scores.notes))),
            embedding=embedding,
            device=self.module.device,
        )
        if graph == "reference":
            return self._boundary_step(result)
        return result

    # --- cells --------------------------------------------------------------------------------

    def _read_cells(self: Any, data: AnnData | MuData, *, checked: bool) -> _Cells:
        source = self._expression(data)
        if not self._needs_expression:
            return _Cells(source, None)
        self._check_query_structure(source, self._layer)
        alignment = self._query_alignment(source)
        if not checked:
            for rows, block in iter_row_blocks(source, self._layer):
                self._check_query_block(source, alignment.apply(block), rows, alignment)
        columns = np.where(alignment.present, alignment.positions, -1)
        return _Cells(source, Expression(source, self._layer, columns, self._input_kind))

    # --- scores -------------------------------------------------------------------------------

    def _score(self: Any, cells: _Cells, *, own: bool, fitting: bool) -> Scores:
        if fitting and cells.expression is not None:
            mean, scale = moments(cells.expression, np.arange(len(self.var_names)))
            self.module.keep(gene_mean=mean, gene_scale=scale)
        if self._scorer_name == "markers":
            positions = locate(
                self._markers, [str(n) for n in self.var_names], self._alternative_genes
            )
            known: dict[str, Any] = {"prior": self._marker_prior}
            if not own:
                known |= {
                    "mean": self.module.gene_mean.cpu().numpy().astype(np.float64),
                    "scale": self.module.gene_scale.cpu().numpy().astype(np.float64),
                }
            values, notes = marker_scores(cells.expression, positions, self._classes, **known)
            return Scores(values, self._classes, False, tuple(notes))
        if self._scorer_name == "precomputed":
            return read_scores(cells.source, self._setup_arguments["logits_key"], self._classes)
        if self.scorer is None:
            raise InputError(
                f"This model was saved with the scorer {self._scorer_name!r}, which is not part "
                "of it. Set it again: model.scorer = ..., such as LangCellScorer(folder) of "
                "sczoo.model.grit.scorers."
            )
        found = self.scorer.score(cells.source, layer=self._layer)
        what = f"The scores of {self._scorer_name}"
        values = check_scores(found.values, cells.source.n_obs, what)
        if set(found.classes) != set(self._classes) or len(found.classes) != values.shape[1]:
            raise InputError(
                f"{what} are for the classes {list(found.classes)[:5]}, the model's are "
                f"{list(self._classes)[:5]}. Use the scorer that the model was built with."
            )
        order = [found.classes.index(name) for name in self._classes]
        return Scores(values[:, order], self._classes, found.probability, found.notes)

    # --- graph --------------------------------------------------------------------------------

    def _connect(
        self: Any,
        cells: _Cells,
        data: AnnData | MuData,
        graph: GraphName,
        batch_key: str | None,
        fitting: bool,
    ) -> tuple[np.ndarray | None, csr_matrix]:
        given = self._setup_arguments
        key, rep = given.get("connectivities_key"), given.get("use_rep")
        if key is not None and graph == "own" and (fitting or key in cells.source.obsp):
            embedding = self._embedding(cells, rep, fitting) if fitting else None
            return embedding, read_graph(cells.source, key)
        if graph == "own":
            embedding = self._embedding(cells, rep, fitting)
        elif rep is not None:
            embedding = self._representation(cells.source, rep)
        elif cells.expression is not None:
            embedding = project(cells.expression, self.module.components)
        else:
            embedding = None
        if embedding is None:  # the model knows graphs that are given, and no other way
            return None, read_graph(cells.source, key)
        n_neighbors = min(self._n_neighbors, max(len(embedding) - 1, 1))
        batches = self._batches(data, batch_key)
        built = build_graph(embedding, n_neighbors, weights=self._weights, batches=batches)
        return embedding, built

    def _embedding(self: Any, cells: _Cells, rep: str | None, fitting: bool) -> Any:
        """Coordinates of the cells: those given, or their own principal components."""
        if rep is not None:
            return self._representation(cells.source, rep)
        if cells.expression is None:
            return None
        components = fit_components(cells.expression, self._n_components)
        if fitting:
            self.module.keep(loadings=components.loadings)
        return project(cells.expression, components)

    def _coordinates(self: Any, data: AnnData | MuData) -> np.ndarray:
        """Coordinates of cells on the training cells' principal components."""
        if not self._needs_expression:
            source = self._expression(data)
            return np.zeros((source.n_obs, self._n_components), dtype=np.float32)
        return project(self._read_cells(data, checked=False).expression, self.module.components)

    def _representation(self, source: AnnData, key: str) -> np.ndarray:
        if key not in source.obsm:
            known = ", ".join(sorted(map(str, source.obsm.keys()))) or "nothing"
            raise MissingKeyError(
                f"adata.obsm has no {key!r}, in which the model finds neighbours; it has {known}. "
                "Compute it for these cells too."
            )
        values: Any = source.obsm[key]
        return check_scores(values, source.n_obs, f"adata.obsm[{key!r}]")

    def _batches(self: Any, data: AnnData | MuData, batch_key: str | None) -> np.ndarray | None:
        """Codes of the cells' batches; ``None`` where they play no part."""
        if batch_key is not None:
            source = data if batch_key in data.obs else self._expression(data)
            check_categorical(source, batch_key)
            return pd.factorize(source.obs[batch_key].astype(str))[0]
        registered = self.registry_[_compat.FIELD_REGISTRIES].get(REGISTRY_KEYS.BATCH_KEY)
        if registered is None:
            return None
        key = registered[_compat.STATE_REGISTRY].get("original_key")
        holder = data if key in data.obs else self._expression(data)
        codes = self._category_codes(holder, REGISTRY_KEYS.BATCH_KEY)
        # batches that the model does not know may be one: they are not told apart
        return None if (codes == codes[0]).all() else codes

    # --- the training cells as a reference ----------------------------------------------------

    def _has_reference(self: Any) -> bool:
        own = self._state is not None and self._state.embedding is not None
        return own or self.module.has_reference

    def _reference(self: Any) -> tuple[np.ndarray, np.ndarray]:
        """Embedding and refined scores of the training cells."""
        if self._state is not None and self._state.embedding is not None:
            return self._state.embedding, self._state.refined
        if not self.module.has_reference:
            raise NotTrainedError(
                "The embedding of the training cells is not at hand: train the model on its data "
                "again, without a given graph or with use_rep."
            )
        module = self.module
        return module.reference_embedding.cpu().numpy(), module.reference_scores.cpu().numpy()

    def _boundary_step(self: Any, result: Refinement) -> Refinement:
        r"""Refine new cells against the training cells, which stay as they are.

        One step of :math:`F = (P + \lambda \overline{F_{ref}}) / (1 + \lambda)` with the mean over
        the nearest training cells.
        """
        from sczoo.graph import knn

        embedding, scores = self._reference()
        k = min(self._n_neighbors, len(embedding))
        found = knn(embedding, k, query=result.embedding)
        lam = self._settings.lam
        mean = scores[found.indices].mean(axis=1)
        refined = ((result.raw + lam * mean) / (1.0 + lam)).astype(np.float32)
        return replace(result, refined=refined, residuals=[0.0])
