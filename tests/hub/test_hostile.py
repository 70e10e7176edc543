"""Hostile servers and damaged artefacts: a typed error, nothing lost, nothing run.

Every case begins with a good artefact in the cache and a server that has turned against its users.
Whatever it serves for one file, the client gives a typed error within seconds, or what the
registry describes; it runs nothing, writes nothing outside its cache, keeps nothing of the attack
and still has what it had.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from tempfile import gettempdir

import pytest
import yaml

from sczoo import hub
from sczoo.base._artefact import read_artefact
from sczoo.base._files import sha256_bytes
from sczoo.errors import FetchError, SczooError
from sczoo.hub import _download, _fetch, _indexes

PLACE = "/artefacts/toy/small/2"
INDEX = "registry.yaml"
FILES = (
    "manifest.json",
    "artefact.json",
    "weights.safetensors",
    "genes.tsv",
    "selftest.safetensors",
    "card.md",
)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["SCZOO_TEST_BOMB"],)


class Watch:
    """Notes programs that are started, code that is compiled, and files written elsewhere."""

    def __init__(self):
        self.allowed = None
        self.seen = []

    def __call__(self, event, arguments):
        if self.allowed is None:
            return
        if event in ("os.system", "compile") or event.startswith(
            ("subprocess.", "os.exec", "os.spawn", "os.posix_spawn")
        ):
            self.seen.append((event, str(arguments)[:200]))
        if event != "open" or not isinstance(arguments[1], str):
            return
        # the client's scratch folders lie in the temporary folder; its cache in the test's
        elsewhere = not str(arguments[0]).startswith((self.allowed, gettempdir(), os.devnull))
        if set(arguments[1]) & set("wax+") and elsewhere:
            self.seen.append((event, str(arguments)[:200]))


WATCH = Watch()
sys.addaudithook(WATCH)


def respond(status, body=b"", *headers, length=None, stall=False):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        if stall:
            try:
                for _ in range(300):
                    handler.wfile.write(b"x")
                    time.sleep(0.01)
            except OSError:
                pass
        else:
            handler.wfile.write(body)

    return answer


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../escaped", "x")
    return buffer.getvalue()


def flipped(data):
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


def redirect_to_itself(handler):
    respond(302, b"", ("Location", handler.path))(handler)


def redirect(target):
    return lambda data: respond(302, b"", ("Location", target))


# What the server sends in place of a file: data -> answer.
ATTACKS = {
    "one bit changed": lambda d: respond(200, flipped(d)),
    "one byte more": lambda d: respond(200, d + b"\n"),
    "cut off": lambda d: respond(200, d[:-3]),
    "cut off, length as stated": lambda d: respond(200, d[:-3], length=len(d)),
    "empty": lambda d: respond(200, b""),
    "zeros of the right size": lambda d: respond(200, b"\0" * len(d)),
    "a page of the hotel": lambda d: respond(200, b"<html><script>x()</script>Wi-Fi</html>"),
    "a pickle": lambda d: respond(200, pickle.dumps(Bomb())),
    "an archive": lambda d: respond(200, zipped()),
    "compressed": lambda d: respond(200, gzip.compress(d), ("Content-Encoding", "gzip")),
    "not there": lambda d: respond(404, b"no"),
    "broken": lambda d: respond(500, b"no"),
    "wrong range": lambda d: respond(416, b"no"),
    "a tebibyte announced": lambda d: respond(200, d, length=1 << 40),
    "dripping": lambda d: respond(200, b"", length=len(d) + 300, stall=True),
    "redirect to a file": redirect("file:///etc/passwd"),
    "redirect to a private address": redirect("https://10.0.0.1/x"),
    "redirect to metadata of a cloud": redirect("http://169.254.169.254/latest"),
    "redirect to itself": lambda d: redirect_to_itself,
    "redirect to nowhere": redirect("https:///"),
}


@pytest.fixture
def attacked(registry, artefact, add, serve, tmp_path, monkeypatch):
    """A server whose first version is in the cache already; its second is asked for."""
    monkeypatch.setattr(_download, "_PATIENCE", 0.1)
    monkeypatch.setattr(_indexes, "FRESH_SECONDS", -1.0)
    monkeypatch.setenv("SCZOO_TEST_BOMB", str(tmp_path / "bomb-went-off"))
    # waiting for a disk is what takes the time here; crashes are tested elsewhere
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    server = serve(registry)
    first = hub.pull("toy/small:1", registry=server.url)
    add(registry, artefact)
    yield server, first
    WATCH.allowed = None


def leftovers(tmp_path):
    folder = tmp_path / "cache" / "artefacts"
    return {p.name for p in folder.iterdir() if not p.name.endswith(".lock")}


@pytest.mark.parametrize("file", [*FILES, INDEX])
def test_a_server_that_turned(attacked, registry, tmp_path, file, record_property):
    server, first = attacked
    path = f"/{INDEX}" if file == INDEX else f"{PLACE}/{file}"
    data = (registry / path.lstrip("/")).read_bytes()
    before = leftovers(tmp_path)
    index = {kept: kept.read_bytes() for kept in (tmp_path / "cache/indexes").glob("*.yaml")}
    for attack, answer in ATTACKS.items():
        server.special[path] = answer(data)
        WATCH.seen.clear()
        WATCH.allowed = str(tmp_path)
        start = time.monotonic()
        if (file, attack) == (INDEX, "one byte more"):  # a line feed: the same index
            assert hub.pull("toy/small:1", registry=server.url) == first
        else:
            with pytest.raises(SczooError) as error:
                hub.pull("toy/small:2", registry=server.url)
            assert len(str(error.value)) > 20, attack
        assert time.monotonic() - start < 10, attack
        WATCH.allowed = None
        assert WATCH.seen == [], attack
        assert not (tmp_path / "bomb-went-off").exists(), attack
        # nothing of it was kept, and nothing was lost
        assert leftovers(tmp_path) == before, attack
        assert read_artefact(first).record.version == 1
        # and when the server is itself again, all is well
        server.special.clear()
        second = hub.pull("toy/small:2", registry=server.url)
        assert read_artefact(second).record.version == 2, attack
        shutil.rmtree(second)
        for kept, content in index.items():
            kept.write_bytes(content)
    record_property("cases", len(ATTACKS))


# --- the owner of the registry is the attacker: every hash is right ---------------------------


def rehash(registry):
    """Let manifest and index agree with the files as they are, as only their owner can."""
    folder = registry / PLACE.lstrip("/")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": sha256_bytes(data), "size": len(data)}
    content = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(content)
    index = yaml.safe_load((registry / INDEX).read_bytes())
    entry = next(e for e in index["entries"] if e["version"] == 2)
    entry["manifest_sha256"] = sha256_bytes(content)
    entry["size"] = len(content) + sum(f["size"] for f in manifest["files"].values())
    index["index_version"] += 1
    (registry / INDEX).write_text(yaml.safe_dump(index, sort_keys=False))


def edit_record(**changes):
    def change(folder):
        path = folder / "artefact.json"
        document = json.loads(path.read_bytes())
        document.update(changes)
        path.write_text(json.dumps(document))

    return change


def put(name, content):
    return lambda folder: (folder / name).write_bytes(content() if callable(content) else content)


OWNERS = {
    "a method that names code": edit_record(method="os:system"),
    "an unknown key": edit_record(on_load="import os"),
    "a newer schema": edit_record(schema=99),
    "another name inside": edit_record(name="toy/other"),
    "another kind inside": edit_record(kind="dataset"),
    "a setup method that is none": edit_record(setup={"method": "__reduce__", "args": {}}),
    "deep nesting": lambda folder: put("artefact.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000)(
        folder
    ),
    "twice the same key": put("artefact.json", b'{"schema": 1, "schema": 1}'),
    "NaN in JSON": put("artefact.json", b'{"schema": 1, "domain": {"a": NaN}}'),
    "a pickle as weights": put("weights.safetensors", lambda: pickle.dumps(Bomb())),
    "an archive as weights": put("weights.safetensors", zipped),
    "a header longer than the file": put("weights.safetensors", b"\xff" * 7 + b"\x7f{}"),
    "arrays that overlap": put(
        "weights.safetensors",
        lambda: (lambda h: len(h).to_bytes(8, "little") + h + b"\0" * 8)(
            json.dumps(
                {
                    name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
                    for name in ("a", "b")
                }
            ).encode()
        ),
    ),
    "genes with a path": put("genes.tsv", b"id\tsymbol\timportance\n../../x\t\t\n"),
    "genes that are binary": put("genes.tsv", b"\x00\xff\xfe" * 40),
    "a pickle as self-test": put("selftest.safetensors", lambda: pickle.dumps(Bomb())),
}


def read_whole(name, registry):
    opened = _fetch.fetch(name, registry)
    return opened.genes(), opened.tensors(), opened.selftest()


@pytest.mark.parametrize("case", sorted(OWNERS))
def test_hashes_that_are_right_do_not_help(attacked, registry, tmp_path, case):
    server, first = attacked
    OWNERS[case](registry / PLACE.lstrip("/"))
    rehash(registry)
    WATCH.seen.clear()
    WATCH.allowed = str(tmp_path)
    start = time.monotonic()
    with pytest.raises(SczooError):
        read_whole("toy/small:2", server.url)
    assert time.monotonic() - start < 10
    WATCH.allowed = None
    assert WATCH.seen == []
    assert not (tmp_path / "bomb-went-off").exists()
    assert read_artefact(first).record.version == 1


@pytest.mark.parametrize("name", ["../../escaped", "/etc/passwd", "a/b", "model.pt", "x\0y", ""])
def test_a_manifest_that_lists_other_files(attacked, registry, tmp_path, name):
    server, _ = attacked
    path = registry / PLACE.lstrip("/") / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"][name] = {"sha256": "0" * 64, "size": 4}
    path.write_text(json.dumps(manifest))
    index = yaml.safe_load((registry / INDEX).read_bytes())
    index["entries"][-1]["manifest_sha256"] = sha256_bytes(path.read_bytes())
    (registry / INDEX).write_text(yaml.safe_dump(index, sort_keys=False))
    with pytest.raises(SczooError, match="may not hold"):
        hub.pull("toy/small:2", registry=server.url)
    assert not (tmp_path.parent / "escaped").exists()


# --- layers -----------------------------------------------------------------------------------


def test_a_later_registry_cannot_touch_what_an_earlier_one_pinned(
    attacked, registry, save, add, serve, tmp_path
):
    """The later one wins by name, which is what layers are for; by hash nothing is replaced."""
    server, first = attacked
    other = save(tmp_path / "other", attributes={"theirs": 1})
    add(tmp_path / "second", other)
    second = serve(tmp_path / "second")
    theirs = hub.pull("toy/small:1", registry=[server.url, second.url])
    assert theirs != first
    assert hub.pull("toy/small:1", registry=[second.url, server.url]) == first
    assert hub.pull("toy/small:1", registry=server.url) == first
    hub.revoke("toy/small:1", "Made of the wrong patients.", registry=tmp_path / "second")
    with pytest.raises(SczooError, match="wrong patients"):
        hub.pull("toy/small:1", registry=[server.url, second.url])
    assert hub.pull("toy/small:1", registry=server.url) == first


def test_a_layer_that_does_not_answer_is_an_error_not_a_gap(attacked):
    """Otherwise whoever blocks one registry would choose which artefact a name means."""
    server, _ = attacked
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError):
        hub.pull("toy/small:1", registry=[server.url, f"http://127.0.0.1:{port}"])


# --- several processes, full and read-only disks ----------------------------------------------

_PULL = "import sys; from sczoo import hub; print(hub.pull('toy/small:2', registry=sys.argv[1]))"


def start_pulling(url):
    hub.read_registry(url)  # the copy that is kept is fresh to the other process
    return subprocess.Popen(
        [sys.executable, "-c", _PULL, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_at_once_fetch_once(attacked, tmp_path):
    server, _ = attacked
    running = [start_pulling(server.url) for _ in range(4)]
    told = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, told
    assert len({out for out, _ in told}) == 1
    assert server.requests.count(f"{PLACE}/weights.safetensors") == 1
    assert read_artefact(told[0][0].strip()).record.version == 2


def test_a_process_killed_while_fetching_leaves_nothing_half(attacked, registry, tmp_path):
    server, first = attacked
    arrived = []

    def hang(handler):
        arrived.append(1)
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)
        time.sleep(5)

    server.special[f"{PLACE}/weights.safetensors"] = hang
    process = start_pulling(server.url)
    deadline = time.monotonic() + 30
    while not arrived and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert arrived
    server.special.clear()
    second = hub.pull("toy/small:2", registry=server.url)
    assert read_artefact(second).record.version == 2
    assert leftovers(tmp_path) == {first.name, second.name}


@pytest.mark.parametrize("when", ["in a file", "at its end", "renaming"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_or_broken_disk(attacked, tmp_path, monkeypatch, when, code):
    server, first = attacked
    hub.read_registry(server.url)
    monkeypatch.setattr(_indexes, "FRESH_SECONDS", 3600.0)
    before = leftovers(tmp_path)

    def fail(*_arguments, **_keywords):
        raise OSError(code, os.strerror(code))

    class Full(io.FileIO):
        write = fail

    with monkeypatch.context() as patch:
        if when == "in a file":
            patch.setattr(_download, "open", Full, raising=False)
        elif when == "at its end":
            patch.setattr(os, "fsync", fail)
        else:
            patch.setattr(os, "rename", fail)
            patch.setattr(os, "replace", fail)
        with pytest.raises(SczooError, match=os.strerror(code)):
            hub.pull("toy/small:2", registry=server.url)
    assert leftovers(tmp_path) == before
    assert read_artefact(first).record.version == 1
    assert hub.pull("toy/small:2", registry=server.url).is_dir()


def read_only(patch):
    def fail(*_arguments, **_keywords):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for module in (_fetch, _indexes):
        patch.setattr(module, "lock_beside", fail)
    patch.setattr(_indexes, "write_file_atomically", fail)
    patch.setattr(_fetch, "write_tree_atomically", fail)


def test_a_read_only_cache_that_is_warm_serves(attacked, monkeypatch):
    server, first = attacked
    with monkeypatch.context() as patch:
        read_only(patch)
        assert hub.pull("toy/small:1", registry=server.url) == first
        with pytest.raises(FetchError, match="SCZOO_CACHE_DIR"):
            hub.pull("toy/small:2", registry=server.url)
    assert hub.pull("toy/small:2", registry=server.url).is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody else may")
def test_a_cache_without_permission_to_write(attacked, tmp_path):
    server, first = attacked
    folders = [tmp_path / "cache", *(p for p in (tmp_path / "cache").rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert hub.pull("toy/small:1", registry=server.url) == first
        with pytest.raises(FetchError, match="SCZOO_CACHE_DIR"):
            hub.pull("toy/small:2", registry=server.url)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_without_network_the_warm_cache_serves_and_the_cold_one_says_so(attacked, monkeypatch):
    server, first = attacked
    hub.read_registry(server.url)
    seen = len(server.requests)
    for name in ("SCZOO_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert hub.pull("toy/small:1", registry=server.url) == first
            with pytest.raises(FetchError, match="forbids the network"):
                hub.pull("toy/small:2", registry=server.url)
    assert len(server.requests) == seen
