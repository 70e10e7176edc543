"""Which genes tell the classes apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sczoo.model.scdd._codes import Source

__all__ = ["telling_genes"]

# Keep genes that hardly vary from the top of the lists.
_FLOOR, _FLOOR_OF_TWO = 0.01, 0.02


def telling_genes(source: Source) -> dict[str, np.ndarray]:
    r"""Order genes by how well they tell classes apart, the most telling first.

    ``"all"``: over all classes, by the variance of the class means of the log-normalised
    expression relative to the variance within classes,
    :math:`F_g = \mathrm{Var}_k\,\mu_{kg} / (\tfrac1K\sum_k s^2_{kg} + 0.01)`. ``"nearest"``:
    a further list for each class, by what tells it from the class that is most like it,
    :math:`(\mu_{kg}-\mu_{jg})^2/(s^2_{kg}+s^2_{jg}+0.02)`. A gene's place is the best that it has
    in any list, so that the genes of a rare or a similar class are not left behind; of equal
    places the first list decides.

    Returns
    -------
    Columns ``(n_genes,)`` by name of the order.
    """
    mean, variance = _moments(source)
    over_all = mean.var(axis=0) / (variance.mean(axis=0) + _FLOOR)
    place = first = _places(over_all)
    for code in range(len(mean)):
        apart = (mean[code] - mean) ** 2 / (variance[code] + variance + _FLOOR_OF_TWO)
        distance = apart.sum(axis=1)
        distance[code] = np.inf
        place = np.minimum(place, _places(apart[int(np.argmin(distance))]))
    return {"all": np.argsort(first), "nearest": np.lexsort((first, place))}


def _moments(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each gene's log-normalised expression in each class."""
    values, n_classes = source.log_values, len(source.labels)
    mean = np.zeros((n_classes, values.shape[1]))
    variance = np.zeros_like(mean)
    for code in range(n_classes):
        ours = values[source.codes == code]
        mean[code] = np.asarray(ours.mean(axis=0)).ravel()
        squares = np.asarray(ours.multiply(ours).mean(axis=0)).ravel()
        variance[code] = np.maximum(squares - mean[code] ** 2, 0.0)
    return mean, variance


def _places(values: np.ndarray) -> np.ndarray:
    place = np.empty(len(values), dtype=np.int64)
    place[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return place
