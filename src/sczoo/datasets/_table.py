"""The table of named datasets: what each is, where it comes from, and the hash of its file."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field

from sczoo.errors import UnknownArtefactError

__all__ = ["DatasetInfo", "DatasetSource", "find", "list_datasets", "table"]


class DatasetSource(BaseModel):
    """The public repository that the file was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str
    commit: str
    path: str
    licence: str = Field(description="licence of the repository, not of the data")


class DatasetInfo(BaseModel):
    """One named dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0, description="bytes of the file")
    study: str
    accession: str
    species: str
    tissue: str
    n_cells: int = Field(gt=0)
    n_genes: int = Field(gt=0)
    n_cell_types: int = Field(gt=0, description="labels other than 'unassigned'")
    matrix: str = Field(description="what the values of X are")
    gene_names: bool = Field(description="False: var_names are placeholders")
    obs: tuple[str, ...]
    licence: str = Field(description="terms of the data as far as they are known")
    source: DatasetSource
    shares_cells_with: tuple[str, ...] = ()
    description: str

    @property
    def filename(self) -> str:
        """Name of the file in a mirror."""
        return f"{self.name}.h5ad"

    @property
    def is_counts(self) -> bool:
        """Whether the matrix holds raw counts."""
        return self.matrix.startswith("raw counts")


@cache
def table() -> dict[str, DatasetInfo]:
    """Every named dataset by its name."""
    text = files("sczoo.datasets").joinpath("datasets.yaml").read_text(encoding="utf-8")
    entries = [DatasetInfo.model_validate(entry) for entry in yaml.safe_load(text)]
    return {entry.name: entry for entry in entries}


def find(name: str) -> DatasetInfo:
    """Return the entry of that name, or say which names come close."""
    try:
        return table()[name]
    except (KeyError, TypeError):
        close = get_close_matches(str(name), table(), n=3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UnknownArtefactError(
            f"No dataset is named {name!r}: {hint}"
            "sczoo.datasets.list_datasets() shows all the names."
        ) from None


def list_datasets(pattern: str = "*") -> list[DatasetInfo]:
    """List the named datasets, without touching a file or the network.

    Parameters
    ----------
    pattern
        Shell-style pattern that names have to match, such as ``"kang_*"``.

    Returns
    -------
    One :class:`DatasetInfo` per dataset, in alphabetical order of the names.

    Examples
    --------
    >>> import sczoo
    >>> [info.name for info in sczoo.datasets.list_datasets("kang_ifnb")]
    ['kang_ifnb']
    """
    return [info for name, info in sorted(table().items()) if fnmatchcase(name, pattern)]
