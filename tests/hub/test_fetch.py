"""Fetching: from every kind of source, checked before parsed, kept by hash, without network."""

import os
import shutil
import socket
import time

import pytest
import yaml

from sczoo import hub
from sczoo.base._artefact import read_artefact
from sczoo.errors import (
    FetchError,
    IntegrityError,
    RegistryError,
    RevokedError,
    SczooError,
)
from sczoo.hub import _download, _indexes
from sczoo.hub._cache import artefact_cache
from sczoo.hub._download import check_redirect
from sczoo.hub._registry import find
from sczoo.hub._sources import join

PLACE = "/artefacts/toy/small/1"


def edit(registry, change):
    path = registry / "registry.yaml"
    document = yaml.safe_load(path.read_text())
    change(document["entries"][0])
    document["index_version"] += 1
    path.write_text(yaml.safe_dump(document, sort_keys=False))


@pytest.fixture
def no_network(monkeypatch):
    """Make every use of a socket an error of its own."""

    def refuse(*_arguments, **_keywords):
        raise AssertionError("the network was used")

    def arm():
        for name in ("connect", "connect_ex", "sendto", "bind"):
            monkeypatch.setattr(socket.socket, name, refuse)
        for name in ("getaddrinfo", "create_connection", "gethostbyname"):
            monkeypatch.setattr(socket, name, refuse)

    return arm


def cached_names(tmp_path):
    folder = tmp_path / "cache" / "artefacts"
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


# --- sources ----------------------------------------------------------------------------------


def test_relative_source_is_used_where_it_lies(registry, tmp_path):
    path = hub.pull("toy/small", registry=registry)
    assert path == registry / "artefacts" / "toy" / "small" / "1"
    assert cached_names(tmp_path) == []


def test_file_source(registry, tmp_path):
    elsewhere = tmp_path / "else where"
    shutil.move(registry / "artefacts", elsewhere)
    edit(registry, lambda e: e.update(sources=[f"file://{elsewhere}/toy/small/1"]))
    assert hub.pull("toy/small", registry=registry) == elsewhere / "toy" / "small" / "1"


def test_package_source(registry, tmp_path, monkeypatch):
    package = tmp_path / "site" / "some_zoo"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    shutil.move(registry / "artefacts", package / "pretrained")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    edit(registry, lambda e: e.update(sources=["package://some_zoo/pretrained/toy/small/1"]))
    assert hub.pull("toy/small", registry=registry).parent.parent.parent.name == "pretrained"
    edit(registry, lambda e: e.update(sources=["package://not_there/x"]))
    with pytest.raises(FetchError, match="pip install not_there"):
        hub.pull("toy/small", registry=registry)


def test_web_source_and_then_without_network(registry, tmp_path, serve, no_network):
    server = serve(registry)
    path = hub.pull("toy/small", registry=server.url)
    entry = hub.show("toy/small", registry=server.url)
    assert path == artefact_cache(entry.manifest_sha256)
    assert read_artefact(path).record.name == "toy/small"
    assert sorted(p.name for p in path.iterdir()) == sorted(
        p.name for p in (registry / "artefacts/toy/small/1").iterdir()
    )
    requests = list(server.requests)
    no_network()
    assert hub.pull("toy/small", registry=server.url) == path
    assert server.requests == requests
    assert hub.list_artefacts("toy/*", registry=server.url)[0].name == "toy/small:1"


def test_index_may_be_named_by_its_file(registry, serve):
    server = serve(registry)
    assert hub.pull("toy/small", registry=f"{server.url}/registry.yaml").is_dir()


def test_sources_are_tried_in_order(registry, tmp_path, serve):
    server = serve(registry)
    good = f"{server.url}{PLACE}"
    edit(registry, lambda e: e.update(sources=["not/there", f"file://{tmp_path}/nothing", good]))
    assert hub.pull("toy/small", registry=registry).is_dir()
    edit(registry, lambda e: e.update(sources=["not/there", "nor/there"]))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(FetchError, match=r"\[1\].*\[2\]"):
        hub.pull("toy/small", registry=registry)


