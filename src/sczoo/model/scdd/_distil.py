"""``distill``: from a trained model and its training cells to a small set of whole counts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from sczoo.base._normalise import log_normalise
from sczoo.base._provenance import isolated_random_state, versions
from sczoo.base._reading import matrix_of, read_rows
from sczoo.errors import InputError, NotTrainedError, TooFewCellsError
from sczoo.model.scdd._arguments import check_choices, check_seed, real_number, whole_number
from sczoo.model.scdd._budget import ClassShares, class_budget
from sczoo.model.scdd._candidates import choose_candidate
from sczoo.model.scdd._codes import CodeInit, MatchSpace, Source
from sczoo.model.scdd._counts import library_quantiles
from sczoo.model.scdd._draws import allot, check_columns, draw_columns, draw_copies_again
from sczoo.model.scdd._emission import Emission, EmissionName, check_emission, emit
from sczoo.model.scdd._flow_map import OneStep
from sczoo.model.scdd._matching import Matching, check_matching
from sczoo.model.scdd._output import COLUMNS, small_set
from sczoo.model.scdd._stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from sczoo.model.scdd._making import Candidate

__all__ = ["DistilMixin"]

logger = logging.getLogger(__name__)

_LARGEST_GUIDANCE = 10.0


class DistilMixin:
    """Making cells."""

    def distill(
        self: Any,
        n_cells_per_class: int | None = None,
        *,
        fraction: float | None = None,
        class_shares: ClassShares = "balanced",
        matching: Matching = "dm+krr",
        match_space: MatchSpace = "recon",
        init: CodeInit = "auto",
        pool_weight: float | Literal["auto"] = "auto",
        emission: EmissionName = "auto",
        library: Literal["quantile", "median"] = "quantile",
        accept: Literal["validation", "always"] = "validation",
        guidance: float = 0.0,
        n_steps: int | None = None,
        lr: float = 0.03,
        calibrate: bool = True,
        metadata_keys: Sequence[str] | str = (),
        min_cells_per_class: int = 5,
        rare: Literal["error", "drop"] = "error",
        seed: int = 0,
    ) -> AnnData:
        """Distil the training cells into a few synthetic cells per class.

        Latent codes are set to what the generator maps to the centres of groups of each class,
        moved so that the generated cells match the real ones, and emitted as whole counts.
        Beginnings, codes and emission are chosen by what four classifiers learn from them about
        the training cells. The result is a function of model, training
        cells and seed alone; the model does not change, and cells outside the training split are
        never read.

        Parameters
        ----------
        n_cells_per_class
            Cells of each class; 10 unless `fraction` is given. A class that has fewer gives as
            many, made from groups of its cells that overlap.
        fraction
            Size as a share of the training cells, instead.
        class_shares
            ``"balanced"``, ``"proportional"`` or ``"sqrt"``: how the cells are shared out among
            the classes.
        matching
            What the codes are moved by: ``"dm"`` (distributions), ``"krr"`` (kernel ridge
            regression), ``"gm"`` (gradients), ``"tm"`` (training trajectories), ``"dm+krr"``,
            ``"dm+gm"``, or ``"none"``.
        match_space
            Where synthetic and real cells are compared: ``"recon"`` (both as the decoder shows
            them), ``"latent"``, or ``"raw"`` (real cells as they are; for comparison only).
        init
            Where the codes begin: ``"kmeans"`` (centres of groups of at least five cells, found
            in the latent space), ``"pools"`` (the same, found in principal components of the
            counts, as a pseudobulk has them), ``"real"`` (cells drawn from the class) or
            ``"random"``. ``"auto"`` compares the first two, and from five cells per class
            on takes ``"pools"``.
        pool_weight
            Weight of the pooled counts of the group in the profile of a cell, the rest being the
            generator's: 0 to 1. The generator's profiles are means, which differ less than they
            should; those of pools carry noise. ``"auto"``: 0, but 0.5 for the ``"pools"`` that
            ``init="auto"`` compares.
        emission
            ``"mode"``: ideal cells without noise. ``"typical"``: the genes that a typical cell
            shows, at their expected expression. ``"level"``: the same, each class as loud as its
            real cells. ``"mixed"``: every second cell ``"typical"``, the others as sparse as real
            ones. ``"nb"``: cells as noisy as real ones, for
            clustering, integration and augmentation. ``"half"``: half of both. ``"auto"``: what
            classifiers learn most from.
        library
            Depth of the cells: spread over the ``"quantile"`` of the class's library sizes, or
            all at their ``"median"``. Cells with pooled counts have, by ``"quantile"``, the
            median of their group.
        accept
            ``"validation"``: the moved codes are taken only if classifiers learn more from them
            than from those at the start. ``"always"``: without asking.
        guidance
            Weight of the class guidance of the generator.
        n_steps
            Steps on the codes; 200 by default.
        lr
            Learning rate of the codes.
        calibrate
            Scale the decoded genes so that the mean of the reconstructed cells of each class is
            that of the real ones: the decoder smooths away genes of single classes.
        metadata_keys
            Columns of ``adata.obs`` to draw for the synthetic cells, by their frequencies in the
            class among the training cells, missing values included. The batch is always drawn,
            where one was registered. Measurements and names of cells are refused: a value that
            few cells have would point at them.
        min_cells_per_class
            Smallest class that may be distilled. Cells distilled from very few would show those.
        rare
            What to do about smaller classes: ``"error"``, or ``"drop"`` them with a warning.
        seed
            Seed of all draws.

        Returns
        -------
        AnnData with whole counts in ``X`` and ``layers["counts"]``, ``layers["counts_mode"]`` and
        ``layers["counts_nb"]`` (the two plain emissions), labels with their original categories,
        ``obs["is_synthetic"]``, ``obs["weight"]``, ``obs["quality"]`` (probability of the own
        class under the model's class head), ``obsm["X_scdd"]``, ``obsm["X_scdd_code"]``, and in
        ``uns["scdd"]`` arguments, scores and a notice that distilled is not anonymous. No cell
        is a verbatim copy of a training cell.

        Raises
        ------
        NotTrainedError
            A stage has not been trained.
        TooFewCellsError
            A class has fewer than `min_cells_per_class` cells, or as many cells are asked for as
            there are.
        InputError
            The model has no data or, after loading, other cells than it was trained on; or an
            argument makes no sense.
        MissingKeyError
            A column of `metadata_keys` does not exist.
        """
        self._require_stages()
        check_choices(
            init=(init, get_args(CodeInit)),
            match_space=(match_space, get_args(MatchSpace)),
            library=(library, ("quantile", "median")),
            accept=(accept, ("validation", "always")),
            rare=(rare, ("error", "drop")),
        )
        check_matching(matching)
        check_emission(emission)
        if pool_weight != "auto":
            pool_weight = real_number("pool_weight", pool_weight, 0, 1)
        real_number("lr", lr, 0, np.inf, above=True, below=True)
        seed = check_seed(seed)
        one_step = self._one_step(guidance)
        if n_steps is not None:
            whole_number("n_steps", n_steps, 0)
        if self.adata is None:
            raise InputError(
                "This model was loaded without data, and distilling reads the training cells: "
                "load it with SCDD.load(folder, adata), or use generate(), which needs none."
            )
        if n_cells_per_class is None and fraction is None:
            n_cells_per_class = 10
        # the matrix of the training cells, and nothing else of the data
        rows, labels, sizes = self._training_classes(min_cells_per_class, rare)
        table = self.adata.obs.iloc[rows]
        metadata = check_columns(table, metadata_keys, (*COLUMNS, "quality"))
        budget = class_budget(sizes, n_cells_per_class, fraction, class_shares)
        if (over := budget > sizes).any():
            logger.warning(
                "%d class(es) have fewer cells than are asked for, the first is %r: its groups of "
                "cells overlap, so its synthetic cells differ little.",
                over.sum(),
                self.class_names[labels[over][0]],
            )
        counts = sparse.csr_matrix(
            read_rows(matrix_of(self._expression(self.adata), self._layer), rows)
        )
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(int(seed))
        source = self._source(rows, labels, counts)
        codes = np.repeat(np.arange(len(labels)), budget)
        batch = self._allot_batches(labels, codes, rng)
        totals = self._libraries(counts, source.codes, codes, library, rng)
        with isolated_random_state(int(seed)):
            best = choose_candidate(
                self.module,
                one_step,
                source,
                codes=codes,
                conditions=self._conditions(labels[codes], batch),
                totals=totals,
                emission=emission,
                matching=matching,
                match_space=match_space,
                init=init,
                pool_weight=pool_weight,
                group_depth=library == "quantile",
                accept=accept,
                n_steps=200 if n_steps is None else int(n_steps),
                lr=lr,
                calibrate=calibrate,
                rng=rng,
                generator=generator,
            )
        record = {
            "kind": "distillation",
            "method": "scdd",
            "seed": int(seed),
            "matching": matching,
            "match_space": match_space,
            "generator": self._generator_kind,
            "guidance": float(guidance),
            "library": library,
            "calibrate": bool(calibrate),
            "class_shares": class_shares,
            "outside_embedding": self.module.embedding_mode if self.module.n_embedding else "none",
            "n_source_cells": len(rows),
            "source_bytes": int(counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes),
            **best.record(),
        }
        columns = draw_columns(table, source.codes, codes, metadata, rng)
        return self._assemble(
            best,
            codes,
            labels,
            batch,
            record,
            columns=columns,
            source=counts,
            rng=rng,
        )

    # --- parts --------------------------------------------------------------------------------

    def _require_stages(self: Any) -> None:
        self._require_trained()
        missing = [
            stage
            for stage, done in zip(STAGES, self.module.stages_done.tolist(), strict=True)
            if not done and not (stage == "student" and self._generator_kind == "x0_t")
        ]
        if missing:
            raise NotTrainedError(
                f"The stage {missing[0]!r} of this SCDD has not been trained to its end: call "
                "train(stages='missing')."
            )
        self.module.eval()

    def _one_step(self: Any, guidance: float) -> OneStep:
        real_number("guidance", guidance, 0, _LARGEST_GUIDANCE)
        student = self._generator_kind == "student"
        net = self.module.student if student else self.module.denoiser
        return OneStep(net, self._generator_kind, self._t_star, float(guidance))

    def _training_classes(
        self: Any, min_cells: int, rare: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Training rows of the classes in use, the module's codes of these, and their sizes."""
        whole_number("min_cells_per_class", min_cells)
        rows = self._training_rows()
        codes = self._codes_of(REGISTRY_KEYS.LABELS_KEY)[rows]
        sizes = np.bincount(codes[codes >= 0], minlength=self.module.n_labels)
        small = np.flatnonzero((sizes > 0) & (sizes < min_cells))
        if len(small):
            names = ", ".join(f"{self.class_names[k]!r} ({sizes[k]})" for k in small[:5])
            if rare == "error":
                raise TooFewCellsError(
                    f"{len(small)} class(es) have fewer than {min_cells} training cells: {names}. "
                    "Cells distilled from so few would show those. Merge them with other classes, "
                    "leave them out with rare='drop', or lower min_cells_per_class."
                )
            logger.warning("Left out, having fewer than %d training cells: %s.", min_cells, names)
        labels = np.flatnonzero(sizes >= max(1, min_cells))
        if len(labels) < 2:
            raise TooFewCellsError(
                f"{len(labels)} class(es) have at least {min_cells} training cells; a training "
                "set needs two."
            )
        rows = rows[np.isin(codes, labels)]
        return rows, labels, sizes[labels]

    def _source(self: Any, rows: np.ndarray, labels: np.ndarray, counts: Any) -> Source:
        module = self.module
        position = np.full(module.n_labels, -1)
        position[labels] = np.arange(len(labels))
        with torch.no_grad():
            latents = module.standardise(
                torch.as_tensor(self._encode_rows(rows), device=module.device)
            )
        return Source(
            latents.cpu().numpy(),
            position[self._codes_of(REGISTRY_KEYS.LABELS_KEY)[rows]],
            self._codes_of(REGISTRY_KEYS.BATCH_KEY)[rows],
            log_normalise(counts),
            labels,
            counts,
        )

    def _allot_batches(
        self: Any, labels: np.ndarray, codes: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray | None:
        if not self.module.n_batch:
            return None
        shares = self.module.batch_share.cpu().numpy()[labels]
        return allot(shares, codes, rng)

    def _conditions(self: Any, codes: np.ndarray, batch: np.ndarray | None) -> torch.Tensor:
        device = self.module.device
        return self.module.conditions(
            torch.as_tensor(codes, device=device),
            None if batch is None else torch.as_tensor(batch, device=device),
        )

    def _libraries(
        self: Any,
        counts: Any,
        real_codes: np.ndarray,
        codes: np.ndarray,
        library: str,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Library sizes of the class, in random order so that no cluster gets the deep ones."""
        totals = np.asarray(counts.sum(axis=1)).ravel()
        sizes = np.zeros(len(codes), dtype=np.int64)
        for code in np.unique(codes):
            ours = np.flatnonzero(codes == code)
            observed = totals[real_codes == code]
            n = len(ours) if library == "quantile" else 1
            sizes[ours] = rng.permutation(library_quantiles(observed, n))
        return sizes

    @torch.no_grad()
    def _assemble(
        self: Any,
        best: Candidate,
        codes: np.ndarray,
        labels: np.ndarray,
        batch: np.ndarray | None,
        record: Mapping[str, Any],
        *,
        columns: Mapping[str, Any] | None = None,
        source: Any = None,
        rng: np.random.Generator,
    ) -> AnnData:
        """Emit the chosen cells in all ways, and put them into the common form."""
        module = self.module
        shares = best.shares
        theta = module.log_theta.exp().cpu().numpy()
        made = {
            name: emit(
                Emission(name.removeprefix("counts_")), shares, best.totals, theta, codes, rng
            )
            for name in ("counts_mode", "counts_nb")
        }
        noise = rng if best.noise_seed is None else np.random.default_rng(best.noise_seed)
        made["counts"] = emit(
            best.emission,
            shares,
            best.totals,
            theta,
            codes,
            noise,
            lengths=best.lengths,
            genes=best.genes,
        )
        again = {name: draw_copies_again(counts, source) for name, counts in made.items()}
        if best.emission.name in ("mode", "nb") and best.emission.depth == 1.0:
            again["counts"] = again[f"counts_{best.emission.name}"]
        quality = module.class_head(best.latents * module.latent_sd + module.latent_mean)
        probability = quality.softmax(dim=1).cpu().numpy()
        extra: dict[str, Any] = {
            "quality": probability[np.arange(len(codes)), labels[codes]].astype(np.float32),
            **(columns or {}),
        }
        setup = self._setup_arguments
        if batch is not None:
            state = self._field(REGISTRY_KEYS.BATCH_KEY)["state_registry"]
            names = pd.Index(list(state["categorical_mapping"])[: module.n_batch])
            # not the names of batches that were put aside
            trained = names[(module.batch_share.cpu().numpy() > 0).any(axis=0)]
            extra[setup["batch_key"]] = pd.Categorical(names[batch], categories=trained)
        var = pd.DataFrame(index=pd.Index([str(name) for name in self.var_names]))
        if self.adata is not None:
            var = self._expression(self.adata).var.copy()
        share = module.class_share.cpu().numpy()[labels]
        return small_set(
            again["counts"],
            codes,
            labels_key=setup.get("labels_key") or "label",
            categories=list(self.class_names[labels]),
            var=var,
            obs_names=[f"synthetic-{number}" for number in range(len(codes))],
            synthetic=True,
            sizes=share,
            record={**record, "versions": versions(), "model": self._model_record()},
            columns=extra,
            layers={
                name: sparse.csr_matrix(again[name]).astype(np.float32)
                for name in ("counts_mode", "counts_nb")
            },
            obsm={
                "X_scdd": best.latents.cpu().numpy(),
                "X_scdd_code": best.codes.cpu().numpy(),
            },
        )

    def _model_record(self: Any) -> dict[str, Any]:
        found = self.provenance_
        keys = ("seed", "data_sha256", "genes_sha256", "n_cells")
        return {key: found[key] for key in keys if key in found}
