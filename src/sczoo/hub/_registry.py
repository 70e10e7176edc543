"""Finding artefacts by name in one or several registries.

A registry is a value, not a place: a ``registry.yaml`` in the package, in a folder, on a web
server or on the Hugging Face Hub. They are layered, later ones win: the zoo's own, then those of
``SCZOO_REGISTRY``, then those of the ``registry`` argument.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sczoo.base._files import read_regular_file
from sczoo.base._record import describe_validation_error
from sczoo.errors import (
    ArtefactError,
    RegistryError,
    RevokedError,
    SchemaVersionError,
    UnknownArtefactError,
)
from sczoo.hub._schema import ID_PATTERN, REGISTRY_SCHEMA, Registry, RegistryEntry
from sczoo.hub._signing import read_signed, signature_path, split_pin
from sczoo.hub._sources import is_remote, join, local_path
from sczoo.hub._yaml import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "INDEX_NAME",
    "Found",
    "embedded_registry",
    "find",
    "list_artefacts",
    "parse_name",
    "parse_registry",
    "read_registry",
    "show",
]

logger = logging.getLogger("sczoo")

INDEX_NAME = "registry.yaml"
MAX_INDEX_BYTES = 16 << 20
_NAME = re.compile(ID_PATTERN[1:-1] + r"(:(?P<version>[1-9]\d{0,5}))?")

Location = str | os.PathLike[str]


@dataclass(frozen=True)
class Found:
    """An entry, and the folder (path or address) of the registry it stands in."""

    entry: RegistryEntry
    base: str

    def absolute(self, source: str) -> str:
        """Make one of the entry's sources independent of where the registry stands."""
        return join(self.base, source)


def parse_registry(data: bytes, *, where: str) -> Registry:
    """Read and check a ``registry.yaml``.

    Raises
    ------
    RegistryError
        If it is malformed or does not follow the schema.
    SchemaVersionError
        If it was written by a newer sczoo.
    """
    document = parse_yaml(data, where=where)
    if not isinstance(document, dict) or type(document.get("schema")) is not int:
        raise RegistryError(f"{where} does not state its schema version; it is not of sczoo.")
    if document["schema"] > REGISTRY_SCHEMA:
        raise SchemaVersionError(
            f"{where} has schema {document['schema']}, this sczoo reads up to {REGISTRY_SCHEMA}. "
            "Update sczoo: pip install --upgrade sczoo."
        )
    try:
        return Registry.model_validate(document)
    except (ValidationError, RecursionError) as error:
        problem = (
            describe_validation_error(error) if isinstance(error, ValidationError) else str(error)
        )
        raise RegistryError(f"{where} does not follow the schema: {problem}") from error


def embedded_registry() -> Path:
    """Path of the zoo's own index: in an installed package, or at the top of a source tree."""
    package = Path(__file__).resolve().parents[1]
    packed = package / "pretrained" / INDEX_NAME
    return packed if packed.is_file() else package.parents[1] / INDEX_NAME


def locations(registry: Location | Sequence[Location] | None = None) -> list[str]:
    """List the registries to read, in order of growing precedence."""
    named: list[str] = []
    for item in os.environ.get("SCZOO_REGISTRY", "").split(","):
        # an address holds colons, so only paths are separated by os.pathsep
        named += [item] if "://" in item else item.split(os.pathsep)
    found = [item.strip() for item in named if item.strip()]
    if registry is not None:
        given = [registry] if isinstance(registry, (str, os.PathLike)) else list(registry)
        found += [os.fspath(item) for item in given]
    return [str(embedded_registry()), *found]


def read_registry(location: Location) -> tuple[Registry, str]:
    """Read one registry; returns it with the folder (path or address) that it stands in.

    A location that ends with ``#ed25519:<key>`` must be signed by that key.
    """
    location, pinned = split_pin(os.fspath(location))
    if is_remote(location):
        from sczoo.hub._indexes import read_remote_index

        return read_remote_index(location, pinned)
    path = local_path(location).expanduser()
    if path.is_dir():
        path = path / INDEX_NAME
    stamps = (_stamp(path), _stamp(signature_path(path)))
    return _read_local(str(path), stamps, pinned), str(path.resolve().parent)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _read_local(
    path: str, _stamps: tuple[tuple[int, int, int], ...], pinned: str | None
) -> Registry:
    if not os.path.lexists(path):
        raise RegistryError(
            f"There is no registry at {path}. A registry is a folder with a {INDEX_NAME}: check "
            "the path and SCZOO_REGISTRY; sczoo publish begins a new one."
        )

    def read() -> bytes:
        try:
            return read_regular_file(path, max_bytes=MAX_INDEX_BYTES)
        except ArtefactError as error:
            raise RegistryError(f"The registry {path} cannot be read: {error}") from error

    data = read() if pinned is None else read_signed(Path(path), read, pinned)
    return parse_registry(data, where=path)


