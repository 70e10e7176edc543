"""``check_model``: every check, one after the other, into one report."""

from __future__ import annotations

import inspect
import time
import traceback
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from sczoo.errors import InputError
from sczoo.testing import (
    _batches,
    _card,
    _categories,
    _declaration,
    _determinism,
    _genes,
    _inputs,
    _mudata,
    _persistence,
    _privacy,
    _queries,
    _training,
    _transfer,
    _values,
)
from sczoo.testing._expect import CheckSkippedError
from sczoo.testing._quiet import quiet
from sczoo.testing._report import CheckFailedError, CheckReport, CheckResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from anndata import AnnData

    from sczoo.base import ZooModelClass
    from sczoo.testing._case import ModelCase

_GROUPS = {
    "declaration": _declaration,
    "inputs": _inputs,
    "values": _values,
    "batches": _batches,
    "training": _training,
    "determinism": _determinism,
    "genes": _genes,
    "queries": _queries,
    "categories": _categories,
    "transfer": _transfer,
    "privacy": _privacy,
    "persistence": _persistence,
    "mudata": _mudata,
    "card": _card,
}
# these wait for a fresh Python process to import everything
_SLOW = {"fresh_process_loads", "fresh_process_trains_equally"}


@dataclass(frozen=True)
class _Check:
    group: str
    function: Callable[[ModelCase], None]
    about: str


def _collect() -> dict[str, _Check]:
    found: dict[str, _Check] = {}
    for group, module in _GROUPS.items():
        for name, function in vars(module).items():
            if name.startswith("check_") and inspect.isfunction(function):
                about = (inspect.getdoc(function) or "").splitlines()[0]
                found[name.removeprefix("check_")] = _Check(group, function, about)
    return found


_CHECKS = _collect()


def list_checks(*, slow: bool | None = None) -> list[str]:
    """List the names of the checks in the order in which they run.

    Parameters
    ----------
    slow
        ``True`` for those that start a fresh Python process, ``False`` for all others.

    Examples
    --------
    >>> @pytest.mark.parametrize("name", sczoo.testing.list_checks())
    ... def test_contract(case, name):
    ...     case.run(name).raise_if_failed()
    """
    return [name for name in _CHECKS if slow is None or (name in _SLOW) == slow]


def check_names(names: Any, *, need_reasons: bool = False) -> Any:
    """Return `names` if all are checks, and, in a mapping, each has a reason."""
    unknown = sorted(set(names) - set(_CHECKS))
    if unknown:
        raise InputError(
            f"There is no check {unknown[0]!r}; sczoo.testing.list_checks() lists the names."
        )
    if need_reasons:
        for name, reason in dict(names).items():
            if not isinstance(reason, str) or not reason.strip():
                raise InputError(
                    f"Skipping the check {name!r} needs a reason in words: it is shown to those "
                    "who decide whether to trust the model."
                )
        return dict(names)
    return names


def run_check(case: ModelCase, name: str) -> CheckResult:
    """Run one check on `case`."""
    check_names([name])
    check = _CHECKS[name]

    def result(outcome: Any, message: str = "") -> CheckResult:
        seconds = round(time.process_time() - started, 2)
        return CheckResult(name, check.group, outcome, message, check.about, seconds)

    started = time.process_time()
    if name in case.skip:
        return result("skipped", case.skip[name])
    try:
        with quiet():
            check.function(case)
    except CheckSkippedError as reason:
        return result("skipped", str(reason))
    except CheckFailedError as failure:
        return result("failed", str(failure))
    except Exception as error:  # noqa: BLE001 - whatever a model does wrong is a finding
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.name} of {PurePath(frame.filename).name}, line {frame.lineno}"
        return result("failed", f"{type(error).__name__}: {error} (in {where})")
    return result("passed")


def check_model(
    model_class: type[ZooModelClass],
    *,
    adata: AnnData | None = None,
    setup_kwargs: Mapping[str, Any] | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    skip: Mapping[str, str] | None = None,
    only: Iterable[str] | None = None,
) -> CheckReport:
    """Check that a model keeps the zoo's contract.

    Nothing is raised for a fault of the model: the report tells. The caller's random state is
    left as it was.

    Parameters
    ----------
    model_class
        A subclass of :class:`sczoo.base.ZooModelClass`.
    adata
        Data to check with, some hundred cells; simulated cells by default. A model that needs
        more than an expression matrix, such as an embedding in ``obsm``, needs its own.
    setup_kwargs, model_kwargs, train_kwargs
        Arguments of ``setup_anndata``, of the constructor and of ``train``; choose small sizes
        and few epochs.
    skip
        Checks that do not apply, each with the reason, which the report shows.
    only
        Names of the checks to run; all by default.

    Returns
    -------
    :class:`~sczoo.testing.CheckReport`

    Raises
    ------
    InputError
        A name in `skip` or `only` is not a check, or a skip has no reason.

    Examples
    --------
    >>> report = sczoo.testing.check_model(MyModel, model_kwargs={"n_topics": 5})
    >>> print(report)
    >>> report.raise_if_failed()
    """
    from sczoo.testing._case import ModelCase

    chosen = set(_CHECKS) if only is None else set(check_names(list(only)))
    report = CheckReport(model_class.__name__ if isinstance(model_class, type) else "?")
    with (
        quiet(),
        ModelCase(
            model_class,
            adata=adata,
            setup_kwargs=setup_kwargs,
            model_kwargs=model_kwargs,
            train_kwargs=train_kwargs,
            skip=skip,
        ) as case,
    ):
        report.results = [run_check(case, name) for name in _CHECKS if name in chosen]
    return report
