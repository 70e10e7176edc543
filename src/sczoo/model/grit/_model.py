"""GRIT: zero-shot labels that are right more often, for the scores of any model."""

from __future__ import annotations

import logging
import warnings
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd

from sczoo.base import ZooModelClass
from sczoo.errors import InputError, MissingKeyError
from sczoo.model.grit._expression import InputKind
from sczoo.model.grit._graph import WeightName, check_n_neighbors
from sczoo.model.grit._guard import GuardName
from sczoo.model.grit._module import GRITModule
from sczoo.model.grit._query import GRITQueryMixin
from sczoo.model.grit._refinement import Refinement, Settings, check_lam
from sczoo.model.grit._results import GRITResultsMixin
from sczoo.model.grit._setup import GRITSetupMixin
from sczoo.model.grit._solver import LaplacianName
from sczoo.model.grit._trainingplan import AllCells, GRITTrainingPlan
from sczoo.model.grit.scorers._markers import (
    OPEN_PRIOR,
    check_markers,
    choose_markers,
    marker_table,
)
from sczoo.model.grit.scorers._precomputed import read_scores
from sczoo.model.grit.scorers._protocol import Scorer, check_classes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale

__all__ = ["GRIT"]

logger = logging.getLogger(__name__)

SpaceName = Literal["auto", "logit", "prob"]
_NAMED_SCORERS = ("precomputed", "markers")


