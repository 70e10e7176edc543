"""What would break the guarantee is refused, with the reason, before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import InputError, PrivacyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

__all__ = [
    "ACKNOWLEDGED",
    "check_acknowledged",
    "check_donors",
    "check_gene_list",
    "check_options",
    "check_training",
]

# leaks that may be accepted, and how the card states them
ACKNOWLEDGED = {"gene_list": "the list of genes, which was chosen on these cells"}
# what scanpy and Seurat write into var when they choose genes
_CHOSEN_MARKS = ("highly_variable", "vst.variable", "vf_vst_counts_variable", "selected")
_FEWEST_DONORS = 4
_RANGES: dict[str, tuple[type, float, float, bool]] = {
    "noise_multiplier": (float, 0, np.inf, True),
    "max_grad_norm": (float, 0, np.inf, False),
    "n_latent": (int, 2, 1000, True),
    "n_hidden": (int, 1, 10_000, True),
    "n_clusters": (int, 2, 10_000, True),
    "mask_rate": (float, 0, 1, True),
    "reconstruction_weight": (float, 0, 1, True),
    "cells_per_donor": (int, 1, 10_000, True),
}


def check_options(**options: Any) -> None:
    """Refuse numbers out of range."""
    target = options.pop("target_epsilon", None)
    if target is not None:
        number = isinstance(target, int | float) and not isinstance(target, bool)
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
            raise InputError(f"{name}={value}: it must lie between {low} and {high}.")
        if np.isinf(value):
            raise InputError(f"{name}={value}: it must be finite.")


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


def check_gene_list(adata: AnnData, acknowledge: Sequence[str]) -> None:
    """Refuse genes that were chosen on the private cells, unless that is accepted by name."""
    if "gene_list" in acknowledge:
        return
    for mark in _CHOSEN_MARKS:
        if mark in adata.var and bool(np.all(adata.var[mark].to_numpy() == True)):  # noqa: E712
            raise PrivacyError(
                f"adata.var[{mark!r}] is true for all genes: they look chosen on these cells. The "
                "choice depends on single cells, is stored with the model, and no epsilon covers "
                "it. Use a list from outside, such as the genes of a public atlas, or accept it "
                "with acknowledge=['gene_list'], which the card will state."
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
    several = (isinstance(devices, int) and devices > 1) or (
        isinstance(devices, list | tuple) and len(devices) > 1
    )
    if several or "ddp" in str(trainer_kwargs.get("strategy", "")):
        raise PrivacyError(
            "A private run uses one device: several would each clip and noise their own part. "
            "Pass devices=1."
        )
