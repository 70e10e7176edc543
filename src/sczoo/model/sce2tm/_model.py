"""SCE2TM: an embedded topic model of single cells, guided by outside knowledge."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from sczoo import _compat
from sczoo.base import ZooModelClass
from sczoo.errors import InputError, MissingKeyError, TooFewCellsError, TooFewGenesError
from sczoo.model.sce2tm._constants import InputKind, TrainingConstants, training_constants
from sczoo.model.sce2tm._differential import DifferentialTopicsMixin
from sczoo.model.sce2tm._guided_data import GuidedDataSplitter
from sczoo.model.sce2tm._knowledge import (
    KNOWLEDGE_FIELD,
    PCA_WIDTH,
    Guidance,
    build_guidance,
    check_knowledge,
)
from sczoo.model.sce2tm._module import SCE2TMModule
from sczoo.model.sce2tm._perturbation import PerturbationMixin
from sczoo.model.sce2tm._presets import PRESETS, GuidanceName, PresetName
from sczoo.model.sce2tm._results import TopicResultsMixin
from sczoo.model.sce2tm._setup import TopicSetupMixin
from sczoo.model.sce2tm._stability import StabilityMixin, current_seed
from sczoo.model.sce2tm._start import EmbeddingStart, starting_embeddings
from sczoo.model.sce2tm._trainingplan import SCE2TMTrainingPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale

__all__ = ["SCE2TM"]

logger = logging.getLogger(__name__)

KnowledgeName = Literal["auto", "registered", "pca"]

_SCALES: dict[InputKind, InputScale] = {
    "counts": "counts",
    "linear": "nonnegative",
    "log": "log1p",
}
_TARGET_TOTAL = 1e4
_N_NEIGHBORS = 15
# Enough steps for the topics to settle, whatever the number of cells.
_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 1500, 20, 400
_BATCHES, _SMALLEST_BATCH = 8, 32
_DECIDED_BY_PRESET = (
    "n_topics",
    "n_hidden",
    "n_embedding",
    "prior_weight",
    "ecr_weight",
    "guidance",
    "guidance_weight",
)
_RANGES: dict[str, tuple[type, float, float]] = {
    "n_topics": (int, 1, np.inf),
    "n_hidden": (int, 1, np.inf),
    "n_embedding": (int, 1, np.inf),
    "temperature": (float, 0, np.inf),
    "prior_weight": (float, 0, np.inf),
    "ecr_weight": (float, 0, np.inf),
    "guidance_weight": (float, 0, np.inf),
    "dropout_rate": (float, 0, 1),
}


class SCE2TM(
    TopicSetupMixin,
    TopicResultsMixin,
    DifferentialTopicsMixin,
    PerturbationMixin,
    StabilityMixin,
    ZooModelClass,
):
    """Topics that do not collapse, and what a perturbation of them does to the genes.

    Every cell is a mixture of topics, every topic a program of genes. Topics and genes are points
    in one space; optimal transport shares the genes out evenly among the topics, and outside
    knowledge about the cells (a foundation model's embedding, or their principal components)
    guides how the cells are arranged. Knowledge is used in training only: new cells need nothing
    but their expression.

    Parameters
    ----------
    adata
        Data that went through :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build the model without data.
    n_topics
        Number of topics. By default 30; 100 with the published preset.
    preset
        ``"default"``, or ``"paper"`` for the published configuration.
    knowledge
        What guides the training. ``"registered"``: the ``knowledge_key`` of the set-up. ``"pca"``:
        thirty principal components of the expression, genes and components with the square roots
        of their standard deviations. ``"auto"``: the registered one if there is one, else
        ``"pca"``. ``None``: nothing.
    input_kind
        ``"counts"``, ``"linear"`` (such as TPM) or ``"log"``. Recognised from the values if
        ``None``. Counts and linear values are normalised inside, by constants that the model
        keeps.
    n_hidden
        Hidden units of the encoder.
    n_embedding
        Length of topic and gene embeddings.
    temperature
        Divisor of squared distances between embeddings: lower values make topics share fewer
        genes.
    prior_weight
        Weight of the divergence from the prior.
    ecr_weight
        Weight of the transport between topics and genes.
    guidance
        ``"geometry"``: cells are to be as far from one another as they are in the knowledge.
        ``"assignments"``: the published contrast of soft assignments of cells and their mutual
        neighbours.
    guidance_weight
        Weight of the guidance. In the default preset it is relative to the reconstruction loss,
        so that it is felt whatever the number of genes; 1.2 by default. Larger weights arrange
        the cells more like the knowledge, and topics respond less to a treatment.
    n_neighbors
        Neighbours of a cell for ``guidance="assignments"``, the cell itself counted; 15, or all
        cells if there are fewer.
    dropout_rate
        Dropout in the encoder.
    embedding_init
        Where topics and genes start when the training begins. ``"coexpression"``: genes that are
        expressed together lie together, topics in the middle of such groups; so their genes belong
        together. ``"random"``, as published: in random directions.

    Examples
    --------
    >>> import sczoo
    >>> adata = sczoo.datasets.kang_ifnb_demo()
    >>> sczoo.model.SCE2TM.setup_anndata(adata)
    >>> model = sczoo.model.SCE2TM(adata, n_topics=30)
    >>> model.train()
    >>> adata.obsm["X_sce2tm"] = model.get_latent_representation()
    >>> model.get_top_genes(5)

    Notes
    -----
    See the user guide for the equations. The latent representation is the mean of the topic
    logits; :meth:`get_topic_proportions` gives their softmax.
    """

    _method: ClassVar[str] = "sce2tm"
    _module_cls = SCE2TMModule
    _training_plan_cls = SCE2TMTrainingPlan
    _data_splitter_cls = GuidedDataSplitter
    _input_scale: ClassVar[InputScale] = "nonnegative"
    _saved_attributes: ClassVar[tuple[str, ...]] = ("input_kind_",)
    _describes_latent: ClassVar[bool] = True
    _summary: ClassVar[str] = (
        "Embedded topic model: gene programs that do not collapse, guided by outside knowledge, "
        "with perturbation and transfer to new patients."
    )
    _citation: ClassVar[list[dict[str, str]]] = [
        {
            "text": (
                "Chen H. et al. scE2TM improves single-cell embedding interpretability and "
                "reveals cellular perturbation signatures. Nature Communications (2026)."
            ),
            "doi": "10.1038/s41467-026-76825-5",
        }
    ]

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict[str, Any] | None = None,
        n_topics: int | None = None,
        *,
        preset: PresetName = "default",
        knowledge: KnowledgeName | None = "auto",
        input_kind: InputKind | None = None,
        n_hidden: int | None = None,
        n_embedding: int | None = None,
        temperature: float = 0.2,
        prior_weight: float | None = None,
        ecr_weight: float | None = None,
        guidance: GuidanceName | None = None,
        guidance_weight: float | None = None,
        n_neighbors: int | None = None,
        dropout_rate: float = 0.0,
        embedding_init: EmbeddingStart | None = None,
    ) -> None:
        init_locals = dict(locals())
        super().__init__(adata, registry)
        _check_choice("preset", preset, get_args(PresetName))
        _check_choice("knowledge", knowledge, (*get_args(KnowledgeName), None))
        _check_choice("input_kind", input_kind, (*get_args(InputKind), None))
        _check_choice("guidance", guidance, (*get_args(GuidanceName), None))
        _check_choice("embedding_init", embedding_init, (*get_args(EmbeddingStart), None))
        # What the preset decides is recorded with the arguments, so that a saved model stays what
        # it is when a later version of sczoo changes its presets.
        chosen = {
            name: getattr(PRESETS[preset], name)
            if init_locals[name] is None
            else init_locals[name]
            for name in _DECIDED_BY_PRESET
        }
        init_locals.update(chosen)
        _check_numbers({**chosen, "temperature": temperature, "dropout_rate": dropout_rate})
        n_topics = int(chosen["n_topics"])
        n_genes = len(self.var_names)
        if n_topics < 2:
            raise InputError(f"n_topics={n_topics}: a topic model needs at least two topics.")
        if n_genes < n_topics:
            raise TooFewGenesError(
                f"There are {n_genes} genes for {n_topics} topics; every topic needs genes of its "
                "own. Pass more genes or a smaller n_topics."
            )
        self._preset = PRESETS[preset]
        self._embedding_init = embedding_init or self._preset.embedding_init
        init_locals["embedding_init"] = self._embedding_init
        self._n_neighbors = n_neighbors
        self._knowledge = self._resolve_knowledge(knowledge)
        self._fine_tuning = False
        self.module = self._build_module(
            n_genes=n_genes,
            n_batch=self._n_batch(),
            n_knowledge=self._n_knowledge(),
            preset=preset,
            temperature=temperature,
            dropout_rate=dropout_rate,
            **chosen,
        )
        self.input_kind_: InputKind = input_kind or "counts"
        self._constants = None
        if adata is not None:
            self._constants = training_constants(
                self._expression(adata), self._layer, input_kind, _TARGET_TOTAL
            )
            self.input_kind_ = self._constants.kind
            self.module.set_constants(**self._constants.tensors())
        self._model_summary_string = (
            f"SCE2TM with {n_topics} topics of {n_genes} genes, preset {preset!r}, "
            f"knowledge: {self._knowledge or 'none'}"
        )
        self._finish_init(init_locals)

    # --- what the constructor decides ---------------------------------------------------------

    def _field(self, name: str) -> dict[str, Any]:
        return self.registry_[_compat.FIELD_REGISTRIES].get(name, {})

    def _n_batch(self) -> int:
        state = self._field(REGISTRY_KEYS.BATCH_KEY).get(_compat.STATE_REGISTRY) or {}
        return len(state.get("categorical_mapping", ()))

    def _n_knowledge(self) -> int:
        if self._knowledge is None:
            return 0
        if self._knowledge == "pca":
            return PCA_WIDTH
        stats = self._field(KNOWLEDGE_FIELD).get(_compat.SUMMARY_STATS) or {}
        return int(stats.get(f"n_{KNOWLEDGE_FIELD}", 0))

    def _resolve_knowledge(self, knowledge: str | None) -> str | None:
        registered = bool(self._field(KNOWLEDGE_FIELD))
        if knowledge == "registered" and not registered:
            raise MissingKeyError(
                "knowledge='registered' was asked for, but no knowledge_key was registered. Pass "
                "setup_anndata(adata, knowledge_key=...) with a key of adata.obsm, or choose "
                "knowledge='pca' or knowledge=None."
            )
        if knowledge == "auto":
            return "registered" if registered else "pca"
        return knowledge

    @property
    def _scale(self) -> InputScale:
        return _SCALES[self.input_kind_]

    def _seed(self) -> int:
        override = current_seed()
        return super()._seed() if override is None else override

    # --- training -----------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        *,
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

        Parameters
        ----------
        max_epochs
            Passes over the cells. By default as many as make about 1,500 steps, between 20 and
            400; 500 with the published preset.
        batch_size
            Cells in a minibatch. By default 256, fewer with less than 2,048 cells; 512 with the
            published preset.
        accelerator, devices
            Where to train.
        train_size, validation_size
            Shares of the cells; all cells are trained on by default.
        shuffle_set_split
            Draw the validation cells at random.
        early_stopping
            Stop when the validation loss no longer falls; needs validation cells.
        datasplitter_kwargs
            For the data splitter, such as ``external_indexing`` to split by donor.
        plan_kwargs
            For the training plan: ``lr``, ``optimizer``, ``schedule``, ``ecr_warmup`` and others
            of :class:`~sczoo.model.sce2tm.SCE2TMTrainingPlan`.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.
        """
        batch_size = batch_size or self._default_batch_size()
        if max_epochs is None:
            max_epochs = self._default_epochs(batch_size)
        plan = {
            "optimizer": self._preset.optimizer,
            "lr": self._preset.learning_rate,
            "schedule": self._preset.schedule,
            "decoder_rate": self._preset.decoder_rate,
            **dict(plan_kwargs or {}),
        }
        splitter = dict(datasplitter_kwargs or {})
        if self.adata is not None and "datamodule" not in trainer_kwargs:
            splitter.setdefault("guidance", self._build_guidance())
            self._start_embeddings()
        self._train(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            batch_size=batch_size,
            early_stopping=early_stopping,
            datasplitter_kwargs=splitter,
            plan_kwargs=plan,
            **trainer_kwargs,
        )

    def _default_batch_size(self) -> int:
        """Small data get smaller minibatches, or an epoch would be one or two steps."""
        largest = self._preset.batch_size
        if self._preset.published or self.adata is None:
            return largest
        return int(np.clip(self.adata.n_obs // _BATCHES, _SMALLEST_BATCH, largest))

    def _default_epochs(self, batch_size: int) -> int:
        if self._preset.max_epochs is not None:
            return self._preset.max_epochs
        n_cells = self.adata.n_obs if self.adata is not None else batch_size
        per_epoch = max(1, n_cells // batch_size)
        return int(np.clip(np.ceil(_STEPS / per_epoch), _FEWEST_EPOCHS, _MOST_EPOCHS))

    def _build_guidance(self) -> Guidance | None:
        """Knowledge of the training cells, and neighbours where the guidance needs them."""
        module = self.module
        if self._knowledge is None or self._fine_tuning or module.guidance_weight == 0:
            return None
        source = self._expression(self.adata)
        if min(source.n_obs, source.n_vars) < 3:
            logger.warning("Fewer than three cells or genes: training without guidance.")
            return None
        n_neighbors = self._n_neighbors
        if n_neighbors is None:
            n_neighbors = min(_N_NEIGHBORS, source.n_obs)
        elif not 2 <= n_neighbors <= source.n_obs:
            raise TooFewCellsError(
                f"n_neighbors={n_neighbors} with {source.n_obs} cells: it must be between 2 and "
                "the number of cells. Pass a smaller n_neighbors, or None."
            )
        knowledge = None
        if self._knowledge == "registered":
            knowledge = check_knowledge(
                self.adata_manager.get_from_registry(KNOWLEDGE_FIELD), "the registered knowledge"
            )
        return build_guidance(
            source,
            self._layer,
            self._normalisation(source),
            knowledge=knowledge,
            n_neighbors=n_neighbors,
            neighbours=module.guidance == "assignments",
            published=module.published,
        )

    def _normalisation(self, source: AnnData) -> TrainingConstants:
        return self._constants or training_constants(
            source, self._layer, self.input_kind_, float(self.module.target_total)
        )

    @torch.no_grad()
    def _start_embeddings(self) -> None:
        """Move the embeddings to where they start, before the first training alone."""
        if self.is_trained_ or self._fine_tuning or self._embedding_init == "random":
            return
        module, source = self.module, self._expression(self.adata)
        topics, genes = starting_embeddings(
            source,
            self._layer,
            self._normalisation(source),
            topics=module.topic_embedding.cpu().numpy(),
            genes=module.gene_embedding.cpu().numpy(),
            seed=self._seed(),
        )
        module.topic_embedding.copy_(torch.from_numpy(topics))
        module.gene_embedding.copy_(torch.from_numpy(genes))

    def _prepare_fine_tuning(self) -> None:
        """Free the encoder alone: topics keep their meaning, and the query needs no knowledge."""
        self._fine_tuning = True
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name.startswith("encoder."))
        source = self._expression(self.adata)
        if "in_query" in source.var:
            self.module.set_present_genes(source.var["in_query"].to_numpy(dtype=bool))


def _check_numbers(values: Mapping[str, Any]) -> None:
    """Require sizes and weights that make sense; the message names the argument."""
    for name, (kind, low, below) in _RANGES.items():
        value = values[name]
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        number = whole or (kind is float and isinstance(value, float | np.floating))
        if not number or not low <= value < below or (name == "temperature" and value == 0):
            what = "a whole number" if kind is int else "a number"
            limits = f"at least {low}" if below == np.inf else f"from {low} to below {below}"
            if name == "temperature":
                limits = "above 0"
            raise InputError(f"{name}={value!r}: it must be {what} {limits}.")


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r} is not known; choose one of {choices}.")
