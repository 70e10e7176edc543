"""The zoo's models: one folder each, all laid out alike.

:data:`_INDEX` is the allow-list: a saved model names its method, and only methods listed here or
offered by an installed package under the entry point group ``sczoo.methods`` are ever loaded.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sczoo.base import ZooModelClass
    from sczoo.model.dpdcan import DPDCAN
    from sczoo.model.gramdr import GramDR
    from sczoo.model.grit import GRIT
    from sczoo.model.scagc import SCAGC
    from sczoo.model.scdd import SCDD
    from sczoo.model.sce2tm import SCE2TM

ENTRY_POINT_GROUP = "sczoo.methods"

# class name -> method (its folder, and the prefix of its keys)
_INDEX = {
    "DPDCAN": "dpdcan",
    "GramDR": "gramdr",
    "GRIT": "grit",
    "SCAGC": "scagc",
    "SCDD": "scdd",
    "SCE2TM": "sce2tm",
}
# methods that are applied but not trained here: what sczoo.hub.from_scvi makes
_IMPORTED = {
    "scanvi": "sczoo.model.scvitools:ImportedSCANVI",
    "scvi": "sczoo.model.scvitools:ImportedSCVI",
}

__all__ = [
    "DPDCAN",
    "GRIT",
    "SCAGC",
    "SCDD",
    "SCE2TM",
    "GramDR",
    "get_model_class",
    "list_methods",
]


def list_methods() -> dict[str, str]:
    """Map every installed method to where its class comes from, without importing it."""
    methods = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    # the zoo's own names cannot be taken over by another package
    methods.update({method: f"sczoo.model.{method}:{name}" for name, method in _INDEX.items()})
    return methods


def get_model_class(method: str) -> type[ZooModelClass]:
    """Return the model class of a method.

    Parameters
    ----------
    method
        Name of the method, such as ``"sce2tm"``.

    Raises
    ------
    UnknownMethodError
        The method is not installed.
    """
    from sczoo.base import ZooModelClass
    from sczoo.errors import UnknownMethodError

    methods = list_methods() | _IMPORTED
    if method not in methods:
        raise UnknownMethodError(
            f"The method {method!r} is not installed; there are {', '.join(sorted(methods))}. "
            "Install the package that offers it, or update sczoo."
        )
    module, _, name = methods[method].partition(":")
    found = getattr(import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, ZooModelClass)):
        raise UnknownMethodError(
            f"{methods[method]}, offered as the method {method!r}, is not a ZooModelClass."
        )
    if found._method != method:
        raise UnknownMethodError(
            f"{methods[method]} is offered as {method!r} but calls itself {found._method!r}."
        )
    return found


def __getattr__(name: str) -> Any:
    if name in _INDEX:
        return getattr(import_module(f"sczoo.model.{_INDEX[name]}"), name)
    raise AttributeError(f"module 'sczoo.model' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
