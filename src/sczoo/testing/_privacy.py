"""Checks that nothing about single patients is in a saved model unless asked for by name."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from sczoo.base import read_artefact
from sczoo.base._selftest import selftest_cells
from sczoo.testing._expect import require, require_equal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from anndata import AnnData

    from sczoo.testing._case import ModelCase

# Too short a name is found in any file by chance.
_MIN_LENGTH = 5
_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")
_PER_CELL_KEYS = ("history", "train_indices", "validation_indices", "test_indices", "obs_names")


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def require_absent(folder: Path, names: Iterable[str], what: str) -> None:
    """Require that no file below `folder` holds one of `names`, in any common encoding."""
    names = [name for name in names if len(name) >= _MIN_LENGTH]
    require(bool(names), f"There is no {what} to look for: give data whose names are longer.")
    for file, content in _files(folder).items():
        for name in names:
            escaped = json.dumps(name)[1:-1].encode()
            found = escaped in content or any(name.encode(e) in content for e in _ENCODINGS)
            require(not found, f"The saved {file} holds the {what} {name!r}.")


def _categories(cells: AnnData, columns: Iterable[str]) -> Iterator[str]:
    for column in columns:
        values = cells.obs[column]
        if not np.issubdtype(getattr(values.dtype, "type", object), np.number):
            yield from (str(value) for value in set(values.astype(str)))


def _meaningful(case: ModelCase) -> set[str]:
    """Words that arguments of the set-up and the model name themselves."""
    given = [*case.setup_kwargs.values(), *case.model_kwargs.values()]
    return {value for value in given if isinstance(value, str)}


def check_saved_without_barcodes(case: ModelCase) -> None:
    """Require that no file of a saved model holds a barcode of the training cells."""
    require_absent(case.saved, case.cells().obs_names, "barcode")


def check_saved_without_donors_and_categories(case: ModelCase) -> None:
    """Require that no file of a saved model holds a donor's name or any other value of ``obs``."""
    cells = case.cells()
    names = set(_categories(cells, cells.obs.columns)) - _meaningful(case)
    require_absent(case.saved, sorted(names), "category")


def check_saved_without_history(case: ModelCase) -> None:
    """Require that no file of a saved model holds the training history or the indices of cells."""
    for name, content in _files(case.saved).items():
        for key in _PER_CELL_KEYS:
            quoted = json.dumps(key).encode()
            require(quoted not in content, f"The saved {name} has an entry {key!r}.")
    curves = {
        name: pd.DataFrame(values).iloc[:, 0].to_numpy(dtype=float)
        for name, values in (case.model.history or {}).items()
    }
    artefact = read_artefact(case.saved)
    for path, key, value in _nodes(artefact.record.model_dump(mode="json"), "artefact.json"):
        # an argument may share its name with a curve, such as the weight of a loss
        several = isinstance(value, list | dict)
        require(not (several and key in curves), f"{path} holds several values of {key!r}.")
        _require_no_curve(path, value, curves)
    for name, array in artefact.tensors().items():
        require(name not in curves, f"The weight {name!r} has the name of a training curve.")
        _require_no_curve(f"The weight {name!r}", array.ravel().tolist(), curves)


def _require_no_curve(path: str, value: Any, curves: dict[str, np.ndarray]) -> None:
    if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
        return
    for name, curve in curves.items():
        # two epochs with different losses are not met by chance
        tells = len(curve) > 1 and len(set(curve)) > 1 and len(value) == len(curve)
        found = tells and np.allclose(value, curve, rtol=1e-4)
        require(not found, f"{path} holds the training curve {name!r}.")


def _nodes(node: Any, path: str, key: str = "") -> Iterator[tuple[str, str, Any]]:
    yield path, key, node
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _nodes(value, f"{path}[{name!r}]", str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value, f"{path}[...]")


def check_saved_without_values_per_cell(case: ModelCase) -> None:
    """Require that no array or list of a saved model has one value for each training cell."""
    n_cells, sizes = case.cells().n_obs, {len(case.model.var_names), case.latent.shape[1]}
    require(n_cells not in sizes, f"Check with another number of cells than {n_cells}.")
    artefact = read_artefact(case.saved)
    for name, array in artefact.tensors().items():
        require(n_cells not in array.shape, f"The weight {name!r} has shape {array.shape}.")
    for path, _, value in _nodes(artefact.record.model_dump(mode="json"), "artefact.json"):
        per_cell = isinstance(value, list | dict) and len(value) == n_cells
        require(not per_cell, f"{path} holds one value for each cell.")


def check_selftest_cells_are_synthetic(case: ModelCase) -> None:
    """Require that the cells of the stored self-test are those that the gene count determines."""
    artefact = read_artefact(case.saved)
    stored = artefact.selftest()
    require(stored is not None, "The saved model has no self-test.")
    assert stored is not None
    expected = selftest_cells(len(case.model.var_names), artefact.record.input.scale)
    require_equal(stored.x, expected, "The cells of the self-test")


def check_categories_by_name_only(case: ModelCase) -> None:
    """Require that ``include_categories`` lets exactly the named columns' categories through."""
    columns = case.need_categories()
    cells = case.cells()
    for column in columns:
        folder = case.folder / f"with-{column}"
        case.model.save(folder, include_categories=[column])
        content = (folder / "artefact.json").read_text(encoding="utf-8")
        for name in _categories(cells, [column]):
            require(name in content, f"include_categories=[{column!r}] does not save {name!r}.")
        others = set(_categories(cells, cells.obs.columns)) - set(_categories(cells, [column]))
        require_absent(folder, sorted(others - _meaningful(case)), "category")
        require_absent(folder, cells.obs_names, "barcode")


def check_never_unpickles(case: ModelCase) -> None:
    """Save and load without pickle and ``torch.load``, and write no file of theirs."""

    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("pickle was used")

    folder = case.folder / "no-pickle"
    with (
        mock.patch.object(pickle, "load", forbidden),
        mock.patch.object(pickle, "loads", forbidden),
        mock.patch.object(pickle, "dump", forbidden),
        mock.patch.object(pickle, "Unpickler", forbidden),
        mock.patch.object(torch, "load", forbidden),
        mock.patch.object(torch, "save", forbidden),
    ):
        case.model.save(folder)
        case.model_class.load(folder, accelerator="cpu")
    for name, content in _files(folder).items():
        require(not is_pickle_or_archive(content), f"The saved {name} is a pickle or an archive.")


def is_pickle_or_archive(content: bytes) -> bool:
    """Say whether a file begins as pickles and zip archives do."""
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        return False  # the length of a safetensors header can look like the mark of a pickle
    return content[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
