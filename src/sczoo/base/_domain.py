r"""What a model knows: where its training cells lie in its latent space, in aggregate numbers.

The training cells' representations are summed up by the centres of at most 20 groups of at least
20 cells, and one variance for every dimension. The distance of a cell is

.. math:: d(z) = \min_k \sqrt{\frac1D \sum_j \frac{(z_j - c_{kj})^2}{v_j}},

and a cell lies outside if its distance exceeds the 95 % quantile of distances of held-out training
cells. Held out are whole batches where batches were registered (a new patient is a new batch),
else random fifths of the cells. How many cells lie outside in the most unusual held-out batch is
kept too, so that the difference between two ordinary patients raises no alarm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["describe_latent", "share_outside"]

_CENTRES = 20
_MIN_CELLS = 20
MAX_CELLS = 10_000
_MAX_HELD_OUT = 10
_QUANTILE = 0.95
# Between ordinary patients of one study up to about this share lay outside in our trials; cells
# of another tissue or kit had 50 % and more.
_LEAST_LIMIT = 0.25
_LIMIT_OVER_BATCHES = 1.5
_PREFIX = "latent_centre_"

Description = dict[str, "float | list[float]"]


def describe_latent(
    latent: np.ndarray, batches: np.ndarray | None = None, *, seed: int = 0
) -> Description:
    """Sum up where training cells lie.

    Parameters
    ----------
    latent
        Representation of the training cells, shape ``(n_cells, n_latent)``.
    batches
        Batch of each cell, shape ``(n_cells,)``.
    seed
        Seed of the groups and of the random fifths.

    Returns
    -------
    Plain numbers for an artefact's domain; empty if there are fewer than 100 cells or if a
    representation is not finite.
    """
    rng = np.random.default_rng(seed)
    if len(latent) < 5 * _MIN_CELLS or not np.isfinite(latent).all():
        return {}
    latent = np.asarray(latent, dtype=np.float64)
    distances, shares = [], []
    held_out_batches = _usable(batches, rng)
    folds = (
        [batches == batch for batch in held_out_batches]
        if held_out_batches
        else list(_fifths(len(latent), rng))
    )
    for held_out in folds:
        distances.append(_distances(latent[held_out], *_groups(latent[~held_out], seed)))
    threshold = float(np.quantile(np.concatenate(distances), _QUANTILE))
    if held_out_batches:
        shares = [float((found > threshold).mean()) for found in distances]
    centres, variance = _groups(latent, seed)
    description: Description = {
        "latent_variance": [float(value) for value in variance],
        "latent_threshold": threshold,
        "latent_limit": min(0.95, max([_LEAST_LIMIT, *(_LIMIT_OVER_BATCHES * s for s in shares)])),
    }
    for number, centre in enumerate(centres):
        description[f"{_PREFIX}{number}"] = [float(value) for value in centre]
    return description


def share_outside(latent: np.ndarray, domain: Mapping[str, object]) -> float | None:
    """Share of cells that lie outside; ``None`` where the model does not say what it knows.

    Parameters
    ----------
    latent
        Representation of the query, shape ``(n_cells, n_latent)``.
    domain
        The model's :attr:`domain`.
    """
    centres = [value for key, value in domain.items() if key.startswith(_PREFIX)]
    if not centres:
        return None
    distances = _distances(
        np.asarray(latent, dtype=np.float64),
        np.asarray(centres, dtype=np.float64),
        np.asarray(domain["latent_variance"], dtype=np.float64),
    )
    return float((distances > domain["latent_threshold"]).mean())


def _usable(batches: np.ndarray | None, rng: np.random.Generator) -> list[object]:
    """Choose at most ten batches that are large enough to be held out, if there are three."""
    if batches is None:
        return []
    names, sizes = np.unique(np.asarray(batches), return_counts=True)
    usable = [name for name, size in zip(names, sizes, strict=True) if size >= _MIN_CELLS]
    if len(usable) > _MAX_HELD_OUT:
        usable = sorted(rng.choice(usable, _MAX_HELD_OUT, replace=False).tolist())
    return usable if len(usable) >= 3 else []


def _fifths(n_cells: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    fold = rng.permutation(n_cells) % 5
    for number in range(5):
        yield fold == number


def _groups(latent: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of groups of at least 20 cells, and the variance of the cells around theirs."""
    from sklearn.cluster import KMeans

    n_groups = int(np.clip(len(latent) // (5 * _MIN_CELLS), 1, _CENTRES))
    labels = KMeans(n_groups, n_init=1, random_state=seed).fit_predict(latent)
    sizes = np.bincount(labels, minlength=n_groups)
    # the mean of a few cells would say something about single ones
    kept = [label for label in range(n_groups) if sizes[label] >= _MIN_CELLS]
    centres = np.stack([latent[labels == label].mean(axis=0) for label in kept])
    nearest = _square_distances(latent, centres, np.ones(latent.shape[1])).argmin(axis=1)
    variance = np.square(latent - centres[nearest]).mean(axis=0)
    # a dimension that does not vary must not decide alone
    floor = 1e-3 * max(float(variance.mean()), 1e-12)
    return centres, np.maximum(variance, floor)


def _distances(latent: np.ndarray, centres: np.ndarray, variance: np.ndarray) -> np.ndarray:
    squares = _square_distances(latent, centres, variance).min(axis=1)
    return np.sqrt(squares / latent.shape[1])


def _square_distances(latent: np.ndarray, centres: np.ndarray, variance: np.ndarray) -> np.ndarray:
    # one centre at a time: never an array of cells x centres x dimensions
    columns = [np.square(latent - centre) @ (1.0 / variance) for centre in centres]
    return np.stack(columns, axis=1)
