"""Training through scvi-tools' ``TrainRunner``, reproducible and recorded."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.train import TrainRunner

from sczoo import _compat
from sczoo.base._checks import scan_matrix
from sczoo.base._data import ZooDataSplitter
from sczoo.base._domain import MAX_CELLS, describe_latent
from sczoo.base._genes_table import genes_sha256
from sczoo.base._provenance import fingerprint, hardware, isolated_random_state, versions
from sczoo.errors import InputError, TooFewCellsError

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class TrainingMixin:
    """Running a training plan and recording what happened."""

    _data_splitter_cls = ZooDataSplitter
    _train_runner_cls = TrainRunner

    def _train(
        self,
        *,
        max_epochs: int,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        batch_size: int = 128,
        early_stopping: bool = False,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        plan_cls: type | None = None,
        datamodule: Any = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Run a training plan.

        The random numbers of a run depend on ``scvi.settings.seed`` alone, and the caller's
        random state is left as it was. An interrupted run keeps the weights of its last step.
        """
        model: Any = self
        if datamodule is None and model.adata is None:
            raise InputError("This model was loaded without data, so it cannot be trained.")
        if datamodule is None and model.adata.n_obs < model._min_cells:
            raise TooFewCellsError(
                f"The data have {model.adata.n_obs} cell(s); {type(model).__name__} needs at "
                f"least {model._min_cells} to train."
            )
        _check_run(max_epochs, batch_size, train_size, validation_size)
        _compat.check_devices(accelerator, devices)
        seed = model._seed()
        splitter = datamodule or self._data_splitter_cls(
            model.adata_manager,
            seed=seed,
            train_size=train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            batch_size=batch_size,
            distributed_sampler="ddp" in str(trainer_kwargs.get("strategy", "")),
            **dict(datasplitter_kwargs or {}),
        )
        arguments = {
            "max_epochs": max_epochs,
            "batch_size": batch_size,
            "train_size": train_size,
            "early_stopping": early_stopping,
            "plan_kwargs": dict(plan_kwargs or {}),
        }
        cpu, wall = time.process_time(), time.perf_counter()
        with isolated_random_state(seed):
            plan = (plan_cls or model._training_plan_cls)(model.module, **dict(plan_kwargs or {}))
            runner = self._train_runner_cls(
                model,
                training_plan=plan,
                data_splitter=splitter,
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                **trainer_kwargs,
            )
            was_trained = model.is_trained_
            # scvi-tools appends to an existing history only; after loading there is none
            model.is_trained_ = was_trained and isinstance(model.history_, dict)
            model.module.train()
            try:
                runner()
            except (KeyboardInterrupt, SystemExit) as stop:
                # Lightning turns Ctrl-C into SystemExit; a session should survive it
                # Lightning counts steps of optimisers; a method without one counts its own
                if runner.trainer.global_step > 0 or getattr(plan, "n_passes", 0) > 0:
                    model.is_trained_ = True
                    self._record_run(
                        seed, time.process_time() - cpu, runner.trainer, False, arguments
                    )
                    logger.warning("Training was interrupted: the model keeps its last weights.")
                raise KeyboardInterrupt from stop
            finally:
                model.is_trained_ = model.is_trained_ or was_trained
                model.module.eval()
        self._record_run(seed, time.process_time() - cpu, runner.trainer, True, arguments)
        logger.info("Trained in %.1f s.", time.perf_counter() - wall)

    def _record_run(
        self,
        seed: int,
        cpu_seconds: float,
        trainer: Any,
        finished: bool,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        model: Any = self
        model.provenance_ = {
            "versions": versions(),
            "hardware": hardware(),
            "seed": seed,
            "genes_sha256": genes_sha256(model.var_names),
            "arguments": {
                "setup": plain(model._setup_arguments),
                "init": plain(model.init_params_.get("non_kwargs", {})),
                "train": plain(arguments or {}),
            },
            "cpu_seconds": round(cpu_seconds, 2),
            "epochs": int(trainer.current_epoch),
            "finished": finished,
        }
        if model.adata is None:
            return
        rows = model.train_indices_
        rows = None if rows is None else np.sort(np.asarray(rows))
        source = model._expression(model.adata)
        n_cells = source.n_obs if rows is None else len(rows)
        model.provenance_["n_cells"] = int(n_cells)
        model.provenance_["data_sha256"] = fingerprint(source, model._layer, rows)
        self._describe_data(seed, rows)

    def _describe_data(self, seed: int, rows: np.ndarray | None) -> None:
        """Sum up the attached data in :attr:`domain`: aggregates only."""
        model: Any = self
        source = model._expression(model.adata)
        scan = scan_matrix(source, model._layer, allow_missing=model._allow_missing)
        model.domain = {
            "quantiles": list(_QUANTILES),
            "total_per_cell": np.quantile(scan.cell_totals, _QUANTILES).round(3).tolist(),
            "genes_per_cell": np.quantile(scan.cell_detected, _QUANTILES).tolist(),
        }
        if model._describes_latent:
            model.domain |= self._describe_latent(seed, rows)

    def _describe_latent(self, seed: int, rows: np.ndarray | None) -> dict[str, Any]:
        """Sum up where the training cells lie, to tell when a query lies elsewhere."""
        model: Any = self
        rows = np.arange(model.adata.n_obs) if rows is None else rows
        if len(rows) > MAX_CELLS:
            rng = np.random.default_rng(seed)
            rows = np.sort(rng.choice(rows, MAX_CELLS, replace=False))
        model.module.eval()
        if model._places_queries_apart:
            latent = model.get_latent_representation(_as_query(model.adata[rows]))
        else:
            latent = model.get_latent_representation(indices=rows)
        batches = None
        if REGISTRY_KEYS.BATCH_KEY in model.adata_manager.data_registry:
            codes = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)
            batches = np.asarray(codes).ravel()[rows]
        return describe_latent(latent, batches, seed=seed)


def _as_query(cells: Any) -> Any:
    """Copy a view into memory, as the cells of somebody else."""
    if getattr(cells, "isbacked", False):
        return cells.to_memory()
    return cells.copy()


def _check_run(max_epochs: Any, batch_size: Any, train_size: Any, validation_size: Any) -> None:
    """Require numbers that a run can be made of; the message names the argument."""
    for name, value, least in (("max_epochs", max_epochs, 1), ("batch_size", batch_size, 2)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            raise InputError(f"{name}={value!r}: it must be a whole number of at least {least}.")
    for name, share in (("train_size", train_size), ("validation_size", validation_size)):
        number = isinstance(share, int | float | np.number) and not isinstance(share, bool)
        if share is not None and not (number and 0 <= share <= 1):
            raise InputError(f"{name}={share!r}: it must be a share of the cells, from 0 to 1.")


def plain(value: Any) -> Any:
    """Reduce `value` to what JSON can hold; objects become their type's name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return type(value).__name__
