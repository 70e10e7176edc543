"""The model card: rendered from the registry entry, so that the two cannot disagree."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sczoo.errors import RegistryError, SchemaError
from sczoo.hub._yaml import dump_yaml, parse_yaml

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from jinja2 import Environment

    from sczoo.hub._registry import Location
    from sczoo.hub._schema import RegistryEntry

__all__ = [
    "SECTIONS",
    "TEMPLATE_VERSION",
    "card_differs",
    "card_text",
    "read_card",
    "render_card",
    "template_version",
]

# Raised with every change of the template: only cards of the same template can be compared.
TEMPLATE_VERSION = 1
SECTIONS = (
    "Use",
    "Out of scope",
    "Input",
    "Training data",
    "Evaluation",
    "What is inside about single patients",
    "Limits",
    "Licence",
    "Provenance",
    "Citation",
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~#!])")
_FOOTER = re.compile(r"<!-- sczoo card, template (\d{1,6}) -->\s*\Z")


def render_card(entry: RegistryEntry) -> str:
    """Write ``card.md``: front matter for the Hugging Face Hub, then the fixed sections.

    What changes without a new version (status, sources, hash and size) is not on the card.
    Texts of the entry are shown as they are: neither Markdown nor HTML in them has any effect.
    """
    front = {
        "library_name": "sczoo",
        "license": "other",
        "license_name": entry.licence.weights or entry.licence.data,
        "tags": ["sczoo", "single-cell", "scRNA-seq", entry.kind, entry.method],
    }
    body = _environment().get_template("card.md.j2").render(entry=entry, template=TEMPLATE_VERSION)
    # quotes mean something in HTML attributes alone, of which a card has none
    body = body.replace("&#39;", "'").replace("&#34;", '"')
    return f"---\n{dump_yaml(front).decode()}---\n{body}\n"


def template_version(card: str) -> int | None:
    """Say which template a card was rendered with."""
    match = _FOOTER.search(card)
    return int(match[1]) if match else None


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sczoo.hub", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=False,
    )
    environment.filters.update(
        md=_md,
        code=_code,
        number=_number,
        interval=_interval,
        baselines=_baselines,
        contents=_contents,
    )
    return environment


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _md(text: Any) -> str:
    """Take Markdown's meaning from a text; the environment escapes HTML afterwards."""
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def _code(text: Any) -> str:
    """Prepare a text for backticks."""
    return _one_line(text).replace("`", "'").replace("|", "¦")


def _number(value: float) -> str:
    return f"{value:.6g}"


def _interval(ci95: list[float] | str) -> str:
    return ci95 if isinstance(ci95, str) else " to ".join(map(_number, ci95))


def _baselines(baseline: dict[str, float] | str) -> str:
    if isinstance(baseline, str):
        return baseline
    return ", ".join(f"{name} {_number(value)}" for name, value in baseline.items())


def _contents(content: str | list[str]) -> str:
    return content if isinstance(content, str) else "; ".join(content)


def card_differs(entry: RegistryEntry, card: str) -> bool | None:
    """Whether a card says something else than its entry; ``None`` if it has another template."""
    if template_version(card) != TEMPLATE_VERSION:
        return None
    return render_card(entry) != card


def card_text(name: str, registry: Location | Sequence[Location] | None = None) -> str:
    """Render the card of a name for reading, with its status; nothing is fetched.

    Parameters
    ----------
    name
        ``id`` or ``id:version``; revoked versions too.
    registry
        Further registries, which win over the others.
    """
    from sczoo.hub._registry import show

    entry = show(name, registry)
    body = render_card(entry).split("\n---\n", 1)[1]
    if entry.status == "active":
        return body
    instead = f" Use {entry.superseded_by} instead." if entry.superseded_by else ""
    return f"**{entry.status.capitalize()}**: {_md(entry.reason)}{instead}\n\n{body}"


def read_card(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the card fields that a person wrote into a YAML file.

    Parameters
    ----------
    path
        The file; its keys are the fields of :class:`~sczoo.hub.CardFields`.

    Raises
    ------
    SchemaError
        If the file cannot be read or is not a mapping. Missing fields are reported by
        :func:`~sczoo.hub.publish`, which knows what the artefact says already.
    """
    where = Path(path)
    try:
        fields = parse_yaml(where.read_bytes(), where=str(where))
    except (OSError, RegistryError) as error:
        raise SchemaError(f"The card fields in {where} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise SchemaError(f"{where} must hold the fields of a card, one 'key: value' per line.")
    return fields
