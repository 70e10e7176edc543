"""``genes.tsv``: the genes of an artefact in order, with symbols and importance."""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any

from sczoo.errors import CorruptedArtefactError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["genes_sha256", "is_name", "parse_genes", "render_genes"]

_COLUMNS = ("id", "symbol", "importance")
_HEADER = "\t".join(_COLUMNS)
_MAX_NAME = 256
_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20})?(e[+-]?\d{1,3})?", re.ASCII)


def genes_sha256(ids: Iterable[str]) -> str:
    """Hash an ordered gene list: SHA-256 of the identifiers joined by line feeds."""
    return hashlib.sha256("\n".join(ids).encode("utf-8")).hexdigest()


def render_genes(genes: Sequence[dict[str, Any]]) -> bytes:
    """Write the table.

    Parameters
    ----------
    genes
        One dictionary per gene, in the model's order: ``id`` (unique), ``symbol`` (text or
        ``None``) and ``importance`` (finite number or ``None``).

    Raises
    ------
    SchemaError
        If an identifier is missing or repeated, or a value cannot be written.
    """
    lines = [_HEADER]
    for position, gene in enumerate(genes):
        unknown = set(gene) - set(_COLUMNS)
        if unknown or not gene.get("id"):
            raise SchemaError(
                f"Gene {position} needs an id and may have a symbol and an importance; it has "
                f"{sorted(gene)}."
            )
        importance = gene.get("importance")
        if importance is None:
            number = ""
        elif math.isfinite(importance):
            number = repr(float(importance))
        else:
            raise SchemaError(
                f"The importance of gene {gene['id']!r} is {importance}; it must be finite "
                "or None."
            )
        lines.append(f"{gene['id']}\t{gene.get('symbol') or ''}\t{number}")
    try:
        data = ("\n".join(lines) + "\n").encode("utf-8")
        parse_genes(data, where="the gene table")  # what cannot be read back is not written
    except (UnicodeEncodeError, CorruptedArtefactError) as error:
        raise SchemaError(f"The gene table cannot be written: {error}") from error
    return data


def parse_genes(data: bytes, *, where: str = "genes.tsv") -> list[dict[str, Any]]:
    """Read the table; the reverse of :func:`render_genes`.

    Raises
    ------
    CorruptedArtefactError
        If the table differs in any way from what :func:`render_genes` writes.
    """

    def refuse(reason: str) -> CorruptedArtefactError:
        return CorruptedArtefactError(
            f"{where} is not valid: {reason}. Fetch or save the artefact again."
        )

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(str(error)) from error
    header, *rows = text.split("\n")
    if header != _HEADER:
        raise refuse(f"the first line must name the columns {', '.join(_COLUMNS)}")
    if not rows or rows.pop() != "":
        raise refuse("it does not end with a line feed")

    genes: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        cells = row.split("\t")
        if len(cells) != len(_COLUMNS):
            raise refuse(f"line {number} has {len(cells)} columns instead of {len(_COLUMNS)}")
        identifier, symbol, importance = cells
        if not identifier or not is_name(identifier) or not is_name(symbol):
            raise refuse(f"line {number} holds a name that is empty, padded or not printable")
        if identifier in seen:
            raise refuse(f"the gene {identifier!r} occurs twice (line {number})")
        if importance and not _NUMBER.fullmatch(importance):
            raise refuse(f"the importance in line {number} is not a number")
        value = float(importance) if importance else None
        if value is not None and not math.isfinite(value):
            raise refuse(f"the importance in line {number} is out of range")
        seen.add(identifier)
        genes.append({"id": identifier, "symbol": symbol or None, "importance": value})
    return genes


def is_name(name: str) -> bool:
    """Whether the table can hold `name`; ``""`` stands for an unknown symbol."""
    return len(name) <= _MAX_NAME and name == name.strip() and (name == "" or name.isprintable())
