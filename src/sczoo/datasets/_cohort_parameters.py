"""What a simulated cohort is made of, validated before a number is drawn."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sczoo.errors import InputError

__all__ = ["CohortParameters"]

_DEFAULT_GENES_PER_GROUP = 20


def _whole(value: Any) -> int:
    """Take Python and NumPy integers; a bool or a float is a mistake."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not a truth value")
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"must be a whole number, not {value!r}") from None


def _number(value: Any) -> float:
    if isinstance(value, (bool, str, bytes)):
        raise ValueError(f"must be a number, not {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"must be a number, not {value!r}") from None


def _numbers(value: Any) -> tuple[float, ...]:
    """Take one number for all batches, or one per batch."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return (_number(value),)
    return tuple(_number(item) for item in value)


Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[Whole, Field(ge=1)]
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
# exp() of eight standard deviations of such an effect still fits a float by far
Spread = Annotated[Real, Field(ge=0, le=5)]


class CohortParameters(BaseModel):
    """Parameters of :func:`sczoo.datasets.simulated_cohort`, which documents them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_donors: Positive
    n_cells: Positive
    n_genes: Positive
    n_cell_types: Positive
    n_batches: Positive
    conditions: tuple[str, ...] = Field(min_length=1)
    depth: Annotated[tuple[float, ...], BeforeValidator(_numbers)]
    depth_sd: Spread
    dispersion: Annotated[float, BeforeValidator(_number), Field(ge=1e-3)]
    dropout: Annotated[Real, Field(ge=0, lt=1)]
    gene_sd: Spread
    donor_sd: Spread
    batch_sd: Spread
    marker_fold: Annotated[Real, Field(gt=0, le=1e4)]
    condition_fold: Annotated[Real, Field(gt=0, le=1e4)]
    n_markers: Annotated[Whole, Field(ge=0)]
    n_response_genes: Annotated[Whole, Field(ge=0)]
    composition: Annotated[float, BeforeValidator(_number), Field(gt=0)]
    batch_design: Literal["nested", "crossed"]
    seed: Annotated[Whole, Field(ge=0)]

    @classmethod
    def checked(cls, **parameters: Any) -> CohortParameters:
        """Validate, with an error that names the parameter and what it may be."""
        for key in ("n_markers", "n_response_genes"):
            if parameters[key] is None:
                parameters[key] = _genes_per_group(parameters)
        try:
            return cls(**parameters)
        except ValidationError as error:
            problems = []
            for item in error.errors(include_url=False):
                name = str(item["loc"][0]) if item["loc"] else None
                text = item["msg"].removeprefix("Value error, ")
                given = f"{name}={parameters.get(name)!r}: " if name else ""
                problems.append(f"{given}{text}")
            raise InputError("simulated_cohort: " + "; ".join(problems)) from error

    @field_validator("conditions", mode="before")
    @classmethod
    def _not_one_string(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"give a list of names, such as [{value!r}]")
        return value

    @field_validator("conditions")
    @classmethod
    def _usable_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # they become columns in an h5ad, where "/" separates folders; "" means no condition
        if any(not name or "/" in name for name in value):
            raise ValueError('names must not be empty or contain "/"')
        if len(set(value)) != len(value):
            raise ValueError("names must differ")
        return value

    @field_validator("depth")
    @classmethod
    def _depth_in_range(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(0 < depth <= 1e7 for depth in value):
            raise ValueError("must be above 0 and at most 1e7 counts per cell")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> CohortParameters:
        if len(self.depth) not in (1, self.n_batches):
            raise ValueError(
                f"depth has {len(self.depth)} values for {self.n_batches} batches: give one "
                "number, or one per batch"
            )
        if self.batch_design == "nested" and self.n_batches > self.n_donors:
            raise ValueError(
                f"{self.n_batches} batches need at least as many donors (n_donors="
                f"{self.n_donors}) when each donor is in one batch: raise n_donors, or use "
                "batch_design='crossed'"
            )
        if self.n_cells < self.n_groups:
            raise ValueError(
                f"n_cells={self.n_cells} is fewer than one cell for each of the {self.n_groups} "
                "combinations of donor, batch and condition: raise n_cells"
            )
        special = (
            self.n_cell_types * self.n_markers + (len(self.conditions) - 1) * self.n_response_genes
        )
        if special > self.n_genes:
            raise ValueError(
                f"n_markers={self.n_markers} and n_response_genes={self.n_response_genes} need "
                f"{special} genes but n_genes={self.n_genes}: lower them or raise n_genes"
            )
        return self

    @property
    def n_groups(self) -> int:
        """Combinations of donor, batch and condition that exist by design."""
        batches = self.n_batches if self.batch_design == "crossed" else 1
        return self.n_donors * len(self.conditions) * batches


def _genes_per_group(parameters: dict[str, Any]) -> int:
    """At most 20 genes per cell type and response, and at most half of all genes."""
    try:
        groups = _whole(parameters["n_cell_types"]) + len(parameters["conditions"]) - 1
        return min(_DEFAULT_GENES_PER_GROUP, _whole(parameters["n_genes"]) // (2 * groups))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0  # those parameters are about to be refused by name
