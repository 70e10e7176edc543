"""Figures on held-out donors, with intervals, beside the baselines that they must beat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

_BOOTSTRAPS = 200


@dataclass(frozen=True)
class Score:
    """A figure with its 95 % interval over resampled cells."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def metric(
        self, name: str, split: str, baseline: dict[str, Score] | None, command: str
    ) -> dict[str, Any]:
        """Write it as an entry of a card's ``metrics``."""
        stated = {
            "name": name,
            "value": round(self.value, 4),
            "ci95": [round(self.low, 4), round(self.high, 4)],
            "split": split,
            "command": command,
        }
        if baseline is not None:
            stated["baseline"] = {key: round(score.value, 4) for key, score in baseline.items()}
        return stated


def bootstrap(n_cells: int, measure: Callable[[np.ndarray], float], seed: int = 0) -> Score:
    """Measure on all cells and on resampled ones.

    Parameters
    ----------
    n_cells
        Number of cells.
    measure
        The figure, given the rows to measure it on.
    seed
        Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    full = float(measure(np.arange(n_cells)))
    drawn = [measure(rng.integers(n_cells, size=n_cells)) for _ in range(_BOOTSTRAPS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    # resampling repeats cells, which can push the percentiles past the figure itself
    return Score(full, min(float(low), full), max(float(high), full))


def clustering(truth: np.ndarray, clusters: np.ndarray) -> dict[str, Score]:
    """Agreement of a clustering with known labels: ``ari`` and ``nmi``."""
    from sczoo.metrics import clustering_scores

    def agreement(name: str, rows: np.ndarray) -> float:
        return clustering_scores(truth[rows], clusters[rows])[name]

    return {name: bootstrap(len(truth), partial(agreement, name)) for name in ("ari", "nmi")}


def label_free_clustering(latent: np.ndarray, truth: np.ndarray) -> dict[str, Score]:
    """Cluster without labels (Leiden at resolution 1.0, 15 neighbours) and compare."""
    from sczoo.metrics import cluster_leiden

    return clustering(truth, cluster_leiden(latent))


def pca_projection(reference: AnnData, query: AnnData, n_comps: int = 50) -> np.ndarray:
    """Project `query` onto the principal components of `reference` (log-normalised counts)."""
    from sklearn.decomposition import PCA

    from sczoo.base._normalise import log_normalise

    pca = PCA(n_comps, random_state=0)
    pca.fit(log_normalise(reference.X).toarray())
    return pca.transform(log_normalise(query.X).toarray())


def held_out_clustering(
    latent: np.ndarray,
    reference: AnnData,
    patient: AnnData,
    *,
    own: Callable[[], np.ndarray] | None = None,
    baselines: bool = True,
) -> tuple[dict[str, Score], dict[str, dict[str, Score]]]:
    """Cluster held-out cells without labels and compare with the known types.

    The same clustering is applied to the model's representation, to the principal components of
    the training cells, and to what a model trained on the patient alone gives.

    Parameters
    ----------
    latent
        The model's representation of the patient's cells.
    reference, patient
        Cells that the model was trained on, and those held out.
    own
        Trains on the patient alone and returns the representation.
    baselines
        Measure them too.

    Returns
    -------
    Scores of the model, and of each baseline by name: ``ari`` and ``nmi``.
    """
    truth = patient.obs["cell_type"].astype(str).to_numpy()
    measured = label_free_clustering(latent, truth)
    if not baselines:
        return measured, {}
    beside = {"pca_50": label_free_clustering(pca_projection(reference, patient), truth)}
    if own is not None:
        beside["trained_on_the_patient"] = label_free_clustering(own(), truth)
    return measured, beside


def card_metrics(
    measured: dict[str, Score], baselines: dict[str, dict[str, Score]], split: str, command: str
) -> list[dict[str, Any]]:
    """Write scores beside their baselines as the ``metrics`` of a card."""
    return [
        score.metric(
            name,
            split,
            {other: scores[name] for other, scores in baselines.items() if name in scores} or None,
            command,
        )
        for name, score in measured.items()
    ]


def clustering_metrics(
    measured: dict[str, Score],
    baselines: dict[str, dict[str, Score]],
    held_out: str,
    command: str,
) -> list[dict[str, Any]]:
    """Write the scores of :func:`held_out_clustering` as the ``metrics`` of a card."""
    split = f"{held_out}, held out; Leiden at resolution 1.0, no labels used"
    return card_metrics(measured, baselines, split, command)


def labelling(truth: np.ndarray, labels: np.ndarray) -> dict[str, Score]:
    """Agreement of predicted with known labels: ``accuracy`` and ``macro_f1``."""
    from sklearn.metrics import f1_score

    known = np.unique(truth)

    def accuracy(rows: np.ndarray) -> float:
        return float((truth[rows] == labels[rows]).mean())

    def macro_f1(rows: np.ndarray) -> float:
        return float(
            f1_score(truth[rows], labels[rows], labels=known, average="macro", zero_division=0)
        )

    return {
        "accuracy": bootstrap(len(truth), accuracy),
        "macro_f1": bootstrap(len(truth), macro_f1),
    }


def logistic_regression(train: AnnData, query: AnnData) -> np.ndarray:
    """Label `query` by logistic regression on log-normalised counts of `train`."""
    from sklearn.linear_model import LogisticRegression

    from sczoo.base._normalise import log_normalise

    fitted = LogisticRegression(max_iter=500)
    fitted.fit(log_normalise(train.X), train.obs["cell_type"].astype(str))
    return fitted.predict(log_normalise(query.X))


def cross_validated(patient: AnnData, folds: int = 5) -> np.ndarray:
    """Label each cell by logistic regression on the patient's other cells."""
    from sklearn.model_selection import StratifiedKFold

    truth = patient.obs["cell_type"].astype(str).to_numpy()
    labels = np.empty(len(truth), dtype=object)
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=0).split(truth, truth):
        labels[test] = logistic_regression(patient[train], patient[test])
    return labels.astype(str)