def _entries(registry: Location | Sequence[Location] | None) -> dict[tuple[str, int], Found]:
    layered: dict[tuple[str, int], Found] = {}
    for location in locations(registry):
        content, base = read_registry(location)
        for entry in content.entries:
            layered[entry.id, entry.version] = Found(entry, base)
    return layered


def parse_name(name: str) -> tuple[str, int | None]:
    """Split ``id`` or ``id:version``.

    Raises
    ------
    UnknownArtefactError
        If the name has another form.
    """
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if not match:
        raise UnknownArtefactError(
            f"{name!r} is not the name of an artefact. Names look like 'sce2tm/pbmc-interferon' "
            "or 'sce2tm/pbmc-interferon:1', in lower case; a folder is written './folder'."
        )
    version = match["version"]
    return name.partition(":")[0], int(version) if version else None


def find(
    name: str, registry: Location | Sequence[Location] | None = None, *, revoked: bool = False
) -> Found:
    """Find the entry of a name; without a version, the newest active one.

    Parameters
    ----------
    name
        ``id`` or ``id:version``.
    registry
        Further registries, which win over the others.
    revoked
        Return a revoked entry instead of refusing it.

    Raises
    ------
    UnknownArtefactError
        If no registry has the entry.
    RevokedError
        If the entry was revoked.
    """
    identifier, version = parse_name(name)
    entries = _entries(registry)
    versions = {key[1]: found for key, found in entries.items() if key[0] == identifier}
    if not versions:
        raise UnknownArtefactError(_no_such_name(identifier, {key[0] for key in entries}))
    if version is None:
        active = [number for number, found in versions.items() if found.entry.status == "active"]
        usable = active or [n for n, f in versions.items() if f.entry.status == "deprecated"]
        version = max(usable or versions)
        logger.info("%s means %s:%d.", name, identifier, version)
    if version not in versions:
        raise UnknownArtefactError(
            f"{identifier} has no version {version}; there are "
            f"{', '.join(map(str, sorted(versions)))}."
        )
    found = versions[version]
    entry = found.entry
    instead = f" Use {entry.superseded_by} instead." if entry.superseded_by else ""
    if entry.status == "revoked" and not revoked:
        raise RevokedError(
            f"{entry.name} was revoked by its owner: {entry.reason} It is refused, also from the "
            f"cache.{instead}"
        )
    if entry.status == "deprecated":
        logger.warning("%s is deprecated: %s%s", entry.name, entry.reason, instead)
    return found


def _no_such_name(identifier: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(identifier, sorted(known), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return (
        f"No registry has {identifier!r}.{hint} Add the registry that has it with registry=... or "
        "SCZOO_REGISTRY; sczoo list shows what there is."
    )


def list_artefacts(
    pattern: str = "*",
    registry: Location | Sequence[Location] | None = None,
    *,
    kind: str | None = None,
    method: str | None = None,
    status: str | None = None,
) -> list[RegistryEntry]:
    """List the entries of all layered registries, sorted by name and version.

    Parameters
    ----------
    pattern
        Shell pattern that the id must match, such as ``"sce2tm/*"``.
    registry
        Further registries, which win over the others.
    kind, method, status
        Keep only entries of this kind, method or status. Revoked entries are listed only when
        asked for.
    """

    def wanted(entry: RegistryEntry) -> bool:
        return (
            fnmatch.fnmatchcase(entry.id, pattern)
            and kind in (None, entry.kind)
            and method in (None, entry.method)
            and (entry.status == status if status else entry.status != "revoked")
        )

    found = (item.entry for item in _entries(registry).values())
    return sorted(filter(wanted, found), key=lambda entry: (entry.id, entry.version))


def show(name: str, registry: Location | Sequence[Location] | None = None) -> RegistryEntry:
    """Return the entry of a name, revoked or not; see :func:`list_artefacts` for all names."""
    return find(name, registry, revoked=True).entry
