"""Scores of one dataset, refined: everything that is known about its cells."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sczoo.errors import InputError
from sczoo.model.grit._abstention import ancestor_labels, kept_at_coverage
from sczoo.model.grit._graph import agreement
from sczoo.model.grit._guard import GuardName, GuardReport, inspect_refinement, margin
from sczoo.model.grit._rare import keep_rare, measure_shrinkage
from sczoo.model.grit._solver import build_system, choose_dtype, default_tolerance, solve

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from scipy.sparse import csr_matrix

    from sczoo.model.grit._solver import LaplacianName

__all__ = ["Refinement", "Settings", "refine_scores", "softmax"]


@dataclass(frozen=True)
class Settings:
    """How scores are refined; see :class:`~sczoo.model.GRIT` for the meaning."""

    lam: float = 3.0
    laplacian: LaplacianName = "rw"
    space: Literal["auto", "logit", "prob"] = "auto"
    temperature: float = 0.25
    confidence_weighted: bool = False
    ontology_weight: float = 0.0
    keep_rare: bool = True
    guard: GuardName = "auto"
    tol: float | None = None


@dataclass(frozen=True)
class Refinement:
    """Refined labels of a dataset, and all that was known on the way.

    Attributes
    ----------
    raw, refined
        Scores before and after, ``(n_cells, n_classes)``, float32.
    classes
        Names of the classes.
    terms
        Identifier of each class in the Cell Ontology, where it has one.
    graph
        The graph of the cells.
    probability
        Whether the scores are probabilities.
    settings
        How they were refined.
    guard
        What the guard saw.
    shrinkage
        Per class, what the smoothing took; see :mod:`sczoo.model.grit._rare`.
    residuals
        Relative residual after each iteration of the solver.
    notes
        What a reader of the labels should know, in words.
    obs_names
        Names of the cells.
    embedding
        What the graph was built from, if it was built here; ``(n_cells, n_features)``.
    """

    raw: np.ndarray
    refined: np.ndarray
    classes: tuple[str, ...]
    terms: dict[str, str]
    graph: csr_matrix
    probability: bool
    settings: Settings
    guard: GuardReport
    shrinkage: pd.DataFrame
    residuals: list[float]
    obs_names: pd.Index
    notes: tuple[str, ...] = ()
    embedding: np.ndarray | None = field(default=None, repr=False)
    given: np.ndarray | None = field(default=None, repr=False)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.raw)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons for care, in words."""
        return (*self.guard.warnings, *self.notes)

    @property
    def raw_codes(self) -> np.ndarray:
        """Class of each cell before; ``(n_cells,)``."""
        return self.raw.argmax(axis=1)

    @property
    def codes(self) -> np.ndarray:
        """Class of each cell after; ``(n_cells,)``."""
        return self.refined.argmax(axis=1)

    @property
    def raw_labels(self) -> np.ndarray:
        """Name of the class of each cell before."""
        return np.asarray(self.classes, dtype=object)[self.raw_codes]

    @property
    def labels(self) -> np.ndarray:
        """Name of the class of each cell after."""
        return np.asarray(self.classes, dtype=object)[self.codes]

    @property
    def margin(self) -> np.ndarray:
        """Best minus second best refined score of each cell."""
        return margin(self.refined)

    @property
    def neighbour_agreement(self) -> np.ndarray:
        """Share of each cell's neighbours whose raw label is the cell's refined one."""
        return agreement(self.graph, self.raw_codes, self.codes)

    @property
    def confidence(self) -> np.ndarray:
        """Margin times agreement of the neighbours, over the largest; between 0 and 1.

        Orders the cells; it is not a probability.
        """
        value = self.margin * self.neighbour_agreement
        largest = float(value.max(initial=0.0))
        return value / largest if largest > 0 else value

    def probabilities(self) -> np.ndarray:
        """Refined scores as probabilities, ``(n_cells, n_classes)``; rows sum to one."""
        if self.probability:
            positive = np.maximum(self.refined, 0.0)
            total = positive.sum(axis=1, keepdims=True)
            return positive / np.where(total > 0, total, 1.0)
        return softmax(self.refined, self.settings.temperature)

    def table(self, coverage: float = 1.0, unknown: str = "unknown") -> pd.DataFrame:
        """Everything about each cell: label, raw label, confidence, margin, agreement, changed.

        Parameters
        ----------
        coverage
            Share of the cells that get a label; the least confident others get `unknown`.
        unknown
            Name for cells without a label.
        """
        labels, confidence = self.labels, self.confidence
        labels = np.where(kept_at_coverage(confidence, coverage), labels, unknown)
        return pd.DataFrame(
            {
                "label": labels,
                "raw_label": self.raw_labels,
                "confidence": confidence,
                "margin": self.margin,
                "agreement": self.neighbour_agreement,
                "changed": self.codes != self.raw_codes,
            },
            index=self.obs_names,
        )

    def flow(self) -> pd.DataFrame:
        """Cells by raw label (rows) and refined label (columns)."""
        counts = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        np.add.at(counts, (self.raw_codes, self.codes), 1)
        names = list(self.classes)
        return pd.DataFrame(
            counts, index=pd.Index(names, name="before"), columns=pd.Index(names, name="after")
        )

    def back_off(self, threshold: float = 0.7) -> pd.DataFrame:
        """Name each cell by the most specific term that is probable enough.

        See :func:`sczoo.model.grit._abstention.ancestor_labels`.
        """
        table = ancestor_labels(self.probabilities(), self.classes, self.terms, threshold)
        table.index = self.obs_names
        return table

    def energy(self) -> tuple[float, float]:
        """Roughness of the scores on the graph before and after, relative to before."""
        before, after = _energy(self.graph, self.raw), _energy(self.graph, self.refined)
        return 1.0, after / before if before > 0 else 1.0

    def with_settings(self, device: torch.device | str = "cpu", **changes: Any) -> Refinement:
        """Refine the same scores on the same graph with other settings, such as ``lam``."""
        return refine_scores(
            self.raw if self.given is None else self.given,
            self.classes,
            self.graph,
            replace(self.settings, **changes),
            probability=self.probability and self.given is None,
            terms=self.terms,
            obs_names=self.obs_names,
            notes=self.notes,
            embedding=self.embedding,
            device=device,
        )


