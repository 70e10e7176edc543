"""Collections of gene sets from local GMT files."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sczoo.errors import EmptyDataError, InputError

if TYPE_CHECKING:
    from collections.abc import Collection

_GZIP = b"\x1f\x8b"
_MAX_BYTES = 512 * 2**20


def read_gmt(path: str | PathLike[str]) -> dict[str, tuple[str, ...]]:
    """Read a gene-set collection in GMT format, plain or gzipped.

    One set per line, separated by tabs: name, description, genes.

    Parameters
    ----------
    path
        The file. Nothing is ever fetched from the network.

    Returns
    -------
    dict
        The genes of each set, in the order of the file, each once.

    Raises
    ------
    sczoo.errors.EmptyDataError
        The file holds no gene set.
    sczoo.errors.InputError
        The file is not there or is not GMT; the message names the line.
    """
    path = Path(path)
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        name, *rest = (field.strip() for field in line.split("\t"))
        genes = tuple(dict.fromkeys(gene for gene in rest[1:] if gene))
        if not name or not genes:
            raise InputError(
                f"{path.name}, line {number}: a gene set is a name, a description and at least "
                "one gene, separated by tabs."
            )
        if name in sets:
            raise InputError(
                f"{path.name}, line {number}: the set {name!r} occurs twice. Rename one of them."
            )
        sets[name] = genes
    if not sets:
        raise EmptyDataError(f"{path.name} holds no gene set. Is the download complete?")
    return sets


def gene_set_collection(gene_sets: Any) -> Mapping[str, Collection[str]]:
    """Return a non-empty collection from a mapping or from the path of a GMT file."""
    if isinstance(gene_sets, str | PathLike):
        return read_gmt(gene_sets)
    if not isinstance(gene_sets, Mapping):
        raise InputError(
            "gene_sets must be a mapping from set names to genes, or the path of a GMT file, not "
            f"{type(gene_sets).__name__}."
        )
    if not gene_sets:
        raise EmptyDataError("gene_sets holds no gene set.")
    for name, genes in gene_sets.items():
        if isinstance(genes, str) or len(genes) == 0:
            raise InputError(f"The gene set {name!r} must be a list of genes that is not empty.")
    return gene_sets


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP):
            with gzip.open(path) as stream:
                raw = stream.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise InputError(f"{path.name} is larger than {_MAX_BYTES // 2**20} MiB.")
        return raw.decode("utf-8-sig")
    except OSError as error:  # BadGzipFile is one
        raise InputError(f"{fspath(path)} cannot be read as a GMT file: {error}.") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path.name} is damaged or is not text ({error}). Fetch it again."
        ) from error