# --- what is refused --------------------------------------------------------------------------


def damage_weights(registry):
    path = registry / "artefacts/toy/small/1/weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("remote", [False, True])
def test_wrong_hash(registry, serve, tmp_path, remote):
    damage_weights(registry)
    location = serve(registry).url if remote else registry
    with pytest.raises(SczooError, match="another hash"):
        hub.pull("toy/small", registry=location)
    assert cached_names(tmp_path) == []


@pytest.mark.parametrize("remote", [False, True])
def test_another_artefact_in_its_place(registry, serve, tmp_path, save, add, remote):
    """A whole and valid artefact, but not the one that was published."""
    other = save(tmp_path / "other", name="toy/small", version=1, attributes={"a": 1})
    shutil.rmtree(registry / "artefacts/toy/small/1")
    shutil.copytree(other, registry / "artefacts/toy/small/1")
    location = serve(registry).url if remote else registry
    with pytest.raises(SczooError, match=r"not the artefact that was published|another hash"):
        hub.pull("toy/small", registry=location)
    assert cached_names(tmp_path) == []


@pytest.mark.parametrize("remote", [False, True])
def test_right_hash_wrong_size(registry, serve, tmp_path, remote):
    edit(registry, lambda e: e.update(size=e["size"] + 1))
    location = serve(registry).url if remote else registry
    with pytest.raises(IntegrityError, match="the registry says"):
        hub.pull("toy/small", registry=location)
    assert cached_names(tmp_path) == []


@pytest.mark.parametrize(
    "change", [{"method": "other"}, {"id": "toy/other"}, {"kind": "dataset"}, {"version": 3}]
)
def test_entry_and_artefact_must_agree(registry, change):
    edit(registry, lambda e: e.update(change))
    name = change.get("id", "toy/small")
    with pytest.raises(IntegrityError, match="mixed up"):
        hub.pull(name, registry=registry)


def send(status, headers=(), body=b"", length=None):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_truncated_download(registry, serve, tmp_path):
    server = serve(registry)
    data = (registry / "artefacts/toy/small/1/weights.safetensors").read_bytes()
    server.special[f"{PLACE}/weights.safetensors"] = send(200, body=data[:-9], length=len(data))
    with pytest.raises(FetchError):
        hub.pull("toy/small", registry=server.url)
    server.special[f"{PLACE}/weights.safetensors"] = send(200, body=data[:-9])
    with pytest.raises(IntegrityError, match="another hash"):
        hub.pull("toy/small", registry=server.url)
    assert cached_names(tmp_path) == []
    server.special.clear()
    assert hub.pull("toy/small", registry=server.url).is_dir()


@pytest.mark.parametrize("announce", [False, True])
def test_more_bytes_than_stated_are_not_read(registry, serve, announce):
    server = serve(registry)
    sent = []

    def endless(handler):
        handler.send_response(200)
        if announce:
            handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        try:
            for _ in range(4_000):
                handler.wfile.write(b"x" * (1 << 16))
                sent.append(1 << 16)
        except OSError:
            pass  # the client hung up

    server.special[f"{PLACE}/weights.safetensors"] = endless
    with pytest.raises(IntegrityError, match="larger than"):
        hub.pull("toy/small", registry=server.url)
    assert sum(sent) < 64 << 20


@pytest.mark.parametrize("status", [404, 403, 416, 500, 503])
def test_errors_of_the_server(registry, serve, status):
    server = serve(registry)
    server.special[f"{PLACE}/genes.tsv"] = send(status, body=b"no")
    with pytest.raises(FetchError, match=str(status)):
        hub.pull("toy/small", registry=server.url)


