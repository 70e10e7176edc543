"""Signed registries: an index that only the holder of a key can have written.

Beside ``registry.yaml`` lies ``registry.yaml.sig``, an Ed25519 signature (RFC 8032) of the index.
The index holds the hash of every artefact, so the signature covers all of them. Who trusts a
registry pins the public key to its address: ``https://example.org/zoo#ed25519:<key>``. A pinned
registry without a valid signature of that key is refused, from the network and from the cache.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
import time
from typing import TYPE_CHECKING, Any

from sczoo.base._files import read_regular_file, write_file_atomically
from sczoo.errors import (
    ArtefactError,
    OptionalDependencyError,
    RegistryError,
    SignatureError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sczoo.hub._registry import Location

__all__ = ["create_signing_key", "sign_registry"]

logger = logging.getLogger("sczoo")

KEY_VARIABLE = "SCZOO_SIGNING_KEY"
SIGNATURE_SUFFIX = ".sig"
MAX_SIGNATURE_BYTES = 1024
MAX_KEY_BYTES = 16 << 10
# a signature made for something else with the same key is never one of a registry
_CONTEXT = b"sczoo registry signature 1\n"
_PIN = re.compile(r"(?P<location>.+)#(?P<key>ed25519:[A-Za-z0-9_-]{43})")
_ALGORITHM = "ed25519:"
# the index and its signature are two files: a reader may meet the new one beside the old one
_RETRIES, _WAIT_SECONDS = 5, 0.1


def create_signing_key(path: str | os.PathLike[str]) -> str:
    """Create a key pair for signing registries.

    Parameters
    ----------
    path
        New file for the private key (PEM); readable by its owner only.

    Returns
    -------
    The public key, ``"ed25519:..."``, to be given to those who read the registry.

    Raises
    ------
    RegistryError
        If the file exists or cannot be written.
    OptionalDependencyError
        If the package ``cryptography`` is not installed.
    """
    keys, serialization = _cryptography()
    private = keys.Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(pem)
    except OSError as error:
        raise RegistryError(
            f"The key {os.fspath(path)} cannot be written ({error.strerror}); an existing file is "
            "never replaced. Choose another path."
        ) from error
    return _public_text(private)


def sign_registry(registry: Location, key: str | os.PathLike[str] | None = None) -> str:
    """Sign the index of a registry in a folder; needed again after every change.

    With ``SCZOO_SIGNING_KEY`` set to the key's path, publishing signs by itself.

    Parameters
    ----------
    registry
        Folder of the registry.
    key
        File with the private key; that of ``SCZOO_SIGNING_KEY`` by default.

    Returns
    -------
    The public key.

    Raises
    ------
    RegistryError
        If there is no key or no valid registry.
    OptionalDependencyError
        If the package ``cryptography`` is not installed.
    """
    from sczoo.base._files import lock_beside
    from sczoo.hub._registry import INDEX_NAME, MAX_INDEX_BYTES, parse_registry
    from sczoo.hub._store import registry_folder

    key = key or os.environ.get(KEY_VARIABLE)
    if not key:
        raise RegistryError(f"Name the file with the private key, or set {KEY_VARIABLE}.")
    index = registry_folder(registry) / INDEX_NAME
    if not index.is_file():
        raise RegistryError(f"There is no registry in {index.parent}.")
    try:
        with lock_beside(index):
            data = read_regular_file(index, max_bytes=MAX_INDEX_BYTES)
            parse_registry(data, where=str(index))
            signature, public = _sign(data, key)
            write_file_atomically(signature_path(index), signature)
    except (OSError, TimeoutError) as error:
        raise RegistryError(f"The registry {index.parent} cannot be changed ({error}).") from error
    return public


def sign_after_change(index: Path, data: bytes) -> None:
    """Sign the index just written if ``SCZOO_SIGNING_KEY`` is set; the caller holds the lock."""
    key = os.environ.get(KEY_VARIABLE)
    if key:
        signature, _ = _sign(data, key)
        write_file_atomically(signature_path(index), signature)
    elif signature_path(index).is_file():
        logger.warning(
            "%s was signed and has changed: readers who pinned its key refuse it until you sign "
            "it again (sczoo sign, or set %s).",
            index,
            KEY_VARIABLE,
        )


def check_key_before_change() -> None:
    """Raise now, before anything is written, if ``SCZOO_SIGNING_KEY`` cannot sign."""
    if key := os.environ.get(KEY_VARIABLE):
        _sign(b"", key)


def signature_path(index: Path) -> Path:
    """Where the signature of an index lies."""
    return index.with_name(index.name + SIGNATURE_SUFFIX)


def split_pin(location: str) -> tuple[str, str | None]:
    """Split ``location#ed25519:<key>`` into the location and the pinned key."""
    match = _PIN.fullmatch(location)
    if match:
        return match["location"], match["key"]
    if "#ed25519" in location:
        raise SignatureError(
            f"{location} pins a key that is not one: write #ed25519: and 43 characters, as "
            "sczoo keygen prints them."
        )
    return location, None


