"""Publishing: gate, card, artefact, index, in this order and without half states."""

import json
import subprocess
import sys

import pytest

from sczoo import hub
from sczoo.base._artefact import read_artefact
from sczoo.errors import (
    RegistryError,
    ReleaseGateError,
    SchemaError,
    UnknownArtefactError,
)
from sczoo.hub._card import SECTIONS, render_card


def test_a_folder_is_published(artefact, tmp_path, card, stand_in):
    before = {p.name: p.read_bytes() for p in artefact.iterdir()}
    entry = hub.publish(artefact, "toy/small", registry=tmp_path / "new", card=card)
    assert (entry.name, entry.status, entry.kind) == ("toy/small:1", "active", "model")
    assert entry.privacy.per_cell_content == "none"
    assert entry.privacy.per_donor_content == "none"
    assert entry.privacy.compared_with_data is False
    path = hub.pull("toy/small", registry=tmp_path / "new")
    published = read_artefact(path, manifest_sha256=entry.manifest_sha256)
    assert (published.record.name, published.record.version) == ("toy/small", 1)
    assert published.card == render_card(entry)
    assert sum(p.stat().st_size for p in path.iterdir()) == entry.size
    # what was given is as it was, and nothing but the artefact and the index was made
    assert {p.name: p.read_bytes() for p in artefact.iterdir()} == before
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        ".registry.yaml.lock",
        "artefacts",
        "registry.yaml",
    ]
    assert hub.verify("toy/small", registry=tmp_path / "new").ok


def test_what_the_artefact_knows_need_not_be_stated(artefact, tmp_path, card, stand_in):
    card["compat"] = {"trained_with": {"torch": "2.13"}}
    entry = hub.publish(artefact, "toy/small", registry=tmp_path / "r", card=card)
    assert (entry.training.n_cells, entry.training.seed) == (777, 0)
    assert entry.compat.trained_with == {"python": "3.11", "torch": "2.13"}
    assert entry.compat.sczoo.startswith(">=")
    assert entry.input.n_genes == 20
    assert entry.input.scale == "counts"


def test_an_incomplete_card_lists_everything_at_once(artefact, tmp_path, stand_in):
    with pytest.raises(SchemaError) as error:
        hub.publish(artefact, "toy/small", registry=tmp_path / "r")
    message = str(error.value)
    for field in (
        "summary", "licence", "citation", "training.data", "training.n_donors", "training.split",
        "training.command", "metrics", "limits", "out_of_scope", "input.species",
    ):  # fmt: skip
        assert f"  {field}: " in message, field
    assert '"CC-BY-4.0"' in message  # an example of how to say it
    assert not (tmp_path / "r" / "registry.yaml").exists()
    assert not (tmp_path / "r" / "artefacts").exists()


@pytest.mark.parametrize(("name", "value"), [("n_cells", 10_000), ("seed", 1)])
def test_a_card_cannot_contradict_the_run(artefact, tmp_path, card, stand_in, name, value):
    card["training"][name] = value
    with pytest.raises(SchemaError, match=rf"'{name}'\] is {value}, but the artefact itself says"):
        hub.publish(artefact, "toy/small", registry=tmp_path / "r", card=card)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"summary": "TODO"}, "placeholder"),
        ({"limits": ["..."]}, "placeholder"),
        ({"out_of_scope": []}, "out_of_scope"),
        ({"licence": {"data": "CC0-1.0", "weights": None}}, "licence.weights"),
        ({"sumary": "x"}, "unknown keys"),
        ({"metrics": []}, "metrics"),
        ({"privacy": {"per_cell_content": "none"}}, "the release gate computes it"),
        ({"input": {"species": "homo_sapiens", "n_genes": 3}}, "the artefact itself does"),
    ],
)
def test_cards_that_are_refused(artefact, tmp_path, card, stand_in, change, message):
    with pytest.raises(SchemaError, match=message):
        hub.publish(artefact, "toy/small", registry=tmp_path / "r", card={**card, **change})


def test_card_fields_as_an_object(artefact, tmp_path, card, stand_in):
    species = card.pop("input")
    card["compat"]["sczoo"] = ">=0.1"
    card["training"] |= {"n_cells": 777, "seed": 0}
    fields = hub.CardFields.model_validate(card)
    with pytest.raises(SchemaError, match="species"):
        hub.publish(artefact, "toy/small", registry=tmp_path / "r", card=fields)
    folder = read_artefact(artefact)
    assert folder.record.input.species is None
    assert species == {"species": "homo_sapiens"}


def test_the_gate_comes_first(tmp_path, save, card, stand_in):
    folder = save(tmp_path / "a", attributes={"classes_": ["T", "B"]})
    with pytest.raises(ReleaseGateError, match=r"allow=\('categories:classes_',\)"):
        hub.publish(folder, "toy/small", registry=tmp_path / "r", card=card)
    assert not (tmp_path / "r" / "artefacts").exists()
    entry = hub.publish(
        folder, "toy/small", registry=tmp_path / "r", card=card, allow=("categories:classes_",)
    )
    assert entry.privacy.allowed == ["categories:classes_"]
    text = hub.card_text("toy/small", registry=tmp_path / "r")
    assert "Released by name: categories:classes\\_" in text


