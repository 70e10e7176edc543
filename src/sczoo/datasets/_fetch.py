"""Find the file of a named dataset: local mirror, then cache, then the configured server.

A file is used only when its size and sha256 are those of the table. The mirror is read in place
and never written to; downloads go through pooch into the cache, where they appear whole or not
at all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from sczoo.datasets._read import difference
from sczoo.datasets._table import find
from sczoo.errors import FetchError, IntegrityError

if TYPE_CHECKING:
    from sczoo.datasets._table import DatasetInfo

__all__ = ["fetch", "fetch_checked"]

_TIMEOUT_SECONDS = 30
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def fetch(name: str) -> Path:
    """Return the checked file of a named dataset, downloading it when that is needed.

    Use it to read a dataset backed (``anndata.read_h5ad(path, backed="r")``) or with another
    program; :func:`load` reads it into memory.

    Parameters
    ----------
    name
        A name from :func:`list_datasets`.

    Returns
    -------
    Path of an h5ad in ``SCZOO_DATA_DIR`` or in the cache. Treat it as read-only.

    Raises
    ------
    sczoo.errors.UnknownArtefactError
        There is no dataset of that name.
    sczoo.errors.FetchError
        The file is neither here nor to be had; the message says what to set.
    sczoo.errors.IntegrityError
        The file differs from the one on record. It is left as it was.
    """
    return fetch_checked(find(name))[0]


def fetch_checked(info: DatasetInfo) -> tuple[Path, bytes]:
    """Return the file and its checked bytes, so that a reader need not trust the disk twice."""
    mirrored = _mirrored(info)
    if mirrored is not None:
        return mirrored, _checked(mirrored, info)
    cached = _cache_folder() / info.sha256[:16] / info.filename
    if cached.is_file():
        content = _read(cached)
        if difference(content, size=info.size, sha256=info.sha256) is None:
            return cached, content
        # A damaged cache is ours to replace, unlike a mirror: pooch downloads it again.
    _download(info, cached)
    return cached, _checked(cached, info)


def _mirrored(info: DatasetInfo) -> Path | None:
    setting = os.environ.get("SCZOO_DATA_DIR", "").strip()
    if not setting:
        return None
    folder = Path(setting).expanduser()
    if not folder.is_dir():
        raise FetchError(
            f"SCZOO_DATA_DIR is set to {setting!r}, which is not a folder: set it to the folder "
            f"that holds {info.filename}, or unset it."
        )
    path = folder / info.filename
    return path if path.is_file() else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FetchError(
            f"{path} cannot be read ({error.strerror}): check its permissions."
        ) from error


def _checked(path: Path, info: DatasetInfo) -> bytes:
    content = _read(path)
    problem = difference(content, size=info.size, sha256=info.sha256)
    if problem is not None:
        raise IntegrityError(
            f"{path} is not the file on record for dataset {info.name!r}: {problem}. It was left "
            "as it is and nothing was read from it; replace it with an intact copy."
        )
    return content


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    setting = os.environ.get("SCZOO_CACHE_DIR", "").strip()
    root = Path(setting).expanduser() if setting else user_cache_path("sczoo")
    return root / "datasets"


def _base_url(info: DatasetInfo) -> str:
    url = os.environ.get("SCZOO_DATA_URL", "").strip()
    if not url:
        folder = os.environ.get("SCZOO_DATA_DIR", "").strip()
        where = f"in SCZOO_DATA_DIR ({folder}) or in the cache" if folder else "in the cache"
        raise FetchError(
            f"No intact copy of dataset {info.name!r} ({info.size / 2**20:.1f} MiB) is {where}, "
            "and the datasets of sczoo are not hosted publicly yet. Set SCZOO_DATA_DIR to a "
            f"folder that holds {info.filename} (sha256 {info.sha256}), or SCZOO_DATA_URL to the "
            "https address of a folder that serves it. For real data without a download use "
            "sczoo.datasets.kang_ifnb_demo()."
        )
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return url.rstrip("/") + "/"
    raise FetchError(
        f"SCZOO_DATA_URL is {url!r}: use an https address (http only for this very machine), or "
        "SCZOO_DATA_DIR for a folder."
    )


class _AtMost:
    """A file that refuses more bytes than the table announces, so no server can fill the disk."""

    def __init__(self, file: BinaryIO, info: DatasetInfo) -> None:
        self._file, self._info, self._left = file, info, info.size

    def write(self, chunk: bytes) -> int:
        self._left -= len(chunk)
        if self._left < 0:
            raise IntegrityError(
                f"The server of SCZOO_DATA_URL sends more than the {self._info.size:,} bytes on "
                f"record for {self._info.filename}: nothing was kept. Check the address."
            )
        return self._file.write(chunk)

    def flush(self) -> None:
        self._file.flush()


def _download(info: DatasetInfo, target: Path) -> None:
    base_url = _base_url(info)
    import pooch
    from requests import RequestException

    progress = sys.stderr.isatty()
    connect = pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS, progressbar=progress)

    def download(url: str, output_file: str, cache: Any) -> None:
        with open(output_file, "wb") as file:
            connect(url, _AtMost(file, info), cache)

    source = pooch.create(
        path=target.parent,
        base_url=base_url,
        registry={info.filename: f"sha256:{info.sha256}"},
        retry_if_failed=1,
    )
    try:
        source.fetch(info.filename, downloader=download)
    except RequestException as error:
        raise FetchError(
            f"{base_url}{info.filename} could not be downloaded ({error}): check the network and "
            "SCZOO_DATA_URL, or set SCZOO_DATA_DIR to a folder that holds the file."
        ) from error
    except ValueError as error:  # pooch's word for a hash that does not match
        raise IntegrityError(
            f"{base_url}{info.filename} is not the file on record (sha256 {info.sha256}): nothing "
            "was kept. The server holds another version or the transfer was cut short."
        ) from error
    except OSError as error:
        raise FetchError(
            f"{target} cannot be written ({error}): free some space there, or set "
            "SCZOO_CACHE_DIR to a folder that can be written to."
        ) from error
