"""Registries: names, versions, layers, and every document that is refused."""

import copy
import logging

import pytest
import yaml

from sczoo import hub
from sczoo.errors import (
    RegistryError,
    RevokedError,
    SchemaVersionError,
    UnknownArtefactError,
)
from sczoo.hub._registry import embedded_registry, find, parse_name, parse_registry
from sczoo.hub._schema import to_document
from sczoo.hub._yaml import parse_yaml


def edit(registry, change):
    path = registry / "registry.yaml"
    document = yaml.safe_load(path.read_text())
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("toy/small", ("toy/small", None)),
        ("toy/small:12", ("toy/small", 12)),
        ("sce2tm/pbmc-interferon_2.1:1", ("sce2tm/pbmc-interferon_2.1", 1)),
    ],
)
def test_names(name, parsed):
    assert parse_name(name) == parsed


@pytest.mark.parametrize(
    "name",
    [
        "small", "toy/small:", "toy/small:0", "toy/small:latest", "Toy/small", "toy/../x", "",
        "toy/small/3", "toy/ѕmall", "toy/small\n", "toy//small", "toy/small:99999999", "../toy",
        "/etc/x",
    ],
)  # fmt: skip
def test_other_names_are_refused(name):
    with pytest.raises(UnknownArtefactError, match="not the name"):
        parse_name(name)


def test_embedded_registry_is_valid():
    registry, _ = hub.read_registry(embedded_registry())
    assert registry.name == "sczoo"


def test_without_a_version_the_newest_active_one(registry, artefact, add, caplog):
    for _ in range(10):
        add(registry, artefact)
    hub.revoke("toy/small:11", "It was trained on the wrong genes.", registry=registry)
    hub.deprecate("toy/small:10", "Version 9 is better.", registry=registry)
    with caplog.at_level(logging.INFO, logger="sczoo"):
        assert find("toy/small", registry).entry.version == 9
    assert "toy/small means toy/small:9" in caplog.text  # the pin is said


def test_deprecated_loads_with_a_warning(registry, artefact, caplog):
    hub.deprecate(
        "toy/small:1", "There is a better one.", registry=registry, superseded_by="toy/large:2"
    )
    assert hub.pull("toy/small", registry=registry).is_dir()
    assert "There is a better one. Use toy/large:2 instead." in caplog.text


def test_revoked_is_refused_also_by_bare_name(registry):
    hub.revoke("toy/small:1", "A donor withdrew consent.", registry=registry)
    for name in ("toy/small", "toy/small:1"):
        with pytest.raises(RevokedError, match="A donor withdrew consent"):
            hub.pull(name, registry=registry)
    assert hub.show("toy/small", registry=registry).status == "revoked"
    assert "**Revoked**: A donor withdrew" in hub.card_text("toy/small", registry=registry)
    assert hub.list_artefacts("toy/*", registry=registry) == []
    assert len(hub.list_artefacts("toy/*", registry=registry, status="revoked")) == 1
    with pytest.raises(RegistryError, match="not taken back"):
        hub.deprecate("toy/small:1", "Changed my mind about it.", registry=registry)


def test_unknown_names_suggest(registry):
    with pytest.raises(UnknownArtefactError, match="Did you mean toy/small"):
        find("toy/smal", registry)
    with pytest.raises(UnknownArtefactError, match="no version 7; there are 1"):
        find("toy/small:7", registry)
    with pytest.raises(KeyError):
        find("toy/other", registry)