def test_the_card_itself_goes_through_the_gate(artefact, tmp_path, card, stand_in):
    card["limits"] = ["Cell AAACATACAACCAC-1 is always wrong."]
    with pytest.raises(ReleaseGateError, match="barcodes:card"):
        hub.publish(artefact, "toy/small", registry=tmp_path / "r", card=card)
    assert not (tmp_path / "r" / "artefacts").exists()


def test_another_models_parameters_are_not_published(tmp_path, save, card, stand_in):
    import numpy as np

    folder = save(tmp_path / "a", tensors={"other": np.zeros(5)})
    with pytest.raises(ReleaseGateError, match="parameters:other"):
        hub.publish(folder, "toy/small", registry=tmp_path / "r", card=card)


def test_names_and_versions(artefact, tmp_path, card, stand_in):
    registry = tmp_path / "r"
    assert hub.publish(artefact, "toy/small:3", registry=registry, card=card).version == 3
    assert hub.publish(artefact, "toy/small", registry=registry, card=card).version == 4
    with pytest.raises(RegistryError, match="versions do not change"):
        hub.publish(artefact, "toy/small", 3, registry=registry, card=card)
    with pytest.raises(RegistryError, match="contradict"):
        hub.publish(artefact, "toy/small:3", 4, registry=registry, card=card)
    with pytest.raises(UnknownArtefactError):
        hub.publish(artefact, "Toy Small", registry=registry, card=card)
    with pytest.raises(RegistryError, match="on the network"):
        hub.publish(artefact, "toy/small", registry="https://zoo.example.org", card=card)


def test_status_changes_need_a_version_and_a_reason(registry):
    with pytest.raises(RegistryError, match="Name the version"):
        hub.revoke("toy/small", "Some good reason.", registry=registry)
    with pytest.raises(RegistryError, match="placeholder"):
        hub.revoke("toy/small:1", "TODO", registry=registry)
    with pytest.raises(UnknownArtefactError):
        hub.revoke("toy/small:8", "Some good reason.", registry=registry)
    assert hub.show("toy/small:1", registry=registry).status == "active"
    with pytest.raises(RegistryError, match="cannot be a source"):
        hub.add_source("toy/small:1", "ftp://x", registry=registry)
    entry = hub.add_source("toy/small:1", "hf://org/repo@0a1b", registry=registry)
    assert entry.sources == ["artefacts/toy/small/1", "hf://org/repo@0a1b"]
    assert hub.read_registry(registry)[0].index_version == 2


def test_a_registry_that_cannot_be_read_is_not_overwritten(artefact, tmp_path, card, stand_in):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "registry.yaml").write_text("schema: 1\nname: [broken\n")
    with pytest.raises(RegistryError):
        hub.publish(artefact, "toy/small", registry=tmp_path / "r", card=card)
    assert (tmp_path / "r" / "registry.yaml").read_text() == "schema: 1\nname: [broken\n"


def test_card_has_every_section_and_no_foreign_markup(artefact, tmp_path, card, stand_in):
    card["summary"] = "<script>alert(1)</script> [click](javascript:alert(2)) | `x` *b*"
    card["limits"] = ["a\n# Evaluation\nb", "<img src=x onerror=alert(1)>"]
    card["training"]["command"] = "echo `id` | sh <b>"
    card["x-note"] = "<script>"
    entry = hub.publish(artefact, "toy/small", registry=tmp_path / "r", card=card)
    text = render_card(entry)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    for markup in ("<script", "<img", "<b>", "[click](", "`id`"):
        assert markup not in text
    assert "0.5" in text
    assert "0.4 to 0.6" in text
    assert "pca 0.3" in text
    assert "without the training data to compare with" in text


def test_citations(artefact, tmp_path, card, stand_in):
    card["citation"] = [
        {"title": "A title.", "journal": "Nature", "year": "2026", "doi": "10.1000/x"},
        {"text": "Personal communication"},
    ]
    text = render_card(hub.publish(artefact, "toy/small", registry=tmp_path / "r", card=card))
    assert "- A title. Nature (2026). doi:10.1000/x\n- Personal communication." in text


def test_not_applicable_with_a_reason(artefact, tmp_path, card, stand_in):
    reason = "not applicable: the numbers are drawn, there is nothing to measure"
    card["metrics"] = reason
    card["privacy"] = {
        "dp": {
            "epsilon": 2.0, "delta": 1e-5, "unit": "donor", "accountant": "PLD",
            "not_covered": ["choice of genes"],
        },
        "audit": {"membership AUC": 0.51},
    }  # fmt: skip
    entry = hub.publish(artefact, "toy/small", registry=tmp_path / "r", card=card)
    text = render_card(entry)
    assert reason in text
    assert "for each donor" in text
    assert "membership AUC: 0.51" in text


