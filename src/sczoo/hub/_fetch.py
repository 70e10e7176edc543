"""Bringing an artefact to this machine: checked before anything parses it, kept by its hash."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sczoo.base._files import lock_beside, resolve_tree, write_tree_atomically
from sczoo.errors import (
    ArtefactError,
    CorruptedArtefactError,
    FetchError,
    IntegrityError,
    RegistryError,
    SczooError,
)
from sczoo.hub._cache import artefact_cache
from sczoo.hub._registry import Found, Location, find
from sczoo.hub._sources import is_remote, local_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sczoo.base._artefact import Artefact
    from sczoo.hub._schema import RegistryEntry

__all__ = ["fetch", "open_found", "pull"]

logger = logging.getLogger("sczoo")

_MANIFEST_BYTES = 64 << 10


def pull(name: str, registry: Location | Sequence[Location] | None = None) -> Path:
    """Make an artefact available on this machine and return its folder.

    Every file is checked by size and SHA-256 before it is parsed. What is in the cache already is
    used without network; local artefacts are used where they lie.

    Parameters
    ----------
    name
        ``id`` or ``id:version``.
    registry
        Further registries, which win over the others.

    Raises
    ------
    UnknownArtefactError, RevokedError
        If no registry has the name, or the entry was revoked.
    FetchError, IntegrityError
        If no source gives the files that the registry describes.
    """
    return fetch(name, registry).path


def fetch(name: str, registry: Location | Sequence[Location] | None = None) -> Artefact:
    """Like :func:`pull`, but return the opened artefact."""
    return open_found(find(name, registry))


def open_found(found: Found) -> Artefact:
    """Open the artefact of an entry from the cache or from the first source that has it."""
    entry = found.entry
    cached = artefact_cache(entry.manifest_sha256)
    failures: list[SczooError] = []
    if cached.is_dir():
        try:
            return _open_checked(cached, entry)
        except (ArtefactError, IntegrityError) as error:
            logger.warning("The cached copy of %s is damaged and fetched again.", entry.name)
            failures.append(error)
    for source in entry.sources:
        try:
            address = found.absolute(source)
            if is_remote(address):
                return _download_artefact(address, entry, cached)
            return _open_checked(local_path(address), entry)
        except (ArtefactError, RegistryError) as error:
            failures.append(error)
            logger.info("%s could not be had from %s: %s", entry.name, source, error)
    if len(failures) == 1:
        raise failures[0]
    reasons = " ".join(f"[{number}] {error}" for number, error in enumerate(failures, start=1))
    kind = IntegrityError if any(map(_is_integrity, failures)) else FetchError
    raise kind(f"{entry.name} could not be had from any source. {reasons}") from failures[-1]


def _is_integrity(error: SczooError) -> bool:
    return isinstance(error, (IntegrityError, CorruptedArtefactError))


def _open_checked(path: Path, entry: RegistryEntry) -> Artefact:
    """Open a folder that must be exactly the one that the entry describes."""
    from sczoo.base._artefact import MANIFEST, read_artefact, read_manifest

    path = resolve_tree(path)
    manifest, _ = read_manifest(path, manifest_sha256=entry.manifest_sha256)
    size = manifest.total_size + (path / MANIFEST).stat().st_size
    _check_size(entry, size)
    artefact = read_artefact(path, manifest_sha256=entry.manifest_sha256)
    record = artefact.record
    stated = (entry.id, entry.version, entry.kind, entry.method, entry.input.n_genes)
    inside = (record.name, record.version, record.kind, record.method, record.input.n_genes)
    if stated != inside:
        raise IntegrityError(
            f"The registry describes {entry.name} as {stated}, the artefact itself says {inside}: "
            "entries were mixed up. Tell the registry's owner."
        )
    return artefact


def _check_size(entry: RegistryEntry, size: int) -> None:
    if size != entry.size:
        raise IntegrityError(
            f"{entry.name} has {size} bytes, the registry says {entry.size}; it was not used. "
            "Tell the registry's owner."
        )


def _download_artefact(address: str, entry: RegistryEntry, cached: Path) -> Artefact:
    from sczoo.base._artefact import MANIFEST, read_manifest
    from sczoo.hub._download import download

    def fill(folder: Path) -> None:
        path = download(
            address,
            MANIFEST,
            folder,
            max_bytes=_MANIFEST_BYTES,
            sha256=entry.manifest_sha256,
            progress=False,
        )
        manifest, _ = read_manifest(folder, manifest_sha256=entry.manifest_sha256)
        _check_size(entry, manifest.total_size + path.stat().st_size)
        for name, file in manifest.files.items():
            download(address, name, folder, max_bytes=file.size, sha256=file.sha256)
        _open_checked(folder, entry)

    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with lock_beside(cached.with_name(cached.name + ".fetch")):
            if cached.is_dir():  # another process was quicker, unless its copy is damaged too
                try:
                    return _open_checked(cached, entry)
                except (ArtefactError, IntegrityError):
                    logger.info("Replacing the damaged copy in %s.", cached)
            write_tree_atomically(cached, fill, overwrite=True)
    except (OSError, TimeoutError) as error:
        raise FetchError(
            f"The cache {cached.parent} cannot be written ({error}). Set SCZOO_CACHE_DIR to a "
            "folder that can."
        ) from error
    return _open_checked(cached, entry)
