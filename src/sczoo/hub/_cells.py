"""Reading ``data.h5ad`` of a dataset, which may come from anybody.

A damaged HDF5 file can make the HDF5 library run for ever or crash, and HDF5 has links to other
files. So a child process with bounded time and memory walks through the whole file first, and
refuses links; only then is the file opened here.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from sczoo.errors import ArtefactError, CorruptedArtefactError

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from sczoo.base._artefact import Artefact

__all__ = ["read_data"]

_SECONDS = 20.0
_BYTES_PER_SECOND = 10 << 20  # far below any disk, so that large whole files are never refused
_EXIT_LINK = 3

# Runs in the child. It must not import sczoo: h5py alone starts quickly.
_WALK = """
import sys
import h5py
try:
    import resource
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass

def attributes(item):
    for name in item.attrs:
        item.attrs[name]

def values(item):
    if item.external or item.is_virtual:
        sys.exit(3)
    if item.shape is None or item.dtype.hasobject or not item.shape:
        item[()]
        return
    row = max(1, item.nbytes // max(1, item.shape[0]))
    step = max(1, (16 << 20) // row)
    for start in range(0, item.shape[0], step):
        item[start : start + step]

with h5py.File(sys.argv[1], "r") as file:
    attributes(file)
    groups = [file]
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                sys.exit(3)
            item = group[name]
            attributes(item)
            if isinstance(item, h5py.Dataset):
                values(item)
            elif item.name.count("/") < 20:
                groups.append(item)
            else:
                sys.exit(3)
"""


def read_data(artefact: Artefact) -> AnnData:
    """Read the cells of a dataset.

    Raises
    ------
    CorruptedArtefactError
        If the file is malformed or holds links.
    """
    import anndata

    path = artefact.data_path
    if path is None:
        raise ArtefactError(f"The artefact in {artefact.path} holds no cells.")
    _walk_in_a_child(path)
    try:
        return anndata.read_h5ad(path)
    except Exception as error:
        raise _malformed(path, f"{type(error).__name__}: {error}") from error


def _walk_in_a_child(path: Path) -> None:
    size = path.stat().st_size
    seconds = _SECONDS + size / _BYTES_PER_SECOND
    memory = (4 << 30) + 4 * size
    try:
        result = subprocess.run(
            [sys.executable, "-P", "-c", _WALK, str(path), str(memory)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _malformed(path, "reading it does not come to an end") from error
    except OSError as error:
        raise ArtefactError(f"{path} could not be examined ({error}).") from error
    if result.returncode == _EXIT_LINK:
        raise _malformed(path, "it holds links, which are refused")
    if result.returncode != 0:
        lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _malformed(path, lines[-1][:300] if lines else "the HDF5 library crashed on it")


def _malformed(path: Path, reason: str) -> CorruptedArtefactError:
    return CorruptedArtefactError(f"{path} is not a readable h5ad file: {reason}.")