def test_card_and_registry_cannot_disagree(registry, stand_in):
    report = hub.verify("toy/small", registry=registry)
    assert {c.name: c.result for c in report.checks}["card"] == "passed"
    path = registry / "registry.yaml"
    path.write_text(path.read_text().replace("value: 0.5", "value: 0.55"))
    report = hub.verify("toy/small", registry=registry)
    assert not report.ok
    assert {c.name: c.result for c in report.checks}["card"] == "failed"
    assert "NOT ok" in str(report)


def test_verify_reports_damage(registry, stand_in):
    path = registry / "artefacts/toy/small/1/weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    report = hub.verify("toy/small", registry=registry)
    assert not report.ok
    assert "another hash" in report.checks[0].message
    assert not hub.verify(path.parent).ok


def test_read_card(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text("summary: A model\nlimits:\n- one\n")
    assert hub.read_card(path) == {"summary": "A model", "limits": ["one"]}
    for text in ("- 1", "a: &x 1", "a: !!python/name:os.system x", "a: 1\na: 2"):
        path.write_text(text)
        with pytest.raises(SchemaError, match=r"card\.yaml"):
            hub.read_card(path)
    with pytest.raises(SchemaError, match="cannot be read"):
        hub.read_card(tmp_path / "nothing.yaml")


# One clean process that starts publishers, kills them at random moments and checks the registry.
DRIVER = r"""
import json, os, random, signal, sys, time
from functools import partial
from pathlib import Path
from sczoo.base._artefact import read_artefact
from sczoo.hub._fields import complete_entry, gather
from sczoo.hub._gate_report import GateReport
from sczoo.hub._registry import find, read_registry
from sczoo.hub._fetch import open_found
from sczoo.hub._store import add_artefact

source, folder = read_artefact(sys.argv[1]), Path(sys.argv[2])
n_kills, card = int(sys.argv[3]), json.loads(sys.argv[4])
make_entry = partial(complete_entry, gather(source.record, None, card), GateReport((), (), ()))

def publish():
    add_artefact(folder, source, "toy/small", None, make_entry)

publish()
rng = random.Random(0)
seen = {"whole": 0, "artefact not listed yet": 0, "half-written sibling": 0}
last = checked = 1
for _ in range(n_kills):
    ready, signal_ready = os.pipe()
    child = os.fork()
    if child == 0:
        publish()
        os.write(signal_ready, b"x")
        while True:
            publish()
    os.read(ready, 1)
    time.sleep(rng.uniform(0, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready); os.close(signal_ready)
    registry, _ = read_registry(folder)
    versions = [entry.version for entry in registry.entries]
    assert versions == list(range(1, len(versions) + 1)), versions
    assert registry.index_version == len(versions) > last
    last = len(versions)
    while checked < last:
        checked += 1
        open_found(find(f"toy/small:{checked}", folder)).tensors()
    found = {p.name for p in (folder / "artefacts/toy/small").iterdir()}
    seen["artefact not listed yet"] += str(last + 1) in found
    seen["half-written sibling"] += any(".tmp-" in name for name in found)
    seen["whole"] += 1
publish()  # the remains do not stand in the way
assert len(read_registry(folder)[0].entries) == last + 1
assert not list(folder.glob("*.tmp-*"))
print(json.dumps(seen))
"""


def test_kill_at_30_random_moments(artefact, tmp_path, card, record_property):
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, artefact, tmp_path / "r", "30", json.dumps(card)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    record_property("kills", seen)
    print(f"\nkill -9 while publishing: {seen}")
    assert seen["whole"] == 30


def test_two_publishers_at_once(artefact, tmp_path, card):
    code = (
        "import json, sys\n"
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from sczoo.base._artefact import read_artefact\n"
        "from sczoo.hub._fields import complete_entry, gather\n"
        "from sczoo.hub._gate_report import GateReport\n"
        "from sczoo.hub._store import add_artefact\n"
        "source = read_artefact(sys.argv[1])\n"
        "fields = gather(source.record, None, json.loads(sys.argv[3]))\n"
        "make = partial(complete_entry, fields, GateReport((), (), ()))\n"
        "for _ in range(4): add_artefact(Path(sys.argv[2]), source, 'toy/small', None, make)\n"
    )
    publishers = [
        subprocess.Popen([sys.executable, "-c", code, artefact, tmp_path / "r", json.dumps(card)])
        for _ in range(3)
    ]
    assert [publisher.wait(timeout=120) for publisher in publishers] == [0] * 3
    registry, _ = hub.read_registry(tmp_path / "r")
    assert [entry.version for entry in registry.entries] == list(range(1, 13))
    assert registry.index_version == 12


def test_an_orphan_of_a_crash_is_replaced(registry, artefact, add, save):
    save(registry / "artefacts/toy/small/2", name="toy/small", version=2)  # never listed
    entry = add(registry, artefact)
    assert entry.version == 2
    assert hub.pull("toy/small:2", registry=registry).is_dir()
