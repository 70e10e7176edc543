"""The classifiers that a distilled set is judged by, all fitted on that set alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from sczoo.base._normalise import log_normalise
from sczoo.base._provenance import isolated_random_state
from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy import sparse

__all__ = ["CLASSIFIERS", "ClassifierName", "check_classifiers", "fit_predict", "fit_scores"]

ClassifierName = Literal["lr", "mlp", "knn", "rf", "scanvi"]
# all of them read log-normalised values, but for SCANVI, which reads counts
CLASSIFIERS: tuple[str, ...] = ("lr", "mlp", "knn", "rf")
_MLP_STEPS, _MLP_EPOCHS, _MLP_QUICK_STEPS = 600, 20, 150
_FEW, _MANY = 10, 60
_SCANVI_STEPS = 800


def check_classifiers(names: Any) -> tuple[str, ...]:
    """Return the names if all are known, and at least one is given."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in get_args(ClassifierName):
            raise InputError(
                f"The classifier {name!r} is not known; choose from {get_args(ClassifierName)}."
            )
    if not names:
        raise InputError(f"Give at least one classifier of {get_args(ClassifierName)}.")
    return names


def fit_predict(
    name: str,
    counts: Any,
    codes: np.ndarray,
    queries: list[Any],
    *,
    seed: int = 0,
    quick: bool = False,
) -> list[np.ndarray]:
    """Fit a classifier and classify several sets of cells.

    Parameters
    ----------
    name
        One of :data:`ClassifierName`.
    counts, codes
        The training cells, ``(n_cells, n_genes)``, and their classes.
    queries
        Counts of the cells to classify.
    seed
        Seed of the fit.
    quick
        Fewer steps of the MLP and fewer trees, to compare candidates.

    Returns
    -------
    The classes of each query.
    """
    present, scores = fit_scores(name, counts, codes, queries, seed=seed, quick=quick)
    return [present[found.argmax(axis=1)] for found in scores]


