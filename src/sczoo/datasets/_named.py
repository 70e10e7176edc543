"""Load a named dataset, and one function per name made from the table."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from sczoo.datasets import _embedded
from sczoo.datasets._fetch import fetch_checked
from sczoo.datasets._read import read_h5ad_bytes
from sczoo.datasets._table import find, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from sczoo.datasets._table import DatasetInfo

__all__ = ["load", "loader"]


def load(name: str) -> AnnData:
    """Load a named dataset.

    The file comes from the folder in ``SCZOO_DATA_DIR``, else from the cache, else from the
    server in ``SCZOO_DATA_URL``; its size and sha256 are compared with the table before it is
    parsed.

    Parameters
    ----------
    name
        A name from :func:`list_datasets`, or ``"kang_ifnb_demo"`` for the embedded dataset.

    Returns
    -------
    A new object with ``X`` as CSR float32, ``obs["cell_type"]`` and ``uns["source"]``. Cells
    labelled ``"unassigned"`` have no true label: leave them out of scores.

    Raises
    ------
    sczoo.errors.UnknownArtefactError
        There is no dataset of that name.
    sczoo.errors.FetchError
        The file is neither here nor to be had; the message says what to set.
    sczoo.errors.IntegrityError
        The file differs from the one on record. It is left as it was.
    """
    if name == "kang_ifnb_demo":
        return _embedded.kang_ifnb_demo()
    path, content = fetch_checked(find(name))
    return read_h5ad_bytes(content, path)


def loader(name: str) -> Callable[[], AnnData] | None:
    """Make the function of one named dataset; None when there is no such name."""
    info = table().get(name)
    if info is None:
        return None

    def function() -> AnnData:
        return load(name)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "sczoo.datasets"
    function.__doc__ = _docstring(info)
    return function


def _docstring(info: DatasetInfo) -> str:
    paragraphs = [
        f"{info.study}.",
        fill(info.description, 92),
        fill(
            f"{info.n_cells:,} cells, {info.n_genes:,} genes, {info.n_cell_types} cell types; "
            f"{info.species}, {info.tissue}; values: {info.matrix}.",
            92,
        ),
        f"Accession: {info.accession}. Data: {info.licence}.",
        fill(
            f"Made from {info.source.repository} (licence of the repository: "
            f"{info.source.licence}).",
            92,
        ),
    ]
    if not info.gene_names:
        paragraphs.append("Gene names are not known: var_names are placeholders.")
    if info.shares_cells_with:
        shared = ", ".join(info.shares_cells_with)
        paragraphs.append(f"Shares cells with {shared}: do not train on one and test on another.")
    columns = ", ".join(f'``obs["{column}"]``' for column in info.obs)
    paragraphs.append(f"Returns\n-------\nA new AnnData with {columns}.")
    return "\n\n".join(paragraphs)
