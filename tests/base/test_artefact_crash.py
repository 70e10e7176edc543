"""``kill -9`` while an artefact is replaced: the old or the new one is found, nothing else."""

import errno
import json
import os
import subprocess
import sys

import pytest

from sczoo.base import _files
from sczoo.base._files import (
    resolve_tree,
    write_file_atomically,
    write_tree_atomically,
)
from sczoo.errors import ArtefactError

# One clean process that starts writers, kills them at random moments and looks at what is left.
DRIVER = r"""
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
from sczoo.base._artefact import ArtefactRecord, InputContract, genes_sha256
from sczoo.base._artefact import read_artefact, write_artefact

target, n_kills = Path(sys.argv[1]), int(sys.argv[2])
ids = [f"G{i}" for i in range(200)]

def write(version):
    record = ArtefactRecord(
        method="toy", version=version,
        input=InputContract(
            n_genes=200, genes_sha256=genes_sha256(ids), scale="counts", min_coverage=0.8
        ),
    )
    write_artefact(
        target, record,
        tensors={"w": np.full((200, 50), version, dtype=np.float32)},
        genes=[{"id": name} for name in ids],
        overwrite=True,
    )

write(1)
rng = random.Random(0)
seen = {"loaded": 0, "half-written sibling": 0, "old one set aside": 0, "target absent": 0}
last = 1
for _ in range(n_kills):
    ready, signal_ready = os.pipe()
    child = os.fork()
    if child == 0:
        version = last
        while True:
            version += 1
            write(version)
            if version == last + 1:
                os.write(signal_ready, b"x")
    os.read(ready, 1)
    time.sleep(rng.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready); os.close(signal_ready)
    names = os.listdir(target.parent)
    seen["half-written sibling"] += any(".tmp-" in name for name in names)
    seen["old one set aside"] += any(name.endswith(".previous") for name in names)
    seen["target absent"] += target.name not in names
    artefact = read_artefact(target)
    found = artefact.record.version
    assert found > last, (found, last)
    assert (artefact.tensors()["w"] == found).all()
    last = found
    seen["loaded"] += 1
write(last + 1)
assert sorted(os.listdir(target.parent)) == sorted([f".{target.name}.lock", target.name])
print(json.dumps(seen))
"""


def test_kill_at_30_random_moments(tmp_path, record_property):
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "artefact"), "30"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    record_property("kills", seen)
    print(f"\nkill -9 while writing: {seen}")
    assert seen["loaded"] == 30
    assert seen["half-written sibling"] > 0  # the kills did hit the middle of writing


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


def steps(monkeypatch, at):
    """Die before the n-th change of the file system's names or its flushes."""
    done = []

    def before(name, real):
        def call(*arguments, **keywords):
            if len(done) == at:
                raise Killed
            done.append(name)
            return real(*arguments, **keywords)

        return call

    monkeypatch.setattr(_files.os, "rename", before("rename", os.rename))
    monkeypatch.setattr(_files.os, "fsync", before("fsync", os.fsync))
    # a dead process does not tidy up
    monkeypatch.setattr(_files.shutil, "rmtree", lambda *a, **k: None)
    return done


def test_death_at_every_step(tmp_path):
    """Not by chance but one by one: before each rename and each flush."""
    outcomes = []
    for at in range(50):
        target = tmp_path / f"t{at}" / "artefact"
        write_tree_atomically(target, lambda folder: (folder / "f").write_text("old"))
        with pytest.MonkeyPatch.context() as patch:
            done = steps(patch, at)
            try:
                write_tree_atomically(
                    target, lambda folder: (folder / "f").write_text("new"), overwrite=True
                )
                finished = True
            except Killed:
                finished = False
        found = (resolve_tree(target) / "f").read_text()
        outcomes.append((at, found))
        assert found in {"old", "new"}
        # the next writer clears the remains away
        write_tree_atomically(
            target, lambda folder: (folder / "f").write_text("next"), overwrite=True
        )
        assert (target / "f").read_text() == "next"
        assert sorted(p.name for p in target.parent.iterdir()) == [".artefact.lock", "artefact"]
        if finished:
            assert found == "new"
            assert done.count("rename") == 2
            break
    found = [text for _, text in outcomes]
    assert found[0] == "old"
    assert found == sorted(found, reverse=True)  # once new, always new


def test_previous_state_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / ".artefact.previous").mkdir()

    def read_only(*_arguments, **_keywords):
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(_files.os, "rename", read_only)
    assert resolve_tree(tmp_path / "artefact") == tmp_path / ".artefact.previous"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failing_disk_leaves_the_old_folder_and_no_litter(tmp_path, monkeypatch, code):
    target = tmp_path / "artefact"
    write_tree_atomically(target, lambda folder: (folder / "f").write_text("old"))

    def fail(_descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_files.os, "fsync", fail)
    with pytest.raises(ArtefactError, match="nothing was changed"):
        write_tree_atomically(
            target, lambda folder: (folder / "f").write_text("new"), overwrite=True
        )
    assert (target / "f").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".artefact.lock", "artefact"]


def test_a_failing_second_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "artefact"
    write_tree_atomically(target, lambda folder: (folder / "f").write_text("old"))
    rename, calls = os.rename, []

    def second_fails(source, destination):
        calls.append(destination)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken")
        rename(source, destination)

    monkeypatch.setattr(_files.os, "rename", second_fails)
    with pytest.raises(ArtefactError):
        write_tree_atomically(
            target, lambda folder: (folder / "f").write_text("new"), overwrite=True
        )
    assert (target / "f").read_text() == "old"


def test_an_error_while_filling_leaves_nothing(tmp_path):
    def fill(folder):
        (folder / "f").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree_atomically(tmp_path / "artefact", fill)
    assert [p.name for p in tmp_path.iterdir()] == [".artefact.lock"]


def test_two_writers_at_once(tmp_path):
    """Four processes replace the same folder; it is whole whenever it is looked at."""
    code = (
        "import sys; from pathlib import Path\n"
        "from sczoo.base._files import write_tree_atomically\n"
        "def fill(folder):\n"
        "    for i in range(20): (folder / f'{i}').write_text(sys.argv[2])\n"
        "for _ in range(5): write_tree_atomically(sys.argv[1], fill, overwrite=True)\n"
    )
    target = tmp_path / "artefact"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(target), str(number)])
        for number in range(4)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    texts = {path.read_text() for path in target.iterdir()}
    assert len(texts) == 1
    assert len(list(target.iterdir())) == 20


def test_one_file(tmp_path, monkeypatch):
    path = tmp_path / "registry.yaml"
    write_file_atomically(path, b"old")

    def fail(_descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(_files.os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_file_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["registry.yaml"]