def fit_scores(
    name: str,
    counts: Any,
    codes: np.ndarray,
    queries: list[Any],
    *,
    seed: int = 0,
    quick: bool = False,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Fit a classifier; return the classes that it knows and their probabilities.

    Parameters are those of :func:`fit_predict`.

    Returns
    -------
    Classes ``(n_classes,)``, and for each query ``(n_cells, n_classes)``.
    """
    present, positions = np.unique(codes, return_inverse=True)
    if len(present) == 1:
        return present, [np.ones((query.shape[0], 1)) for query in queries]
    if name == "scanvi":
        return present, _scanvi(counts, positions, queries, seed)
    x = log_normalise(counts)
    values = [log_normalise(query) for query in queries]
    return present, _FITS[name](x, positions, values, seed, quick)


def _logistic(
    x: Any, y: np.ndarray, queries: list[Any], seed: int, quick: bool
) -> list[np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    # No intercepts: they are not penalised, so a fit that ends learns from a few cells per class
    # how their depths happen to differ and takes it for the classes (ten pools per class of worm
    # neurons: .94 without, .82 with; scikit-learn's default tolerance stops before the intercepts
    # have moved, on some sets sooner than on others).
    if quick:
        model = LogisticRegression(max_iter=300, fit_intercept=False).fit(x, y)
        return [model.predict_proba(query) for query in queries]
    # Where the answer is handed out the fit runs to its end, in double precision: otherwise
    # confidences differ between machines in the fourth decimal.
    model = LogisticRegression(max_iter=3000, tol=1e-6, fit_intercept=False)
    model.fit(x.astype(np.float64), y)
    queries = [query.astype(np.float64) for query in queries]
    return [model.predict_proba(query) for query in queries]


def _neighbours(
    x: Any, y: np.ndarray, queries: list[Any], seed: int, quick: bool
) -> list[np.ndarray]:
    from sklearn.neighbors import KNeighborsClassifier

    per_class = len(y) / len(np.unique(y))
    n_neighbors = 1 if per_class < _FEW else 5 if per_class < _MANY else 15
    model = KNeighborsClassifier(min(n_neighbors, len(y)), metric="cosine", algorithm="brute")
    model.fit(x, y)
    return [model.predict_proba(query) for query in queries]


def _forest(x: Any, y: np.ndarray, queries: list[Any], seed: int, quick: bool) -> list[np.ndarray]:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        60 if quick else 200, class_weight="balanced", random_state=seed
    ).fit(x, y)
    return [model.predict_proba(query) for query in queries]


def _perceptron(
    x: sparse.csr_matrix, y: np.ndarray, queries: list[Any], seed: int, quick: bool
) -> list[np.ndarray]:
    """Two hidden layers (128, 64) with dropout 0.3, Adam, 600 steps or 20 epochs."""
    n_cells, n_genes = x.shape
    n_classes = int(y.max()) + 1
    batch = min(128, n_cells)
    steps = max(_MLP_STEPS, _MLP_EPOCHS * (n_cells // batch))
    steps = min(steps, _MLP_QUICK_STEPS) if quick else steps
    rng = np.random.default_rng(seed)
    with isolated_random_state(seed):
        net = torch.nn.Sequential(
            torch.nn.Linear(n_genes, 128),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(128, 64),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(64, n_classes),
        )
        optimizer = torch.optim.Adam(
            net.parameters(),
            lr=1e-3,
            weight_decay=1e-4,
            fused=True,  # half the time
        )
        target = torch.as_tensor(y)
        whole = torch.as_tensor(x.toarray()) if n_cells <= batch else None
        for _ in range(steps):
            if whole is not None:
                inputs, wanted = whole, target
            else:
                rows = rng.choice(n_cells, batch, replace=False)
                inputs, wanted = torch.as_tensor(x[rows].toarray()), target[rows]
            loss = torch.nn.functional.cross_entropy(net(inputs), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()
    with torch.inference_mode():
        return [_in_blocks(net, query) for query in queries]


def _in_blocks(net: Any, query: sparse.csr_matrix, rows: int = 2048) -> np.ndarray:
    parts = [
        net(torch.as_tensor(query[start : start + rows].toarray())).softmax(1).numpy()
        for start in range(0, query.shape[0], rows)
    ]
    return np.concatenate(parts)


def _scanvi(counts: Any, y: np.ndarray, queries: list[Any], seed: int) -> list[np.ndarray]:
    """SCANVI of scvi-tools, a model of the counts themselves."""
    import logging
    import warnings

    import scvi
    from anndata import AnnData
    from scipy import sparse as sp

    def cells(matrix: Any, labels: np.ndarray) -> AnnData:
        adata = AnnData(sp.csr_matrix(matrix).astype(np.float32))
        adata.obs["label"] = labels
        return adata

    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "logger": False,
        "enable_model_summary": False,
    }
    lightning = logging.getLogger("lightning.pytorch")
    before, verbosity, level = scvi.settings.seed, scvi.settings.verbosity, lightning.level
    # setting the seed also seeds the global generators, so it is put back inside
    with isolated_random_state(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            lightning.setLevel(logging.ERROR)
            scvi.settings.seed, scvi.settings.verbosity = seed, logging.ERROR
            train = cells(counts, y.astype(str))
            batch = max(2, min(128, train.n_obs))
            epochs = max(20, _SCANVI_STEPS // max(1, train.n_obs // batch) // 4)
            scvi.model.SCVI.setup_anndata(train, labels_key="label")
            base = scvi.model.SCVI(train)
            base.train(epochs, batch_size=batch, train_size=1.0, **quiet)
            model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category="unlabelled")
            model.train(epochs, batch_size=batch, train_size=1.0, **quiet)
            columns = [str(code) for code in range(int(y.max()) + 1)]
            new = [cells(query, np.full(query.shape[0], "unlabelled")) for query in queries]
            return [model.predict(one, soft=True)[columns].to_numpy() for one in new]
        finally:
            lightning.setLevel(level)
            scvi.settings.seed, scvi.settings.verbosity = before, verbosity


_FITS: dict[str, Callable[..., list[np.ndarray]]] = {
    "lr": _logistic,
    "knn": _neighbours,
    "rf": _forest,
    "mlp": _perceptron,
}
