"""A registry in a folder: versions are added, never changed; the index is replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sczoo.base._artefact import Artefact, read_artefact, write_artefact
from sczoo.base._files import (
    lock_beside,
    read_regular_file,
    remove_orphans,
    write_file_atomically,
)
from sczoo.errors import RegistryError, UnknownArtefactError
from sczoo.hub._registry import INDEX_NAME, MAX_INDEX_BYTES, Location, parse_name, parse_registry
from sczoo.hub._schema import Registry, RegistryEntry, to_document
from sczoo.hub._signing import check_key_before_change, sign_after_change, split_pin
from sczoo.hub._sources import check_source, is_remote, local_path
from sczoo.hub._yaml import dump_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from sczoo.base._artefact import ArtefactRecord

__all__ = ["add_artefact", "add_source", "deprecate", "registry_folder", "revoke"]


def registry_folder(registry: Location) -> Path:
    """Resolve the folder of a registry that is to be changed."""
    location, _ = split_pin(os.fspath(registry))
    if is_remote(location):
        raise RegistryError(
            f"{location} is on the network; publish into a folder and upload that, or use "
            "sczoo.hub.push_to_hf."
        )
    path = local_path(location).expanduser()
    return path.parent if path.name == INDEX_NAME else path


def add_artefact(
    folder: Path,
    source: Artefact,
    identifier: str,
    version: int | None,
    make_entry: Callable[..., RegistryEntry],
    check: Callable[[Path], None] | None = None,
) -> RegistryEntry:
    """Write the next version of an artefact with its card, then list it.

    Parameters
    ----------
    folder
        Folder of the registry; created with an empty index where there is none.
    source
        The artefact to publish.
    identifier, version
        Its name; the next free version unless given.
    make_entry
        Called with what the store knows (``id``, ``version``, ``kind``, ``method``, ``sources``,
        ``manifest_sha256``, ``size``) as keywords; returns the entry.
    check
        Called with the finished folder before anything is written into the registry.
    """
    from sczoo.hub._card import render_card

    with _changing(folder) as index:
        taken = [entry.version for entry in index.registry.entries if entry.id == identifier]
        if version is None:
            version = max(taken, default=0) + 1
        if version in taken:
            raise RegistryError(
                f"{identifier}:{version} exists already and versions do not change. Publish "
                f"version {max(taken) + 1}, and deprecate the old one."
            )
        record = source.record.model_copy(update={"name": identifier, "version": version})
        place = f"artefacts/{identifier}/{version}"
        known = {
            "id": identifier,
            "version": version,
            "kind": record.kind,
            "method": record.method,
            "sources": [place],
        }
        draft = make_entry(**known, manifest_sha256="0" * 64, size=1)
        with TemporaryDirectory(prefix="sczoo-") as scratch:
            finished = _write(Path(scratch) / "artefact", source, record, render_card(draft))
            if check is not None:
                check(finished)
        # not listed, so whatever an interrupted publish left there may be replaced
        target = _write(folder / place, source, record, render_card(draft), overwrite=True)
        # its own lock: every writer of this folder holds the lock of the index
        Path(lock_beside(target).lock_file).unlink(missing_ok=True)
        published = read_artefact(target)
        size = published.manifest.total_size + (target / "manifest.json").stat().st_size
        entry = make_entry(**known, manifest_sha256=published.manifest_sha256, size=size)
        index.replace([*index.registry.entries, entry])
    return entry


def _write(
    target: Path, source: Artefact, record: ArtefactRecord, card: str, *, overwrite: bool = False
) -> Path:
    extra = {"card.md": card.encode("utf-8")}
    if source.data_path is not None:
        extra["data.h5ad"] = source.read("data.h5ad")
    stored = source.selftest()
    selftest = None
    if stored is not None:
        selftest = {"x": stored.x, "expected": stored.expected, "tolerance": stored.tolerance}
    has_weights = "weights.safetensors" in source.manifest.files
    return write_artefact(
        target,
        record,
        tensors=source.tensors() if has_weights else None,
        genes=source.genes(),
        selftest=selftest,
        extra_files=extra,
        overwrite=overwrite,
    )


def revoke(
    name: str, reason: str, *, registry: Location, superseded_by: str | None = None
) -> RegistryEntry:
    """Withdraw a version: from now on it is refused by name, also from the cache.

    Parameters
    ----------
    name
        The version, ``id:version``.
    reason
        Why; shown to everybody who asks for it.
    registry
        Folder of the registry.
    superseded_by
        Name to use instead.
    """
    return _set_status(name, registry, "revoked", reason, superseded_by)


def deprecate(
    name: str, reason: str, *, registry: Location, superseded_by: str | None = None
) -> RegistryEntry:
    """Advise against a version: it still loads, with a warning.

    Parameters
    ----------
    name
        The version, ``id:version``.
    reason
        Why; shown to everybody who asks for it.
    registry
        Folder of the registry.
    superseded_by
        Name to use instead.
    """
    return _set_status(name, registry, "deprecated", reason, superseded_by)


def add_source(name: str, source: str, *, registry: Location) -> RegistryEntry:
    """Add a place where a version can be fetched from, such as ``hf://ORG/REPO@COMMIT``.

    Parameters
    ----------
    name
        The version, ``id:version``.
    source
        The place; it is tried after those that are listed already.
    registry
        Folder of the registry.
    """
    try:
        check_source(source)
    except ValueError as error:
        raise RegistryError(f"{source!r} cannot be a source: {error}.") from error
    return _change(
        name, registry, lambda entry: {"sources": list(dict.fromkeys([*entry.sources, source]))}
    )


def _set_status(
    name: str, registry: Location, status: str, reason: str, superseded_by: str | None
) -> RegistryEntry:
    def change(entry: RegistryEntry) -> dict[str, Any]:
        if entry.status == "revoked" and status != "revoked":
            raise RegistryError(f"{entry.name} is revoked, and that is not taken back.")
        return {"status": status, "reason": reason, "superseded_by": superseded_by}

    return _change(name, registry, change)


def _change(
    name: str, registry: Location, change: Callable[[RegistryEntry], dict[str, Any]]
) -> RegistryEntry:
    identifier, version = parse_name(name)
    if version is None:
        raise RegistryError(f"Name the version: '{identifier}:<version>'.")
    with _changing(registry_folder(registry), create=False) as index:
        entries = list(index.registry.entries)
        for position, entry in enumerate(entries):
            if entry.name == name:
                entries[position] = entry.model_copy(update=change(entry))
                index.replace(entries)
                return index.registry.entries[position]
    raise UnknownArtefactError(f"{name} is not in the registry {os.fspath(registry)}.")


class _changing:
    """The index of a folder under its lock, for one change."""

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self._path = folder / INDEX_NAME
        self._create = create
        self.registry: Registry

    def __enter__(self) -> _changing:
        folder = self._path.parent
        try:
            if self._create:
                folder.mkdir(parents=True, exist_ok=True)
            elif not self._path.is_file():
                raise RegistryError(f"There is no registry in {folder}.")
            self._lock = lock_beside(self._path)
            check_key_before_change()
            self._lock.acquire()
        except (OSError, TimeoutError) as error:
            raise RegistryError(f"The registry {folder} cannot be changed ({error}).") from error
        try:
            remove_orphans(self._path)
            self.registry = self._read(folder)
        except BaseException:
            self._lock.release()
            raise
        return self

    def _read(self, folder: Path) -> Registry:
        if not self._path.exists():
            # version 0 does not occur in a file: the first change makes it 1
            return Registry.model_construct(
                schema_version=1, name=folder.resolve().name, index_version=0, entries=[]
            )
        data = read_regular_file(self._path, max_bytes=MAX_INDEX_BYTES)
        return parse_registry(data, where=str(self._path))

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def replace(self, entries: list[RegistryEntry]) -> None:
        """Write the index with other entries and the next index version."""
        document = {
            "schema": 1,
            "name": self.registry.name,
            "index_version": self.registry.index_version + 1,
            **(self.registry.__pydantic_extra__ or {}),
            "entries": [to_document(entry) for entry in entries],
        }
        data = dump_yaml(document)
        # what could not be read back is not written
        self.registry = parse_registry(data, where=str(self._path))
        try:
            write_file_atomically(self._path, data)
            sign_after_change(self._path, data)
        except OSError as error:
            raise RegistryError(f"{self._path} cannot be written ({error}).") from error
