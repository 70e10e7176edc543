"""SCAGC: clusters of cells on a graph that learns."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import numpy as np
import torch

from sczoo.base import ZooModelClass
from sczoo.errors import InputError, TooFewCellsError
from sczoo.model.scagc._anchors import MOST_ANCHORS, anchor_groups, group_means
from sczoo.model.scagc._arguments import check_choice, check_numbers
from sczoo.model.scagc._clustering import centres_of, initial_partition
from sczoo.model.scagc._constants import input_constants
from sczoo.model.scagc._data import NumberedDataSplitter, dense_blocks
from sczoo.model.scagc._graph_report import GraphReportMixin
from sczoo.model.scagc._memory import GraphMemory, GraphSettings
from sczoo.model.scagc._module import SCAGCModule
from sczoo.model.scagc._presets import PRESETS, GraphName, LikelihoodName, PresetName
from sczoo.model.scagc._published import PublishedMixin
from sczoo.model.scagc._results import GraphResultsMixin, LearnedCells
from sczoo.model.scagc._setup import GraphSetupMixin
from sczoo.model.scagc._stability import StabilityMixin, current_seed
from sczoo.model.scagc._trainingplan import SCAGCTrainingPlan, convolve_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale

__all__ = ["SCAGC"]

logger = logging.getLogger(__name__)

_N_NEIGHBORS = 15
_DECIDED_BY_PRESET = (
    "n_top_genes",
    "n_latent",
    "n_hidden",
    "n_candidates",
    "similarity_scale",
    "balance",
    "dropout_rate",
    "contrast_weight",
    "adjacency_weight",
    "cluster_weight",
)


class SCAGC(
    GraphSetupMixin,
    GraphResultsMixin,
    GraphReportMixin,
    StabilityMixin,
    PublishedMixin,
    ZooModelClass,
):
    """Clusters of cells on a graph that learns, without labels and in minibatches.

    Cells are embedded by a graph autoencoder. Its graph is drawn anew in every epoch from
    candidate neighbours, with gradients through the draw, and so that no cell becomes a hub;
    centres of clusters then learn together with the embedding. New patients' cells attach to
    anchors, averages of training cells, so that a saved model holds nothing of single cells.

    Parameters
    ----------
    adata
        Data that went through :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build the model without data.
    n_clusters
        Number of clusters. ``None`` takes what Leiden finds on the learned graph.
    preset
        ``"default"``, or ``"reference"`` for the published computation, for up to 4,000 cells.
    graph
        ``"adaptive"``, or ``"static"``: the nearest neighbours in principal components
        throughout.
    likelihood
        ``"zinb"`` on counts, or ``"gaussian"`` on scaled expression.
    n_neighbors
        Neighbours of a cell, itself not counted; 15, or all other cells if there are fewer.
    n_candidates
        Neighbours that the edges are drawn from; at least `n_neighbors`.
    n_top_genes
        Number of variable genes that the model reads.
    n_latent
        Dimensions of the embedding.
    n_hidden
        Hidden units.
    similarity_scale
        Factor of the cosine of two cells in the log-odds of their edge.
    balance
        How strongly prices even out the number of edges of the cells; 0 for not at all.
    dropout_rate
        Dropout of the hidden units.
    contrast_weight, adjacency_weight, cluster_weight
        Weights of the contrast between successive graphs, of the reconstruction of edges and of
        the clusters, relative to the reconstruction of the counts.
    n_anchors
        Number of anchors of a saved model; set in training.

    Examples
    --------
    >>> import sczoo
    >>> adata = sczoo.datasets.kang_ifnb_demo()
    >>> sczoo.model.SCAGC.setup_anndata(adata)
    >>> model = sczoo.model.SCAGC(adata, n_clusters=8)
    >>> model.train()
    >>> adata.obs["scagc_cluster"] = model.get_cluster_assignments().astype(str)
    >>> adata.obsp["scagc_connectivities"] = model.get_adaptive_graph()
    >>> model.get_graph_report()

    Notes
    -----
    See the user guide for the equations and for what adaptation of the graph buys.
    """

    _method: ClassVar[str] = "scagc"
    _module_cls = SCAGCModule
    _training_plan_cls = SCAGCTrainingPlan
    _data_splitter_cls = NumberedDataSplitter
    _input_scale: ClassVar[InputScale] = "counts"
    _min_cells: ClassVar[int] = 3
    # not with the other records: queries have places once the anchors are settled
    _describes_latent: ClassVar[bool] = False
    _places_queries_apart: ClassVar[bool] = True
    _summary: ClassVar[str] = (
        "Clustering on a graph of cells that learns with the embedding: more edges within types "
        "and no hubs than nearest neighbours have, clusters about as good; no labels, minibatches "
        "for a million cells."
    )
    _citation: ClassVar[list[dict[str, str]]] = [
        {
            "text": (
                "scAGC: learning adaptive cell graphs with contrastive guidance for single-cell "
                "clustering. BIBM (2025)."
            ),
            "url": "https://arxiv.org/abs/2508.09180",
        }
    ]

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict[str, Any] | None = None,
        n_clusters: int | None = None,
        *,
        preset: PresetName = "default",
        graph: GraphName = "adaptive",
        likelihood: LikelihoodName = "zinb",
        n_neighbors: int | None = None,
        n_candidates: int | None = None,
        n_top_genes: int | None = None,
        n_latent: int | None = None,
        n_hidden: int | None = None,
        similarity_scale: float | None = None,
        balance: float | None = None,
        dropout_rate: float | None = None,
        contrast_weight: float | None = None,
        adjacency_weight: float | None = None,
        cluster_weight: float | None = None,
        n_anchors: int = 0,
    ) -> None:
        init_locals = dict(locals())
        super().__init__(adata, registry)
        check_choice("preset", preset, get_args(PresetName))
        check_choice("graph", graph, get_args(GraphName))
        check_choice("likelihood", likelihood, get_args(LikelihoodName))
        # What the preset decides is recorded with the arguments, so that a saved model stays what
        # it is when a later version of sczoo changes its presets.
        self._preset = PRESETS[preset]
        chosen = {
            name: getattr(self._preset, name) if init_locals[name] is None else init_locals[name]
            for name in _DECIDED_BY_PRESET
        }
        init_locals.update(chosen)
        check_numbers(init_locals)
        n_neighbors = self._resolve_neighbors(adata, n_neighbors, chosen["n_candidates"])
        init_locals["n_neighbors"] = n_neighbors
        if adata is not None:
            self._check_clusters(n_clusters, adata.n_obs)
        self._graph = graph
        self._learned: LearnedCells | None = None
        arguments = {k: v for k, v in chosen.items() if k not in ("n_candidates", "balance")}
        if self._preset.published:
            self._prepare_reference(adata, likelihood)
            del arguments["dropout_rate"]
        else:
            arguments |= {"n_hops": self._preset.n_hops, "likelihood": likelihood}
        self.module = self._build_module(
            n_genes=len(self.var_names),
            n_clusters=n_clusters or 0,
            n_anchors=n_anchors,
            n_neighbors=n_neighbors,
            **arguments,
        )
        if adata is not None:
            constants = input_constants(
                self._expression(adata),
                self._layer,
                int(chosen["n_top_genes"]),
                seed=self._seed(),
            )
            self.module.set_constants(constants)
        self._model_summary_string = (
            f"SCAGC with {n_clusters or 'as many clusters as Leiden finds, '} clusters, "
            f"{graph} graph of {n_neighbors} neighbours, preset {preset!r}"
        ).replace("finds,  clusters", "finds")
        self._finish_init(init_locals)

    # --- what the constructor decides ---------------------------------------------------------

    @staticmethod
    def _resolve_neighbors(
        adata: AnnData | MuData | None, n_neighbors: int | None, n_candidates: int | None
    ) -> int:
        if n_neighbors is None:
            n_neighbors = _N_NEIGHBORS if n_candidates is None else min(15, n_candidates)
            return n_neighbors if adata is None else max(1, min(n_neighbors, adata.n_obs - 1))
        if adata is not None and n_neighbors >= adata.n_obs > 1:
            raise TooFewCellsError(
                f"n_neighbors={n_neighbors} with {adata.n_obs} cells: a cell has only "
                f"{adata.n_obs - 1} others. Pass a smaller n_neighbors, or None."
            )
        if n_candidates is not None and n_candidates < n_neighbors:
            raise InputError(
                f"n_candidates={n_candidates} for n_neighbors={n_neighbors}: edges cannot be "
                "drawn from fewer candidates than there are edges."
            )
        return n_neighbors

    @staticmethod
    def _check_clusters(n_clusters: int | None, n_cells: int) -> None:
        if n_clusters is not None and n_clusters > n_cells > 1:
            raise TooFewCellsError(
                f"{n_clusters} clusters were asked for, but there are {n_cells} cells."
            )

    def _argument(self, name: str) -> Any:
        """Argument of the constructor, as recorded."""
        return self.init_params_["non_kwargs"][name]

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
        """Train the model: first embedding and graph, then the clusters.

        Training stops early when the clusters no longer change; no label is ever looked at.

        Parameters
        ----------
        max_epochs
            Passes over the cells, at most. By default as many as make about 160 steps, between 2
            and 40; 1,300 with the published preset.
        batch_size
            Cells in a minibatch. By default 256, fewer with less than 2,048 cells; all cells with
            the published preset.
        accelerator, devices
            Where to train; one device.
        train_size, validation_size
            Shares of the cells; all cells are trained on by default. Cells that are held out stay
            in the graph.
        shuffle_set_split
            Draw the validation cells at random.
        early_stopping
            Stop also when the validation loss no longer falls; needs validation cells.
        datasplitter_kwargs
            For the data splitter, such as ``external_indexing``.
        plan_kwargs
            For the training plan: ``lr``, ``pretrain_epochs``, ``stop_below`` and others of
            :class:`~sczoo.model.scagc.SCAGCTrainingPlan`.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.

        Raises
        ------
        TooFewCellsError
            Fewer than three cells, or fewer than clusters.
        """
        if self.adata is None:
            raise InputError("This model was loaded without data, so it cannot be trained.")
        for name in ("datamodule", "strategy"):
            if trainer_kwargs.get(name) not in (None, "auto"):
                raise InputError(
                    f"SCAGC takes no {name}: the graph needs all cells at hand in one process."
                )
        n_cells = self.adata.n_obs
        if n_cells < self._min_cells:
            raise TooFewCellsError(
                f"The data have {n_cells} cell(s); SCAGC needs at least {self._min_cells} to "
                "train."
            )
        self._check_clusters(self._argument("n_clusters"), n_cells)
        if early_stopping:
            trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        batch_size = batch_size or self._preset.batch_size_of(n_cells)
        if max_epochs is None:
            max_epochs = self._preset.epochs_of(n_cells, batch_size)
        plan = {
            "lr": self._preset.learning_rate,
            "cluster_lr": self._preset.cluster_learning_rate,
            "pretrain_epochs": max(1, round(self._preset.pretrain_share * max_epochs)),
            **dict(plan_kwargs or {}),
            "n_clusters": self._argument("n_clusters"),
            "seed": self._seed(),
        }
        conclude: Callable[[], None]
        if self._preset.published:
            state = self._new_state(batch_size)
            plan["state"] = state
            conclude = lambda: self._conclude_reference(state)
        else:
            memory = self._new_memory()
            plan |= {"memory": memory, "encode_all": lambda: self._encode_all(memory)}
            prior = float(plan.get("prior", (0.0, 0.0))[1])
            conclude = lambda: self._conclude(memory, prior)
        arguments: dict[str, Any] = {
            "max_epochs": max_epochs,
            "accelerator": accelerator,
            "devices": devices,
            "train_size": train_size,
            "validation_size": validation_size,
            "shuffle_set_split": shuffle_set_split,
            "batch_size": batch_size,
            "early_stopping": early_stopping,
            "datasplitter_kwargs": datasplitter_kwargs,
            "plan_kwargs": plan,
        }
        try:
            self._train(**arguments, **trainer_kwargs)
        except KeyboardInterrupt:
            if self.is_trained_:
                conclude()
            raise
        conclude()

    def _new_memory(self) -> GraphMemory:
        module = self.module
        features = torch.empty(self.adata.n_obs, module.n_features)
        self._encode_features(features)
        # the components are among the features
        leading = features[:, : module.axes.shape[1]] / module.component_scale.cpu()
        components = leading.numpy()
        # data to fine-tune on may have fewer cells than those that the model was made for
        module.n_neighbors = min(self._argument("n_neighbors"), len(components) - 1)
        n_candidates = self._argument("n_candidates") or len(components) - 1
        settings = GraphSettings(
            n_neighbors=module.n_neighbors,
            n_candidates=max(module.n_neighbors, min(n_candidates, len(components) - 1)),
            similarity_scale=module.similarity_scale,
            balance=self._argument("balance"),
            adaptive=self._graph == "adaptive",
        )
        memory = GraphMemory(components, module.n_features, module.n_latent, settings)
        memory.hidden = features
        memory.latent = convolve_all(module, memory)
        return memory

    @torch.no_grad()
    def _encode_features(self, into: torch.Tensor) -> None:
        """Encode all cells in blocks, without their neighbours."""
        module = self.module
        was_training = module.training
        module.eval()
        for rows, x in dense_blocks(self._expression(self.adata), self._layer):
            features = module.features(module.scale(x.to(module.device)))
            into[torch.from_numpy(rows)] = features.cpu()
        module.train(was_training)

    def _encode_all(self, memory: GraphMemory) -> None:
        """Encode all cells in blocks and convolve them layer by layer."""
        self._encode_features(memory.hidden)
        memory.latent = convolve_all(self.module, memory)

    def _conclude(self, memory: GraphMemory, prior: float) -> None:
        """Settle the graph, the clusters and the anchors."""
        module, seed = self.module, self._seed()
        self._encode_all(memory)
        memory.refresh_candidates()
        memory.settle()
        memory.adopt(prior)
        memory.latent = convolve_all(module, memory)
        z = memory.latent.numpy()
        if not module.clustered:
            n_clusters = self._argument("n_clusters")
            labels = initial_partition(z, memory.graph(), n_clusters, seed=seed)
            n_clusters = n_clusters or int(labels.max()) + 1
            module.set_centres(centres_of(z, labels, n_clusters))
        smoothed = [memory.hidden.numpy()]
        for _ in range(module.n_hops - 1):
            smoothed.append(memory.adjacency @ smoothed[-1])
        groups = anchor_groups(z, MOST_ANCHORS, seed=seed)
        module.set_anchors(
            group_means(memory.components, groups),
            np.concatenate([group_means(part, groups) for part in smoothed], axis=1),
        )
        self._learned = LearnedCells.of(memory)
        self._record_what_was_found()

    def _record_what_was_found(self) -> None:
        """Numbers that training decided are arguments of the saved model."""
        module = self.module
        module.eval()
        arguments = self.init_params_["non_kwargs"]
        arguments["n_clusters"] = len(module.centres)
        arguments["n_anchors"] = len(module.anchor_components)
        rows = self.train_indices_
        rows = None if rows is None else np.sort(np.asarray(rows))
        self.domain |= self._describe_latent(self._seed(), rows)
        used = len(np.unique(self.predict()))
        if used < len(module.centres):
            logger.warning(
                "%d clusters were asked for, but only %d have cells: the data hold no more that "
                "differ.",
                len(module.centres),
                used,
            )

    # --- fine-tuning -------------------------------------------------------------------------

    def _prepare_fine_tuning(self) -> None:
        """Keep the centres where they are: clusters keep their meaning."""
        self.module.centres.requires_grad_(False)
        source = self._expression(self.adata)
        if "in_query" in source.var:
            present = source.var["in_query"].to_numpy(dtype=bool)
            self.module.set_present_genes(torch.from_numpy(present))
