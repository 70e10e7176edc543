"""Read an h5ad only after its bytes were compared with the hash on record."""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

__all__ = ["difference", "read_h5ad_bytes"]


def difference(content: bytes, *, size: int, sha256: str) -> str | None:
    """Say how the bytes differ from the size and hash on record; None when they agree."""
    if len(content) != size:
        return f"it has {len(content):,} bytes instead of {size:,}"
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        return f"its sha256 is {found} instead of {sha256}"
    return None


def read_h5ad_bytes(content: bytes, origin: Path) -> AnnData:
    """Parse bytes that were checked: what is parsed is what was hashed, whatever the disk does.

    ``X`` comes back as CSR float32, the form that every model of the zoo takes without a copy.
    """
    import h5py
    import numpy as np
    from anndata import AnnData
    from anndata.io import read_elem
    from scipy.sparse import csr_matrix

    with h5py.File(BytesIO(content), "r") as file:
        adata = read_elem(file["/"])
    if not isinstance(adata, AnnData):  # a wrong file in the table, not a damaged one
        raise TypeError(f"{origin} holds a {type(adata).__name__}, not an AnnData")
    if not isinstance(adata.X, csr_matrix) or adata.X.dtype != np.float32:
        adata.X = csr_matrix(adata.X, dtype=np.float32)
    return adata
