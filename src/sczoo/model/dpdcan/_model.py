"""DPDCAN: a private autoencoder with contrastive views, whose epsilon is true."""

from __future__ import annotations

import logging
import math
import warnings
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from sczoo import _compat
from sczoo.base import ZooModelClass
from sczoo.base._reading import iter_row_blocks
from sczoo.errors import InputError
from sczoo.model.dpdcan._checks import (
    check_acknowledged,
    check_options,
    check_plan,
    check_rows,
    check_target,
    check_training,
)
from sczoo.model.dpdcan._data import PrivateDataSplitter
from sczoo.model.dpdcan._module import Architecture, DPDCANModule
from sczoo.model.dpdcan._paper import PublishedTrainingPlan
from sczoo.model.dpdcan._planning import PrivatePlanMixin
from sczoo.model.dpdcan._results import PrivateResultsMixin
from sczoo.model.dpdcan._run import Mode
from sczoo.model.dpdcan._setup import PrivateSetupMixin
from sczoo.model.dpdcan._trainingplan import DPDCANTrainingPlan
from sczoo.privacy._gene_list import check_gene_list
from sczoo.privacy._projection import unit_weights
from sczoo.privacy._sampling import PoissonSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale
    from sczoo.privacy._noise import NoiseSource

__all__ = ["DPDCAN"]

logger = logging.getLogger(__name__)

_CELLS_OF_A_DONOR = 32
_PUBLISHED_CLIP = 0.1
# what a private model says of its run: none of it was computed from the cells
_PUBLIC_PROVENANCE = {
    "versions",
    "hardware",
    "seed",
    "genes_sha256",
    "arguments",
    "epochs",
    "finished",
    "n_cells",
    "privacy",
}
_LATENT = {"projected": 10, "published": 32}


