"""What the release gate found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sczoo.errors import ReleaseGateError

__all__ = ["Finding", "GateReport"]


@dataclass(frozen=True)
class Finding:
    """One thing that should not leave by accident.

    Attributes
    ----------
    code
        The name that allows it, such as ``"categories:cell_type"``.
    where
        File and place in it.
    message
        What it is; never the personal value itself.
    about
        Whether it says something about single cells, single donors, or neither.
    """

    code: str
    where: str
    message: str
    about: Literal["cell", "donor", "other"] = "other"

    def __str__(self) -> str:
        return f"{self.code}: {self.message} ({self.where})"


@dataclass(frozen=True)
class GateReport:
    """Result of :func:`sczoo.hub.inspect`.

    Attributes
    ----------
    findings
        What stands in the way of publishing.
    allowed
        Findings that were allowed by name.
    checked
        What was looked at, one line each; also what could not be looked at.
    compared_with_data
        Whether the training data were at hand to compare with.
    """

    findings: tuple[Finding, ...]
    allowed: tuple[Finding, ...]
    checked: tuple[str, ...] = field(repr=False)
    compared_with_data: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.findings

    @property
    def per_cell_content(self) -> str | list[str]:
        """What is inside about single cells: ``"none"`` or a list."""
        return self._about("cell")

    @property
    def per_donor_content(self) -> str | list[str]:
        """What is inside about single donors: ``"none"`` or a list."""
        return self._about("donor")

    def _about(self, subject: str) -> str | list[str]:
        inside = [
            item.message for item in (*self.findings, *self.allowed) if item.about == subject
        ]
        return list(dict.fromkeys(inside)) or "none"

    def raise_for_findings(self) -> None:
        """Raise :class:`~sczoo.errors.ReleaseGateError` unless :attr:`ok`."""
        if self.ok:
            return
        lines = "\n".join(f"  {item}" for item in self.findings)
        names = ", ".join(repr(code) for code in dict.fromkeys(f.code for f in self.findings))
        raise ReleaseGateError(
            "Not published: the artefact holds content that must not leave by accident.\n"
            f"{lines}\nRemove it, or, if you mean to release it and may, allow it by name: "
            f"allow=({names},)."
        )
