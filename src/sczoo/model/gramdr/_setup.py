"""What GramDR reads from an AnnData or a MuData."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data.fields import (
    CategoricalObsField,
    LayerField,
)

from sczoo.base._checks import (
    check_categorical,
    check_structure,
    place_of,
    raise_for_counts,
)
from sczoo.base._reading import matrix_of, read_rows
from sczoo.errors import InputError, MissingKeyError
from sczoo.model.gramdr._rows import MASKS, MaskName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale

__all__ = ["SCALES", "GramSetupMixin"]

logger = logging.getLogger(__name__)

SCALES: dict[str, InputScale] = {
    "counts": "counts",
    "explicit": "any",
    "consensus": "log1p",
    "nonzero": "log1p",
}
_FEW_GENES = 50
_UMI_CELLS = 50
_UMI_SHARE = 0.95


class GramSetupMixin:
    """``setup_anndata`` and ``setup_mudata``."""

    @classmethod
    def setup_anndata(
        cls: Any,
        adata: AnnData,
        *,
        layer: str | None = None,
        mask: MaskName = "counts",
        mask_layer: str | None = None,
        batch_key: str | None = None,
        force: bool = False,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from ``adata``, and what in it is missing.

        Parameters
        ----------
        adata
            The data. ``obs["_scvi_batch"]``, ``uns["_scvi_uuid"]`` and
            ``uns["_scvi_manager_uuid"]`` are added.
        layer
            Layer with the values; ``None`` for ``adata.X``.
        mask
            ``"counts"``: UMI counts; every zero is an observation, and what varies is the depth.
            ``"explicit"``: a value is missing where it is NaN, or where `mask_layer` is zero.
            ``"consensus"``: log-normalised values; a vote of clusterings decides which zeros are
            missing. ``"nonzero"``: log-normalised values; every zero is missing, which is wrong
            for UMI data.
        mask_layer
            For ``mask="explicit"``: layer that is not zero where a value was observed.
        batch_key
            Column of ``adata.obs`` with batches that measured different genes. For counts, a gene
            without a single count in a batch although at least ten were expected counts as not
            measured there.
        force
            Take ``mask="nonzero"`` for data that look like UMI data all the same.
        **kwargs
            Passed to the registration when a saved model is loaded.

        Raises
        ------
        MissingKeyError
            A layer or key does not exist.
        InputError
            The values do not suit the mask; the message names the place and the remedy.
        """
        setup_locals = locals()
        _check_mask(mask, mask_layer)
        _check_gram_input(cls, adata, layer, mask, mask_layer, force)
        if batch_key is not None:
            check_categorical(adata, batch_key)
        fields = [LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False)]
        if batch_key is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key))
        cls._register(adata, fields, setup_locals, **kwargs)

    @classmethod
    def setup_mudata(
        cls: Any,
        mdata: MuData,
        *,
        layer: str | None = None,
        mask: MaskName = "counts",
        mask_layer: str | None = None,
        batch_key: str | None = None,
        force: bool = False,
        modalities: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what to read from one modality of ``mdata``.

        Parameters
        ----------
        mdata
            The data.
        layer, mask, mask_layer, force
            As in :meth:`setup_anndata`; layers are those of the modality.
        batch_key
            Column of ``obs`` in its modality or in ``mdata.obs``.
        modalities
            ``{"layer": "rna"}`` at least, and the modality of ``batch_key`` if it lies in one.

        Raises
        ------
        MissingKeyError
            A modality, layer or key does not exist.
        """
        setup_locals = locals()
        places = cls._modalities(mdata, modalities, setup_locals)
        _check_mask(mask, mask_layer)
        _check_gram_input(cls, mdata.mod[places.layer], layer, mask, mask_layer, force)
        fields = cls._mudata_fields(mdata, layer, places.layer, batch_key, places.batch_key)
        cls._register(mdata, fields, setup_locals, **kwargs)


def _check_mask(mask: str, mask_layer: str | None) -> None:
    if mask not in MASKS:
        raise InputError(f"mask={mask!r} is not known; choose one of {', '.join(MASKS)}.")
    if mask_layer is not None and mask != "explicit":
        raise InputError(
            f"mask_layer={mask_layer!r} was given with mask={mask!r}; a layer that says what was "
            "observed goes with mask='explicit'."
        )


def _check_gram_input(
    cls: Any, adata: Any, layer: str | None, mask: str, mask_layer: str | None, force: bool
) -> None:
    check_structure(adata, layer=layer)
    if mask_layer is not None:
        _check_mask_layer(adata, mask_layer)
    scan = cls._check_setup(
        adata, layer=layer, scale=SCALES[mask], allow_missing=mask == "explicit"
    )
    if mask == "consensus" or (mask == "nonzero" and not force):
        if mask == "nonzero" and _looks_like_umi(adata, layer):
            raise InputError(
                f"{place_of(layer)} looks like UMI counts, raw or log-normalised, whose zeros are "
                "observations: mask='nonzero' would take sequencing depth for missingness. Pass "
                "the raw counts with mask='counts', or force=True if you know better."
            )
        raise_for_counts(scan, layer)
    if mask == "explicit" and mask_layer is None and scan.first_not_finite is None:
        if not _has_missing(adata, layer):
            logger.warning(
                "%s has no NaN and no mask_layer was given: nothing is missing, and the result "
                "is that of PCA.",
                place_of(layer),
            )
    if adata.n_vars < _FEW_GENES:
        logger.warning(
            "There are only %d genes: the correction averages over genes and is noisy below %d. "
            "With so few, imputation by regression on the other genes does better.",
            adata.n_vars,
            _FEW_GENES,
        )


def _check_mask_layer(adata: Any, mask_layer: str) -> None:
    if mask_layer not in adata.layers:
        raise MissingKeyError(
            f"adata.layers has no {mask_layer!r}, which was to say what was observed; it has "
            f"{sorted(map(str, adata.layers.keys()))}."
        )
    seen = adata.layers[mask_layer]
    if tuple(seen.shape) != tuple(adata.shape):
        raise InputError(
            f"adata.layers[{mask_layer!r}] has shape {tuple(seen.shape)}, the data have "
            f"{tuple(adata.shape)}. A mask has one value for each cell and gene."
        )
    head = read_rows(matrix_of(adata, mask_layer), np.arange(min(200, adata.n_obs)))
    values = head.data if sparse.issparse(head) else np.asarray(head).ravel()
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise InputError(
            f"adata.layers[{mask_layer!r}] must hold 1 (or True) where a value was observed and "
            "0 where it is missing, and nothing else."
        )


def _has_missing(adata: Any, layer: str | None) -> bool:
    from sczoo.base._reading import iter_row_blocks

    for _, block in iter_row_blocks(adata, layer):
        values = block.data if sparse.issparse(block) else block
        if values.dtype.kind == "f" and np.isnan(values).any():
            return True
    return False


def _looks_like_umi(adata: Any, layer: str | None) -> bool:
    """Whether values, or what they are logarithms of, are multiples of the cell's smallest."""
    chosen = np.linspace(0, adata.n_obs - 1, min(_UMI_CELLS, adata.n_obs)).astype(int)
    head = read_rows(matrix_of(adata, layer), np.unique(chosen))
    dense = np.asarray(head.toarray() if sparse.issparse(head) else head, dtype=np.float64)
    for unlog in (lambda v: v, np.expm1, lambda v: np.exp2(v) - 1, lambda v: 10**v - 1):
        fractions = []
        for row in dense:
            values = row[row > 0]
            if len(values) < 5 or values.max() > 600:
                continue
            values = unlog(values)
            units = values / values.min()
            whole = np.abs(units - np.round(units)) < 1e-2 * units
            # that small numbers prevail is what sets counts apart from rounded values
            fractions.append(float(np.mean(whole & (units < 100))))
        if fractions and np.mean(fractions) > _UMI_SHARE:
            return True
    return bool(np.all(dense == np.round(dense)) and dense.max() > 1)
