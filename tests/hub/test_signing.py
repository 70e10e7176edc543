"""Signed registries: what the pinned key signed is read, everything else is refused."""

from __future__ import annotations

import base64
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typer.testing import CliRunner

from sczoo import hub
from sczoo.cli import app
from sczoo.errors import (
    OptionalDependencyError,
    RegistryError,
    SczooError,
    SignatureError,
)
from sczoo.hub import _indexes, _signing


@pytest.fixture
def key(tmp_path):
    return tmp_path / "key.pem"


@pytest.fixture
def public(key):
    return hub.create_signing_key(key)


@pytest.fixture
def signed(registry, key, public):
    """Location of a signed registry with its key pinned."""
    assert hub.sign_registry(registry, key) == public
    return f"{registry}#{public}"


def test_the_private_key_is_its_owners_alone(key, public):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(RegistryError, match="never replaced"):
        hub.create_signing_key(key)
    assert key.read_bytes() == before


def test_the_signature_is_plain_ed25519(registry, signed, public):
    stated, signature = (registry / "registry.yaml.sig").read_text().split()
    assert stated == public
    raw = base64.urlsafe_b64decode(public.removeprefix("ed25519:") + "=")
    message = b"sczoo registry signature 1\n" + (registry / "registry.yaml").read_bytes()
    # raises unless it is a signature of exactly this
    Ed25519PublicKey.from_public_bytes(raw).verify(
        base64.urlsafe_b64decode(signature + "=="), message
    )


def test_a_signed_registry_is_read_and_used(signed):
    assert hub.read_registry(signed)[0].entries[0].id == "toy/small"
    assert hub.pull("toy/small", registry=signed).is_dir()


