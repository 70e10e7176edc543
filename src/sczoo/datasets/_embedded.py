"""The dataset that travels in the package, so that the demo and the tests need no network."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from sczoo.datasets._read import difference, read_h5ad_bytes
from sczoo.errors import CorruptedArtefactError

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["FILENAME", "SHA256", "SIZE", "kang_ifnb_demo"]

# Printed by benchmarks/build_embedded_data.py, which makes the file.
FILENAME = "kang_ifnb_demo.h5ad"
SIZE = 3_487_163
SHA256 = "fd8507e458967b45b70317af83b47b83c8382603b63ea661d584912bdf5fe0c2"


def kang_ifnb_demo() -> AnnData:
    """Interferon-stimulated PBMC of eight donors, embedded in the package.

    Donors 101 and 107 of Kang et al. 2018 are whole, with control and interferon-beta-stimulated
    cells (2,181 cells); of the six other donors there are 8,400 control cells, drawn in proportion
    to donor and cell type. The 1,016 genes are those of the source. Barcodes were replaced by
    neutral names in a shuffled order. The package's hash of the file is checked on every call.

    Stimulated cells exist for two donors and five of the eight cell types only, at most 100 each:
    a difference in composition between the conditions is an effect of the source's sampling.

    Returns
    -------
    A new object: ``X`` raw counts (CSR float32), ``obs`` with ``patient``, ``condition``
    (``ctrl``, ``stim``) and ``cell_type``, ``var_names`` gene symbols,
    ``var["ensembl_id"]``, ``uns["source"]`` with accession, terms and how it was made.

    Raises
    ------
    sczoo.errors.CorruptedArtefactError
        The file of the installed package is missing or altered.

    Examples
    --------
    >>> import sczoo
    >>> adata = sczoo.datasets.kang_ifnb_demo()
    >>> adata.n_vars
    1016
    """
    with as_file(files("sczoo.datasets") / "data" / FILENAME) as path:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CorruptedArtefactError(
                f"The embedded dataset {path} cannot be read ({error.strerror}): reinstall sczoo."
            ) from error
    problem = difference(content, size=SIZE, sha256=SHA256)
    if problem is not None:
        raise CorruptedArtefactError(
            f"The embedded dataset {path} was altered: {problem}. Nothing was read from it; "
            "reinstall sczoo."
        )
    return read_h5ad_bytes(content, path)
