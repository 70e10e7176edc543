r"""Rare types: how much of a class's signal the smoothing takes, and giving it back.

A small group of cells has most of its neighbours outside of itself, so that its scores shrink
towards those of the large types around it. With :math:`a_c` the share of the amplitude of class
:math:`c` that its own cells keep,

.. math:: a_c = \frac{\overline{F_{ic}}^{\,i \in c} - \overline{F_{ic}}}
                     {\overline{P_{ic}}^{\,i \in c} - \overline{P_{ic}}},
          \qquad F_{ic} \leftarrow \overline{F_c}
          + s_c\,(F_{ic} - \overline{F_c}), \quad
          s_c = 1 + h_c\left(\min(\tilde a / a_c, 2) - 1\right) \tag{2}

where :math:`\tilde a` is the median over the classes. Only classes smaller than the average are
corrected, and only as far as their cells are neighbours of each other: :math:`h_c` rises from 0
to 1 as the share of like neighbours rises from 0.2 to 0.5. Labels scattered at random are not a
type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sczoo.model.grit._graph import agreement

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["keep_rare", "measure_shrinkage"]

_FEWEST, _STRONGEST = 2, 2.0
_SCATTERED, _COHERENT = 0.2, 0.5


def measure_shrinkage(
    raw: np.ndarray, refined: np.ndarray, graph: csr_matrix, classes: tuple[str, ...]
) -> pd.DataFrame:
    """Measure, for every class, what the smoothing takes.

    Returns
    -------
    One row per class: ``n_before`` and ``n_after`` (cells labelled so), ``signal_kept``
    (:math:`a_c`), ``coherence`` (share of like neighbours), ``factor`` (:math:`s_c`).
    """
    before, after = raw.argmax(axis=1), refined.argmax(axis=1)
    n_cells, n_classes = raw.shape
    like = agreement(graph, before, before)
    kept, coherence = np.full(n_classes, np.nan), np.zeros(n_classes)
    size = np.bincount(before, minlength=n_classes)
    for c in np.flatnonzero(size):
        members = before == c
        coherence[c] = like[members].mean()
        amplitude = raw[members, c].mean() - raw[:, c].mean()
        if size[c] >= _FEWEST and amplitude > 1e-9:
            kept[c] = (refined[members, c].mean() - refined[:, c].mean()) / amplitude
    middle = np.nanmedian(kept) if np.isfinite(kept).any() else 1.0
    ratio = np.where(np.isfinite(kept), middle / np.maximum(kept, 1e-3), 1.0)
    trust = np.clip((coherence - _SCATTERED) / (_COHERENT - _SCATTERED), 0.0, 1.0)
    small = size / max(n_cells, 1) < 1.0 / n_classes
    factor = 1.0 + trust * small * (np.clip(ratio, 1.0, _STRONGEST) - 1.0)
    return pd.DataFrame(
        {
            "n_before": size,
            "n_after": np.bincount(after, minlength=n_classes),
            "signal_kept": kept,
            "coherence": coherence,
            "factor": factor,
        },
        index=pd.Index(classes, name="class"),
    )


def keep_rare(refined: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Apply the factors of equation (2); the mean of every class stays."""
    if np.allclose(factor, 1.0):
        return refined
    mean = refined.mean(axis=0)
    return (mean + (refined - mean) * factor).astype(refined.dtype)