def refine_scores(
    scores: np.ndarray,
    classes: tuple[str, ...],
    graph: csr_matrix,
    settings: Settings,
    *,
    probability: bool,
    terms: dict[str, str] | None = None,
    obs_names: pd.Index | None = None,
    notes: tuple[str, ...] = (),
    embedding: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    class_laplacian: Callable[[], np.ndarray] | None = None,
) -> Refinement:
    """Refine scores on a graph.

    Parameters
    ----------
    scores
        ``(n_cells, n_classes)``, finite.
    classes
        Names of the classes.
    graph
        Symmetric, non-negative, no diagonal.
    settings
        How.
    probability
        Whether `scores` are probabilities.
    terms
        Identifiers of classes in the Cell Ontology.
    obs_names, notes, embedding
        Kept with the result.
    device
        Where to compute.
    class_laplacian
        Makes the Laplacian of the classes where ``settings.ontology_weight`` is not zero; that of
        the Cell Ontology by default.
    """
    check_lam(settings.lam)
    terms = dict(terms or {})
    raw, given = scores, None
    if settings.space == "prob" and not probability:
        raw, given, probability = softmax(scores, settings.temperature), scores, True
    weights = None
    if settings.confidence_weighted:
        weights = certainty(raw if probability else softmax(raw, settings.temperature))
    couplings = None
    if settings.ontology_weight > 0:
        couplings = (class_laplacian or (lambda: ontology_laplacian(classes, terms)))()
    if settings.lam > 0 or couplings is not None:
        system = build_system(
            graph,
            settings.lam,
            laplacian=settings.laplacian,
            weights=weights,
            dtype=choose_dtype(raw.size),
            device=device,
        )
        solution = solve(
            system,
            raw,
            class_laplacian=couplings,
            mu=settings.ontology_weight,
            tol=settings.tol or default_tolerance(raw.size),
        )
        refined, residuals = solution.scores, solution.residuals
    else:
        refined, residuals = raw.copy(), [0.0]
    shrinkage = measure_shrinkage(raw, refined, graph, classes)
    if settings.keep_rare:
        refined = keep_rare(refined, shrinkage["factor"].to_numpy())
        shrinkage["n_after"] = np.bincount(refined.argmax(axis=1), minlength=len(classes))
    else:
        shrinkage["factor"] = 1.0
    guard = inspect_refinement(raw, refined, graph, probability=probability, mode=settings.guard)
    if guard.refused:
        refined = raw.copy()
        shrinkage["n_after"], shrinkage["factor"] = shrinkage["n_before"], 1.0
    return Refinement(
        raw=raw,
        refined=refined,
        classes=tuple(classes),
        terms=terms,
        graph=graph,
        probability=probability,
        settings=settings,
        guard=guard,
        shrinkage=shrinkage,
        residuals=residuals,
        obs_names=pd.RangeIndex(len(raw)).astype(str) if obs_names is None else obs_names,
        notes=notes,
        embedding=embedding,
        given=given,
    )


def check_lam(lam: float) -> None:
    """Require a finite, non-negative strength."""
    valid = isinstance(lam, int | float | np.number) and not isinstance(lam, bool)
    if not valid or not np.isfinite(lam) or lam < 0:
        raise InputError(
            f"lam={lam!r}: the strength of the refinement is a number of at least 0; 2 to 5 is "
            "sensible."
        )


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Turn scores into probabilities; float32."""
    scaled = scores.astype(np.float32) / np.float32(temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    return scaled / scaled.sum(axis=1, keepdims=True)


def certainty(probabilities: np.ndarray) -> np.ndarray:
    """One minus the normalised entropy of each cell, with mean one."""
    p = probabilities.astype(np.float64)
    entropy = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1) / np.log(p.shape[1])
    weight = np.clip(1.0 - entropy, 1e-3, 1.0)
    return weight / weight.mean()


def ontology_laplacian(classes: tuple[str, ...], terms: dict[str, str]) -> np.ndarray:
    """Laplacian of the similarity of the classes in the Cell Ontology; mean degree one."""
    from sczoo.model.grit.ontology import cell_ontology

    ontology = cell_ontology()
    known = [terms.get(name) for name in classes]
    similarity = ontology.similarity([t if t in ontology.names else None for t in known])
    np.fill_diagonal(similarity, 0.0)
    degree = similarity.sum(axis=1)
    laplacian = np.diag(degree) - similarity
    return laplacian / degree.mean() if degree.mean() > 0 else laplacian


def _energy(graph: csr_matrix, scores: np.ndarray) -> float:
    degree = np.asarray(graph.sum(axis=1)).ravel()
    centred = scores.astype(np.float64) - scores.mean(axis=0, dtype=np.float64)
    own = (degree[:, None] * centred**2).sum()
    return float(max(own - (centred * (graph @ centred)).sum(), 0.0))
