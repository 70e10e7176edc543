"""GramDR: principal components from a Gram matrix that is corrected for what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from scvi import REGISTRY_KEYS

from sczoo import _compat
from sczoo.base import ZooModelClass
from sczoo.errors import InputError
from sczoo.model.gramdr._consensus import fit_consensus, observed_by_vote
from sczoo.model.gramdr._datamodule import FitDataModule
from sczoo.model.gramdr._fit import GramFit
from sczoo.model.gramdr._module import GramDRModule
from sczoo.model.gramdr._operator import GramOperator
from sczoo.model.gramdr._pairwise import PairwiseOperator
from sczoo.model.gramdr._reading import ReadingMixin, mask_digest
from sczoo.model.gramdr._results import GramResultsMixin
from sczoo.model.gramdr._rows import RowReader
from sczoo.model.gramdr._scree import check_n_latent
from sczoo.model.gramdr._setup import SCALES, GramSetupMixin
from sczoo.model.gramdr._state import NORMALISERS, GeneState
from sczoo.model.gramdr._statistics import GeneScaling
from sczoo.model.gramdr._trainingplan import GramDRTrainingPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale

__all__ = ["GramDR"]

Normaliser = Literal["auto", "rank1", "pairwise", "paper", "ht"]


class GramDR(GramSetupMixin, ReadingMixin, GramResultsMixin, ZooModelClass):
    """Principal components that are not sequencing depth.

    The inner products between cells are estimated without bias although cells differ in depth,
    or in which values were observed; components are the leading eigenvectors of that corrected
    Gram matrix. It is never formed: the work is in sparse products. New cells are placed by a
    linear projection that needs no cell of the training data.

    Parameters
    ----------
    adata
        Data that went through :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build the model without data.
    n_latent
        Number of components; or a share of the positive variance between 0 and 1; ``"scree"``
        for the bend of the scree; ``"all"`` for all positive ones among `max_components`.
    normaliser
        For masks, how the number of values that two cells share is estimated. ``"rank1"``: a
        rank-one fit of it (per pair of batches, if a ``batch_key`` was set up). ``"pairwise"``:
        counted for every pair, for up to 20,000 cells. ``"paper"``: as published. ``"ht"``: every
        product divided by its own probability (more variance, but no assumption about the
        values). ``"auto"`` is ``"rank1"``; counts are always normalised by their depth.
    gene_scaling
        For counts: ``"poisson"`` gives every gene the same sampling noise, ``"none"`` leaves the
        rates as they are.
    clip
        For counts: counts above the expectation by more than this many Poisson standard
        deviations are cut there. ``None`` for none: the estimate is then exactly unbiased, and
        at the mercy of single large counts.
    weight_power
        Cells weigh by this power of their precision. By default 0.5; 0 for the published method.
    centre
        Subtract the mean of the observed values of each gene.
    max_components
        Number of components to compute where `n_latent` is not a number.

    Examples
    --------
    >>> import sczoo
    >>> adata = sczoo.datasets.kang_ifnb_demo()
    >>> sczoo.model.GramDR.setup_anndata(adata)
    >>> model = sczoo.model.GramDR(adata, n_latent=20)
    >>> model.train()
    >>> adata.obsm["X_gramdr"] = model.get_latent_representation()

    Notes
    -----
    See the user guide for the equations, and for when plain PCA is just as good.
    """

    _method: ClassVar[str] = "gramdr"
    _module_cls = GramDRModule
    _training_plan_cls = GramDRTrainingPlan
    _data_splitter_cls = FitDataModule  # type: ignore[assignment]
    _input_scale: ClassVar[InputScale] = "counts"
    _saved_attributes: ClassVar[tuple[str, ...]] = ("fitted_on_",)
    _describes_latent: ClassVar[bool] = True
    _places_queries_apart: ClassVar[bool] = True
    _summary: ClassVar[str] = (
        "Principal components corrected for depth and missing values, with a linear projection "
        "for new patients."
    )
    _citation: ClassVar[list[dict[str, str]]] = [
        {
            "text": (
                "Ling Y., Liu Z., Xue J.-H. Dimension reduction for data with heterogeneous "
                "missingness. Proceedings of UAI, PMLR 161:1310-1320 (2021)."
            ),
            "doi": "10.48550/arXiv.2109.11765",
        }
    ]

    registry_: dict[str, Any]

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict[str, Any] | None = None,
        n_latent: int | float | str = 50,
        *,
        normaliser: Normaliser = "auto",
        gene_scaling: GeneScaling = "poisson",
        clip: float | None = 5.0,
        weight_power: float | None = None,
        centre: bool = True,
        max_components: int = 50,
    ) -> None:
        init_locals = dict(locals())
        super().__init__(adata, registry)
        check_n_latent(n_latent)
        _check(normaliser, gene_scaling, clip, weight_power, max_components)
        arguments = self._setup_arguments
        self._mask: Any = arguments.get("mask") or "counts"
        self._mask_layer = arguments.get("mask_layer")
        if self._mask == "counts" and normaliser not in ("auto", "depth"):
            raise InputError(
                f"normaliser={normaliser!r} is for masks; counts are normalised by their depth. "
                "Leave normaliser='auto', or set the data up with another mask."
            )
        resolved: str = normaliser
        if normaliser == "auto":
            resolved = "depth" if self._mask == "counts" else "rank1"
        if weight_power is None:
            weight_power = 0.0 if resolved == "paper" else 0.5
        # what was decided is recorded, so that a saved model stays what it is
        init_locals.update(weight_power=weight_power)
        self._normaliser: Any = resolved
        self._n_latent = n_latent
        self._clip = clip
        self._gene_scaling = gene_scaling
        self._weight_power = float(weight_power)
        self._centre = centre
        self._joint: np.ndarray | None = None
        self.fitted_on_ = ""
        by_number = isinstance(n_latent, int | np.integer)
        self._n_computed = int(n_latent) if by_number else max_components
        self.module = self._new_module()
        self._model_summary_string = (
            f"GramDR of {len(self.var_names)} genes, mask {self._mask!r}, "
            f"normaliser {resolved!r}, n_latent {n_latent!r}"
        )
        self._finish_init(init_locals)

    def _new_module(self) -> GramDRModule:
        n_genes = len(self.var_names)
        return self._build_module(
            n_genes=n_genes,
            n_batch=self._n_batch(),
            n_components=min(self._n_computed, n_genes),
            consensus=self._mask == "consensus",
        )

    def _n_batch(self) -> int:
        """Return the number of batches with panels; one where the normaliser has no use."""
        if self._normaliser not in ("depth", "rank1"):
            return 1
        state = self._check_field(REGISTRY_KEYS.BATCH_KEY).get(_compat.STATE_REGISTRY) or {}
        return max(len(state.get("categorical_mapping", ())), 1)

    @property
    def _scale(self) -> InputScale:
        forced = self._mask == "nonzero" and self._setup_arguments.get("force")
        return "nonnegative" if forced else SCALES[self._mask]

    @property
    def _allow_missing(self) -> bool:
        return self._mask == "explicit"

    @property
    def _companion_layers(self) -> tuple[str, ...]:
        return () if self._mask_layer is None else (self._mask_layer,)

    def _main_result(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        if adata is not None and self._mask_layer is not None:
            if self._mask_layer not in adata.layers:
                # the self-test's synthetic cells have every value
                adata = adata.copy()
                adata.layers[self._mask_layer] = np.ones(adata.shape, dtype=np.uint8)
        return self.get_latent_representation(adata, indices, batch_size)

    # --- training -----------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int = 40,
        *,
        tol: float = 1e-3,
        max_memory_gib: float = 2.0,
        accelerator: str = "cpu",
        devices: int | list[int] | str = 1,
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int = 128,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Find the components.

        There is no gradient: an epoch is one product of the corrected Gram matrix with a block of
        vectors. Training ends when the components have converged; ``history["residual"]`` tells
        how it went.

        Parameters
        ----------
        max_epochs
            Passes over the cells at most, after those for the means and the observation rates.
        tol
            Residual of the components, relative to the largest eigenvalue, at which to stop.
        max_memory_gib
            Encoded cells are kept in memory if they take less than this; else they are read again
            in every pass.
        accelerator, devices
            Accepted for uniformity; the work is done by scipy on the CPU, the result lives there.
        train_size, validation_size, shuffle_set_split
            Fit a random part of the cells only. All cells then count as new.
        batch_size
            Accepted for uniformity; blocks are sized by memory.
        datasplitter_kwargs
            For the data splitter, such as ``external_indexing`` to choose the cells.
        plan_kwargs
            For the training plan.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, such as ``max_time={"minutes": 5}``.
        """
        if not 0 < tol < 1:
            raise InputError(f"tol={tol!r}: it is a share, above 0 and below 1.")
        if not max_memory_gib >= 0:
            raise InputError(f"max_memory_gib={max_memory_gib!r}: it cannot be negative.")
        self._adopt_batches()
        fits: list[GramFit] = []

        def make_fit(rows: np.ndarray) -> GramFit:
            fit = self._make_fit(rows, tol, max_memory_gib)
            fits.append(fit)
            return fit

        splitter = {"make_fit": make_fit, **dict(datasplitter_kwargs or {})}
        try:
            self._train(
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                train_size=train_size,
                validation_size=validation_size,
                shuffle_set_split=shuffle_set_split,
                batch_size=batch_size,
                datasplitter_kwargs=splitter,
                plan_kwargs=plan_kwargs,
                **trainer_kwargs,
            )
        finally:
            if fits and fits[-1].n_passes:
                self._joint = fits[-1].latent

    def _adopt_batches(self) -> None:
        """Make room for the batches of attached data: a fit describes the cells it is made on."""
        if self.adata is None or self.registry_ is self.adata_manager.registry:
            return
        before = self._n_batch()
        old, self.registry_ = self.registry_, self.adata_manager.registry
        if self._n_batch() == before:
            self.registry_ = old
        else:
            self.module = self._new_module()

    def _make_fit(self, rows: np.ndarray, tol: float, max_memory_gib: float) -> GramFit:
        """Read the training cells and prepare the fit."""
        assert self.adata is not None
        source = self._expression(self.adata)
        codes = np.zeros(self.adata.n_obs, dtype=np.int64)
        if self._n_batch() > 1:
            registered = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)
            codes = np.asarray(registered).ravel().astype(np.int64)
        arguments: dict[str, Any] = {
            "n_genes": len(self.var_names),
            "indices": rows,
            "batch": codes,
        }
        consensus = None
        if self._mask == "consensus":
            everything = RowReader(source, self._layer, "explicit", **arguments)
            clusters = fit_consensus(everything, len(self.var_names), self._seed())
            self.module.set_consensus_state(clusters)

            def consensus(values: np.ndarray) -> np.ndarray:
                return observed_by_vote(values, clusters)

        reader = RowReader(
            source, self._layer, self._mask, self._mask_layer, consensus=consensus, **arguments
        )
        self.fitted_on_ = mask_digest(source, self._mask_layer, None)
        n_batch, n_genes, n_components = self.module.loadings.shape
        return GramFit(
            reader,
            GeneState.empty(n_genes, n_batch, n_components),
            self._normaliser,
            n_latent=self._n_latent,
            n_computed=n_components,
            gene_scaling=self._gene_scaling,
            clip=self._clip,
            centre=self._centre,
            weight_power=self._weight_power,
            tol=tol,
            max_memory_gib=max_memory_gib,
        )

    def _operator(self, reader: RowReader) -> GramOperator:
        """Return the operator of the fit, on its cells."""
        kind = PairwiseOperator if self._normaliser == "pairwise" else GramOperator
        return kind(
            reader,
            self.module.gene_state(),
            self._normaliser,
            clip=self._clip,
            weight_power=self._weight_power,
            max_memory_gib=2.0,
        )


def _check(
    normaliser: Any, gene_scaling: Any, clip: Any, weight_power: Any, max_components: Any
) -> None:
    if normaliser not in NORMALISERS:
        raise InputError(
            f"normaliser={normaliser!r} is not known; choose one of {', '.join(NORMALISERS)}."
        )
    if gene_scaling not in get_args(GeneScaling):
        raise InputError(
            f"gene_scaling={gene_scaling!r} is not known; choose one of {get_args(GeneScaling)}."
        )
    if clip is not None and not (_is_number(clip) and clip > 0):
        raise InputError(f"clip={clip!r}: give a number above 0, or None.")
    if weight_power is not None and not (_is_number(weight_power) and 0 <= weight_power <= 2):
        raise InputError(f"weight_power={weight_power!r}: give a number from 0 to 2.")
    if not isinstance(max_components, int) or isinstance(max_components, bool):
        raise InputError(f"max_components={max_components!r}: give a whole number.")
    if max_components < 1:
        raise InputError(f"max_components={max_components!r}: it must be at least 1.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
