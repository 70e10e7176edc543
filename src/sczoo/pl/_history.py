"""What training recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError, MissingKeyError
from sczoo.pl._colours import BLUE, VERMILLION
from sczoo.pl._figure import INK, finish, look, panel_grid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from matplotlib.axes import Axes

_FIRST = ("loss", "elbo", "reconstruction_loss")
_VALIDATION = ("validation", "val")


def history(
    model: Any,
    keys: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Any:
    """Draw the training curves of a model.

    Parameters
    ----------
    model
        A trained model with ``history``, or such a history: a mapping from a name to its values.
    keys
        Which quantities, such as ``"elbo"``; training and validation share a panel. By default
        all.
    ax
        Axes to draw into; several quantities share its space.
    show
        Call ``matplotlib.pyplot.show()``. By default nothing is shown.
    save
        Path of a picture to write.

    Returns
    -------
    The Axes; an array of them for several quantities.
    """
    curves = _curves(getattr(model, "history", model))
    if keys is not None:
        unknown = [key for key in keys if key not in curves]
        if unknown or not keys:
            raise MissingKeyError(
                f"The history has no {', '.join(map(repr, unknown)) or 'empty list of keys'}. "
                f"There are: {', '.join(curves)}."
            )
        curves = {key: curves[key] for key in keys}
    with look():
        panels = panel_grid(len(curves), ax, 3.3, 2.4, min(3, len(curves)))
        for panel, (name, parts) in zip(panels, curves.items(), strict=True):
            _draw(panel, name, parts)
    return finish(panels if len(panels) > 1 else panels[0], show, save)


def _curves(recorded: Any) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Group the recorded values by quantity, then by training or validation."""
    import pandas as pd

    if not isinstance(recorded, Mapping) or not recorded:
        raise InputError(
            "The model has no training history. It is not saved with a model: draw it after "
            "train(), before the session ends."
        )
    grouped: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for key, values in recorded.items():
        y = np.asarray(values, dtype=float).ravel()
        rows = values.index if isinstance(values, pd.Series | pd.DataFrame) else range(len(y))
        x = np.asarray(rows, dtype=float)
        known = np.isfinite(y)
        if not known.any():
            continue
        name, part = _split(str(key))
        grouped.setdefault(name, {})[part] = (x[known], y[known])
    if not grouped:
        raise InputError("The training history holds no finite value.")
    return dict(sorted(grouped.items(), key=lambda item: _rank(item[0])))


def _split(key: str) -> tuple[str, str]:
    """Split ``elbo_train`` or ``train_loss_epoch`` into the quantity and the part of the data."""
    words = [word for word in key.split("_") if word not in ("epoch",)]
    part = "validation" if any(word in _VALIDATION for word in words) else "train"
    kept = [word for word in words if word not in ("train", *_VALIDATION)]
    return "_".join(kept) or key, part


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _draw(ax: Axes, name: str, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for part, colour in (("train", BLUE), ("validation", VERMILLION)):
        if part in parts:
            x, y = parts[part]
            marker = "o" if len(y) == 1 else None
            ax.plot(x, y, color=colour, linewidth=1.6, marker=marker, label=part)
    ax.set_title(name.replace("_", " "), loc="left", color=INK)
    ax.set_xlabel("epoch")
    ax.margins(x=0.02, y=0.08)
    if len(parts) > 1:
        ax.legend(loc="best")