def test_a_server_that_drips(registry, serve, monkeypatch):
    monkeypatch.setattr(_download, "_PATIENCE", 0.2)
    server = serve(registry)

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b"x")
                time.sleep(0.02)
        except OSError:
            pass

    server.special[f"{PLACE}/genes.tsv"] = drip
    with pytest.raises(FetchError, match="too slowly"):
        hub.pull("toy/small", registry=server.url)


def test_nobody_answers(registry):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError, match="Check the network"):
        hub.pull("toy/small", registry=f"http://127.0.0.1:{port}")


# --- redirects --------------------------------------------------------------------------------


def test_redirect_within_the_loopback_device_is_followed(registry, serve):
    server, other = serve(registry), serve(registry)
    server.special[f"{PLACE}/genes.tsv"] = send(
        302, [("Location", f"{other.url}{PLACE}/genes.tsv")]
    )
    assert hub.pull("toy/small", registry=server.url).is_dir()
    assert f"{PLACE}/genes.tsv" in other.requests


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://example.org/x", "http://example.org/x", "http://10.0.0.1/x"],
)
def test_redirects_elsewhere_are_refused(registry, serve, target):
    server = serve(registry)
    server.special[f"{PLACE}/genes.tsv"] = send(302, [("Location", target)])
    with pytest.raises(FetchError, match="redirect"):
        hub.pull("toy/small", registry=server.url)


def test_endless_redirects(registry, serve):
    server = serve(registry)
    path = f"{PLACE}/genes.tsv"
    server.special[path] = send(302, [("Location", path)])
    with pytest.raises(FetchError, match="more than"):
        hub.pull("toy/small", registry=server.url)


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "http://example.org/x",
        "http://127.0.0.1/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://10.1.2.3/x",
        "https://192.168.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/x",
        "https://0.0.0.0/x",
        "//127.0.0.1/x",
        "javascript:alert(1)",
    ],
)
def test_redirects_of_a_public_server_into_this_network(target):
    with pytest.raises(FetchError, match="refused"):
        check_redirect("https://zoo.example.org/a", target)


