"""A small artefact, a card for it, registries that hold it, and a web server on this machine."""

from __future__ import annotations

import copy
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from sczoo.base._artefact import (
    ArtefactRecord,
    InputContract,
    genes_sha256,
    read_artefact,
    write_artefact,
)
from sczoo.base._selftest import selftest_cells
from sczoo.hub._fields import complete_entry, gather
from sczoo.hub._gate_report import GateReport
from sczoo.hub._store import add_artefact

N_GENES = 20
IDS = [f"GENE{i}" for i in range(N_GENES)]

CARD = {
    "summary": "A small artefact that only tests use",
    "licence": {"weights": "CC-BY-4.0", "data": "CC0-1.0"},
    "citation": [{"doi": "10.1000/example"}],
    "compat": {"trained_with": {"python": "3.11", "torch": "2.13", "scvi_tools": "1.4.2"}},
    "training": {
        "data": [{"name": "drawn numbers", "access": "synthetic"}],
        "n_donors": 4,
        "split": "by donor: one held out",
        "command": "pytest tests/hub",
    },
    "metrics": [
        {
            "name": "ari",
            "value": 0.5,
            "ci95": [0.4, 0.6],
            "split": "held-out donor",
            "baseline": {"pca": 0.3},
            "command": "pytest tests/hub",
        }
    ],
    "limits": ["Numbers drawn at random mean nothing."],
    "out_of_scope": ["diagnosis"],
    "input": {"species": "homo_sapiens"},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Keep every test off the user's cache and registries."""
    monkeypatch.setenv("SCZOO_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("SCZOO_REGISTRY", "SCZOO_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def card():
    return copy.deepcopy(CARD)


def _save(folder, *, tensors=None, selftest=True, scale="counts", **record):
    rng = np.random.default_rng(0)
    x = selftest_cells(N_GENES, scale) if selftest is True else selftest
    fields = {
        "method": "toy",
        "input": InputContract(
            n_genes=N_GENES, genes_sha256=genes_sha256(IDS), scale=scale, min_coverage=0.8
        ),
        "provenance": {"n_cells": 777, "seed": 0, "versions": {"python": "3.11"}},
        **record,
    }
    weight = rng.normal(size=(N_GENES, 3)).astype(np.float32)
    return write_artefact(
        folder,
        ArtefactRecord(**fields),
        tensors={"weight": weight, **(tensors or {})},
        genes=[{"id": name, "symbol": None, "importance": None} for name in IDS],
        selftest=None if x is None else {"x": x, "expected": np.zeros((len(x), 3), np.float32)},
        overwrite=True,
    )


@pytest.fixture
def save():
    """Write a small artefact of kind ``model`` without needing torch."""
    return _save


@pytest.fixture
def artefact(tmp_path):
    """Folder of a clean artefact."""
    return _save(tmp_path / "saved")


@pytest.fixture
def stand_in(monkeypatch):
    """Put a stand-in in the place of the model that the artefact's method would build."""
    module = SimpleNamespace(state_dict=lambda: {"weight": np.zeros((N_GENES, 3))})
    model = SimpleNamespace(module=module, adata=None)
    for module_name in ("_verify", "_load"):  # _verify takes the names from _load
        place = f"sczoo.hub.{module_name}"
        monkeypatch.setattr(f"{place}.open_model", lambda artefact: model)
        monkeypatch.setattr(f"{place}.run_selftest", lambda model, artefact: 0.0)
    return model


def _add(registry, source, name="toy/small", version=None, **changes):
    source = read_artefact(source)
    fields = gather(source.record, None, {**copy.deepcopy(CARD), **changes})
    report = GateReport((), (), ())
    return add_artefact(registry, source, name, version, partial(complete_entry, fields, report))


@pytest.fixture
def add():
    """List an artefact in a registry folder, without the release gate."""
    return _add


@pytest.fixture
def registry(tmp_path, artefact):
    """Folder of a registry with ``toy/small:1``."""
    _add(tmp_path / "registry", artefact)
    return tmp_path / "registry"


class _Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; ``server.special`` maps paths to functions that answer otherwise."""

    def do_GET(self):
        self.server.requests.append(self.path)
        special = self.server.special.get(self.path)
        if special is not None:
            special(self)
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    """Serve a folder on the loopback device; returns the server with its ``url``."""
    servers = []

    def start(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        server.daemon_threads = True
        server.special, server.requests = {}, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
