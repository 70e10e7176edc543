"""Arrays in safetensors files, read and written with numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from sczoo.base._json import parse_json
from sczoo.errors import ArtefactError, CorruptedArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SelfTest", "check_selftest", "dump_safetensors", "parse_safetensors"]


# Largest share of the expected values that a self-test may be off by.
_MAX_TOLERANCE = 0.01


@dataclass(frozen=True)
class SelfTest:
    """Synthetic cells, the output that the model gave for them, and the allowed difference."""

    x: np.ndarray
    expected: np.ndarray
    tolerance: float


def parse_safetensors(data: bytes, where: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays and the metadata of a file, given its bytes."""
    try:
        arrays = safetensors.numpy.load(data)
        # The library has no call that returns the metadata of bytes; its header has been
        # validated by the load above.
        length = int.from_bytes(data[:8], "little")
        header = parse_json(data[8 : 8 + length].rstrip(b" "), where=f"The header of {where}")
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise CorruptedArtefactError(
            f"{where} is not a valid safetensors file ({error}). Fetch or save the artefact again."
        ) from error
    return arrays, header.get("__metadata__", {})


def check_selftest(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], n_genes: int
) -> SelfTest:
    """Check the arrays of a self-test against each other and the number of genes."""
    problem = None
    tolerance = 0.0
    if set(arrays) != {"x", "expected"}:
        problem = "it must hold exactly the arrays 'x' and 'expected'"
    elif arrays["x"].ndim != 2 or arrays["x"].shape[1] != n_genes:
        problem = f"'x' must have one column for each of the {n_genes} genes"
    elif arrays["expected"].ndim != 2 or len(arrays["expected"]) != len(arrays["x"]):
        problem = "'expected' must have one row for each cell of 'x'"
    else:
        try:
            tolerance = float(metadata.get("tolerance", ""))
        except ValueError:
            problem = "it states no tolerance"
        else:
            largest = float(np.abs(arrays["expected"]).max(initial=0))
            if not 0 < tolerance <= max(1, _MAX_TOLERANCE * largest):
                problem = "the tolerance must be above 0 and small beside the expected values"
    if problem:
        raise CorruptedArtefactError(f"selftest.safetensors is not valid: {problem}.")
    return SelfTest(arrays["x"], arrays["expected"], tolerance)


def dump_safetensors(
    arrays: Mapping[str, np.ndarray], name: str, metadata: dict[str, str] | None
) -> bytes:
    """Write arrays of numbers and truth values; the reverse of :func:`parse_safetensors`."""
    clean = {}
    for key, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ArtefactError(
                f"The array {key!r} of {name} has dtype {array.dtype}; only numbers and truth "
                "values can be stored."
            )
        # safetensors writes the buffer as it lies in memory, so it must be C-ordered and of the
        # machine's byte order (np.ascontiguousarray would turn a scalar into a vector).
        clean[key] = np.require(array, dtype=array.dtype.newbyteorder("="), requirements="C")
    try:
        return safetensors.numpy.save(clean, metadata)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{name} could not be written: {error}.") from error
