"""Downloading: into the cache, whole or not at all, from servers good and bad.

The server is a thread of this process; the table is replaced by one with a single small file.
"""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sczoo import datasets
from sczoo.datasets import _table
from sczoo.errors import FetchError, IntegrityError


class Server(ThreadingHTTPServer):
    """Serves ``content`` for the one path, and counts what was asked of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.status, self.announced, self.asked = b"", 200, None, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        found = self.path == "/data/pbmc3k.h5ad"
        content = self.server.content if found else b""
        self.send_response(self.server.status if found else 404)
        self.send_header("Content-Length", str(self.server.announced or len(content)))
        self.end_headers()
        try:
            self.wfile.write(content)
        except ConnectionError:
            pass  # the client hung up, which is what some tests are about

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("SCZOO_DATA_URL", server.url)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("SCZOO_DATA_DIR", raising=False)
    monkeypatch.setenv("SCZOO_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def content(tmp_path, monkeypatch):
    """Bytes of a small h5ad, which the table now calls pbmc3k."""
    rng = np.random.default_rng(0)
    adata = AnnData(rng.poisson(1.0, (20, 10)).astype(np.float32))
    adata.obs["cell_type"] = pd.Categorical(["a", "b"] * 10)
    path = tmp_path / "small.h5ad"
    adata.write_h5ad(path)
    content = path.read_bytes()
    info = _table.table()["pbmc3k"].model_copy(
        update={"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    )
    monkeypatch.setitem(_table.table(), "pbmc3k", info)
    return content


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_downloaded_once_then_used_without_network(server, cache, content, monkeypatch):
    server.content = content
    assert datasets.load("pbmc3k").shape == (20, 10)
    assert server.asked == 1
    path = datasets.fetch("pbmc3k")
    assert path.read_bytes() == content
    assert path.is_relative_to(cache)
    assert files_in(cache) == [path]
    monkeypatch.delenv("SCZOO_DATA_URL")
    assert datasets.load("pbmc3k").shape == (20, 10)
    assert server.asked == 1


def test_the_mirror_comes_first_and_the_server_second(
    server, cache, content, tmp_path, monkeypatch
):
    server.content = content
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("SCZOO_DATA_DIR", str(mirror))
    assert datasets.fetch("pbmc3k").is_relative_to(cache)
    (mirror / "pbmc3k.h5ad").write_bytes(content)
    assert datasets.fetch("pbmc3k") == mirror / "pbmc3k.h5ad"
    assert server.asked == 1


def test_another_file_of_the_same_size_is_refused(server, cache, content):
    server.content = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(IntegrityError, match="not the file on record"):
        datasets.load("pbmc3k")
    assert files_in(cache) == []


def test_a_larger_file_is_cut_off(server, cache, content):
    server.content = content + bytes(5_000_000)
    with pytest.raises(IntegrityError, match="sends more than"):
        datasets.load("pbmc3k")
    assert files_in(cache) == []


def test_a_shorter_file_is_refused(server, cache, content):
    server.content = content[:-100]
    with pytest.raises(IntegrityError):
        datasets.load("pbmc3k")
    assert files_in(cache) == []


def test_a_transfer_cut_short_is_refused(server, cache, content):
    server.content, server.announced = content[:-100], len(content)
    with pytest.raises((FetchError, IntegrityError)):
        datasets.load("pbmc3k")
    assert files_in(cache) == []


@pytest.mark.parametrize("status", [404, 416, 500])
def test_server_errors_are_typed(server, cache, content, status):
    server.content, server.status = content, status
    with pytest.raises(FetchError, match=str(status)):
        datasets.load("pbmc3k")
    assert files_in(cache) == []


def test_nobody_listening_is_typed(cache, content, monkeypatch):
    monkeypatch.setenv("SCZOO_DATA_URL", "http://127.0.0.1:9/")
    with pytest.raises(FetchError, match="could not be downloaded"):
        datasets.load("pbmc3k")


@pytest.mark.parametrize(
    "url", ["http://example.org/data", "ftp://example.org/", "file:///etc", "/data", "nonsense"]
)
def test_unsafe_addresses_are_refused_before_any_request(url, cache, content, monkeypatch):
    monkeypatch.setenv("SCZOO_DATA_URL", url)
    with pytest.raises(FetchError, match="use an https address"):
        datasets.load("pbmc3k")


def test_a_damaged_cache_is_replaced_by_a_good_download(server, cache, content):
    server.content = content
    path = datasets.fetch("pbmc3k")
    path.write_bytes(content[:50])
    assert datasets.load("pbmc3k").n_obs == 20
    assert path.read_bytes() == content
    assert server.asked == 2


def test_a_damaged_cache_stays_when_it_cannot_be_replaced(server, cache, content, monkeypatch):
    server.content = content
    path = datasets.fetch("pbmc3k")
    path.write_bytes(content[:50])
    monkeypatch.delenv("SCZOO_DATA_URL")
    with pytest.raises(FetchError, match="No intact copy"):
        datasets.load("pbmc3k")
    assert path.read_bytes() == content[:50]


def test_a_cache_that_cannot_be_written_is_named(server, content, tmp_path, monkeypatch):
    monkeypatch.delenv("SCZOO_DATA_DIR", raising=False)
    blocker = tmp_path / "file"
    blocker.write_bytes(b"")
    monkeypatch.setenv("SCZOO_CACHE_DIR", str(blocker / "cache"))
    server.content = content
    with pytest.raises(FetchError, match="SCZOO_CACHE_DIR"):
        datasets.load("pbmc3k")


def test_concurrent_downloads_agree(server, cache, content):
    server.content = content
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(datasets.fetch("pbmc3k").read_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [content] * 4
    assert len(files_in(cache)) == 1
