"""Run the tutorials and keep their output, but for warnings: those name places of this machine.

Run with ``python docs/run_tutorials.py [NAME ...]`` (``make tutorials``).
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "tutorials"

for path in sorted(FOLDER.glob("*.ipynb")):
    if sys.argv[1:] and path.stem not in sys.argv[1:]:
        continue
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as scratch:  # what a tutorial writes does not stay beside it
        NotebookClient(
            notebook,
            timeout=1200,
            resources={"metadata": {"path": scratch}},
            record_timing=False,  # or every run would change every cell
        ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    nbformat.write(notebook, path)
    print(path.name)
