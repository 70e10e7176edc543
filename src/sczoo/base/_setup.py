"""Registering data with scvi-tools: checked first, and undone if it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import MuDataCategoricalObsField, MuDataLayerField

from sczoo import _compat
from sczoo.base._checks import check_categorical, check_input
from sczoo.errors import InputError, MissingKeyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from scvi.data.fields import BaseAnnDataField

    from sczoo.base._checks import InputScale, MatrixScan


class SetupMixin:
    """What ``setup_anndata`` and ``setup_mudata`` of every model share."""

    @classmethod
    def _check_setup(
        cls: Any,
        adata: Any,
        *,
        layer: str | None = None,
        categorical_keys: Iterable[str | None] = (),
        obsm_keys: Iterable[str | None] = (),
        scale: InputScale | None = None,
        allow_missing: bool = False,
    ) -> MatrixScan:
        """Check the data of ``setup_anndata`` before anything is written into them.

        `scale` is the class's ``_input_scale`` unless the arguments of the set-up decide it, and
        `allow_missing` accepts NaN where it means a value that was not observed.
        """
        return check_input(
            adata,
            layer=layer,
            scale=scale or cls._input_scale,
            min_cells=1,
            min_genes=cls._min_genes,
            categorical_keys=[key for key in categorical_keys if key is not None],
            obsm_keys=[key for key in obsm_keys if key is not None],
            allow_missing=allow_missing,
        )

    @classmethod
    def _register(
        cls: Any,
        adata: AnnData | MuData,
        fields: list[BaseAnnDataField],
        setup_locals: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        """Register `fields` with scvi-tools; a failure leaves `adata` as it was.

        Parameters
        ----------
        adata
            The data.
        fields
            scvi-tools' fields.
        setup_locals
            ``locals()`` of the setup method, taken on its first line.
        **kwargs
            The setup method's own ``**kwargs`` (``source_registry`` and what goes with it).
        """
        arguments = _compat.setup_method_args(setup_locals)
        manager = AnnDataManager(fields=fields, setup_method_args=arguments)
        parts = [adata, *getattr(adata, "mod", {}).values()]
        before = [(part, part.obs.copy(), dict(part.uns)) for part in parts]
        try:
            manager.register_fields(adata, **kwargs)
        except Exception:
            for part, obs, uns in before:
                _put_back(part, obs, uns)
            raise
        cls.register_manager(manager)

    @classmethod
    def _modalities(
        cls: Any, mdata: Any, modalities: Mapping[str, str] | None, setup_locals: Mapping[str, Any]
    ) -> Any:
        """Complete and check the ``modalities`` of ``setup_mudata``.

        Returns
        -------
        Mapping from setup argument to modality, with attribute access; ``None`` where not given.
        """
        from mudata import MuData

        if not isinstance(mdata, MuData):
            raise InputError(f"setup_mudata expects a MuData, got {type(mdata).__name__}.")
        if not modalities or "layer" not in modalities:
            raise MissingKeyError(
                "setup_mudata needs to know which modality holds the expression: pass "
                f"modalities={{'layer': ...}} with one of {sorted(mdata.mod)}."
            )
        unknown = sorted({m for m in modalities.values() if m is not None} - set(mdata.mod))
        if unknown:
            raise MissingKeyError(
                f"The MuData has no modality {unknown[0]!r}; it has {sorted(mdata.mod)}."
            )
        arguments = _compat.setup_method_args(setup_locals)
        return _compat.modality_names(cls, modalities, arguments)

    @staticmethod
    def _mudata_fields(
        mdata: MuData,
        layer: str | None,
        modality: str,
        batch_key: str | None = None,
        batch_modality: str | None = None,
    ) -> list[Any]:
        """Fields of the expression in its modality and, where there is a key, of the batches.

        Batches lie in `batch_modality`, or in ``mdata.obs`` if that is ``None``.

        Raises
        ------
        MissingKeyError, MissingValuesError
            The column of batches does not exist or has gaps.
        """
        fields: list[Any] = [
            MuDataLayerField(
                REGISTRY_KEYS.X_KEY,
                layer,
                mod_key=modality,
                is_count_data=False,
                mod_required=True,
            )
        ]
        if batch_key is not None:
            check_categorical(
                mdata if batch_modality is None else mdata.mod[batch_modality], batch_key
            )
            fields.append(
                MuDataCategoricalObsField(
                    REGISTRY_KEYS.BATCH_KEY, batch_key, mod_key=batch_modality
                )
            )
        return fields


def _put_back(data: Any, obs: pd.DataFrame, uns: Mapping[str, Any]) -> None:
    """Undo what registering wrote: scvi-tools adds or replaces columns and entries of its own."""
    for column in [name for name in data.obs.columns if str(name).startswith("_scvi_")]:
        if column in obs:
            data.obs[column] = obs[column]
        else:
            del data.obs[column]
    for entry in _compat.SETUP_TRACES_UNS:
        data.uns.pop(entry, None)
        if entry in uns:
            data.uns[entry] = uns[entry]
