"""What a registry says about an artefact: the schema of ``registry.yaml``.

Unknown keys are errors, so that a typing mistake cannot pass for a statement; keys that begin with
``x-`` are free. A text cannot be a placeholder, and "not applicable" needs its reason.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from sczoo.base._record import Sha256  # noqa: TC001  (pydantic reads annotations at run time)
from sczoo.hub._sources import check_source

__all__ = [
    "REGISTRY_SCHEMA",
    "CardFields",
    "Citation",
    "Compat",
    "Licence",
    "Metric",
    "ModelInput",
    "Privacy",
    "Registry",
    "RegistryEntry",
    "Training",
    "TrainingData",
]

REGISTRY_SCHEMA = 1
ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}/[a-z0-9][a-z0-9_.-]{0,62}$"
_PLACEHOLDER = re.compile(
    r"(to ?do|tbd|tba|n/?a|none|null|nil|unknown|undefined|fixme|xxx+|test|foo|bar|lorem ipsum.*"
    r"|placeholder|your .* here|not (provided|available|specified|given)( .*)?|[\W_]*)",
    re.IGNORECASE,
)
_NOT_APPLICABLE = re.compile(r"not applicable\b(?P<reason>.*)", re.IGNORECASE | re.DOTALL)
_MIN_REASON = 10


def _stated(text: str) -> str:
    """Refuse texts that say nothing."""
    text = text.strip()
    if not text or _PLACEHOLDER.fullmatch(text):
        raise ValueError("a placeholder says nothing; state the fact")
    match = _NOT_APPLICABLE.fullmatch(text)
    if match and len(match["reason"].strip(" :,.-")) < _MIN_REASON:
        raise ValueError("'not applicable' needs its reason: 'not applicable: <why>'")
    return text


def _not_applicable(text: str) -> str:
    if not _NOT_APPLICABLE.fullmatch(text.strip()):
        raise ValueError("give the figures, or 'not applicable: <why>'")
    return _stated(text)


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError("not a version range such as '>=0.1,<0.3'") from error
    return text


Text = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_stated)]
Short = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_stated)]
NotApplicable = Annotated[str, Field(max_length=1000), AfterValidator(_not_applicable)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Method = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
ArtefactId = Annotated[str, Field(pattern=ID_PATTERN)]
Version = Annotated[int, Field(ge=1, le=1_000_000)]
Source = Annotated[str, Field(max_length=2000), AfterValidator(check_source)]


class Document(BaseModel):
    """Part of a registry: known keys are checked, ``x-`` keys are free, others are errors."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, populate_by_name=True)
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    @model_validator(mode="after")
    def _only_known_keys(self) -> Document:
        unknown = [key for key in self.__pydantic_extra__ if not key.startswith("x-")]
        if unknown:
            known = ", ".join(
                field.alias or name for name, field in type(self).model_fields.items()
            )
            raise ValueError(
                f"unknown keys {unknown[:5]}; known are {known}, and any key that begins with 'x-'"
            )
        return self


class Licence(Document):
    """Under what terms the weights and the training data may be used (SPDX names)."""

    weights: Short | None = None
    data: Short


class Citation(Document):
    """One publication."""

    doi: Annotated[str, Field(pattern=r"^10\.\d{4,9}/\S+$", max_length=200)] | None = None
    authors: Text | None = None
    title: Text | None = None
    journal: Short | None = None
    year: Annotated[str, Field(pattern=r"^\d{4}$")] | None = None
    text: Text | None = None
    url: Annotated[str, Field(pattern=r"^https://\S+$", max_length=500)] | None = None

    @model_validator(mode="after")
    def _something(self) -> Citation:
        if not (self.doi or self.text or self.url or self.title):
            raise ValueError("give a doi, a title, a text or a url")
        return self

    def __str__(self) -> str:
        place = " ".join(filter(None, [self.journal, self.year and f"({self.year})"]))
        sentences = [self.authors, self.title, self.text, place]
        parts = [part.rstrip(".") + "." for part in sentences if part]
        return " ".join([*parts, *filter(None, [self.doi and f"doi:{self.doi}", self.url])])


class Compat(Document):
    """Versions: the range that reads the artefact, and those that made it."""

    sczoo: Annotated[str, Field(max_length=100), AfterValidator(_specifier)]
    trained_with: dict[str, Short] = Field(min_length=1)


