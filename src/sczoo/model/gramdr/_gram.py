"""Corrected Gram matrices: of a few cells of a model, and of plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from sczoo.errors import InputError
from sczoo.model.gramdr._encoding import panels_of
from sczoo.model.gramdr._pairwise import pairwise_gram

if TYPE_CHECKING:
    from sczoo.model.gramdr._projection import Projector
    from sczoo.model.gramdr._rows import RowReader

__all__ = ["corrected_gram", "corrected_gram_of"]

_MOST_CELLS = 5000


def corrected_gram(
    values: np.ndarray,
    observed: np.ndarray,
    rates: np.ndarray,
    form: Literal["ratio", "ht"] = "ratio",
) -> np.ndarray:
    r"""Unbiased estimate of :math:`K = E[y y^\top]` from masked draws with known rates.

    With ``form="ratio"`` (Prop. 2):
    :math:`\tilde G_{ij} = G_{ij}/\sum_s p_{is}p_{js}`,
    :math:`\tilde G_{ii} = G_{ii}/\sum_s p_{is}`. With ``form="ht"`` (Horvitz-Thompson): every
    product divided by its own probability, per feature.

    Parameters
    ----------
    values
        Values, ``(N, D)``; what is not observed is ignored.
    observed
        Mask, ``(N, D)``.
    rates
        Probabilities :math:`p_{is}`, ``(N, D)``.
    form
        The estimator.

    Returns
    -------
    ``(N, N)``.
    """
    mask = np.asarray(observed, dtype=float)
    y = np.where(mask > 0, values, 0.0)
    if form == "ht":
        gram = (y / rates) @ (y / rates).T / y.shape[1]
        np.fill_diagonal(gram, (y**2 / rates).sum(axis=1) / y.shape[1])
        return gram
    gram = y @ y.T
    own = np.diag(gram) / rates.sum(axis=1)
    gram = gram / (rates @ rates.T)
    np.fill_diagonal(gram, own)
    return gram


def corrected_gram_of(reader: RowReader, projector: Projector) -> np.ndarray:
    """Corrected Gram matrix of the cells of a reader, unweighted, ``(m, m)``."""
    n = reader.n_cells
    if n > _MOST_CELLS:
        raise InputError(
            f"A Gram matrix of {n} cells was asked for; choose at most {_MOST_CELLS} with "
            "indices=. Coordinates of all cells come from get_latent_representation()."
        )
    parts = [_part(projector, block) for block in reader]
    gram = np.zeros((n, n))
    counts = projector.normaliser == "depth"
    for left in parts:
        for right in parts:
            where = np.ix_(left["rows"], right["rows"])
            if projector.normaliser == "pairwise":
                gram[where] = pairwise_gram(
                    left["values"], left["pattern"], right["values"], right["pattern"]
                )
                continue
            product = _dense(left["values"] @ right["values"].T)
            if counts:
                product -= _dense(left["values"] @ right["offset"].T)
                product -= _dense(right["values"] @ left["offset"].T).T
                product += left["offset"] @ right["offset"].T
                shared = left["panel"] @ right["panel"].T
            else:
                shared = np.outer(left["r"], right["r"]) * _coupling(projector, left, right)
            gram[where] = np.divide(product, shared, out=np.zeros_like(product), where=shared > 0)
    diagonal = np.concatenate([part["diagonal"] for part in parts]) if parts else np.zeros(0)
    np.fill_diagonal(gram, diagonal)
    return gram


def _coupling(projector: Projector, left: dict[str, Any], right: dict[str, Any]) -> Any:
    known = (left["batch"] >= 0).all() and (right["batch"] >= 0).all()
    if not known:
        return 1.0
    return projector.state.coupling[np.ix_(left["batch"], right["batch"])]


def _part(projector: Projector, block: Any) -> dict[str, Any]:
    encoded = projector.encode(block)
    r, _, _ = projector.scales(block, encoded)
    observed = encoded.observed
    part: dict[str, Any] = {"rows": block.rows, "batch": block.batch, "pattern": block.pattern}
    if projector.normaliser == "depth":
        inverse = np.divide(1.0, observed, out=np.zeros_like(observed), where=observed > 0)
        state = projector.state
        panels, which = panels_of(block.batch, state, projector.present)
        panel = panels[which]
        offset = panel * (state.centre * state.scale)
        part |= {
            "values": sparse.diags(inverse) @ encoded.values,
            "offset": offset * (observed > 0)[:, None],
            "panel": panel,
            "r": r,
        }
        signal = encoded.square - encoded.noise
        shared = panel.sum(axis=1)
        part["diagonal"] = np.divide(signal, shared, out=np.zeros_like(r), where=shared > 0)
        return part
    part |= {"values": encoded.values, "r": r}
    count = observed
    if projector.normaliser == "ht":
        count = np.full(len(r), float(encoded.values.shape[1]))
    if projector.normaliser == "paper":
        state = projector.state
        count = observed * state.rate.sum() / (len(state.rate) * float(state.rate_scale))
    signal = encoded.square - encoded.noise
    part["diagonal"] = np.divide(signal, count, out=np.zeros_like(r), where=count > 0)
    return part


def _dense(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix)
