"""SCDD: a labelled atlas distilled into a few cells per class."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from scvi import REGISTRY_KEYS

from sczoo import _compat
from sczoo.base import ZooModelClass
from sczoo.errors import InputError
from sczoo.model.scdd._arguments import check_choices, real_number, whole_number
from sczoo.model.scdd._distil import DistilMixin
from sczoo.model.scdd._flow_map import GeneratorName
from sczoo.model.scdd._generate import GenerateMixin
from sczoo.model.scdd._latents import LatentsMixin
from sczoo.model.scdd._module import EMBEDDING, EmbeddingMode, SCDDModule
from sczoo.model.scdd._setup import DistillationSetupMixin
from sczoo.model.scdd._stages import STAGES, StagesMixin
from sczoo.model.scdd._trainingplan import AutoencoderPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from sczoo.base._checks import InputScale

__all__ = ["SCDD"]

logger = logging.getLogger(__name__)

# Enough steps for the autoencoder to settle, whatever the number of cells.
_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 900, 15, 200
_LARGEST_BATCH, _SMALLEST_BATCH = 128, 32
_RANGES = {
    "t_star": (0.01, 0.995),
    "p_uncond": (0.0, 1.0),
    "class_weight": (0.0, np.inf),
    "embedding_weight": (0.0, np.inf),
    "dropout_rate": (0.0, 1.0),
}


class SCDD(
    DistillationSetupMixin, StagesMixin, DistilMixin, GenerateMixin, LatentsMixin, ZooModelClass
):
    """A training set that fits in an e-mail: an atlas distilled into a few cells per class.

    Three networks are trained one after the other: an autoencoder of counts, a diffusion model of
    its latent space, and a student that does in a single step what the diffusion does in many.
    :meth:`distill` then finds latent codes whose generated cells teach a classifier what the
    atlas would have taught it, and writes them as an AnnData of whole counts.

    Distilled is not anonymous: there is no privacy guarantee, and :meth:`distill` says so in what
    it returns.

    Parameters
    ----------
    adata
        Labelled cells that went through :meth:`setup_anndata` or :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build the model without data.
    n_latent
        Latent dimensions.
    generator
        The single step from a code to a cell. ``"student"``: the map along the diffusion's
        deterministic flow. ``"x0_t"``: one call of the denoiser at time `t_star`.
    embedding_mode
        What an outside embedding (``embedding_key`` of the set-up) is for. ``"align"``: the
        latents must predict it. ``"concat"``: the encoder reads it beside the counts.
    n_hidden
        Hidden units of the autoencoder.
    denoiser_hidden, denoiser_layers
        Width and number of residual blocks of teacher and student.
    t_star
        Time of ``generator="x0_t"``, between 0 and 1.
    p_uncond
        Probability with which each condition is left out in the training of the teacher, which
        is what guidance needs.
    class_weight
        Weight of the class head on the latents.
    embedding_weight
        Weight of the alignment with an outside embedding.
    dropout_rate
        Dropout in the encoder.

    Examples
    --------
    >>> import sczoo
    >>> sczoo.model.SCDD.setup_anndata(train, labels_key="cell_type")
    >>> model = sczoo.model.SCDD(train)
    >>> model.train()
    >>> small = model.distill(n_cells_per_class=10)
    >>> sczoo.model.scdd.evaluate_distillation(small, test, train=train)

    Notes
    -----
    See the user guide for the equations, the figures and where a baseline is better.
    """

    _method: ClassVar[str] = "scdd"
    _module_cls = SCDDModule
    _training_plan_cls = AutoencoderPlan
    _input_scale: ClassVar[InputScale] = "counts"
    _describes_latent: ClassVar[bool] = True
    _summary: ClassVar[str] = (
        "Dataset distillation: a labelled atlas as a few synthetic cells of whole counts per "
        "class, through latent diffusion and a single-step generator."
    )
    _citation: ClassVar[list[dict[str, str]]] = [
        {
            "text": (
                "Yu Z. et al. scDD: scRNA-seq dataset distillation in latent codes with "
                "single-step conditional diffusion generator. Knowledge-Based Systems (2025)."
            ),
            "doi": "10.1016/j.knosys.2025.114610",
        }
    ]

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        registry: dict[str, Any] | None = None,
        n_latent: int = 32,
        *,
        generator: GeneratorName = "student",
        embedding_mode: EmbeddingMode = "align",
        n_hidden: int = 256,
        denoiser_hidden: int = 128,
        denoiser_layers: int = 3,
        t_star: float = 0.5,
        p_uncond: float = 0.1,
        class_weight: float = 5.0,
        embedding_weight: float = 10.0,
        dropout_rate: float = 0.1,
    ) -> None:
        init_locals = dict(locals())
        super().__init__(adata, registry)
        check_choices(
            generator=(generator, get_args(GeneratorName)),
            embedding_mode=(embedding_mode, get_args(EmbeddingMode)),
        )
        sizes = {
            "n_latent": n_latent,
            "n_hidden": n_hidden,
            "denoiser_hidden": denoiser_hidden,
            "denoiser_layers": denoiser_layers,
        }
        for name, size in sizes.items():
            whole_number(name, size)
        for name, (low, below) in _RANGES.items():
            real_number(name, init_locals[name], low, below, below=True)
        self._generator_kind: GeneratorName = generator
        self._t_star = float(t_star)
        self._p_uncond = float(p_uncond)
        self._fine_tuning = False
        self.module = self._build_module(
            n_genes=len(self.var_names),
            n_labels=self._n_categories(REGISTRY_KEYS.LABELS_KEY),
            n_batch=self._n_categories(REGISTRY_KEYS.BATCH_KEY),
            n_embedding=self._n_embedding(),
            embedding_mode=embedding_mode,
            class_weight=class_weight,
            embedding_weight=embedding_weight,
            dropout_rate=dropout_rate,
            **sizes,
        )
        self._model_summary_string = (
            f"SCDD of {self.module.n_labels} classes and {len(self.var_names)} genes, "
            f"{n_latent} latent dimensions, generator {generator!r}"
        )
        self._finish_init(init_locals)

    def _field(self, name: str) -> dict[str, Any]:
        return self.registry_[_compat.FIELD_REGISTRIES].get(name, {})

    def _n_categories(self, name: str) -> int:
        state = self._field(name).get(_compat.STATE_REGISTRY) or {}
        return len(state.get("categorical_mapping", ()))

    def _n_embedding(self) -> int:
        stats = self._field(EMBEDDING).get(_compat.SUMMARY_STATS) or {}
        return int(stats.get(f"n_{EMBEDDING}", 0))

    @property
    def class_names(self) -> np.ndarray:
        """Names of the classes, in the model's order; numbered where a saved model has none."""
        state = self._field(REGISTRY_KEYS.LABELS_KEY)[_compat.STATE_REGISTRY]
        return np.asarray(state["categorical_mapping"], dtype=object)[: self.module.n_labels]

    # --- training -----------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        *,
        max_steps_diffusion: int = 1500,
        max_steps_student: int = 1000,
        stages: Literal["all", "missing"] | Sequence[str] = "all",
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
        """Train autoencoder, diffusion teacher and single-step student, one after the other.

        The cells are split first. What the later stages and :meth:`distill` read are the training
        cells alone; validation and test cells are never looked at, but for the validation loss
        of the autoencoder where ``early_stopping`` asks for it.

        Parameters
        ----------
        max_epochs
            Passes of the autoencoder over the cells. By default as many as make about 900 steps,
            between 15 and 200.
        batch_size
            Cells in a minibatch of the autoencoder: 128 by default, fewer for few cells.
        max_steps_diffusion, max_steps_student
            Steps of the teacher and of the student.
        stages
            Which stages to train: ``"all"``, ``"missing"`` (those that an earlier call was
            interrupted before), or some of ``"autoencoder"``, ``"diffusion"``, ``"student"``.
        accelerator, devices
            Where to train.
        train_size, validation_size
            Shares of the cells; all cells are trained on by default.
        shuffle_set_split
            Draw the validation cells at random.
        early_stopping
            Stop the autoencoder when its validation loss no longer falls; needs validation cells.
        datasplitter_kwargs
            For the data splitter, such as ``external_indexing`` to split by donor.
        plan_kwargs
            For the training plan of the autoencoder, such as ``lr`` and ``max_kl_weight``.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.
        """
        if "datamodule" in trainer_kwargs:
            raise InputError(
                "SCDD trains on the data that it was built with; a datamodule cannot be given."
            )
        whole_number("max_steps_diffusion", max_steps_diffusion)
        whole_number("max_steps_student", max_steps_student)
        chosen = self._choose_stages(stages)
        if self.adata is not None:
            batch_size = batch_size or self._default_batch_size()
            if max_epochs is None:
                per_epoch = max(1, self.adata.n_obs // batch_size)
                wanted = int(np.ceil(_STEPS / per_epoch))
                max_epochs = int(np.clip(wanted, _FEWEST_EPOCHS, _MOST_EPOCHS))
        self._train_stages(
            chosen,
            max_epochs=max_epochs or 1,
            batch_size=batch_size or _LARGEST_BATCH,
            n_steps={"diffusion": max_steps_diffusion, "student": max_steps_student},
            split={
                "train_size": train_size,
                "validation_size": validation_size,
                "shuffle_set_split": shuffle_set_split,
                **dict(datasplitter_kwargs or {}),
            },
            plan_kwargs=dict(plan_kwargs or {}),
            early_stopping=early_stopping,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )

    def _choose_stages(self, stages: str | Sequence[str]) -> tuple[str, ...]:
        if self._fine_tuning and stages == "all":
            return STAGES[:1]
        if stages == "all":
            return STAGES
        done = self.module.stages_done.tolist()
        if stages == "missing":
            return tuple(stage for stage, ready in zip(STAGES, done, strict=True) if not ready)
        names = (stages,) if isinstance(stages, str) or stages is None else tuple(stages)
        for name in names:
            check_choices(stages=(name, ("all", "missing", *STAGES)))
        chosen = tuple(stage for stage in STAGES if stage in names)
        for position, stage in enumerate(STAGES):
            earlier = all(done[i] or STAGES[i] in chosen for i in range(position))
            if stage in chosen and not earlier:
                raise InputError(
                    f"The stage {stage!r} needs the stages before it: train {STAGES[:position]} "
                    "first, or pass stages='missing'."
                )
        return chosen

    def _default_batch_size(self) -> int:
        return int(np.clip(self.adata.n_obs // 8, _SMALLEST_BATCH, _LARGEST_BATCH))

    def _prepare_fine_tuning(self) -> None:
        """Free the encoder alone: the latent space, and what is generated from it, stay."""
        self._fine_tuning = True
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name.startswith("encoder."))
