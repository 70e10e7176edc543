"""Strict JSON, and a typed encoding of the values that scvi-tools' registries hold.

Strict means that a document has one reading: no duplicate keys, no NaN or infinity, no numbers
beyond 64 bits, no lone surrogates, bounded depth. Numpy arrays, numpy scalars and tuples are
written as tagged objects, so that they come back as they were without pickle.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from sczoo.errors import CorruptedArtefactError, SchemaError

__all__ = ["MAX_DEPTH", "decode_typed", "dump_json", "encode_typed", "parse_json"]

MAX_DEPTH = 100
_TAG = "__type__"
_MAX_INTEGER_DIGITS = 20  # 2**64 has twenty digits; Python would happily parse thousands
_NUMBER_DTYPES = {
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
}


def parse_json(data: bytes, *, where: str) -> Any:
    """Parse a JSON document that has exactly one reading.

    Parameters
    ----------
    data
        The bytes of the document, UTF-8.
    where
        How error messages call the document.

    Raises
    ------
    CorruptedArtefactError
        If the document is not strict JSON.
    """

    def refuse(reason: str) -> CorruptedArtefactError:
        return CorruptedArtefactError(
            f"{where} is not valid: {reason}. Fetch or save the artefact again."
        )

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            raise refuse("a key occurs twice in one object")
        return result

    def integer(text: str) -> int:
        if len(text) > _MAX_INTEGER_DIGITS:
            raise refuse("a whole number has more than 64 bits")
        return int(text)

    def real(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise refuse(f"the number {text[:20]} is out of range")
        return value

    def constant(text: str) -> float:
        raise refuse(f"{text} is not a JSON number")

    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
        )
    except RecursionError as error:
        raise refuse(f"it is nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # also UnicodeDecodeError and json.JSONDecodeError
        raise refuse(str(error)) from error
    _check_tree(document, refuse)
    return document


def _check_tree(document: Any, refuse: Any) -> None:
    """Bound the depth and refuse lone surrogates, without recursion."""
    stack = [(document, 1)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, str):
            _check_text(node, refuse)
        elif isinstance(node, (dict, list)):
            if depth > MAX_DEPTH:
                raise refuse(f"it is nested deeper than {MAX_DEPTH} levels")
            if isinstance(node, dict):
                for key in node:
                    _check_text(key, refuse)
                node = node.values()
            stack.extend((child, depth + 1) for child in node)


def _check_text(text: str, refuse: Any) -> None:
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise refuse("a text holds half of a surrogate pair")


def dump_json(document: Any, *, where: str) -> bytes:
    """Write a document so that equal documents give equal bytes.

    Raises
    ------
    SchemaError
        If the document holds NaN, infinity or something that JSON has no form for.
    """
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, sort_keys=True, indent=1)
        data = (text + "\n").encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(
            f"{where} cannot be written as JSON: {error}. Use plain finite values (numbers, "
            "texts, lists, dictionaries)."
        ) from error
    parse_json(data, where=where)  # what cannot be read back is not written
    return data


def encode_typed(value: Any, *, where: str = "value") -> Any:
    """Turn nested dictionaries, tuples, numpy arrays and scalars into tagged plain JSON.

    ``decode_typed(encode_typed(value))`` has the same types, dtypes, shapes and values. Columns of
    pandas are written as arrays.

    Raises
    ------
    SchemaError
        If a value has no safe form (an object, a function, a set ...).
    """
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, np.str_) else value
    if isinstance(value, np.generic):
        return {
            _TAG: "scalar",
            "dtype": _dtype_name(value.dtype, where),
            "value": _plain(value.item(), where),
        }
    if isinstance(value, (int, float)):
        return _plain(value, where)
    if isinstance(value, list):
        return [encode_typed(item, where=f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, tuple):
        items = [encode_typed(item, where=f"{where}[{i}]") for i, item in enumerate(value)]
        return {_TAG: "tuple", "items": items}
    if isinstance(value, dict):
        return _encode_dict(value, where)
    if type(value).__module__.partition(".")[0] == "pandas":
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return {
            _TAG: "array",
            "dtype": _dtype_name(value.dtype, where),
            "shape": list(value.shape),
            "values": [_plain(item, where) for item in value.ravel().tolist()],
        }
    raise SchemaError(
        f"{where} is a {type(value).__name__}, which cannot be stored safely. Use numbers, texts, "
        "lists, dictionaries or numpy arrays."
    )


def _encode_dict(value: dict[Any, Any], where: str) -> dict[str, Any]:
    if _TAG not in value and all(type(key) in (str, np.str_) for key in value):
        return {
            str(key): encode_typed(item, where=f"{where}[{key!r}]") for key, item in value.items()
        }
    pairs = [
        [
            encode_typed(key, where=f"a key of {where}"),
            encode_typed(item, where=f"{where}[{key!r}]"),
        ]
        for key, item in value.items()
    ]
    return {_TAG: "dict", "items": pairs}


def _dtype_name(dtype: np.dtype, where: str) -> str:
    if dtype.kind == "U":
        return "str"
    if dtype.kind == "O":
        return "object"
    if dtype.name in _NUMBER_DTYPES:
        return dtype.name
    raise SchemaError(
        f"{where} has dtype {dtype}, which cannot be stored safely; convert it first."
    )


def _plain(value: Any, where: str) -> Any:
    """One element: JSON has no NaN, so non-finite numbers are tagged."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_TAG: "float", "value": str(value)}
    if isinstance(value, np.generic):
        return _plain(value.item(), where)
    raise SchemaError(
        f"{where} holds a {type(value).__name__}, which cannot be stored safely; use numbers or "
        "texts."
    )


