"""Applying a frozen model to a new patient's cells."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.base._genes import DEFAULT_MIN_COVERAGE, GeneAlignment
from sczoo.base._provenance import interruption
from sczoo.errors import EmptyDataError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sczoo.hub._registry import Location

__all__ = ["TransferResult", "transfer"]

logger = logging.getLogger("sczoo")


@dataclass(frozen=True)
class TransferResult:
    """Result of :func:`transfer`.

    Attributes
    ----------
    alignment
        How the genes of the query match those of the model.
    keys
        What was written into the query, and what each holds.
    warnings
        Reasons for care, in words.
    share_outside
        Share of the query's cells that lie outside what the model knows; ``None`` where it does
        not say what that is.
    """

    alignment: GeneAlignment
    keys: dict[str, str]
    warnings: tuple[str, ...]
    share_outside: float | None = None


def transfer(
    model_or_name: Any,
    adata: AnnData,
    *,
    layer: str | None = None,
    min_coverage: float | None = None,
    registry: Location | Sequence[Location] | None = None,
    classifier: str | None = None,
) -> TransferResult:
    """Align a new patient's genes to a model and write the model's results into `adata`.

    With a distilled dataset instead of a model, a classifier is trained on it first.

    Parameters
    ----------
    model_or_name
        A trained model, the name of a published one, or the folder of a saved one; or a distilled
        dataset, in the same three ways.
    adata
        The new patient's cells. Results are written into it; nothing else of it changes.
    layer
        Layer of the query with the values that the model reads, if it is not the model's own.
    min_coverage
        Smallest acceptable share of the model's genes; 0.8 by default.
    registry
        Further registries for a name.
    classifier
        What to train on a distilled dataset: ``"lr"`` (the default), ``"mlp"``, ``"knn"``,
        ``"rf"`` or ``"scanvi"``.

    Returns
    -------
    How many genes matched, which keys were written, and reasons for care.

    Raises
    ------
    GeneOverlapError
        If too few genes match.
    EmptyDataError
        If there are no cells.
    InputError
        If the values are not what the model reads, or an argument makes no sense. After any error
        `adata` is as it was.

    Examples
    --------
    >>> result = sczoo.transfer("sce2tm/pbmc-interferon", new_patient)
    """
    model = model_or_name
    if isinstance(model_or_name, (str, os.PathLike)):
        from sczoo.hub._load import load

        model = load(model_or_name, registry=registry)
    model = usable(model, classifier)
    if not hasattr(model, "align_genes"):
        raise InputError(
            f"Expected a model, its name or its folder, got {type(model).__name__}. The order is "
            "sczoo.transfer(model, adata)."
        )
    from sczoo.base._query import earlier_record

    if getattr(adata, "n_obs", 1) == 0:
        raise EmptyDataError("The query has no cells: nothing to annotate.")
    alignment = model.align_genes(adata, min_coverage=min_coverage)
    earlier_record(adata)
    if layer is not None:
        model._check_query_structure(model._expression(adata), layer)
    warnings = _reasons_for_care(model, adata, alignment, layer)
    keys = _annotate(model, adata, alignment, layer, min_coverage)
    outside = _share_outside(model, adata, keys)
    if outside is not None and outside > model.domain["latent_limit"]:
        warnings.append(
            f"{outside:.0%} of the cells lie outside what the model knows (expected: up to "
            f"{model.domain['latent_limit']:.0%}): another tissue, kit, disease or quality than "
            "in training. Its results for these cells are guesses."
        )
    logger.info("%s", alignment.summary())
    for warning in warnings:
        logger.warning("%s", warning)
    return TransferResult(alignment, keys, tuple(warnings), outside)


def usable(model: Any, classifier: str | None = None) -> Any:
    """Return a model as it is, and a distilled dataset as a classifier that learns from it."""
    from anndata import AnnData

    if isinstance(model, AnnData):
        from sczoo.model.scdd import DistilledClassifier, is_small_set

        if is_small_set(model):
            return DistilledClassifier(model, classifier or "lr")
    if classifier is not None:
        raise InputError("classifier= is for distilled datasets; a model classifies by itself.")
    return model


def _share_outside(model: Any, adata: AnnData, keys: dict[str, str]) -> float | None:
    from sczoo.base._domain import share_outside

    key = f"X_{model._method}"
    if f"obsm['{key}']" not in keys:
        return None
    return share_outside(np.asarray(adata.obsm[key]), model.domain)


def _annotate(
    model: Any,
    adata: AnnData,
    alignment: GeneAlignment,
    layer: str | None,
    min_coverage: float | None,
) -> dict[str, str]:
    if layer is None and alignment.coverage >= DEFAULT_MIN_COVERAGE:
        return model.annotate(adata)
    # The aligned copy carries on which layer is meant and that a small overlap was accepted.
    prepared = type(model).prepare_query_anndata(
        adata, model, min_coverage=min_coverage, layer=layer
    )
    keys = model.annotate(prepared)
    for key in prepared.obsm:
        if f"obsm['{key}']" in keys:
            adata.obsm[key] = prepared.obsm[key]
    for key in prepared.obs:
        if f"obs['{key}']" in keys:
            adata.obs[key] = prepared.obs[key]
    from sczoo.base._query import earlier_record

    record = earlier_record(adata)
    record[model._method] = {
        **prepared.uns["sczoo"][model._method],
        "genes": alignment.as_dict(),
    }
    adata.uns["sczoo"] = record
    return keys


def _reasons_for_care(
    model: Any, adata: AnnData, alignment: GeneAlignment, layer: str | None
) -> list[str]:
    reasons = []
    interrupted = interruption(getattr(model, "provenance_", {}))
    if interrupted is not None:
        reasons.append(interrupted)
    values = _per_cell(model, adata, alignment, model._layer if layer is None else layer)
    if alignment.weighted_coverage < DEFAULT_MIN_COVERAGE <= alignment.coverage:
        reasons.append(
            f"The missing genes matter: weighted by importance, {alignment.weighted_coverage:.0%} "
            "of the model's genes are there."
        )
    if len(alignment.renamed) > alignment.n_matched / 2:
        source, target = alignment.renamed[0]
        reasons.append(
            f"Most genes matched only after renaming (such as {source} to {target}); check that "
            "both follow the same naming."
        )
    for name, what in (("total_per_cell", "counts"), ("genes_per_cell", "detected genes")):
        reference = model.domain.get(name)
        if reference:
            median = float(np.median(values[name]))
            low, high = reference[0], reference[-1]
            if not low <= median <= high:
                reasons.append(
                    f"The query's median of {what} per cell ({median:.0f}) lies outside those of "
                    f"the training cells ({low:.0f} to {high:.0f}, 5th to 95th percentile)."
                )
    return reasons


def _per_cell(
    model: Any, adata: AnnData, alignment: GeneAlignment, layer: str | None
) -> dict[str, np.ndarray]:
    """Totals and numbers of detected genes over the model's genes, read in blocks."""
    from sczoo.base._reading import iter_row_blocks

    totals, detected = [], []
    for _rows, block in iter_row_blocks(model._expression(adata), layer):
        aligned = alignment.apply(block)
        totals.append(np.asarray(aligned.sum(axis=1)).ravel())
        detected.append(np.asarray((aligned != 0).sum(axis=1)).ravel())
    return {
        "total_per_cell": np.concatenate(totals),
        "genes_per_cell": np.concatenate(detected),
    }
