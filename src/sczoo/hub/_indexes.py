"""Registries on the network: fetched rarely, kept for work without network, never rolled back."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sczoo.base._files import lock_beside, read_regular_file, sha256_bytes, write_file_atomically
from sczoo.errors import FetchError, RegistryError, SczooError, SignatureError
from sczoo.hub._cache import cache_dir
from sczoo.hub._download import download, is_offline
from sczoo.hub._registry import INDEX_NAME, MAX_INDEX_BYTES, parse_registry
from sczoo.hub._signing import (
    MAX_SIGNATURE_BYTES,
    SIGNATURE_SUFFIX,
    check_signature,
    signature_path,
)
from sczoo.hub._sources import check_source

if TYPE_CHECKING:
    from sczoo.hub._schema import Registry

__all__ = ["FRESH_SECONDS", "read_remote_index"]

logger = logging.getLogger("sczoo")

# A copy younger than this is used without asking the network; revocations arrive within it.
FRESH_SECONDS = 3600.0


def read_remote_index(location: str, pinned: str | None = None) -> tuple[Registry, str]:
    """Read a registry at an ``https://`` or ``hf://`` address.

    A copy is kept in the cache. It is used while it is fresh and when the network fails; an index
    with a smaller ``index_version`` than one seen before is refused. With a pinned key, answer
    and copy must be signed by it.

    Raises
    ------
    RegistryError, FetchError
        If there is neither a usable answer nor a copy.
    SignatureError
        If the answer is not signed by the pinned key.
    """
    base = location.removesuffix(INDEX_NAME).rstrip("/")
    try:
        check_source(base)
    except ValueError as error:
        raise RegistryError(f"{location} is not the address of a registry: {error}.") from error
    kept = cache_dir() / "indexes" / f"{sha256_bytes(base.encode())}.yaml"
    copy = _read_copy(kept, base, pinned)
    if copy is not None and (is_offline() or _age(kept) < FRESH_SECONDS):
        return copy, base
    try:
        data, signature = _fetch_checked(base, pinned)
    except FetchError as error:
        if copy is None:
            raise
        logger.warning("Using the kept copy of the registry %s: %s", base, error)
        return copy, base
    fresh = parse_registry(data, where=f"The registry at {base}")
    if copy is not None and fresh.index_version < copy.index_version:
        raise RegistryError(
            f"The registry at {base} has index_version {fresh.index_version}, but "
            f"{copy.index_version} was seen before: it was rolled back. Ask its owner; if that is "
            f"meant, delete {kept}."
        )
    _keep(kept, data, signature)
    return fresh, base


def _fetch_checked(base: str, pinned: str | None) -> tuple[bytes, bytes]:
    data, signature = _fetch(base, pinned)
    if pinned is not None:
        where = f"The registry at {base}"
        try:
            check_signature(data, signature, pinned, where=where)
        except SignatureError:  # perhaps its owner is just now replacing the two files
            data, signature = _fetch(base, pinned)
            check_signature(data, signature, pinned, where=where)
    return data, signature


def _fetch(base: str, pinned: str | None) -> tuple[bytes, bytes]:
    with TemporaryDirectory(prefix="sczoo-") as folder:
        path = download(base, INDEX_NAME, Path(folder), max_bytes=MAX_INDEX_BYTES, progress=False)
        data = read_regular_file(path, max_bytes=MAX_INDEX_BYTES)
        if pinned is None:
            return data, b""
        name = INDEX_NAME + SIGNATURE_SUFFIX
        path = download(base, name, Path(folder), max_bytes=MAX_SIGNATURE_BYTES, progress=False)
        return data, read_regular_file(path, max_bytes=MAX_SIGNATURE_BYTES)


def _read_copy(kept: Path, base: str, pinned: str | None) -> Registry | None:
    if not kept.is_file():
        return None
    try:
        data = read_regular_file(kept, max_bytes=MAX_INDEX_BYTES)
        if pinned is not None:
            signature = read_regular_file(signature_path(kept), max_bytes=MAX_SIGNATURE_BYTES)
            check_signature(data, signature, pinned, where=f"The kept copy of {base}")
        return parse_registry(data, where=f"The kept copy of {base}")
    except SczooError as error:
        logger.warning("The kept copy of the registry %s is not used: %s", base, error)
        return None


def _age(path: Path) -> float:
    return abs(time.time() - path.stat().st_mtime)


def _keep(kept: Path, data: bytes, signature: bytes) -> None:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with lock_beside(kept):
            write_file_atomically(kept, data)
            write_file_atomically(signature_path(kept), signature)
    except (OSError, TimeoutError) as error:
        logger.warning("The registry's copy could not be kept in %s (%s).", kept.parent, error)
