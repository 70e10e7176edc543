"""Damaged registries and cards: a typed error or a valid document, and no code run."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest
import yaml

from sczoo import hub
from sczoo.errors import SczooError
from sczoo.hub._registry import parse_registry
from sczoo.hub._schema import Registry

N_TRUNCATIONS = 200
N_CHANGES = 2_000


class Watch:
    """Notes every attempt to run code, open a connection or write a file while it is on."""

    def __init__(self):
        self.on, self.seen = False, []

    def __call__(self, event, arguments):
        if not self.on:
            return
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        forbidden = {"os.system", "exec", "compile", "import", "socket.connect", "ctypes.dlopen"}
        if (
            writes
            or event in forbidden
            or event.startswith(("subprocess.", "os.exec", "os.spawn"))
        ):
            self.seen.append((event, str(arguments)[:200]))

    @contextmanager
    def watching(self):
        self.on = True
        try:
            yield
        finally:
            self.on = False


WATCH = Watch()
sys.addaudithook(WATCH)


def damaged(data, seed):
    rng = np.random.default_rng(seed)
    for offset in rng.integers(0, len(data), size=N_TRUNCATIONS):
        yield data[:offset]
    offsets = rng.integers(0, len(data), size=N_CHANGES)
    for offset, delta in zip(offsets, rng.integers(1, 256, size=N_CHANGES), strict=True):
        changed = bytearray(data)
        changed[offset] = (changed[offset] + int(delta)) % 256
        yield bytes(changed)


def outcome(parse, data):
    WATCH.seen.clear()
    with WATCH.watching():
        try:
            document = parse(data)
        except SczooError:
            document = None
    assert WATCH.seen == []
    return document


@pytest.mark.slow
def test_registry(registry, record_property):
    data = (registry / "registry.yaml").read_bytes()
    counts = {"refused": 0, "read": 0}
    parse = lambda changed: parse_registry(changed, where="index")
    assert outcome(parse, data) is not None
    for changed in damaged(data, seed=1):
        document = outcome(parse, changed)
        assert document is None or isinstance(document, Registry)
        counts["read" if document else "refused"] += 1
    assert sum(counts.values()) == N_TRUNCATIONS + N_CHANGES
    record_property("cases", counts)
    print(f"\nregistry.yaml: {counts}")


@pytest.mark.slow
def test_card_fields(tmp_path, card, record_property):
    path = tmp_path / "card.yaml"
    data = yaml.safe_dump(card).encode()
    counts = {"refused": 0, "read": 0}
    for changed in damaged(data, seed=2):
        path.write_bytes(changed)
        document = outcome(lambda _: hub.read_card(path), changed)
        assert document is None or isinstance(document, dict)
        counts["refused" if document is None else "read"] += 1
    record_property("cases", counts)
    print(f"\ncard.yaml: {counts}")


STRANGE = [
    None, True, -1, 2**70, 1e308, float("nan"), "", "../x", "\u202e", "os:system", [], {}, [[]],
    {"": None}, "A" * 10_000, [0] * 1_000, "package://os/x", "file:///etc/passwd",
]  # fmt: skip


def places(document, path=()):
    yield path
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def replaced(document, path, value):
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


def test_strange_values_in_every_place(registry):
    document = yaml.safe_load((registry / "registry.yaml").read_text())
    counts = {"refused": 0, "read": 0}
    for path in places(document):
        for value in STRANGE:
            data = yaml.safe_dump(replaced(document, path, value)).encode()
            result = outcome(lambda d: parse_registry(d, where="index"), data)
            assert result is None or isinstance(result, Registry)
            counts["read" if result else "refused"] += 1
    assert counts["refused"] > 500
    print(f"\nstrange values in the registry: {counts}")


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", "-s"]))
