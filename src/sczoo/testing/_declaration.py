"""Checks of what a class says about itself: name, arguments, documentation, attributes."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Any

from scvi.model.base import BaseModelClass

from sczoo.errors import MissingKeyError
from sczoo.testing._expect import refuses, require
from sczoo.testing._report import CheckFailedError

if TYPE_CHECKING:
    from sczoo.testing._case import ModelCase

# scvi-tools drops arguments of these names when it loads a model
_DROPPED_ARGUMENTS = ("pretrained_model", "unlabeled_category")
# scvi-tools' own attributes; sczoo saves none of them
_KNOWN_ATTRIBUTES = {
    "history_",
    "init_params_",
    "is_trained_",
    "registry_",
    "run_id_",
    "run_name_",
    "test_indices_",
    "train_indices_",
    "validation_indices_",
}
_MAX_ATTRIBUTE_BYTES = 64 << 10


def check_class_name_is_unique(case: ModelCase) -> None:
    """Have a class name that no model of scvi-tools or of another method has."""
    import scvi

    from sczoo.model import list_methods

    name, method = case.model_class.__name__, case.model_class._method
    for package in (scvi.model, scvi.external):
        other = getattr(package, name, case.model_class)
        require(other is case.model_class, f"{package.__name__} has a class {name} too.")
    for other_method, place in list_methods().items():
        taken = place.rpartition(":")[2] == name and other_method != method
        require(not taken, f"The method {other_method!r} has a class {name} too ({place}).")


def check_describes_itself(case: ModelCase) -> None:
    """Declare its method, a summary of one line and the publication it implements."""
    model_class: Any = case.model_class
    method = getattr(model_class, "_method", None)
    require(
        isinstance(method, str) and re.fullmatch(r"[a-z][a-z0-9_]*", method),
        f"_method is {method!r}; it must be a lower-case word, the prefix of its keys.",
    )
    summary = model_class._summary
    require(
        len(summary) > 20 and "\n" not in summary,
        f"_summary must say in one line what the method does; it is {summary!r}.",
    )
    require(bool(model_class._citation), "_citation names no publication.")
    for entry in model_class._citation:
        named = {"doi", "text", "url"} & set(entry)
        require(bool(named), f"_citation has neither doi, text nor url: {entry}.")


def check_arguments(case: ModelCase) -> None:
    """Take ``adata=None, registry=None`` in the constructor, and no name that scvi-tools drops."""
    parameters = inspect.signature(case.model_class.__init__).parameters
    for name in ("adata", "registry"):
        require(
            name in parameters and parameters[name].default is None,
            f"__init__ must take {name}=None, so that the model loads without data.",
        )
    for name in _DROPPED_ARGUMENTS:
        require(name not in parameters, f"scvi-tools drops an argument named {name!r} on load.")
    setup = inspect.signature(case.model_class.setup_anndata).parameters
    passes_on = any(p.kind is p.VAR_KEYWORD for p in setup.values())
    require(passes_on, "setup_anndata must take **kwargs and pass them on, or loading fails.")
    train = inspect.signature(case.model_class.train).parameters
    for name in ("max_epochs", "batch_size", "accelerator", "devices"):
        require(name in train, f"train has no argument {name!r}.")


def check_docstrings(case: ModelCase) -> None:
    """Require that the class and every public method are documented, with no placeholder left."""
    documented: dict[str, Any] = {"the class": case.model_class}
    for name, member in inspect.getmembers(case.model_class):
        owner = next(c for c in case.model_class.__mro__ if name in vars(c) or c is object)
        ours = not owner.__module__.startswith("scvi.") and owner is not object
        if (
            not name.startswith("_")
            and ours
            and (callable(member) or isinstance(member, property))
        ):
            documented[name] = member
    require(bool(case.model_class.__doc__), f"{case.model_class.__name__} has no docstring.")
    for name, member in documented.items():
        text = inspect.getdoc(member) or ""
        require(len(text) > 10, f"{name} of {case.model_class.__name__} has no docstring.")
        for placeholder in ("%(", "{adata}", "TODO"):
            require(placeholder not in text, f"The docstring of {name} has {placeholder!r} left.")


def check_needs_setup_first(case: ModelCase) -> None:
    """Refuse data that were not set up, and no data at all, with typed errors."""
    from sczoo.errors import InputError

    with refuses(InputError, "setup_anndata", doing="Building a model from data not set up"):
        case.model_class(case.cells(), **case.model_kwargs)
    with refuses(InputError, "setup_anndata", doing="Building a model from nothing"):
        case.model_class(**case.model_kwargs)


def check_main_matrix_is_x(case: ModelCase) -> None:
    """Register the expression under the name ``X``, as scvi-tools' tools expect."""
    try:
        state = case.model.registry_["field_registries"]["X"]["state_registry"]
        names = list(state["column_names"])
    except (KeyError, MissingKeyError) as error:
        raise CheckFailedError(
            f"The registry has no field 'X' with gene names: {error}"
        ) from error
    require(names == list(case.cells().var_names), "The registered gene names are not the cells'.")
    require(isinstance(case.model, BaseModelClass), "The model is none of scvi-tools'.")


def check_attributes_are_plain(case: ModelCase) -> None:
    """Keep attributes whose names end in ``_`` small, plain, settable and not personal."""
    model = case.model
    cells = case.cells()
    names = [n for n in dir(model) if n.endswith("_") and not n.startswith("_")]
    for name in names:
        try:
            value = getattr(model, name)
        except Exception as error:  # scvi-tools evaluates them all when it saves
            raise CheckFailedError(
                f"{name} raises {type(error).__name__} and breaks save: {error}"
            ) from error
        if name in _KNOWN_ATTRIBUTES:
            continue
        declared = getattr(type(model), name, None)
        if isinstance(declared, property):
            require(declared.fset is not None, f"The property {name} cannot be set on load.")
        try:
            text = json.dumps(value)
        except (TypeError, ValueError) as error:
            raise CheckFailedError(f"{name} is not plain: {error}") from error
        require(len(text) < _MAX_ATTRIBUTE_BYTES, f"{name} has {len(text)} bytes of JSON.")
        for personal in cells.obs_names[:: max(1, cells.n_obs // 20)]:
            require(str(personal) not in text, f"{name} holds the barcode {personal!r}.")
