"""Where an artefact may come from: the grammar of ``sources``, and what each may point at.

============================  =================================================================
``package://PKG/PATH``        files of an installed package
``PATH``                      relative to the registry that names it
``file:///PATH``              a folder of this machine; only registries of this machine may say so
``https://...``               a folder on a web server; ``http://`` only on the loopback device
``hf://ORG/REPO@REVISION``    a repository of the Hugging Face Hub, with or without a folder
============================  =================================================================
"""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from sczoo.errors import FetchError

__all__ = [
    "HuggingFaceSource",
    "check_source",
    "is_loopback",
    "is_remote",
    "join",
    "local_path",
    "parse_hf",
]

_HF = re.compile(
    r"hf://(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})@(?P<revision>[\w.-]{1,100})"
    r"(?P<folder>(/[\w.-]+)*)/?",
    re.ASCII,
)
_PART = re.compile(r"[\w.@+ -]+", re.ASCII)


class HuggingFaceSource(NamedTuple):
    """Repository, revision and folder inside it ("" for the root)."""

    repo: str
    revision: str
    folder: str


def check_source(source: str) -> str:
    """Return the source, or raise :class:`ValueError` if it is not of the grammar above."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        _check_relative(source)
    elif scheme == "package":
        package, _, path = rest.partition("/")
        if not package.isidentifier():
            raise ValueError("package:// needs the name of a package")
        _check_relative(path)
    elif scheme == "hf":
        parse_hf(source)
    elif scheme in ("http", "https"):
        parts = urlsplit(source)
        if not parts.hostname or parts.username or parts.password:
            raise ValueError("a web address needs a host and must not hold a password")
        if parts.query or parts.fragment:
            raise ValueError("a web address must name a folder, without ? and #")
        if scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("http:// is allowed on the loopback device only; use https://")
    elif scheme == "file":
        if not rest.startswith("/") or ".." in rest.split("/"):
            raise ValueError("file:// needs an absolute path without '..'")
    else:
        raise ValueError("use package://, file://, https://, hf:// or a relative path")
    return source


def _check_relative(path: str) -> None:
    parts = path.split("/")
    if not all(_PART.fullmatch(part) and part.strip(". ") for part in parts):
        raise ValueError("a relative source is a plain path with '/', inside the registry")


def parse_hf(source: str) -> HuggingFaceSource:
    """Take a ``hf://`` source apart."""
    match = _HF.fullmatch(source)
    folder = match["folder"].strip("/") if match else ""
    if not match or ".." in folder.split("/"):
        raise ValueError("write hf://ORG/REPO@REVISION")
    return HuggingFaceSource(match["repo"], match["revision"], folder)


def is_loopback(host: str) -> bool:
    """Say whether a host name is this machine by definition, without asking a name server."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_remote(source: str) -> bool:
    """Say whether reading the source needs the network."""
    return source.startswith(("https://", "http://", "hf://"))


def join(base: str, source: str) -> str:
    """Make a source absolute, given the place of the registry that names it.

    Parameters
    ----------
    base
        Folder of the registry: a path, or an address as in ``sources``.
    source
        One of the entry's sources.

    Raises
    ------
    FetchError
        If a registry from the network points at this machine.
    """
    if "://" in source:
        base_host = urlsplit(base).hostname or "" if base.startswith("http") else ""
        host = urlsplit(source).hostname or "" if source.startswith("http") else ""
        points_here = source.startswith("file://") or (bool(host) and is_loopback(host))
        if is_remote(base) and points_here and not is_loopback(base_host):
            raise FetchError(
                f"The registry at {base} points at this machine ({source}); that is refused. Ask "
                "its owner to publish the artefact beside the registry."
            )
        return source
    if is_remote(base):
        return base.rstrip("/") + "/" + quote(source)
    return str(Path(base) / source)


def local_path(source: str) -> Path:
    """Find the folder of a local source.

    Raises
    ------
    FetchError
        If the package that a ``package://`` source names is not installed.
    """
    if source.startswith("file://"):
        return Path(unquote(source.removeprefix("file://")))
    if not source.startswith("package://"):
        return Path(source)
    package, _, path = source.removeprefix("package://").partition("/")
    spec = importlib.util.find_spec(package)  # of a top-level package: imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise FetchError(
            f"{source} needs the package {package}, which is not installed: pip install {package}."
        )
    return Path(next(iter(spec.submodule_search_locations))) / path
