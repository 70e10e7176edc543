"""The only place that touches names which scvi-tools keeps to itself.

Every name here has a test in ``tests/base/test_compat.py``; when scvi-tools moves one, that test
fails first and this file is the only one to change.
"""

from __future__ import annotations

import inspect
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from scvi.data import _constants as _scvi_constants
from scvi.model._utils import parse_device_args

from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from scvi.data import AnnDataManager
    from scvi.model.base import BaseModelClass

FIELD_REGISTRIES = _scvi_constants._FIELD_REGISTRIES_KEY
STATE_REGISTRY = _scvi_constants._STATE_REGISTRY_KEY
SUMMARY_STATS = _scvi_constants._SUMMARY_STATS_KEY
DATA_REGISTRY = _scvi_constants._DATA_REGISTRY_KEY
SETUP_ARGS = _scvi_constants._SETUP_ARGS_KEY
SETUP_METHOD = _scvi_constants._SETUP_METHOD_NAME
MODEL_NAME = _scvi_constants._MODEL_NAME_KEY
SCVI_VERSION = _scvi_constants._SCVI_VERSION_KEY
SCVI_UUID = _scvi_constants._SCVI_UUID_KEY
MANAGER_UUID = _scvi_constants._MANAGER_UUID_KEY
# what registering an AnnData leaves behind in it
SETUP_TRACES_OBS = ("_scvi_batch", "_scvi_labels")
SETUP_TRACES_UNS = (SCVI_UUID, MANAGER_UUID)


def setup_method_args(setup_locals: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a call of ``setup_anndata`` or ``setup_mudata`` from its ``locals()``.

    ``setup_locals`` must hold exactly the parameters of the call: take it on the first line.
    """
    cls = setup_locals["cls"]
    method = cls.setup_anndata if "adata" in setup_locals else cls.setup_mudata
    # locals() also lists the free variables of a nested class
    parameters = {k: setup_locals[k] for k in inspect.signature(method).parameters}
    return cls._get_setup_method_args(cls=cls, **parameters)


def init_params(model: BaseModelClass, init_locals: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the constructor's arguments from its ``locals()``, without the data."""
    return model._get_init_params(dict(init_locals))


def flat_init_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten scvi-tools' two-level record of constructor arguments to keyword arguments."""
    flat = dict(params.get("non_kwargs", {}))
    for extra in params.get("kwargs", {}).values():
        flat.update(extra)
    return flat


def attach(model: BaseModelClass, adata: Any, manager: AnnDataManager) -> None:
    """Attach registered data to a model that was built from a registry alone."""
    model._adata = adata
    model._adata_manager = manager
    model._register_manager_for_instance(manager)


def latest_manager(model_cls: type[BaseModelClass], adata: Any) -> AnnDataManager:
    """Return the manager that the last ``setup_anndata`` on `adata` made."""
    return model_cls._get_most_recent_anndata_manager(adata, required=True)


def forget_setup(model_cls: type[BaseModelClass], adata: Any) -> None:
    """Drop the class-level reference to `adata`, so that it can be garbage collected."""
    uuid = adata.uns.get(SCVI_UUID)
    model_cls._setup_adata_manager_store.pop(uuid, None)


def forget_with_model(model: BaseModelClass) -> None:
    """Let scvi-tools' reference to a model's data go when the model goes."""
    weakref.finalize(model, type(model)._per_instance_manager_store.pop, model.id, None)


def data_loader(model: BaseModelClass, adata: Any, batch_size: int) -> Any:
    """Return minibatches of `adata` for any model of scvi-tools, in order."""
    prepared = model._validate_anndata(adata)
    return model._make_data_loader(adata=prepared, batch_size=batch_size, shuffle=False)


def managers_held(model_cls: type[BaseModelClass]) -> int:
    """Count the data objects that scvi-tools keeps alive on behalf of a model class."""
    instances = model_cls._per_instance_manager_store.values()
    return len(model_cls._setup_adata_manager_store) + sum(map(len, instances))


def resolve_device(accelerator: str = "auto", device: int | str = "auto") -> torch.device:
    """Turn scvi-tools' ``accelerator`` and ``device`` arguments into a torch device.

    Raises
    ------
    InputError
        There is no such accelerator or device, or not on this machine.
    """
    with _named_device(accelerator, device, "device"):
        _, _, resolved = parse_device_args(
            accelerator=accelerator,
            devices=device,
            return_device="torch",
            validate_single_device=True,
        )
    return resolved


def check_devices(accelerator: Any = "auto", devices: Any = "auto") -> None:
    """Require an accelerator and devices that this machine has.

    Raises
    ------
    InputError
        There is no such accelerator or device, or not on this machine.
    """
    # an accelerator object of Lightning's speaks for itself
    if isinstance(accelerator, str) and (accelerator, devices) != ("auto", "auto"):
        with _named_device(accelerator, devices, "devices"):
            parse_device_args(accelerator, devices, return_device="torch")


@contextmanager
def _named_device(accelerator: Any, devices: Any, name: str) -> Iterator[None]:
    try:
        yield
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"accelerator={accelerator!r}, {name}={devices!r} cannot be used on this machine "
            f"({reason.rstrip('.')}). Pass accelerator='cpu', or leave both at 'auto'."
        ) from error


def modality_names(
    model_cls: type[BaseModelClass], modalities: Mapping[str, str], args: Mapping[str, Any]
) -> Any:
    """Complete ``modalities``: each setup argument's modality, ``None`` where not given."""
    return model_cls._create_modalities_attr_dict(dict(modalities), dict(args))