class DPDCAN(PrivateSetupMixin, PrivatePlanMixin, PrivateResultsMixin, ZooModelClass):
    """A differentially private autoencoder: the weights can be shared, the patients stay.

    Everything that the training releases about the cells goes through noise whose epsilon is
    accounted: the weights and every number stored with them. Not covered are the embeddings and
    labels of the training cells themselves, and the choices made before: genes, hyper-parameters.

    Parameters
    ----------
    adata
        Data that went through :meth:`setup_anndata` or :meth:`setup_mudata`, raw counts. With a
        ``donor_key`` the guarantee is for donors, without it for single cells.
    registry
        Registry of a saved model, to build the model without data.
    mode
        ``"dp"``: all trained numbers are protected. ``"frozen-decoder"``: only the encoder is
        trained; the decoder stays random, or comes from public cells. ``"split"``: encoder and
        decoder are clipped and noised apart, accounted as one. ``"paper"``: the published scheme,
        for comparison; it gives **no guarantee** and :attr:`epsilon` is ``None``.
    target_epsilon
        Epsilon that all training together may reach. Infinity trains without noise and claims
        nothing.
    target_delta
        Probability that the guarantee fails; one in ten times the units, at most 1e-5, by
        default.
    noise_multiplier
        Noise of the gradients relative to the clipping norm, instead of a target.
    max_grad_norm
        Clipping norm of a unit's gradient; 0.5 by default, 0.1 in the published scheme.
    architecture
        ``"projected"``: a projection released once, with a small network behind it.
        ``"published"``: the published network of half a million weights and more. By default the
        first, in the mode ``"paper"`` the second.
    n_latent
        Latent dimensions; by default 10, or 32 in the published architecture.
    n_hidden
        Units of the hidden layers of the projected architecture.
    n_clusters
        Train cluster centres in a second phase. ``None`` leaves the phase out; clustering is then
        done with the embeddings, by their owner.
    mask_rate
        Share of the genes hidden in each of the two views.
    reconstruction_weight
        Share of the reconstruction in the loss of phase one; the rest is the agreement of the
        views.
    cluster_weights
        Weights of reconstruction, cluster divergence and spread of the centres in phase two.
    cells_per_donor
        Cells drawn of a donor in a step.
    public_genes
        Where the list of genes comes from, in words, such as ``"GENCODE v44, protein-coding"``;
        it stands on the card.
    acknowledge
        Leaks that are accepted by name: ``"gene_list"``.

    Examples
    --------
    >>> import sczoo
    >>> adata = sczoo.datasets.kang_ifnb()
    >>> sczoo.model.DPDCAN.setup_anndata(adata)
    >>> model = sczoo.model.DPDCAN(adata, target_epsilon=4.0)
    >>> model.train()
    >>> model.epsilon, model.delta
    >>> model.get_latent_representation(new_patient)
    """

    _method: ClassVar[str] = "dpdcan"
    _module_cls = DPDCANModule
    _training_plan_cls = DPDCANTrainingPlan
    _data_splitter_cls = PrivateDataSplitter
    _input_scale: ClassVar[InputScale] = "counts"
    _optional_setup_keys: ClassVar[tuple[str, ...]] = ("donor_key",)
    _saved_attributes: ClassVar[tuple[str, ...]] = ("privacy_",)
    _summary: ClassVar[str] = (
        "Differentially private autoencoder: an embedding that can be shared, with an accounted "
        "epsilon for each cell or donor."
    )
    _citation: ClassVar[list[dict[str, str]]] = [
        {
            "text": (
                "Li et al. DP-DCAN: Differentially Private Deep Contrastive Autoencoder Network "
                "for Single-cell Clustering. ICIC (2024); arXiv:2311.03410."
            ),
            "doi": "10.48550/arXiv.2311.03410",
        }
    ]

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict[str, Any] | None = None,
        mode: Mode = "dp",
        *,
        target_epsilon: float | None = 4.0,
        target_delta: float | None = None,
        noise_multiplier: float | None = None,
        max_grad_norm: float | None = None,
        architecture: Architecture | None = None,
        n_latent: int | None = None,
        n_hidden: int = 32,
        n_clusters: int | None = None,
        mask_rate: float = 0.2,
        reconstruction_weight: float = 0.8,
        cluster_weights: Sequence[float] = (0.4, 0.4, 0.2),
        cells_per_donor: int = _CELLS_OF_A_DONOR,
        public_genes: str | None = None,
        acknowledge: Sequence[str] = (),
    ) -> None:
        init_locals = dict(locals())
        super().__init__(adata, registry)
        if mode not in get_args(Mode):
            raise InputError(f"mode={mode!r} is not known: use one of {get_args(Mode)}.")
        if architecture is None:
            architecture = "published" if mode == "paper" else "projected"
        if architecture not in get_args(Architecture):
            raise InputError(
                f"architecture={architecture!r} is not known: use one of {get_args(Architecture)}."
            )
        if mode == "paper" and architecture != "published":
            raise InputError("mode='paper' is the published scheme with the published network.")
        if target_epsilon == math.inf:
            target_epsilon = None  # infinity is no number in JSON
            noise_multiplier = 0.0 if noise_multiplier is None else noise_multiplier
        if noise_multiplier is not None:
            target_epsilon = None
        elif target_epsilon is None:
            noise_multiplier = 0.0
        if max_grad_norm is None:
            max_grad_norm = _PUBLISHED_CLIP if mode == "paper" else 0.5
        n_latent = _LATENT[architecture] if n_latent is None else n_latent
        check_options(
            target_epsilon=target_epsilon,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            n_latent=n_latent,
            n_hidden=n_hidden,
            n_clusters=n_clusters,
            mask_rate=mask_rate,
            reconstruction_weight=reconstruction_weight,
            cluster_weights=cluster_weights,
            cells_per_donor=cells_per_donor,
        )
        check_acknowledged(acknowledge)
        # what a default decided is recorded, so that a saved model stays what it is
        init_locals.update(
            target_epsilon=_number(target_epsilon),
            target_delta=_number(target_delta),
            noise_multiplier=_number(noise_multiplier),
            max_grad_norm=float(max_grad_norm),
            architecture=architecture,
            n_latent=int(n_latent),
            cluster_weights=[float(w) for w in cluster_weights],
            acknowledge=[str(name) for name in acknowledge],
        )
        self._mode: str = mode
        self._architecture: str = architecture
        self._target_epsilon = _number(target_epsilon)
        self._target_delta = _number(target_delta)
        self._noise_multiplier = _number(noise_multiplier)
        self._max_grad_norm = float(max_grad_norm)
        self._cells_per_donor = int(cells_per_donor)
        self._noise_source: NoiseSource | None = None
        genes = {"source": public_genes, "acknowledged": "gene_list" in acknowledge}
        if adata is not None and self._claims:
            check_gene_list(self._expression(adata), acknowledge)
        self.privacy_: dict[str, Any] = {"mode": mode, "genes": genes, "releases": []}
        self.module = self._build_module(
            n_input=len(self.var_names),
            architecture=architecture,
            n_latent=int(n_latent),
            n_hidden=int(n_hidden),
            n_clusters=int(n_clusters or 0),
            mask_rate=float(mask_rate),
            reconstruction_weight=float(reconstruction_weight),
            cluster_weights=tuple(float(w) for w in cluster_weights),
            standardised=mode == "paper",
        )
        budget = "no noise" if noise_multiplier == 0 else f"epsilon {target_epsilon}"
        self._model_summary_string = (
            f"DPDCAN, mode {mode!r}, {architecture} architecture, {budget}, unit: {self._unit}"
        )
        if mode == "paper":
            warnings.warn(
                "mode='paper' is the published scheme for comparison. It gives no differential-"
                "privacy guarantee: part of the decoder gets no noise and steers the gradients of "
                "the rest, and the contrastive loss mixes the cells of a minibatch. model.epsilon "
                "is None. Use mode='dp' to share a model.",
                UserWarning,
                stacklevel=2,
            )
        self._finish_init(init_locals)

    # --- training -----------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        *,
        target_epsilon: float | None = None,
        public_adata: AnnData | None = None,
        noise_seed: None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        early_stopping: bool = False,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model.

        A second call goes on, with new noise and new coins; what it spends is added.

        Parameters
        ----------
        max_epochs
            Passes over the units. By default as many as make about 24 steps (200 with the
            published architecture).
        batch_size
            Expected number of units (cells or donors) in a minibatch; by default 1,024 cells, or
            a quarter of the donors, and in the mode ``"paper"`` a tenth of the cells. Large
            minibatches cost least beside plain training: the noise is drawn once for each step.
        target_epsilon
            Epsilon that all runs together may reach, in the place of the constructor's; not with
            a ``noise_multiplier``.
        public_adata
            Cells that everybody may see, such as a published atlas. They give the projection and
            the first weights, without cost to the budget; the mode ``"frozen-decoder"`` keeps
            the decoder that they give.
        noise_seed
            Only ``None``: noise with a known seed can be subtracted.
        accelerator, devices
            Where to train; one device.
        train_size, validation_size
            Shares of the cells, or of the donors. Cells that are held out are not looked at:
            they are for audits.
        shuffle_set_split
            Draw the held-out cells at random.
        early_stopping
            Only ``False`` with a guarantee: the time to stop would tell of the cells.
        datasplitter_kwargs
            For the data splitter, such as ``external_indexing``.
        plan_kwargs
            For the training plan: ``lr``, ``average_share``.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.

        Raises
        ------
        PrivacyError
            What was asked for would break the guarantee; the message says why.
        PrivacyBudgetError
            Earlier runs have spent the budget.
        """
        arguments: dict[str, Any] = {
            "accelerator": accelerator,
            "devices": devices,
            "train_size": train_size,
            "validation_size": validation_size,
            "shuffle_set_split": shuffle_set_split,
            "early_stopping": early_stopping,
        }
        splitter = {"by_donor": self._unit == "donor", **dict(datasplitter_kwargs or {})}
        source = self._source(noise_seed)
        check_training(self._claims, early_stopping, devices, trainer_kwargs)
        check_options(
            target_epsilon=target_epsilon,
            batch_size=batch_size,
            max_epochs=max_epochs,
            train_size=train_size,
        )
        check_target(target_epsilon, self._noise_multiplier)
        check_plan(plan_kwargs)
        if self.adata is None or self.adata.n_obs < self._min_cells:
            self._train(max_epochs=max_epochs or 1, **arguments)  # raises
        arguments["devices"] = 1 if devices == "auto" else devices
        check_rows(splitter, self.adata.n_obs)
        self._check_public(public_adata)
        rows = self._training_rows(arguments, splitter)
        units, n_units = self._units(rows)
        batch_size, n_steps, max_epochs = self._schedule(n_units, batch_size, max_epochs)
        target = self._target_epsilon if target_epsilon is None else float(target_epsilon)
        run = self._plan(target, n_units, batch_size, n_steps, source, public_adata is not None)
        weights = unit_weights(units, len(rows))

        def blocks() -> Iterator[Any]:
            source = self._expression(self.adata)
            return (block for _, block in iter_row_blocks(source, self._layer, rows))

        self._begin(run, blocks, weights, public_adata, n_units)
        plan = {
            "run": run,
            "blocks": _dense(blocks),
            "weights": weights,
            **dict(plan_kwargs or {}),
        }
        plan_cls: type = DPDCANTrainingPlan
        if self._mode == "paper":
            plan_cls = PublishedTrainingPlan
        else:

            def sampler(found: np.ndarray) -> PoissonSampler:
                return PoissonSampler(
                    n_units,
                    run.rate,
                    n_steps // max_epochs,
                    run.source,
                    units=units,
                    rows_per_unit=run.rows_per_unit,
                )

            splitter["sampler_factory"] = sampler
        try:
            self._train(
                max_epochs=max_epochs,
                batch_size=max(2, batch_size),
                datasplitter_kwargs=splitter,
                plan_kwargs=plan,
                plan_cls=plan_cls,
                **arguments,
                **trainer_kwargs,
            )
        finally:
            self._store(run)
            self.provenance_ = self._saved_provenance()

    # --- records ------------------------------------------------------------------------------

    def _record_run(self, *args: Any, **kwargs: Any) -> None:
        """Record the run; nothing that was computed from the cells outside the mechanism."""
        super()._record_run(*args, **kwargs)
        if self._noise_multiplier != 0:
            # exact quantiles and a hash of the data would confirm a guess about a patient, and
            # the time a run took depends on the cells; what a later version of the base class
            # may record besides is kept out too
            self.domain = {}
            kept = {k: v for k, v in self.provenance_.items() if k in _PUBLIC_PROVENANCE}
            self.provenance_ = {**kept, "data_sha256": None, "cpu_seconds": None}

    def _describe_latent(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Describe the embeddings of the cells only where nothing is private."""
        return {} if self._noise_multiplier != 0 else super()._describe_latent(*args, **kwargs)

    def _exported_registry(self) -> dict[str, Any]:
        """Return scvi-tools' registry with numbers for donors: no noise hides their names."""
        registry = deepcopy(self.registry_)
        field = registry[_compat.FIELD_REGISTRIES].get(REGISTRY_KEYS.BATCH_KEY)
        if field is not None and "categorical_mapping" in field[_compat.STATE_REGISTRY]:
            state = field[_compat.STATE_REGISTRY]
            names = [f"category_{number}" for number in range(len(state["categorical_mapping"]))]
            state["categorical_mapping"] = np.array(names, dtype=object)
        return registry

    def _gene_importance(self) -> np.ndarray | None:
        """Length of each gene's row of the projection: post-processing of what was released."""
        if self._architecture != "projected" or not bool(self.module.encoder.fitted):
            return None
        return self.module.encoder.projection.norm(dim=1).cpu().numpy()

    @torch.inference_mode()
    def _latent(self, adata: Any, indices: Any, batch_size: int | None) -> np.ndarray:
        self._require_trained()
        self.module.eval()
        parts = [np.zeros((0, self.module.n_latent), dtype=np.float32)]
        for batch in self._iter_batches(adata, indices, batch_size):
            found = self.module.inference(batch["X"], gene_mask=batch["gene_mask"])
            parts.append(found["z"].cpu().numpy())
        return np.concatenate(parts)


def _number(value: Any) -> Any:
    """Turn numpy's numbers into Python's, which JSON can hold; leave the rest to be refused."""
    return value.item() if isinstance(value, np.number) else value


def _dense(blocks: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[np.ndarray]]:
    def made() -> Iterator[np.ndarray]:
        for block in blocks():
            yield np.asarray(
                block.toarray() if hasattr(block, "toarray") else block, dtype=np.float32
            )

    return made
