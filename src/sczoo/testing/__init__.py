"""The battery that every model of the zoo passes, exported for third parties.

>>> from sczoo.testing import check_model
>>> print(check_model(MyModel))

or one test per check:

>>> @pytest.fixture(scope="module")
... def case():
...     with ModelCase(MyModel) as case:
...         yield case
>>> @pytest.mark.parametrize("name", list_checks())
... def test_contract(case, name):
...     case.run(name).raise_if_failed()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "CheckFailedError": "_report",
    "CheckReport": "_report",
    "CheckResult": "_report",
    "ModelCase": "_case",
    "check_model": "_battery",
    "example_cells": "_cells",
    "list_checks": "_battery",
}

if TYPE_CHECKING:
    from sczoo.testing._battery import check_model, list_checks
    from sczoo.testing._case import ModelCase
    from sczoo.testing._cells import example_cells
    from sczoo.testing._report import CheckFailedError, CheckReport, CheckResult

__all__ = [
    "CheckFailedError",
    "CheckReport",
    "CheckResult",
    "ModelCase",
    "check_model",
    "example_cells",
    "list_checks",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f"sczoo.testing.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'sczoo.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
