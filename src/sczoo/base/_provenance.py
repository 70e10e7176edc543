"""What a run decided: recorded once, shown on the card, checked on load."""

from __future__ import annotations

import hashlib
import os
import platform
import random
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from sczoo import __version__
from sczoo.base._reading import iter_row_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anndata import AnnData

_PACKAGES = ("scvi-tools", "torch", "anndata", "numpy", "scipy", "pandas", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape results."""
    found = {"python": platform.python_version(), "sczoo": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Describe the machine in words that say nothing about its owner."""
    import torch

    described: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name(0)
    return described


def interruption(provenance: Mapping[str, Any]) -> str | None:
    """Say that a training was interrupted, and when; ``None`` if it was not."""
    if provenance.get("finished") is not False:
        return None
    arguments = provenance.get("arguments")
    asked = None
    if isinstance(arguments, dict) and isinstance(arguments.get("train"), dict):
        asked = arguments["train"].get("max_epochs")
    of_all = f" of {asked}" if isinstance(asked, int) else ""
    return f"Training was interrupted after {provenance.get('epochs', '?')}{of_all} epochs."


def fingerprint(adata: AnnData, layer: str | None, rows: np.ndarray | None = None) -> str:
    """SHA-256 of the non-zero values and their places: the same data give the same digest.

    Independent of storage (dense, CSR, backed, number type) and of names; values count in single
    precision, as the models read them.
    """
    digest = hashlib.sha256()
    for _, block in iter_row_blocks(adata, layer, rows):
        digest_block(digest, block)
    return digest.hexdigest()


def digest_block(digest: Any, block: Any) -> None:
    """Add the non-zero values of a block of rows, in single precision, and their places."""
    if sparse.issparse(block):
        csr = sparse.csr_matrix(block)
        if not csr.has_canonical_format or not np.all(csr.data):
            csr = csr.copy()
            csr.sum_duplicates()
            csr.eliminate_zeros()
        lengths, columns, values = np.diff(csr.indptr), csr.indices, csr.data
    else:
        flat = np.ascontiguousarray(block).reshape(-1)
        places = np.flatnonzero(flat)
        starts = np.arange(len(block) + 1) * block.shape[1]
        lengths = np.diff(np.searchsorted(places, starts))
        columns, values = places - np.repeat(starts[:-1], lengths), flat[places]
    for part, kind in ((lengths, "<i8"), (columns, "<i4"), (values, "<f4")):
        digest.update(np.ascontiguousarray(part, dtype=kind))


@contextmanager
def isolated_random_state(seed: int) -> Iterator[None]:
    """Seed Python, numpy and torch, and restore the caller's random state afterwards.

    Results depend on the seed alone, and the caller's own random numbers are not disturbed.
    """
    import torch

    with torch.random.fork_rng():
        state = np.random.get_state()  # noqa: NPY002
        python_state = random.getstate()  # igraph and leidenalg draw from Python's generator
        random.seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(state)  # noqa: NPY002
