"""What every model of the zoo shares: the base class, input checks, gene alignment, artefacts.

Importing this package is cheap; torch and scvi-tools come with :class:`ZooModelClass`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "Artefact": "_artefact",
    "ArtefactRecord": "_artefact",
    "DoctorReport": "_doctor",
    "GeneAlignment": "_genes",
    "ZooDataSplitter": "_data",
    "ZooModelClass": "_model",
    "align_genes": "_genes",
    "check_input": "_checks",
    "doctor": "_doctor",
    "read_artefact": "_artefact",
    "write_artefact": "_artefact",
}

if TYPE_CHECKING:
    from sczoo.base._artefact import Artefact, ArtefactRecord, read_artefact, write_artefact
    from sczoo.base._checks import check_input
    from sczoo.base._data import ZooDataSplitter
    from sczoo.base._doctor import DoctorReport, doctor
    from sczoo.base._genes import GeneAlignment, align_genes
    from sczoo.base._model import ZooModelClass

__all__ = [
    "Artefact",
    "ArtefactRecord",
    "DoctorReport",
    "GeneAlignment",
    "ZooDataSplitter",
    "ZooModelClass",
    "align_genes",
    "check_input",
    "doctor",
    "read_artefact",
    "write_artefact",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f"sczoo.base.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'sczoo.base' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
