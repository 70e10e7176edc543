"""What the battery found: one row per check."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sczoo.errors import SczooError

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["passed", "failed", "skipped"]


class CheckFailedError(SczooError, AssertionError):
    """A model does not keep the contract."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes
    ----------
    name
        Name of the check.
    group
        The idea that it belongs to, such as ``"privacy"``.
    outcome
        ``"passed"``, ``"failed"`` or ``"skipped"``.
    message
        What went wrong, or why it was skipped.
    about
        What the check asks, in one line.
    cpu_seconds
        CPU time of this process.
    """

    name: str
    group: str
    outcome: Outcome
    message: str = ""
    about: str = ""
    cpu_seconds: float = 0.0

    def raise_if_failed(self) -> None:
        """Raise :class:`CheckFailedError` if the check failed."""
        if self.outcome == "failed":
            raise CheckFailedError(f"{self.name}: {self.message}")


@dataclass
class CheckReport:
    """The results of :func:`check_model`.

    Attributes
    ----------
    model
        Name of the model class.
    results
        One :class:`CheckResult` per check, in the order of :func:`list_checks`.
    """

    model: str
    results: list[CheckResult] = field(default_factory=list)

    def _named(self, outcome: Outcome) -> list[str]:
        return [result.name for result in self.results if result.outcome == outcome]

    @property
    def passed(self) -> list[str]:
        """Names of the checks that passed."""
        return self._named("passed")

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return self._named("failed")

    @property
    def skipped(self) -> list[str]:
        """Names of the checks that were skipped; the messages say why."""
        return self._named("skipped")

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def __getitem__(self, name: str) -> CheckResult:
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    def to_frame(self) -> pd.DataFrame:
        """One row per check, with all fields of :class:`CheckResult`."""
        import pandas as pd

        columns = list(CheckResult.__dataclass_fields__)
        rows = [[getattr(result, name) for name in columns] for result in self.results]
        return pd.DataFrame(rows, columns=columns)

    def raise_if_failed(self) -> None:
        """Raise :class:`CheckFailedError` that names every failed check, if there is one."""
        if self.failed:
            lines = [f"  {r.name}: {r.message}" for r in self.results if r.outcome == "failed"]
            raise CheckFailedError(
                f"{self.model} fails {len(lines)} of {len(self.results)} checks:\n"
                + "\n".join(lines)
            )

    def __str__(self) -> str:
        width = max([len(result.name) for result in self.results], default=4)
        lines = [
            f"{result.outcome:<8} {result.name:<{width}}  "
            f"{' '.join(result.message.split())}".rstrip()
            for result in self.results
        ]
        lines.append(
            f"{self.model}: {len(self.passed)} passed, {len(self.failed)} failed, "
            f"{len(self.skipped)} skipped"
        )
        return "\n".join(lines)
