"""The tutorials run from the first cell to the last, and were committed with their output."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_was_committed_with_its_output(path):
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.execution_count for cell in cells), "run: make tutorials"
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert kinds
    assert "error" not in kinds
    # warnings name places of the machine that ran it
    assert "stderr" not in [output.get("name") for cell in cells for output in cell.outputs]
    assert path.stat().st_size < 2e6


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_runs(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    if "needs_shared_data" in notebook.metadata.get("sczoo", {}):
        missing = [
            name
            for name in notebook.metadata["sczoo"]["needs_shared_data"]
            if not (SHARED / name).exists()
        ]
        if missing:
            pytest.skip(f"needs ../shared/data/{missing[0]}")
        monkeypatch.setenv("SCZOO_DATA_DIR", str(SHARED))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