def test_every_byte_of_index_and_signature_counts(registry, signed, monkeypatch):
    monkeypatch.setattr(_signing, "_WAIT_SECONDS", 0.0)
    for name in ("registry.yaml", "registry.yaml.sig"):
        path = registry / name
        good = path.read_bytes()
        for position in range(0, len(good), max(1, len(good) // 60)):
            # another letter, so that most changes leave valid YAML
            letter = b"b" if good[position : position + 1] != b"b" else b"c"
            path.write_bytes(good[:position] + letter + good[position + 1 :])
            with pytest.raises(SignatureError):
                hub.read_registry(signed)
        path.write_bytes(good)
    hub.read_registry(signed)


def test_an_unsigned_registry_is_refused_where_a_key_is_pinned(registry, public, monkeypatch):
    monkeypatch.setattr(_signing, "_WAIT_SECONDS", 0.0)
    with pytest.raises(SignatureError, match="no readable signature"):
        hub.pull("toy/small", registry=f"{registry}#{public}")
    assert hub.pull("toy/small", registry=registry).is_dir()  # not pinned: as before


def test_another_key_is_refused(registry, signed, tmp_path, monkeypatch):
    monkeypatch.setattr(_signing, "_WAIT_SECONDS", 0.0)
    hub.create_signing_key(tmp_path / "other.pem")
    hub.sign_registry(registry, tmp_path / "other.pem")
    with pytest.raises(SignatureError, match="not signed by the pinned key"):
        hub.read_registry(signed)


def test_a_signature_of_something_else_is_refused(registry, key, public, monkeypatch):
    """Without the context, a signature that the key made for another purpose would pass."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    monkeypatch.setattr(_signing, "_WAIT_SECONDS", 0.0)
    private = load_pem_private_key(key.read_bytes(), None)
    bare = private.sign((registry / "registry.yaml").read_bytes())
    text = base64.urlsafe_b64encode(bare).decode().rstrip("=")
    (registry / "registry.yaml.sig").write_text(f"{public}\n{text}\n")
    with pytest.raises(SignatureError, match="changed after"):
        hub.read_registry(f"{registry}#{public}")


def test_publishing_signs_by_itself(registry, signed, artefact, add, key, monkeypatch):
    monkeypatch.setenv("SCZOO_SIGNING_KEY", str(key))
    add(registry, artefact)
    assert len(hub.read_registry(signed)[0].entries) == 2


def test_publishing_without_the_key_says_that_readers_will_refuse(
    registry, signed, artefact, add, caplog, monkeypatch
):
    monkeypatch.setattr(_signing, "_WAIT_SECONDS", 0.0)
    add(registry, artefact)
    assert "refuse it until you sign" in caplog.text
    with pytest.raises(SignatureError):
        hub.read_registry(signed)


def test_a_key_that_cannot_sign_stops_before_anything_is_written(
    registry, signed, artefact, add, tmp_path, monkeypatch
):
    (tmp_path / "junk.pem").write_text("no key")
    monkeypatch.setenv("SCZOO_SIGNING_KEY", str(tmp_path / "junk.pem"))
    before = {p: p.read_bytes() for p in registry.rglob("*") if p.is_file()}
    with pytest.raises(RegistryError, match="not a private key"):
        add(registry, artefact)
    after = {p: p.read_bytes() for p in registry.rglob("*") if p.is_file()}
    assert {p: b for p, b in after.items() if not p.name.endswith(".lock")} == {
        p: b for p, b in before.items() if not p.name.endswith(".lock")
    }


def test_over_the_network_and_from_the_kept_copy(registry, signed, public, serve, monkeypatch):
    server = serve(registry)
    location = f"{server.url}#{public}"
    assert hub.pull("toy/small", registry=location).is_dir()
    kept = hub.cache_dir() / "indexes"
    assert sorted(p.suffix for p in kept.glob("*.y*") if p.suffix != ".lock") == [".sig", ".yaml"]
    # whoever can write the cache cannot change the index either: it is fetched again
    copy = next(kept.glob("*.yaml"))
    copy.write_bytes(copy.read_bytes() + b"# changed\n")
    seen = len(server.requests)
    hub.read_registry(location)
    assert len(server.requests) > seen


@pytest.mark.parametrize("hostile", ["changed", "unsigned", "junk"])
def test_a_hostile_server(registry, signed, public, serve, monkeypatch, hostile):
    monkeypatch.setattr(_indexes, "FRESH_SECONDS", -1.0)
    server = serve(registry)
    if hostile == "changed":
        index = registry / "registry.yaml"
        index.write_bytes(index.read_bytes().replace(b"active", b"active "))
    elif hostile == "unsigned":
        (registry / "registry.yaml.sig").unlink()
    else:
        (registry / "registry.yaml.sig").write_bytes(os.urandom(500))
    with pytest.raises(SczooError):
        hub.read_registry(f"{server.url}#{public}")


def test_an_unpinned_copy_does_not_serve_a_pinned_reader(registry, public, serve):
    server = serve(registry)
    hub.read_registry(server.url)
    with pytest.raises(RegistryError):
        hub.read_registry(f"{server.url}#{public}")


def test_a_pin_that_is_no_key(registry):
    with pytest.raises(SignatureError, match="43 characters"):
        hub.read_registry(f"{registry}#ed25519:short")


@pytest.mark.parametrize("kind", ["missing", "rsa"])
def test_keys_of_another_kind(registry, tmp_path, kind):
    path = tmp_path / "k.pem"
    if kind == "rsa":
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

        path.write_bytes(
            generate_private_key(SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    with pytest.raises(RegistryError, match="keygen"):
        hub.sign_registry(registry, path)


def test_without_the_library(signed, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(OptionalDependencyError, match=r"sczoo\[hub\]"):
        hub.read_registry(signed)


def test_from_a_shell(registry, tmp_path):
    run = CliRunner()
    made = run.invoke(app, ["keygen", str(tmp_path / "shell.pem")])
    assert made.exit_code == 0
    public = made.stdout.strip()
    result = run.invoke(app, ["sign", str(registry), "--key", str(tmp_path / "shell.pem")])
    assert result.exit_code == 0
    listed = run.invoke(app, ["list", "-r", f"{registry}#{public}"])
    assert "toy/small" in listed.stdout