def check_signature(data: bytes, signature: bytes, pinned: str, *, where: str) -> None:
    """Check that `signature` is one of `data` by the pinned key.

    Raises
    ------
    SignatureError
        If it is not.
    """
    keys, _ = _cryptography()
    from cryptography.exceptions import InvalidSignature

    lines = signature.split()
    if len(lines) != 2 or lines[0] != pinned.encode():
        raise SignatureError(
            f"{where} is not signed by the pinned key {pinned}. Do not use it; ask its owner "
            "whether the key was changed."
        )
    try:
        public = keys.Ed25519PublicKey.from_public_bytes(_decode(pinned.removeprefix(_ALGORITHM)))
        public.verify(_decode(lines[1].decode("ascii")), _CONTEXT + data)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(
            f"{where} does not match its signature: it was changed after its owner signed it. Do "
            "not use it; tell its owner."
        ) from error


def read_signed(path: Path, read: Callable[[], bytes], pinned: str) -> bytes:
    """Read a local index and check its signature; waits for a change that is under way."""
    for attempt in range(_RETRIES):
        data = read()
        try:
            try:
                signature = read_regular_file(signature_path(path), max_bytes=MAX_SIGNATURE_BYTES)
            except ArtefactError as error:
                raise SignatureError(
                    f"The registry {path} has no readable signature ({error}), but its key is "
                    "pinned. Do not use it; ask its owner to sign it: sczoo sign."
                ) from error
            check_signature(data, signature, pinned, where=f"The registry {path}")
        except SignatureError:
            if attempt == _RETRIES - 1:
                raise
            time.sleep(_WAIT_SECONDS)
        else:
            break
    return data


def _sign(data: bytes, key: str | os.PathLike[str]) -> tuple[bytes, str]:
    keys, serialization = _cryptography()
    try:
        pem = read_regular_file(key, max_bytes=MAX_KEY_BYTES)
        private = serialization.load_pem_private_key(pem, password=None)
    except (ArtefactError, OSError, ValueError, TypeError) as error:
        raise RegistryError(
            f"{os.fspath(key)} is not a private key without password ({type(error).__name__}). "
            "sczoo keygen creates one."
        ) from error
    if not isinstance(private, keys.Ed25519PrivateKey):
        raise RegistryError(
            f"{os.fspath(key)} is a key of another kind than Ed25519. sczoo keygen creates one."
        )
    public = _public_text(private)
    return f"{public}\n{_encode(private.sign(_CONTEXT + data))}\n".encode(), public


def _public_text(private: Any) -> str:
    return _ALGORITHM + _encode(private.public_key().public_bytes_raw())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise OptionalDependencyError(
            "Signatures need the package cryptography: pip install 'sczoo[hub]'."
        ) from error
    return ed25519, serialization