class ModelInput(Document):
    """What a query must look like."""

    species: Short
    namespace: Literal["symbol", "ensembl"]
    n_genes: Annotated[int, Field(ge=1, le=10_000_000)]
    scale: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    min_coverage: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class TrainingData(Document):
    """One data set that was trained on."""

    name: Short
    access: Literal["open", "controlled", "internal", "synthetic"]
    accession: Short | None = None
    doi: Short | None = None
    url: Short | None = None


class Training(Document):
    """How the artefact came to be."""

    data: list[TrainingData] = Field(min_length=1)
    n_cells: Count
    n_donors: Count | NotApplicable
    split: Text
    command: Text
    seed: int


class Metric(Document):
    """One figure, the data it was measured on, its uncertainty, and what it must beat."""

    name: Short
    value: Number
    ci95: Annotated[list[Number], Field(min_length=2, max_length=2)] | NotApplicable
    split: Short
    baseline: Annotated[dict[str, Number], Field(min_length=1)] | NotApplicable
    command: Text
    dataset: Short | None = None
    worst_donor: Number | None = None

    @model_validator(mode="after")
    def _interval(self) -> Metric:
        if isinstance(self.ci95, list) and not self.ci95[0] <= self.value <= self.ci95[1]:
            raise ValueError("ci95 must be [low, high] around the value")
        return self


class DifferentialPrivacy(Document):
    """A differential privacy guarantee, what it leaves out, and a simpler way to the same."""

    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    delta: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    unit: Literal["cell", "donor"]
    accountant: Short
    not_covered: list[Text]
    mechanism: Text | None = None
    alternative: Text | None = None


class Privacy(Document):
    """What is inside about single patients; the first four are computed by the release gate.

    ``compared_with_data`` says whether the gate had the training data to compare with, ``allowed``
    lists the findings that were released by name.
    """

    per_cell_content: Literal["none"] | Annotated[list[Short], Field(min_length=1)]
    per_donor_content: Literal["none"] | Annotated[list[Short], Field(min_length=1)]
    compared_with_data: bool = False
    allowed: list[Short] = Field(default_factory=list)
    dp: DifferentialPrivacy | Text | None = None
    audit: Annotated[dict[str, JsonValue], Field(min_length=1)] | NotApplicable | None = None


class CardFields(Document):
    """What a person states about an artefact; everything else is read from the artefact."""

    summary: Short
    licence: Licence
    citation: list[Citation] = Field(min_length=1)
    compat: Compat
    training: Training
    metrics: Annotated[list[Metric], Field(min_length=1)] | NotApplicable
    limits: list[Text] = Field(min_length=1)
    out_of_scope: list[Text] = Field(min_length=1)
    contact: Short | None = None
    released: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    parents: list[ArtefactId] = Field(default_factory=list)


class RegistryEntry(CardFields):
    """One artefact of a registry; immutable but for its status."""

    id: ArtefactId
    version: Version
    kind: Literal["model", "dataset"]
    method: Method
    status: Literal["active", "deprecated", "revoked"] = "active"
    reason: Text | None = None
    superseded_by: Annotated[str, Field(pattern=ID_PATTERN[:-1] + r"(:[1-9]\d{0,5})?$")] | None = (
        None
    )
    sources: list[Source] = Field(min_length=1, max_length=20)
    manifest_sha256: Sha256
    size: Annotated[int, Field(ge=1)]
    input: ModelInput
    privacy: Privacy

    @model_validator(mode="after")
    def _complete(self) -> RegistryEntry:
        if self.status != "active" and not self.reason:
            raise ValueError(f"status {self.status!r} needs a reason")
        if self.kind == "model" and self.licence.weights is None:
            raise ValueError("licence.weights is needed for kind 'model'")
        return self

    @property
    def name(self) -> str:
        """The pinned name, ``id:version``."""
        return f"{self.id}:{self.version}"


class Registry(Document):
    """The content of ``registry.yaml``."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Short
    index_version: Annotated[int, Field(ge=1)]
    entries: list[RegistryEntry] = Field(default_factory=list, max_length=100_000)

    @model_validator(mode="after")
    def _unique(self) -> Registry:
        seen: set[str] = set()
        for entry in self.entries:
            if entry.name in seen:
                raise ValueError(f"{entry.name} occurs twice")
            seen.add(entry.name)
        return self


def to_document(model: Document) -> dict[str, Any]:
    """Plain values for YAML: fields that say nothing are left out."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
