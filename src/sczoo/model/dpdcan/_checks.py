"""What would break the guarantee is refused, with the reason, before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError, PrivacyError
from sczoo.privacy._sampling import PoissonSampler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ACKNOWLEDGED",
    "check_acknowledged",
    "check_donors",
    "check_options",
    "check_plan",
    "check_rows",
    "check_sampling",
    "check_target",
    "check_training",
]

# leaks that may be accepted, and how the card states them
ACKNOWLEDGED = {"gene_list": "the list of genes, which was chosen on these cells"}
_FEWEST_DONORS = 4
_PLAN = ("lr", "average_share", "canaries")  # the last is for audits
# "32" and "64" in the spellings of Lightning
_PRECISIONS = ("32", "64", "32-true", "64-true")
_RANGES: dict[str, tuple[type, float, float, bool]] = {
    "noise_multiplier": (float, 0, np.inf, True),
    "max_grad_norm": (float, 0, np.inf, False),
    "n_latent": (int, 2, 1000, True),
    "n_hidden": (int, 1, 10_000, True),
    "n_clusters": (int, 2, 10_000, True),
    "mask_rate": (float, 0, 1, True),
    "reconstruction_weight": (float, 0, 1, True),
    "cells_per_donor": (int, 1, 10_000, True),
    "batch_size": (int, 2, np.inf, True),
    "max_epochs": (int, 1, np.inf, True),
    "train_size": (float, 0, 1, False),
    "lr": (float, 0, np.inf, False),
    "average_share": (float, 0, 1, True),
}


def check_options(**options: Any) -> None:
    """Refuse numbers out of range."""
    target = options.pop("target_epsilon", None)
    if target is not None:
        number = isinstance(target, int | float | np.number) and not isinstance(target, bool)
        if not (number and np.isfinite(target) and target > 0):
            raise PrivacyError(
                f"target_epsilon={target}: it must be positive. Epsilon 0 would mean that the "
                "model does not depend on the data at all; common values are 1 to 8."
            )
    weights = options.pop("cluster_weights", None)
    if weights is not None and (len(weights) != 3 or min(weights) < 0):
        raise InputError(f"cluster_weights={weights}: three weights of at least 0 are needed.")
    for name, value in options.items():
        kind, low, high, closed = _RANGES[name]
        if value is None:
            continue
        number = isinstance(value, int | float | np.integer | np.floating)
        if isinstance(value, bool) or not number or (kind is int and value != int(value)):
            raise InputError(f"{name}={value!r}: a {'whole ' * (kind is int)}number is needed.")
        if not (low <= value if closed else low < value) or not value <= high or value != value:
            words = f"lie between {low} and" if closed else f"be above {low} and at most"
            raise InputError(f"{name}={value}: it must {words} {high}.")
        if np.isinf(value):
            raise InputError(f"{name}={value}: it must be finite.")


def check_target(target_epsilon: float | None, noise_multiplier: float | None) -> None:
    """Refuse a target beside noise that is fixed: the run would spend what it spends."""
    if target_epsilon is not None and noise_multiplier is not None:
        raise PrivacyError(
            f"target_epsilon={target_epsilon:g}: this model was made with noise_multiplier="
            f"{noise_multiplier:g}, which fixes its noise, so a target could not be kept. Make a "
            "model with target_epsilon instead."
        )


def check_acknowledged(names: Sequence[str]) -> None:
    """Refuse to accept leaks that do not exist."""
    if isinstance(names, str):
        raise InputError(f"acknowledge={names!r}: pass a list, such as [{names!r}].")
    unknown = sorted(set(names) - set(ACKNOWLEDGED))
    if unknown:
        raise InputError(
            f"acknowledge={unknown}: only {sorted(ACKNOWLEDGED)} can be accepted by name. Other "
            "leaks are not offered."
        )


def check_donors(n_donors: int) -> None:
    """Refuse a guarantee for donors where there are hardly any."""
    if n_donors < _FEWEST_DONORS:
        raise PrivacyError(
            f"There {'is one donor' if n_donors == 1 else f'are {n_donors} donors'}: a guarantee "
            "for donors hides each among the others, and useful noise needs hundreds of them. At "
            f"least {_FEWEST_DONORS} are required. Without donor_key the guarantee is for single "
            "cells, which does not protect a person."
        )


def check_training(
    claims: bool, early_stopping: bool, devices: Any, trainer_kwargs: Mapping[str, Any]
) -> None:
    """Refuse ways of training that look at private cells outside the mechanism."""
    if not claims:
        return
    if early_stopping:
        raise PrivacyError(
            "early_stopping=True: the moment to stop is decided by the loss of private cells and "
            "tells of them, outside the budget. Fix max_epochs instead."
        )
    if trainer_kwargs.get("datamodule") is not None:
        raise PrivacyError(
            "datamodule: its minibatches are not drawn by a coin for each unit, so the accounting "
            "would not hold. Pass the cells as adata."
        )
    if trainer_kwargs.get("trainer_config"):
        raise PrivacyError(
            "trainer_config: what it asks for would not be checked. Pass its entries to train() "
            "as arguments."
        )
    if trainer_kwargs.get("ckpt_path") is not None:
        raise PrivacyError(
            "ckpt_path: the weights of a checkpoint carry what an earlier run has spent, and the "
            "checkpoint does not say how much. Save the model with save(), load it, and train on: "
            "then what both runs spend is added."
        )
    if trainer_kwargs.get("overfit_batches"):
        raise PrivacyError(
            "overfit_batches: the same minibatch in every step hides nobody among those that take "
            "part, so the accounting would not hold. Leave it out."
        )
    if str(trainer_kwargs.get("precision") or "32") not in _PRECISIONS:
        raise PrivacyError(
            f"precision={trainer_kwargs['precision']!r}: with few digits a gradient that was "
            "clipped can be longer than the clipping norm, by which the noise is scaled. Use 32 "
            "or 64 bits."
        )
    if _several(devices) or trainer_kwargs.get("num_nodes", 1) != 1:
        raise _one_device()
    if "ddp" in str(trainer_kwargs.get("strategy", "")):
        raise _one_device()


def _several(devices: Any) -> bool:
    """Whether `devices`, in any of Lightning's spellings, means more than one."""
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()]) > 1
    if isinstance(devices, list | tuple):
        return len(devices) > 1
    try:
        return int(devices) > 1 or int(devices) == -1
    except (TypeError, ValueError):
        return False