def test_later_layers_win(tmp_path, registry, artefact, add, monkeypatch):
    add(tmp_path / "second", artefact, summary="The hospital's own")
    add(tmp_path / "second", artefact, "toy/extra")
    both = [registry, tmp_path / "second"]
    assert hub.show("toy/small:1", registry=both).summary == "The hospital's own"
    assert hub.show("toy/small:1", registry=both[::-1]).summary.startswith("A small artefact")
    monkeypatch.setenv("SCZOO_REGISTRY", f"{registry}:{tmp_path / 'second'}")
    assert hub.show("toy/small").summary == "The hospital's own"
    monkeypatch.setenv("SCZOO_REGISTRY", f"{tmp_path / 'second'},{registry}")
    assert hub.show("toy/small").summary.startswith("A small artefact")
    assert [e.name for e in hub.list_artefacts("toy/*")] == ["toy/extra:1", "toy/small:1"]
    # the argument comes after the environment
    second = tmp_path / "second" / "registry.yaml"
    assert hub.show("toy/small", registry=second).summary == "The hospital's own"


def test_listing(registry, artefact, add):
    add(registry, artefact, "toy/other")
    assert [e.name for e in hub.list_artefacts(registry=registry, method="toy")] == [
        "toy/other:1",
        "toy/small:1",
    ]
    assert hub.list_artefacts("toy/o*", registry=registry)[0].id == "toy/other"
    assert hub.list_artefacts("toy/*", registry=registry, kind="dataset") == []


def test_changes_on_disk_are_seen(registry, artefact, add):
    assert len(hub.list_artefacts("toy/*", registry=registry)) == 1
    add(registry, artefact)
    assert len(hub.list_artefacts("toy/*", registry=registry)) == 2


def test_missing_registry(tmp_path):
    with pytest.raises(RegistryError, match="There is no registry at"):
        hub.list_artefacts(registry=tmp_path)
    with pytest.raises(RegistryError, match="check the path"):
        hub.list_artefacts(registry=tmp_path / "nowhere")
    with pytest.raises(RegistryError, match="There is no registry"):
        hub.revoke("toy/small:1", "It never existed anyway.", registry=tmp_path)


def test_versions_are_immutable(registry, artefact, add):
    with pytest.raises(RegistryError, match="versions do not change"):
        add(registry, artefact, version=1)
    assert add(registry, artefact, version=5).version == 5
    assert add(registry, artefact).version == 6
    assert hub.read_registry(registry)[0].index_version == 3


def test_entries_cannot_be_changed_in_memory(registry):
    with pytest.raises(ValueError, match="frozen"):
        hub.show("toy/small", registry=registry).version = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["entries"].append(copy.deepcopy(d["entries"][0])), "occurs twice"),
        (lambda d: d["entries"][0].update(sumary="x"), "unknown keys"),
        (lambda d: d["entries"][0]["training"].update(n_cell=3), "unknown keys"),
        (lambda d: d.update(extra=1), "unknown keys"),
        (lambda d: d.pop("index_version"), "index_version: Field required"),
        (lambda d: d.update(index_version=0), "index_version"),
        (lambda d: d["entries"][0].update(status="gone"), "status"),
        (lambda d: d["entries"][0].update(status="revoked"), "needs a reason"),
        (lambda d: d["entries"][0].update(manifest_sha256="abc"), "manifest_sha256"),
        (lambda d: d["entries"][0].update(size="big"), "size"),
        (lambda d: d["entries"][0].update(out_of_scope=[]), "out_of_scope"),
        (lambda d: d["entries"][0].update(limits=["TODO"]), "placeholder"),
        (lambda d: d["entries"][0].update(limits=["not provided by uploader"]), "placeholder"),
        (lambda d: d["entries"][0].update(summary="N/A"), "placeholder"),
        (lambda d: d["entries"][0].update(metrics="not applicable"), "needs its reason"),
        (lambda d: d["entries"][0].update(metrics="none measured"), "not applicable"),
        (lambda d: d["entries"][0]["metrics"][0].update(value=float("nan")), "finite"),
        (lambda d: d["entries"][0]["metrics"][0].update(ci95=[0.6, 0.7]), "around the value"),
        (lambda d: d["entries"][0]["metrics"][0].pop("command"), "command: Field required"),
        (lambda d: d["entries"][0]["metrics"][0].pop("baseline"), "baseline"),
        (lambda d: d["entries"][0]["compat"].update(sczoo="new"), "version range"),
        (lambda d: d["entries"][0]["licence"].pop("weights"), "licence.weights"),
        (lambda d: d["entries"][0]["citation"].append({}), "a doi, a title, a text or a url"),
        (lambda d: d["entries"][0].update(id="toy/../../x"), "id"),
        (lambda d: d["entries"][0].update(method="os.system"), "method"),
        (lambda d: d["entries"][0].update(sources=[]), "sources"),
        (lambda d: d["entries"][0].update(sources=["../outside"]), "inside the registry"),
        (lambda d: d["entries"][0].update(sources=["/etc"]), "inside the registry"),
        (lambda d: d["entries"][0].update(sources=["http://example.org/x"]), "loopback"),
        (lambda d: d["entries"][0].update(sources=["ftp://example.org/x"]), "use package://"),
        (lambda d: d["entries"][0].update(sources=["https://u:p@example.org/x"]), "password"),
        (lambda d: d["entries"][0].update(sources=["hf://org/repo"]), "hf://ORG/REPO@REVISION"),
        (lambda d: d["entries"][0].update(sources=["hf://o/r@main/../x"]), "hf://"),
        (lambda d: d["entries"][0].update(sources=["package://os.path/x"]), "package"),
        (lambda d: d["entries"][0].update(sources=["file:///a/../b"]), "absolute path"),
    ],
)  # fmt: skip
def test_documents_that_break_the_schema(registry, change, message):
    edit(registry, change)
    with pytest.raises(RegistryError, match=message):
        hub.list_artefacts(registry=registry)


