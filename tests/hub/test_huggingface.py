"""The Hugging Face Hub, spoken to by its own client through a server on this machine."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sczoo import hub
from sczoo.base._artefact import read_artefact
from sczoo.errors import FetchError, OptionalDependencyError, ReleaseGateError, SczooError

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as is needed to create a repository, commit to it and read from it."""

    protocol_version = "HTTP/1.1"

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, document):
        self.reply(200, json.dumps(document).encode(), Content_Type="application/json")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        files = self.server.files
        prefix, _, rest = self.path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        if prefix == "/org/repo" and revision in (COMMIT, "main") and name in files:
            data = files[name]
            self.reply(
                200,
                data,
                ETag=f'"{hashlib.sha256(data).hexdigest()}"',
                X_Repo_Commit=COMMIT,
                Content_Type="application/octet-stream",
            )
        else:
            self.reply(404, b"{}", X_Error_Code="EntryNotFound", X_Error_Message="not here")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.json({"url": f"http://{self.headers['Host']}/org/repo", "name": "org/repo"})
        elif "/preupload/" in self.path:
            wanted = json.loads(body)["files"]
            self.json(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in wanted
                    ]
                }
            )
        elif "/commit/" in self.path:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    value = item["value"]
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
            url = f"http://{self.headers['Host']}/org/repo/commit/{COMMIT}"
            self.json({"success": True, "commitOid": COMMIT, "commitUrl": url})
        elif self.path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        else:
            self.reply(404, b"{}")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def stub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    server.files, server.created = {}, []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield server
    server.shutdown()
    server.server_close()


def put(server, folder, prefix=""):
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            server.files[prefix + path.relative_to(folder).as_posix()] = path.read_bytes()


def test_push_then_fetch_by_commit(registry, stub, tmp_path):
    source = hub.push_to_hf("toy/small", "org/repo", registry=registry, token="hf_" + "a" * 34)
    assert source == f"hf://org/repo@{COMMIT}"
    assert stub.created[0]["name"] == "repo"
    created = stub.created[0]
    assert created.get("private") is True or created.get("visibility") == "private"
    folder = registry / "artefacts/toy/small/1"
    assert set(stub.files) == {p.name for p in folder.iterdir()} | {"README.md"}
    assert stub.files["README.md"] == stub.files["card.md"]
    assert stub.files["README.md"].startswith(b"---\nlibrary_name: sczoo\n")

    # a stranger has the index, and the files only from the Hub
    hub.add_source("toy/small:1", source, registry=registry)
    (registry / "artefacts").rename(tmp_path / "away")
    path = hub.pull("toy/small:1", registry=registry)
    assert read_artefact(path).record.name == "toy/small"
    assert {p.name for p in path.iterdir()} == set(stub.files) - {"README.md"}
    assert not (path / ".hf").exists()
    # and then without the Hub
    stub.files.clear()
    assert hub.pull("toy/small:1", registry=registry) == path


def test_a_registry_in_a_repository(registry, stub):
    put(stub, registry)
    location = "hf://org/repo@main"
    assert [e.name for e in hub.list_artefacts("toy/*", registry=location)] == ["toy/small:1"]
    assert read_artefact(hub.pull("toy/small", registry=location)).tensors()


def test_files_swapped_in_the_repository(registry, stub):
    put(stub, registry)
    name = "artefacts/toy/small/1/weights.safetensors"
    stub.files[name] = stub.files[name][:-1] + b"\x55"
    with pytest.raises(SczooError, match="another hash"):
        hub.pull("toy/small", registry="hf://org/repo@main")
    stub.files[name] += b"more"
    with pytest.raises(SczooError, match="larger than"):
        hub.pull("toy/small", registry="hf://org/repo@main")


def test_what_is_not_there(registry, stub):
    with pytest.raises(FetchError, match="could not be fetched"):
        hub.pull("toy/small", registry="hf://org/nothing@main")
    put(stub, registry)
    del stub.files["artefacts/toy/small/1/genes.tsv"]
    with pytest.raises(FetchError, match=r"genes\.tsv"):
        hub.pull("toy/small", registry="hf://org/repo@main")


def test_the_gate_stands_before_the_push(tmp_path, save, add, stub):
    add(
        tmp_path / "r",
        save(tmp_path / "a", provenance={"n_cells": 777, "seed": 0, "held_out_donors": ["x"]}),
    )
    with pytest.raises(ReleaseGateError, match="held_out_donors"):
        hub.push_to_hf("toy/small", "org/repo", registry=tmp_path / "r")
    assert stub.files == {}


def test_a_hub_that_refuses(registry, stub, monkeypatch):
    monkeypatch.setattr(Hub, "do_POST", lambda self: self.reply(403, b"{}"))
    with pytest.raises(FetchError, match="could not be written"):
        hub.push_to_hf("toy/small", "org/repo", registry=registry)


def test_without_the_optional_library(registry, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(OptionalDependencyError, match=r"pip install 'sczoo\[hub\]'"):
        hub.push_to_hf("toy/small", "org/repo", registry=registry)
    with pytest.raises(OptionalDependencyError, match=r"sczoo\[hub\]"):
        hub.list_artefacts(registry="hf://org/repo@main")