def decode_typed(document: Any, *, where: str = "value") -> Any:
    """Reverse :func:`encode_typed`.

    Raises
    ------
    CorruptedArtefactError
        If a tagged object is malformed.
    """
    if isinstance(document, list):
        return [decode_typed(item, where=where) for item in document]
    if not isinstance(document, dict):
        return document
    if _TAG not in document:
        return {key: decode_typed(item, where=where) for key, item in document.items()}
    try:
        return _decode_tagged(document, where)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CorruptedArtefactError(
            f"{where} holds a malformed typed value ({error}). Fetch or save the artefact again."
        ) from error


def _decode_tagged(document: dict[str, Any], where: str) -> Any:
    fields = dict(document)
    tag = fields.pop(_TAG)
    if tag == "tuple":
        (items,) = _only(fields, "items")
        return tuple(decode_typed(item, where=where) for item in items)
    if tag == "dict":
        (items,) = _only(fields, "items")
        return {
            decode_typed(key, where=where): decode_typed(item, where=where) for key, item in items
        }
    if tag == "float":
        (text,) = _only(fields, "value")
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text]
    if tag == "scalar":
        dtype, value = _only(fields, "dtype", "value")
        return _array(dtype, [], [value], where)[()]
    if tag == "array":
        dtype, shape, values = _only(fields, "dtype", "shape", "values")
        return _array(dtype, shape, values, where)
    raise ValueError(f"unknown type {tag!r}")


def _only(fields: dict[str, Any], *names: str) -> list[Any]:
    if set(fields) != set(names):
        raise ValueError(f"expected the fields {', '.join(names)}")
    return [fields[name] for name in names]


def _array(dtype: str, shape: Any, values: Any, where: str) -> np.ndarray:
    if not isinstance(values, list) or not isinstance(shape, list):
        raise TypeError("shape and values must be lists")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape holds something other than whole numbers")
    if math.prod(shape) != len(values):
        raise ValueError(f"shape {shape[:8]} does not fit {len(values)} values")
    items = [decode_typed(item, where=where) for item in values]
    if not all(item is None or type(item) in (bool, int, float, str) for item in items):
        raise TypeError("an element is not a number or a text")
    if dtype == "object":
        flat = np.empty(len(items), dtype=object)
        flat[:] = items
    elif dtype == "str":
        if not all(type(item) is str for item in items):
            raise TypeError("an element is not a text")
        flat = np.array(items, dtype=np.str_) if items else np.empty(0, dtype="<U1")
    elif dtype in _NUMBER_DTYPES:
        if not all(type(item) in (bool, int, float) for item in items):
            raise TypeError("an element is not a number")
        flat = np.array(items, dtype=dtype)
    else:
        raise ValueError(f"unknown dtype {str(dtype)[:40]!r}")
    return flat.reshape(shape)