class GRIT(GRITSetupMixin, GRITQueryMixin, GRITResultsMixin, ZooModelClass):
    """Labels refined on the graph of the cells: neighbours vote, and rare types are kept.

    Any model's scores for a set of cell types, or those of a marker table that sczoo ships with,
    are made smooth on the nearest-neighbour graph of the very cells that are labelled. There is
    nothing to train: one sparse linear system is solved for all classes at once.

    Parameters
    ----------
    adata
        Data that went through :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build the model without data.
    scorer
        ``"precomputed"``: the scores of the set-up's ``logits_key``. ``"markers"``: the marker
        table, or `markers`. Or an object with the method ``score``, such as those of
        :mod:`sczoo.model.grit.scorers`. By default the scores of the set-up if it names any, else
        the markers.
    lam
        Strength of the refinement; means the same on any graph. 0 leaves the scores as they are,
        2 to 5 is sensible, beyond 10 large types swallow small ones.
    n_neighbors
        Neighbours of a cell, itself not counted.
    classes, tissue
        Candidates of the marker table: names of types, or of tissues such as ``"blood"``. Fewer
        candidates give better labels.
    markers
        Own markers: ``{"B cell": ["CD79A", "MS4A1"], ...}``.
    species
        ``"human"`` or ``"mouse"``, for the marker table; recognised by default.
    marker_prior
        Penalty for classes with few measured markers: 2 among the candidates of a tissue or the
        whole table, 0 among those named in `classes` or `markers`.
    class_names
        Names of the classes; read from the scores by default.
    class_terms
        Identifier of a class in the Cell Ontology, for parents and the coupling of the classes.
        Known for the types of the marker table and for classes named as there.
    laplacian
        ``"rw"`` (default), ``"sym"`` or ``"comb"``: see the user guide. ``"rw"`` and ``"comb"``
        keep the sum of a cell's scores, so that probabilities stay probabilities.
    weights
        Of the graph: ``"umap"``, ``"binary"``, ``"gaussian"`` or ``"mutual"``.
    n_components
        Principal components to find neighbours in.
    space
        ``"auto"``: scores as they are. ``"prob"``: their softmax.
    temperature
        Of the softmax of scores that are not probabilities.
    confidence_weighted
        Trust a cell's own scores by their certainty.
    ontology_weight
        Strength of a coupling of classes that are close in the Cell Ontology; off by default.
    keep_rare
        Give small types back the signal that the smoothing took from them.
    guard
        ``"auto"``: where the probabilities of a classifier collapse into a few classes, keep them
        as they were and say so. ``"warn"``: say so only. ``"off"``.
    input_kind
        ``"counts"``, ``"linear"`` or ``"log"``; recognised from the values by default.

    Examples
    --------
    >>> import sczoo
    >>> sczoo.model.GRIT.setup_anndata(adata)
    >>> model = sczoo.model.GRIT(adata, tissue="blood")
    >>> model.train()
    >>> adata.obs["cell_type"] = model.predict()

    Notes
    -----
    See the user guide for the equations. A saved model holds the markers or the names of the
    classes, gene means, loadings and settings; it holds no cells. :meth:`predict` scores new
    cells, builds their own graph and refines there.
    """

    _method: ClassVar[str] = "grit"
    _module_cls = GRITModule
    _training_plan_cls = GRITTrainingPlan
    _data_splitter_cls = AllCells
    _input_scale: ClassVar[InputScale] = "nonnegative"
    _summary: ClassVar[str] = (
        "Cell-type labels of any model, or of a marker table, refined on the graph of the cells, "
        "with confidence, abstention and a guard."
    )
    _citation: ClassVar[list[dict[str, str]]] = [
        {
            "text": (
                "Hu et al. Graph-regularised logit refinement for zero-shot cell type annotation "
                "(GRIT). arXiv (2025)."
            ),
            "url": "https://arxiv.org/abs/2508.04747",
        }
    ]

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict[str, Any] | None = None,
        scorer: str | Scorer | None = None,
        lam: float = 3.0,
        n_neighbors: int = 15,
        *,
        classes: Sequence[str] | None = None,
        tissue: str | Sequence[str] | None = None,
        markers: Mapping[str, Sequence[str]] | None = None,
        species: str | None = None,
        marker_prior: float | None = None,
        class_names: Sequence[str] | None = None,
        class_terms: Mapping[str, str] | None = None,
        laplacian: LaplacianName = "rw",
        weights: WeightName = "umap",
        n_components: int = 20,
        space: SpaceName = "auto",
        temperature: float = 0.25,
        confidence_weighted: bool = False,
        ontology_weight: float = 0.0,
        keep_rare: bool = True,
        guard: GuardName = "auto",
        input_kind: InputKind | None = None,
    ) -> None:
        init_locals = dict(locals())
        super().__init__(adata, registry)
        check_lam(lam)
        _check_choice("laplacian", laplacian, get_args(LaplacianName))
        _check_choice("weights", weights, get_args(WeightName))
        _check_choice("space", space, get_args(SpaceName))
        _check_choice("guard", guard, get_args(GuardName))
        _check_choice("input_kind", input_kind, (*get_args(InputKind), None))
        _check_positive("n_neighbors", n_neighbors, whole=True)
        _check_positive("n_components", n_components, whole=True)
        _check_positive("temperature", temperature)
        if not isinstance(ontology_weight, int | float) or not 0 <= ontology_weight < np.inf:
            raise InputError(f"ontology_weight={ontology_weight!r}: it is a number of at least 0.")
        self._notes: tuple[str, ...] = ()
        self.scorer: Scorer | None = None
        if marker_prior is None:
            marker_prior = 0.0 if markers is not None or classes is not None else OPEN_PRIOR
        if not isinstance(marker_prior, int | float) or not 0 <= marker_prior < np.inf:
            raise InputError(f"marker_prior={marker_prior!r}: it is a number of at least 0.")
        self._marker_prior = float(marker_prior)
        name, terms = self._resolve_scorer(scorer), dict(class_terms or {})
        if name == "markers":
            markers, terms = self._resolve_markers(markers, classes, tissue, species, terms)
            # JSON does not keep the order of a mapping
            class_names = sorted(markers)
        elif markers is not None or classes is not None or tissue is not None:
            raise InputError(
                f"classes, tissue and markers choose from the marker table, but the scorer is "
                f"{name!r}. Leave them out, or pass scorer='markers'."
            )
        else:
            class_names = self._resolve_classes(name, class_names)
            terms = {**_known_terms(class_names), **terms}
        self._scorer_name = name
        self._classes = check_classes(class_names, "class_names")
        self._markers = None
        if markers is not None:
            checked = check_markers(markers)
            self._markers = {name: checked[name] for name in self._classes}
        self._terms = terms
        self._n_neighbors, self._n_components = int(n_neighbors), int(n_components)
        self._weights, self._input_kind = weights, input_kind
        own = {f.name for f in fields(Settings)} & set(init_locals)
        self._settings = Settings(**{key: init_locals[key] for key in own})
        # what was resolved is recorded, so that a saved model stays what it is
        init_locals.update(
            scorer=name,
            classes=None,
            tissue=None,
            markers=self._markers,
            marker_prior=self._marker_prior,
            class_names=None if name == "markers" else list(self._classes),
            class_terms=terms,
        )
        self.module = self._build_module(
            n_genes=len(self.var_names),
            n_components=self._n_components,
            n_classes=len(self._classes),
        )
        self._state: Refinement | None = None
        self._model_summary_string = (
            f"GRIT of {len(self._classes)} classes scored by {name}, lam={lam:g}, "
            f"{n_neighbors} neighbours"
        )
        self._finish_init(init_locals)

    # --- what the constructor decides ---------------------------------------------------------

    def _resolve_scorer(self, scorer: Any) -> str:
        key = self._setup_arguments.get("logits_key")
        if scorer is None:
            return "markers" if key is None else "precomputed"
        if not isinstance(scorer, str):
            if not isinstance(scorer, Scorer):
                raise InputError(
                    f"scorer is a {type(scorer).__name__}: pass 'precomputed', 'markers' or an "
                    "object with a name and a method score(adata, layer=None)."
                )
            self.scorer = scorer
            return str(scorer.name)
        if scorer == "precomputed" and key is None:
            raise MissingKeyError(
                "scorer='precomputed' needs the scores of the cells: name them with "
                "setup_anndata(adata, logits_key=...)."
            )
        if scorer not in _NAMED_SCORERS and self.adata is not None:
            raise InputError(
                f"scorer={scorer!r} is not known by name; use one of {_NAMED_SCORERS}, or pass an "
                "object of sczoo.model.grit.scorers, such as LangCellScorer(folder)."
            )
        return scorer

    def _resolve_markers(
        self,
        markers: Mapping[str, Sequence[str]] | None,
        classes: Sequence[str] | None,
        tissue: str | Sequence[str] | None,
        species: str | None,
        terms: dict[str, str],
    ) -> tuple[dict[str, list[str]], dict[str, str]]:
        if markers is not None:
            if classes is not None or tissue is not None:
                raise InputError("markers brings its own classes: leave classes and tissue out.")
            own = check_markers(markers)
            return own, {**_known_terms(own), **terms}
        found, known, notes = choose_markers(
            [str(name) for name in self.var_names],
            alternative=self._alternative_genes,
            classes=classes,
            tissue=tissue,
            species=species,
        )
        self._notes = tuple(notes)
        for note in notes:
            warnings.warn(note, UserWarning, stacklevel=3)
        return found, {**known, **terms}

    def _resolve_classes(self, name: str, class_names: Sequence[str] | None) -> Sequence[str]:
        if class_names is not None:
            named = check_classes(class_names, "class_names")
            if name == "precomputed" and self.adata is not None:
                # before training: they must be those of the scores
                read_scores(
                    self._expression(self.adata), self._setup_arguments["logits_key"], named
                )
            return named
        if name == "precomputed" and self.adata is not None:
            key = self._setup_arguments["logits_key"]
            return read_scores(self._expression(self.adata), key).classes
        found = getattr(self.scorer, "classes", None)
        if found is None and self.scorer is not None and self.adata is not None:
            source = self._expression(self.adata)
            found = self.scorer.score(source, layer=self._layer).classes
        if found is None:
            raise InputError(
                f"The classes of the scorer {name!r} are not known: pass class_names."
            )
        return list(found)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the scores."""
        return list(self._classes)

    # --- training -----------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int = 1,
        batch_size: int | None = None,
        *,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        **trainer_kwargs: Any,
    ) -> None:
        """Score the cells, connect them, and solve for the refined scores.

        ``history["residual"]`` has the relative residual after each iteration of the solver.

        Parameters
        ----------
        max_epochs
            One is enough: a further epoch solves the same system again.
        batch_size
            Of no effect: every label depends on all cells.
        accelerator, devices
            Where to solve.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.

        Raises
        ------
        InputError
            Scores or graph cannot be used; nothing was computed.
        TooFewCellsError
            There are not more cells than ``n_neighbors``.
        """
        for name in ("train_size", "validation_size", "shuffle_set_split"):
            trainer_kwargs.pop(name, None)
        if self.adata is not None and self.adata.n_obs > 1:
            if self._setup_arguments.get("connectivities_key") is None:
                check_n_neighbors(self._n_neighbors, self.adata.n_obs)
        plan = {**dict(trainer_kwargs.pop("plan_kwargs", None) or {}), "solve": self._fit}
        try:
            with warnings.catch_warnings():
                # Lightning misses an optimiser and a longer log: there are none on purpose
                for message in (".*returned `None`.*", ".*logging interval.*"):
                    warnings.filterwarnings("ignore", message=message)
                self._train(
                    max_epochs=max_epochs,
                    batch_size=batch_size or 128,
                    accelerator=accelerator,
                    devices=devices,
                    plan_kwargs=plan,
                    **trainer_kwargs,
                )
        finally:
            if self._state is not None and isinstance(self.history_, dict):
                self.history_["residual"] = pd.DataFrame(
                    {"residual": self._state.residuals},
                    index=pd.RangeIndex(len(self._state.residuals), name="iteration"),
                )

    def _fit(self) -> float:
        """Refine the model's own cells and keep what new cells will need."""
        state = self._refine_own()
        self._state = state
        shares = [
            np.bincount(codes, minlength=len(self._classes)) / state.n_cells
            for codes in (state.raw_codes, state.codes)
        ]
        guard = state.guard
        self.module.keep(
            raw_share=shares[0],
            refined_share=shares[1],
            guard_statistics=np.array(
                [
                    guard.agreement,
                    guard.entropy_kept,
                    guard.margin_before,
                    guard.margin_after,
                    guard.edge_agreement_after,
                ]
            ),
        )
        for warning in state.warnings:
            # those of the constructor were shown there
            if warning not in self._notes:
                logger.warning("%s", warning)
        return float(state.residuals[-1])

    def save(  # type: ignore[override]
        self,
        dir_path: str | PathLike[str],
        overwrite: bool = False,
        *,
        include_categories: Sequence[str] = (),
        include_reference: bool = False,
    ) -> None:
        """Save the model as a zoo artefact; see :meth:`sczoo.base.ZooModelClass.save`.

        Parameters
        ----------
        dir_path, overwrite, include_categories
            As in every model.
        include_reference
            Also save the embedding and the refined scores of every training cell, for
            ``predict(graph="reference")``. These are values of single patients' cells: the release
            gate refuses them unless they are allowed by name.
        """
        self._require_trained()
        held = [self.module.reference_embedding, self.module.reference_scores]
        if include_reference:
            self.module.keep_reference(*self._reference(), saved=True)
        elif self.module.has_reference:
            # set aside: a buffer that is not persistent is not written
            self.module.keep_reference(*(part.cpu().numpy() for part in held), saved=False)
        super().save(dir_path, overwrite, include_categories=include_categories)


def _known_terms(names: Any) -> dict[str, str]:
    """Cell Ontology identifiers of classes named as in the marker table or the ontology."""
    from sczoo.model.grit.ontology import cell_ontology

    table, ontology = marker_table(), cell_ontology()
    found = {}
    for name in map(str, names):
        term = table[name].term if name in table else ontology.find(name)
        if term is not None:
            found[name] = term
    return found


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r} is not known; choose one of {choices}.")


def _check_positive(name: str, value: Any, *, whole: bool = False) -> None:
    kinds = (int, np.integer) if whole else (int, float, np.number)
    if not isinstance(value, kinds) or isinstance(value, bool) or not 0 < value < np.inf:
        raise InputError(f"{name}={value!r}: it must be a {'whole ' * whole}number above 0.")