def _one_device() -> PrivacyError:
    return PrivacyError(
        "A private run uses one device: several would each clip and noise their own part. "
        "Pass devices=1."
    )


def check_plan(plan_kwargs: Mapping[str, Any] | None) -> None:
    """Refuse settings of the plan that do not exist, before the projection spends its budget."""
    given = dict(plan_kwargs or {})
    unknown = sorted(set(given) - set(_PLAN))
    if unknown:
        raise InputError(f"plan_kwargs: {unknown[0]!r} cannot be set; {', '.join(_PLAN[:2])} can.")
    check_options(**{name: given[name] for name in _PLAN[:2] if name in given})


def check_sampling(trainer: Any, run: Any) -> None:
    """Refuse to begin when Lightning would draw other minibatches than those accounted for.

    Whatever argument or plugin has led to it: the first look is at what will really happen.
    """
    sampler = getattr(trainer.train_dataloader, "sampler", None)
    if not isinstance(sampler, PoissonSampler) or sampler.rate != run.rate:
        raise PrivacyError(
            f"Minibatches would be drawn by a {type(sampler).__name__}, not by a coin for each "
            f"{run.unit}, as the accounting assumes. Leave out the trainer's arguments that "
            "change its minibatches."
        )
    if trainer.world_size != 1:
        raise _one_device()


def check_rows(splitter: Mapping[str, Any], n_cells: int) -> None:
    """Require row numbers that name every cell at most once.

    Raises
    ------
    PrivacyError
        A cell would count twice, and change the sums by twice what is accounted.
    InputError
        Something is not a row number.
    """
    given = splitter.get("external_indexing")
    if given is None:
        return
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= 3:
        raise InputError(
            "external_indexing: a list of up to three arrays of row numbers is needed, for "
            "training, validation and test."
        )
    rows = [np.asarray([] if part is None else part) for part in given]
    if any(part.size and not np.issubdtype(part.dtype, np.integer) for part in rows):
        raise InputError("external_indexing: row numbers must be whole numbers.")
    joined = np.concatenate(rows)
    if joined.size and not (joined.min() >= 0 and joined.max() < n_cells):
        raise InputError(
            f"external_indexing: row numbers must lie between 0 and {n_cells - 1}; got "
            f"{int(joined.min())} to {int(joined.max())}."
        )
    if len(np.unique(joined)) < len(joined):
        raise PrivacyError(
            "external_indexing: a cell is listed twice. It would change the sums by twice what "
            "is accounted for one cell. List every cell once."
        )
    if len(joined) < n_cells:
        raise InputError(
            f"external_indexing lists {len(joined)} of {n_cells} cells: put the others into the "
            "third array, or leave them out of adata."
        )
