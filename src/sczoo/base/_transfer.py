"""A new patient's data: aligned to a model, scored with it, or used to fine-tune it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo import _compat
from sczoo.base import _persistence
from sczoo.base._categories import text_categories
from sczoo.base._genes import DEFAULT_MIN_COVERAGE, align_genes
from sczoo.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._genes import GeneAlignment
    from sczoo.base._model import ZooModelClass


class TransferMixin:
    """Bringing query data to a model."""

    def align_genes(
        self, adata: AnnData | MuData, min_coverage: float | None = None
    ) -> GeneAlignment:
        """Match the genes of `adata` to the model's.

        Parameters
        ----------
        adata
            A new patient's data; not modified.
        min_coverage
            Smallest acceptable share of the model's genes; 0.8 by default.

        Raises
        ------
        GeneOverlapError
            Too few genes match, or they are those of another species.
        """
        model: Any = self
        return align_genes(
            model._expression(adata).var,
            list(model.var_names),
            importance=model._gene_importance() if model.is_trained_ else None,
            min_coverage=DEFAULT_MIN_COVERAGE if min_coverage is None else min_coverage,
            alternative=model._alternative_genes,
        )

    @staticmethod
    def prepare_query_anndata(
        adata: AnnData,
        reference_model: Any,
        *,
        min_coverage: float | None = None,
        layer: str | None = None,
    ) -> AnnData:
        """Bring a new patient's data into the form of a model's training data.

        Genes are matched by name and put into the model's order; sparsity and dtype are kept.
        ``var["in_query"]`` says which genes the query had, and the model treats the others as
        unknown, not as zero.

        Parameters
        ----------
        adata
            The new data; not modified.
        reference_model
            A model, or the folder of a saved one.
        min_coverage
            Smallest acceptable share of the model's genes; 0.8 by default.
        layer
            The query's layer that holds what the model needs, if it is stored elsewhere than in
            the training data.

        Returns
        -------
        A new AnnData with the model's genes and the query's ``obs`` and ``obsm``.

        Raises
        ------
        GeneOverlapError
            Too few genes match.
        """
        from anndata import AnnData

        from sczoo.base._reading import matrix_of, read_rows

        if not isinstance(reference_model, TransferMixin):
            reference_model = _persistence.load_any(reference_model)
        source = reference_model._expression(adata)
        alignment = reference_model.align_genes(source, min_coverage)
        wanted = reference_model._layer
        read = layer if layer is not None else wanted
        reference_model._check_query_structure(source, read)
        matrix = alignment.apply(read_rows(matrix_of(source, read), np.arange(source.n_obs)))
        prepared = AnnData(
            X=matrix,
            obs=source.obs.drop(
                columns=[c for c in _compat.SETUP_TRACES_OBS if c in source.obs]
            ).copy(),
            obsm={key: value.copy() for key, value in source.obsm.items()},
        )
        prepared.var_names = reference_model.var_names
        prepared.var["in_query"] = alignment.present
        if wanted is not None:
            # a copy: X is what people normalise in place
            prepared.layers[wanted] = matrix.copy()
        for name in reference_model._companion_layers:
            companion = read_rows(matrix_of(source, name), np.arange(source.n_obs))
            prepared.layers[name] = alignment.apply(companion)
        prepared.uns["sczoo"] = {"alignment": alignment.as_dict()}
        return prepared

    @classmethod
    def load_query_data(
        cls: Any,
        adata: AnnData,
        reference_model: Any,
        *,
        min_coverage: float | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> ZooModelClass:
        """Start from a trained model to fine-tune it on new data with :meth:`train`.

        Parameters
        ----------
        adata
            The new data; not modified.
        reference_model
            A model of this class, or the folder of a saved one.
        min_coverage
            Smallest acceptable share of the model's genes; 0.8 by default.
        accelerator, device
            Where the new model lives.

        Returns
        -------
        A model with the reference's weights and the aligned new data.
        """
        if not isinstance(reference_model, TransferMixin):
            reference_model = cls.load(reference_model)
        reference_model._require_trained()
        prepared = cls.prepare_query_anndata(adata, reference_model, min_coverage=min_coverage)
        model = cls(
            registry=copy.deepcopy(reference_model.registry_),
            **_compat.flat_init_params(reference_model.init_params_),
        )
        _persistence.copy_state(reference_model, model)
        model.to_device(_compat.resolve_device(accelerator, device))
        model._attach(prepared)
        model._prepare_fine_tuning()
        return model

    def _prepare_fine_tuning(self) -> None:
        """Choose which parameters :meth:`train` may change on query data; all by default."""

    def _optional_columns(self: Any) -> set[str]:
        """Columns of ``obs`` that query data may lack."""
        names = (self._setup_arguments.get(key) for key in self._optional_setup_keys)
        return {name for name in names if isinstance(name, str)}

    def _attach(self: Any, adata: AnnData | MuData) -> None:
        """Attach data with the model's own genes; unseen categories are allowed."""
        method = self.registry_.get(_compat.SETUP_METHOD, "setup_anndata")
        source = self._expression(adata)
        if not np.array_equal(np.asarray(source.var_names, dtype=object), self.var_names):
            raise InputError(
                "The genes of the data differ from the model's in name or order. Align them first:"
                f" adata = {type(self).__name__}.prepare_query_anndata(adata, model)."
            )
        optional = self._optional_columns()
        with text_categories(self.registry_, source, optional=optional) as registry:
            arguments = dict(self._setup_arguments)
            for key in self._optional_setup_keys:
                name = arguments.get(key)
                # columns were filled in; what is missing now is optional knowledge in obsm
                if name is not None and name not in source.obs and name not in source.obsm:
                    arguments[key] = None
            getattr(type(self), method)(
                adata, source_registry=registry, extend_categories=True, **arguments
            )
        _compat.attach(self, adata, _compat.latest_manager(type(self), adata))
        _compat.forget_setup(type(self), adata)