def test_free_keys(registry):
    def change(document):
        document["x-owner"] = "me"
        document["entries"][0]["x-note"] = {"any": ["thing", 1]}
        document["entries"][0]["training"]["x-room"] = 7

    edit(registry, change)
    entry = hub.show("toy/small", registry=registry)
    document = to_document(entry)
    assert document["x-note"] == {"any": ["thing", 1]}
    assert document["training"]["x-room"] == 7
    hub.deprecate("toy/small:1", "Free keys must survive this.", registry=registry)
    text = (registry / "registry.yaml").read_text()
    assert "x-owner: me" in text
    assert "x-room: 7" in text


def test_newer_schema(registry):
    edit(registry, lambda d: d.update(schema=2))
    with pytest.raises(SchemaVersionError, match="Update sczoo"):
        hub.list_artefacts(registry=registry)


LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % ((c + 1,) * 2 + (c,) * 9)
    for c in range(ord("a"), ord("i"))
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LAUGHS, "anchors or aliases"),
        (b"schema: &x 1\n", "anchors or aliases"),
        (b"schema: 1\nschema: 1\n", "twice"),
        (b"a: {b: 1, b: 2}\n", "twice"),
        (b"<<: {schema: 1}\n", "plain text"),
        (b"? [1, 2]\n: 3\n", "plain text"),
        (b"schema: !!python/object/apply:os.system ['true']\n", "tags"),
        (b"schema: !!binary aGk=\n", "tags"),
        (b"[" * 50 + b"]" * 50, "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b"- " * 20_000, "nested deeper"),
        (b"a: " + b"9" * 6000, "limit"),
        (b"\xff\xfe\x00", "decode"),
        (b"a: \x00", "control characters"),
        (b"a: [", "parsing"),
        (b"--- 1\n--- 2\n", "document"),
        (b"schema: 1\nname: x\nindex_version: 2026-11-22\n", "index_version"),
        (b"x" * (17 << 20), "larger than"),
        (b"", "schema version"),
        (b"- 1\n", "schema version"),
        (b"schema: true\n", "schema version"),
    ],
)
def test_yaml_with_more_than_one_reading_is_refused(data, message):
    with pytest.raises(RegistryError, match=message):
        parse_registry(data, where="index")


def test_dates_stay_texts():
    assert parse_yaml(b"released: 2026-11-22", where="x") == {"released": "2026-11-22"}
