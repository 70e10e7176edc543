"""Downloads that are bounded, go only where they should, and arrive whole or not at all."""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from sczoo.errors import FetchError, IntegrityError, OptionalDependencyError
from sczoo.hub._sources import is_loopback, parse_hf

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["download", "is_offline"]

logger = logging.getLogger("sczoo")

_TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of the answer
_MAX_REDIRECTS = 5
_PATIENCE = 60.0  # seconds before slowness is judged
_MIN_BYTES_PER_SECOND = 1024
_CHUNK = 1 << 16
_REDIRECTS = {301, 302, 303, 307, 308}


def is_offline() -> bool:
    """Whether ``SCZOO_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids the network."""
    return any(
        os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}
        for name in ("SCZOO_OFFLINE", "HF_HUB_OFFLINE")
    )


def download(
    folder: str,
    name: str,
    target: Path,
    *,
    max_bytes: int,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Fetch one file of a remote folder.

    Parameters
    ----------
    folder
        Address of the folder: ``https://``, ``http://`` on the loopback device, or ``hf://``.
    name
        Name of the file in it.
    target
        Local folder to put it in.
    max_bytes
        The transfer is cut off beyond this size.
    sha256
        Expected hash; a file of another hash is deleted.
    progress
        Show a progress bar for files above one megabyte.

    Raises
    ------
    FetchError
        If the file cannot be had.
    IntegrityError
        If it is larger than ``max_bytes`` or has another hash.
    """
    if is_offline():
        raise FetchError(
            f"{name} of {folder} is not in the cache, and SCZOO_OFFLINE or HF_HUB_OFFLINE forbids "
            "the network."
        )
    if folder.startswith("hf://"):
        path = _from_hugging_face(folder, name, target)
        if path.stat().st_size > max_bytes:
            raise _too_large(f"{folder}/{name}", max_bytes)
        return path
    return _from_web(f"{folder.rstrip('/')}/{name}", name, target, max_bytes, sha256, progress)


def _too_large(address: str, max_bytes: int) -> IntegrityError:
    return IntegrityError(
        f"{address} is larger than the {max_bytes} bytes that the registry or the format allows; "
        "it was not kept."
    )


# --- https ------------------------------------------------------------------------------------


def _from_web(
    url: str, name: str, target: Path, max_bytes: int, sha256: str | None, progress: bool
) -> Path:
    import pooch
    import requests
    import urllib3

    pooch.get_logger().setLevel(logging.WARNING)  # sczoo says itself what it fetches
    logger.info("Fetching %s.", url)
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}" if sha256 else None,
            fname=name,
            path=target,
            downloader=_guarded(max_bytes, progress and max_bytes > 1 << 20),
        )
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise FetchError(
            f"{url} could not be fetched ({_first_line(error)}). Check the network and the "
            "address."
        ) from error
    except ValueError as error:  # pooch's word for another hash
        raise IntegrityError(
            f"{url} has another hash than the registry says; it was not kept. It was damaged on "
            "the way or replaced at the source: tell the registry's owner."
        ) from error
    except OSError as error:
        raise FetchError(f"{url} could not be stored in {target} ({error}).") from error
    return Path(path)


def _guarded(max_bytes: int, progress: bool) -> Callable[[str, str, Any], None]:
    """Build a downloader for pooch that bounds the size and checks every redirect."""

    def fetch(url: str, output_file: str, _pooch: Any) -> None:
        import requests

        with requests.Session() as session, _open(session, url) as response:
            response.raise_for_status()
            announced = response.headers.get("content-length", "")
            if announced.isdigit() and int(announced) > max_bytes:
                raise _too_large(url, max_bytes)
            received, start = 0, time.monotonic()
            with open(output_file, "wb") as handle, _bar(url, max_bytes, progress) as advance:
                # read1 returns what has arrived, so that a server that drips bytes is noticed
                while chunk := response.raw.read1(_CHUNK, decode_content=False):
                    received += len(chunk)
                    if received > max_bytes:
                        raise _too_large(url, max_bytes)
                    elapsed = time.monotonic() - start
                    if elapsed > _PATIENCE and received / elapsed < _MIN_BYTES_PER_SECOND:
                        raise FetchError(f"{url} arrives too slowly; the transfer was given up.")
                    handle.write(chunk)
                    advance(len(chunk))
            if announced.isdigit() and received != int(announced):
                raise FetchError(f"The transfer of {url} was cut off; try again.")

    return fetch


def _open(session: Any, url: str) -> Any:
    origin = url
    for _ in range(_MAX_REDIRECTS + 1):
        response = session.get(
            url,
            stream=True,
            timeout=_TIMEOUT,
            allow_redirects=False,
            # the size and hash are those of the file itself
            headers={"Accept-Encoding": "identity"},
        )
        if response.status_code not in _REDIRECTS or "location" not in response.headers:
            return response
        response.close()
        url = urljoin(url, response.headers["location"])
        check_redirect(origin, url)
    raise FetchError(f"{origin} was redirected more than {_MAX_REDIRECTS} times.")


def check_redirect(origin: str, url: str) -> None:
    """Refuse a redirect to a file, to plain http, or into the machine's own network.

    Raises
    ------
    FetchError
        If the redirect is refused. A server may always redirect within itself, and one on the
        loopback device also to others there.
    """
    old, new = urlsplit(origin), urlsplit(url)
    if (old.scheme, old.hostname, old.port) == (new.scheme, new.hostname, new.port):
        return
    from_loopback = is_loopback(old.hostname or "")
    host = new.hostname or ""
    if from_loopback and is_loopback(host) and new.scheme in ("http", "https"):
        return
    if new.scheme != "https" or not host:
        reason = f"it leads to {new.scheme or 'nowhere'}://, only https:// is followed"
    elif _is_private(host):
        reason = f"it leads into a private network ({host})"
    else:
        return
    raise FetchError(f"A redirect of {origin} was refused: {reason}.")


def _is_private(host: str) -> bool:
    try:
        addresses = {ipaddress.ip_address(host)}
    except ValueError:
        try:
            found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
        except OSError:
            return is_loopback(host)  # behind a proxy names need not resolve here
        addresses = {ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found}
    return any(not address.is_global for address in addresses)


def _bar(url: str, total: int, show: bool) -> Any:
    """Progress on the terminal; a context manager that gives ``advance(n_bytes)``."""
    from contextlib import contextmanager

    @contextmanager
    def silent() -> Any:
        yield lambda _size: None

    @contextmanager
    def visible() -> Any:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, transient=True) as progress:
            task = progress.add_task(url.rpartition("/")[2], total=total)
            yield lambda size: progress.advance(task, size)

    return visible() if show else silent()


# --- the Hugging Face Hub ---------------------------------------------------------------------


def _from_hugging_face(folder: str, name: str, target: Path) -> Path:
    hub = import_huggingface_hub()
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    source = parse_hf(folder)
    path_in_repo = f"{source.folder}/{name}" if source.folder else name
    scratch = target / ".hf"
    try:
        found = Path(
            hub.hf_hub_download(
                source.repo,
                path_in_repo,
                revision=source.revision,
                local_dir=scratch,
                library_name="sczoo",
                endpoint=os.environ.get("HF_ENDPOINT") or None,
            )
        )
        os.replace(found, target / name)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise FetchError(
            f"{name} of {folder} could not be fetched ({_first_line(error)}). Check the network, "
            "the repository's name and revision, and your access: hf auth login."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target / name


def import_huggingface_hub() -> Any:
    """Import the optional library, or say how to install it."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise OptionalDependencyError(
            "The Hugging Face Hub needs an optional library: pip install 'sczoo[hub]'."
        ) from error
    return huggingface_hub


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return (
        f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
    )
