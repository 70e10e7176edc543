"""Scores that another model left in ``obsm``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from sczoo.errors import InputError, MissingKeyError
from sczoo.model.grit.scorers._protocol import (
    Scores,
    check_classes,
    check_scores,
    is_probability,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData

__all__ = ["attach_scores", "classes_key", "read_scores"]


def classes_key(logits_key: str) -> str:
    """Key of ``uns`` with the names of the columns of ``obsm[logits_key]``."""
    return f"{logits_key}_classes"


def read_scores(
    adata: AnnData, logits_key: str, class_names: Sequence[str] | None = None
) -> Scores:
    """Read scores from ``adata.obsm``.

    Parameters
    ----------
    adata
        The cells.
    logits_key
        Key of ``obsm``: a data frame, whose columns are the classes, or an array, whose classes
        are in ``uns[logits_key + "_classes"]``.
    class_names
        The classes wanted, in this order; all by default.

    Raises
    ------
    MissingKeyError
        The key, or the names of the classes, are not there.
    InputError
        The names do not match the scores, or the classes wanted.
    NotFiniteError
        A score is NaN or infinite.
    """
    where = f"adata.obsm[{logits_key!r}]"
    if logits_key not in adata.obsm:
        known = ", ".join(sorted(map(str, adata.obsm.keys()))) or "nothing"
        raise MissingKeyError(
            f"adata.obsm has no {logits_key!r}, where the scores of these cells are expected; it "
            f"has {known}. Score the cells with the model that scored the others, or choose "
            "another scorer."
        )
    stored: Any = adata.obsm[logits_key]
    if isinstance(stored, pd.DataFrame):
        found = check_classes(list(stored.columns), where)
        raw = stored.to_numpy()
    else:
        raw = stored.toarray() if hasattr(stored, "toarray") else stored
        key = classes_key(logits_key)
        if key not in adata.uns:
            raise MissingKeyError(
                f"{where} is an array, so the names of its columns belong in adata.uns[{key!r}], "
                "which is not there. Write a list of names there, or store a data frame."
            )
        found = check_classes(list(adata.uns[key]), f"adata.uns[{key!r}]")
    values = check_scores(raw, adata.n_obs, where)
    if values.shape[1] != len(found):
        raise InputError(
            f"{where} has {values.shape[1]} columns, but {len(found)} class names. They must be "
            "equally many and in the same order."
        )
    if class_names is not None and tuple(class_names) != found:
        missing = [name for name in class_names if name not in found]
        extra = [name for name in found if name not in class_names]
        if missing or extra:
            raise InputError(
                f"The classes of {where} are not the model's: missing {missing[:5]}, unknown "
                f"{extra[:5]}. Score the cells with the model that scored the others."
            )
        values = values[:, [found.index(name) for name in class_names]]
        found = tuple(class_names)
    return Scores(values, found, is_probability(values))


def attach_scores(
    adata: AnnData,
    scores: pd.DataFrame | np.ndarray,
    classes: Sequence[str] | None = None,
    *,
    key: str = "X_scores",
) -> str:
    """Put a model's scores where :class:`~sczoo.model.GRIT` finds them.

    Parameters
    ----------
    adata
        The cells; ``obsm[key]`` and ``uns[key + "_classes"]`` are written.
    scores
        A data frame with one row per cell, in any order, by cell name, or an array with one row
        per cell, in the order of `adata`.
    classes
        Names of the columns of an array.
    key
        Key to write.

    Returns
    -------
    The key, for ``GRIT.setup_anndata(adata, logits_key=...)``.

    Raises
    ------
    InputError
        The scores are those of other cells, or do not fit the names.
    """
    if isinstance(scores, pd.DataFrame):
        missing = adata.obs_names.difference(scores.index)
        if len(missing) or not scores.index.is_unique:
            raise InputError(
                f"The scores are not those of these cells: {len(missing)} of {adata.n_obs} cells "
                f"have none{f', the first is {missing[0]!r}' if len(missing) else ''}. Give one "
                "row per cell, named as in adata.obs_names."
            )
        chosen: pd.DataFrame = scores.loc[list(adata.obs_names)]
        names = check_classes(list(chosen.columns), "The data frame of scores")
        values = check_scores(chosen.to_numpy(), adata.n_obs, "The data frame of scores")
    else:
        if classes is None:
            raise InputError("An array of scores needs the names of its columns: pass classes.")
        names = check_classes(classes, "classes")
        values = check_scores(scores, adata.n_obs, "The array of scores")
    if values.shape[1] != len(names):
        raise InputError(f"There are {values.shape[1]} columns of scores for {len(names)} names.")
    adata.obsm[key] = values
    adata.uns[classes_key(key)] = list(names)
    return key