def test_redirects_by_name_into_this_network(monkeypatch):
    def resolve(host, *_arguments, **_keywords):
        address = {"inside.example.org": "10.0.0.8", "cdn.example.org": "93.184.215.14"}[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    check_redirect("https://zoo.example.org/a", "https://cdn.example.org/a")
    with pytest.raises(FetchError, match="private network"):
        check_redirect("https://zoo.example.org/a", "https://inside.example.org/a")


def test_a_server_may_redirect_within_itself():
    check_redirect("https://10.0.0.9/a", "https://10.0.0.9/b")
    with pytest.raises(FetchError):
        check_redirect("https://10.0.0.9/a", "http://10.0.0.9/a")


@pytest.mark.parametrize(
    "source", ["file:///etc", "http://127.0.0.1:8080/x", "http://localhost/x"]
)
def test_a_remote_registry_may_not_point_at_this_machine(source):
    with pytest.raises(FetchError, match="points at this machine"):
        join("https://zoo.example.org", source)
    with pytest.raises(FetchError, match="points at this machine"):
        join("hf://org/repo@main", source)
    assert join("/a/folder", source) == source


# --- the cache --------------------------------------------------------------------------------


def test_revoked_is_refused_from_the_cache(registry, serve, tmp_path, no_network):
    server = serve(registry)
    assert hub.pull("toy/small", registry=server.url).is_dir()
    hub.revoke("toy/small:1", "A donor withdrew consent.", registry=registry)
    os.utime(next((tmp_path / "cache" / "indexes").glob("*.yaml")), (0, 0))  # an hour later
    with pytest.raises(RevokedError, match="also from the cache"):
        hub.pull("toy/small:1", registry=server.url)
    no_network()
    with pytest.raises(RevokedError):
        hub.pull("toy/small:1", registry=server.url)


def test_a_damaged_cache_is_fetched_again(registry, serve):
    server = serve(registry)
    path = hub.pull("toy/small", registry=server.url)
    for damage in (
        lambda: (path / "weights.safetensors").write_bytes(b"half"),
        lambda: (path / "genes.tsv").unlink(),
        lambda: (path / "manifest.json").write_text("{}"),
    ):
        damage()
        assert read_artefact(hub.pull("toy/small", registry=server.url)).tensors()


def test_a_damaged_cache_without_network_is_refused(registry, serve, monkeypatch):
    server = serve(registry)
    path = hub.pull("toy/small", registry=server.url)
    (path / "weights.safetensors").write_bytes(b"half")
    monkeypatch.setenv("SCZOO_OFFLINE", "1")
    with pytest.raises(SczooError, match="SCZOO_OFFLINE"):
        hub.pull("toy/small", registry=server.url)


def test_offline_with_a_cold_cache(registry, serve, monkeypatch, no_network):
    server = serve(registry)
    monkeypatch.setenv("SCZOO_OFFLINE", "1")
    no_network()
    with pytest.raises(FetchError, match="forbids the network"):
        hub.pull("toy/small", registry=server.url)


def test_network_down_uses_the_kept_index(registry, serve, tmp_path, caplog):
    server = serve(registry)
    hub.pull("toy/small", registry=server.url)
    os.utime(next((tmp_path / "cache" / "indexes").glob("*.yaml")), (0, 0))
    server.special["/registry.yaml"] = send(503)
    assert hub.pull("toy/small", registry=server.url).is_dir()
    assert "Using the kept copy" in caplog.text


def test_a_rolled_back_index_is_refused(registry, serve, monkeypatch):
    monkeypatch.setattr(_indexes, "FRESH_SECONDS", -1.0)
    server = serve(registry)
    old = (registry / "registry.yaml").read_bytes()
    hub.revoke("toy/small:1", "A donor withdrew consent.", registry=registry)
    with pytest.raises(RevokedError):
        hub.pull("toy/small", registry=server.url)
    server.special["/registry.yaml"] = send(200, body=old)
    with pytest.raises(RegistryError, match="rolled back"):
        hub.pull("toy/small", registry=server.url)


def test_a_damaged_index_is_refused(registry, serve):
    server = serve(registry)
    server.special["/registry.yaml"] = send(200, body=b"<html>Welcome to the hotel Wi-Fi</html>")
    with pytest.raises(RegistryError):
        hub.pull("toy/small", registry=server.url)


def test_the_cache_cannot_be_written(registry, serve, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("SCZOO_CACHE_DIR", str(blocked / "cache"))
    with pytest.raises(FetchError, match="SCZOO_CACHE_DIR"):
        hub.pull("toy/small", registry=serve(registry).url)


def test_home_unset(monkeypatch):
    monkeypatch.delenv("SCZOO_CACHE_DIR")
    monkeypatch.delenv("HOME", raising=False)
    assert hub.cache_dir().name == "sczoo"


def test_nothing_is_left_behind(registry, serve, tmp_path):
    server = serve(registry)
    hub.pull("toy/small", registry=server.url)
    server.special[f"{PLACE}/genes.tsv"] = send(500)
    shutil.rmtree(tmp_path / "cache" / "artefacts")
    with pytest.raises(FetchError):
        hub.pull("toy/small", registry=server.url)
    left = [p for p in (tmp_path / "cache" / "artefacts").iterdir() if p.suffix != ".lock"]
    assert left == []


def test_two_at_once(registry, serve, tmp_path):
    """Threads that want the same artefact get the same folder, fetched once."""
    from concurrent.futures import ThreadPoolExecutor

    server = serve(registry)
    found = find("toy/small", server.url)
    with ThreadPoolExecutor(4) as pool:
        from sczoo.hub._fetch import open_found

        paths = {a.path for a in pool.map(lambda _: open_found(found), range(4))}
    assert len(paths) == 1
    assert server.requests.count(f"{PLACE}/weights.safetensors") == 1
