"""What every benchmark shares: one thread, CPU seconds, labelled data, JSON results.

A benchmark is one script; it writes ``benchmarks/results/<its name>.json`` with the versions and
arguments it ran with, from which the tables of the documentation are made. Import this module
before numpy: it limits the threads.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import json
import platform
import resource
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData, read_h5ad

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

warnings.filterwarnings("ignore")
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
# argument of model.train() for a run whose output is a table
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "logger": False,
}


@dataclass
class Cost:
    """CPU seconds of this process and its finished children, and the peak memory so far."""

    cpu_seconds: float = 0.0
    peak_gib: float = 0.0


@contextmanager
def cost() -> Iterator[Cost]:
    """Measure a block: ``with cost() as spent: ...``, then ``spent.cpu_seconds``."""
    spent = Cost()
    start = _cpu()
    try:
        yield spent
    finally:
        spent.cpu_seconds = _cpu() - start
        spent.peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def data_folder() -> Path:
    """Folder with the labelled datasets: ``SCZOO_DATA_DIR``, else ``../shared/data``."""
    folder = Path(os.environ.get("SCZOO_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        sys.exit(f"{folder} is not there: set SCZOO_DATA_DIR to a folder with the .h5ad files")
    return folder


def labelled(name: str, n_cells: int | None = None, seed: int = 0) -> AnnData:
    """Read a dataset; at most `n_cells` of its cells, drawn with `seed`."""
    adata = read_h5ad(data_folder() / f"{name}.h5ad")
    if n_cells is not None and adata.n_obs > n_cells:
        chosen = np.random.default_rng(seed).choice(adata.n_obs, n_cells, replace=False)
        adata = adata[np.sort(chosen)].copy()
    return adata


@dataclass
class Results:
    """Rows of a benchmark, written after each row so that a stopped run loses nothing."""

    name: str
    arguments: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, **row: Any) -> None:
        """Keep, print and write one row."""
        self.rows.append({key: _plain(value) for key, value in row.items()})
        print("  ".join(f"{key}={value}" for key, value in self.rows[-1].items()), flush=True)
        self.write()

    def resume(self) -> None:
        """Take over the rows of an earlier run, so that only what is missing is computed."""
        if self.path.exists():
            self.rows = json.loads(self.path.read_text())["rows"]

    @property
    def path(self) -> Path:
        """Where the results are."""
        return RESULTS / f"{self.name}.json"

    def write(self) -> None:
        """Write ``benchmarks/results/<name>.json``."""
        from sczoo.base._provenance import versions

        RESULTS.mkdir(exist_ok=True)
        document = {
            "benchmark": self.name,
            "arguments": {key: _plain(value) for key, value in self.arguments.items()},
            "commit": _commit(),
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
            "versions": versions(),
            "rows": self.rows,
        }
        self.path.write_text(json.dumps(document, indent=1) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return list(value) if isinstance(value, (tuple, set)) else value


def _commit() -> str:
    out = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return out.stdout.strip()
