"""The documents of an artefact: ``artefact.json`` and ``manifest.json``, and their migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from sczoo.errors import SchemaError, SchemaVersionError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FILE_CAPS",
    "SCHEMA_VERSION",
    "ArtefactRecord",
    "FileEntry",
    "InputContract",
    "Manifest",
    "SetupCall",
    "Sha256",
    "StrictModel",
    "check_version",
    "describe_validation_error",
    "upgrade",
    "validate",
]

SCHEMA_VERSION = 1
_MEBI = 1 << 20
# The only files an artefact may hold, and how large each may be.
FILE_CAPS = {
    "artefact.json": 64 * _MEBI,
    "weights.safetensors": 16 << 30,
    "genes.tsv": 64 * _MEBI,
    "data.h5ad": 16 << 30,
    "selftest.safetensors": 256 * _MEBI,
    "card.md": 4 * _MEBI,
}

_Model = TypeVar("_Model", bound=BaseModel)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class StrictModel(BaseModel):
    """A document in which unknown keys and other types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class InputContract(StrictModel):
    """What a query must look like."""

    species: str | None = Field(default=None, max_length=100)
    namespace: Literal["symbol", "ensembl"] = "symbol"
    n_genes: int = Field(ge=1, le=10_000_000)
    genes_sha256: Sha256
    scale: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    min_coverage: float = Field(ge=0, le=1, allow_inf_nan=False)


class SetupCall(StrictModel):
    """How the data were registered: the set-up method and its arguments."""

    method: Literal["setup_anndata", "setup_mudata"] = "setup_anndata"
    args: dict[str, JsonValue] = Field(default_factory=dict)


class ArtefactRecord(StrictModel):
    """The content of ``artefact.json``."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["model", "dataset"] = "model"
    name: str | None = Field(default=None, max_length=200)
    version: int | None = Field(default=None, ge=1, le=1_000_000)
    method: Name
    init_params: dict[str, JsonValue] = Field(default_factory=dict)
    setup: SetupCall = Field(default_factory=SetupCall)
    scvi_registry: dict[str, JsonValue] = Field(default_factory=dict)
    input: InputContract
    domain: dict[str, float | list[float]] = Field(default_factory=dict)
    provenance: dict[str, JsonValue] = Field(default_factory=dict)
    attributes: dict[str, JsonValue] = Field(default_factory=dict)


class FileEntry(StrictModel):
    """Hash and size of one file."""

    sha256: Sha256
    size: int = Field(ge=0)


class Manifest(StrictModel):
    """The content of ``manifest.json``."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    files: dict[str, FileEntry]

    @model_validator(mode="after")
    def _only_known_files(self) -> Manifest:
        unknown = sorted(set(self.files) - set(FILE_CAPS))
        if unknown:
            raise ValueError(f"files that an artefact may not hold: {unknown[:5]}")
        missing = sorted({"artefact.json", "genes.tsv"} - set(self.files))
        if missing:
            raise ValueError(f"files missing from the list: {missing}")
        for name, entry in self.files.items():
            if entry.size > FILE_CAPS[name]:
                raise ValueError(f"{name} may have at most {FILE_CAPS[name]} bytes")
        return self

    @property
    def total_size(self) -> int:
        """Bytes of all listed files together."""
        return sum(entry.size for entry in self.files.values())


def upgrade(document: Any) -> dict[str, Any]:
    """Bring ``artefact.json`` of an older schema to the current one.

    Raises
    ------
    SchemaVersionError
        If the document is newer than this sczoo.
    SchemaError
        If it states no schema version.
    """
    version = check_version(document, "artefact.json")
    while version < SCHEMA_VERSION:
        if version not in _MIGRATIONS:
            raise SchemaError(f"artefact.json states schema {version}, which never existed.")
        document = _MIGRATIONS[version](dict(document))
        version = document["schema"]
    return document


# Schema version -> function that turns such a document into one of the next version.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def check_version(document: Any, where: str, newest: int = SCHEMA_VERSION) -> int:
    """Return the schema version that a document states, refusing newer ones."""
    version = document.get("schema") if isinstance(document, dict) else None
    if type(version) is not int:
        raise SchemaError(f"{where} does not state its schema version; it is not of sczoo.")
    if version > newest:
        raise SchemaVersionError(
            f"{where} has schema {version}, this sczoo reads up to {newest}. "
            "Update sczoo: pip install --upgrade sczoo."
        )
    return version


def validate(model: type[_Model], document: Any, where: str) -> _Model:
    """Check a document against its schema; a violation is a :class:`SchemaError`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise SchemaError(
            f"{where} does not follow the schema: {describe_validation_error(error)}"
        ) from error


def describe_validation_error(error: ValidationError) -> str:
    """Say in one line what pydantic found, without repeating the offending values."""
    parts = []
    for item in error.errors(include_url=False, include_input=False)[:5]:
        place = ".".join(str(step) for step in item["loc"]) or "document"
        parts.append(f"{place}: {item['msg']}")
    if error.error_count() > len(parts):
        parts.append(f"and {error.error_count() - len(parts)} more")
    return "; ".join(parts) + "."
