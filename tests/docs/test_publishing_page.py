"""The example of docs/publishing.md works when it is pasted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "publishing.md"


@pytest.mark.slow
def test_the_example_can_be_pasted(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    commands = {"python": "", "sczoo": "-c 'from sczoo.cli import main; main()'"}
    for name, arguments in commands.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\nexec '{sys.executable}' {arguments} \"$@\"\n")
        program.chmod(0o755)
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Published sce2tm/my-topics:1" in done.stdout
    assert "Eight gene programs" in done.stdout
    assert "Signed my-registry with ed25519:" in done.stdout
    assert (tmp_path / "annotated.h5ad").is_file()


@pytest.mark.slow
def test_the_lines_of_python_can_be_pasted(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:  # each by itself, as somebody who comes back tomorrow
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "for-scvi-hub" / "model.pt").is_file()
    assert not (tmp_path / "scvi-model-for-the-zoo" / "model.pt").exists()
