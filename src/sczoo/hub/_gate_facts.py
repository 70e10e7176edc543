"""What the release gate reads: the artefact taken apart, and the data that it must not reveal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.base._json import decode_typed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sczoo.base._artefact import Artefact

__all__ = ["Facts", "LiveData", "Node", "is_number", "strings_of"]

_SECTIONS = ("init_params", "setup", "scvi_registry", "domain", "provenance", "attributes")
_COUNT_PREFIXES = ("n_cells", "n_obs", "n_train", "n_val", "n_test", "n_query", "n_ref")
# Below this a matching length is coincidence: hidden layers and topics have such sizes.
MIN_PER_CELL = 50


@dataclass(frozen=True)
class Node:
    """A value of ``artefact.json`` and where it stands."""

    path: tuple[str, ...]
    value: Any
    parent: Any = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """The last name of the path; positions in lists have none."""
        return self.path[-1]

    @property
    def section(self) -> str:
        """The field of ``artefact.json``."""
        return self.path[0]

    @property
    def where(self) -> str:
        """The place, for people."""
        return "artefact.json: " + ".".join(self.path)

    def items(self) -> list[Any] | None:
        """Elements, if the value is a list, tuple or array; else ``None``."""
        if isinstance(self.value, np.ndarray):
            return self.value.ravel().tolist()
        return list(self.value) if isinstance(self.value, (list, tuple)) else None

    def lengths(self) -> set[int]:
        """Sizes of every dimension, if the value is a list, tuple or array."""
        if isinstance(self.value, np.ndarray):
            return set(self.value.shape)
        return {len(self.value)} if isinstance(self.value, (list, tuple)) else set()


@dataclass(frozen=True)
class LiveData:
    """The training data, as far as the gate compares with them."""

    n_obs: int
    obs_names: frozenset[str]
    columns: Mapping[str, Mapping[str, int]]  # column -> category -> number of cells
    vocabulary: frozenset[str]  # names of columns, layers and the like: not personal
    index_lengths: frozenset[int]

    @classmethod
    def of(cls, model: Any) -> LiveData | None:
        """Read the data of a model, or return ``None`` if it has none."""
        adata = getattr(model, "adata", None)
        if adata is None:
            return None
        columns = {}
        for name in adata.obs.columns:
            column = adata.obs[name]
            if str(name).startswith("_scvi") or (column.dtype.kind in "fiu" and not _few(column)):
                continue
            counts = column.dropna().astype(str).value_counts()
            columns[str(name)] = {str(key): int(n) for key, n in counts.items() if n > 0}
        vocabulary = {*map(str, adata.obs.columns), *map(str, getattr(adata, "obsm", {}))}
        for holder in (getattr(adata, "layers", {}), getattr(adata, "uns", {}), adata.var.columns):
            vocabulary.update(map(str, holder))
        indices = (
            getattr(model, f"{part}_indices_", None) for part in ("train", "validation", "test")
        )
        return cls(
            n_obs=adata.n_obs,
            obs_names=_telling_names(adata.obs_names, adata.n_obs) - vocabulary,
            columns=columns,
            vocabulary=frozenset(vocabulary),
            index_lengths=frozenset(len(part) for part in indices if part is not None),
        )


def _few(column: Any) -> bool:
    """Whether numbers act as categories (such as numbered donors)."""
    return column.dtype.kind in "iu" and column.nunique() <= max(2, len(column) // 5)


def _telling_names(names: Any, n_obs: int) -> frozenset[str]:
    texts = frozenset(map(str, names))
    # the default names of anndata are row numbers and say nothing
    if texts == frozenset(map(str, range(n_obs))):
        return frozenset()
    return frozenset(text for text in texts if len(text) >= 4)


@dataclass(frozen=True)
class Facts:
    """An artefact taken apart."""

    artefact: Artefact
    nodes: tuple[Node, ...]
    shapes: Mapping[str, tuple[int, ...]]
    live: LiveData | None
    cell_counts: frozenset[int]

    @classmethod
    def of(cls, artefact: Artefact, model: Any) -> Facts:
        """Take an artefact apart; `model` is the model it was saved from, or ``None``."""
        document = {
            name: decode_typed(
                value.model_dump() if hasattr(value, "model_dump") else value,
                where=f"{name} of artefact.json",
            )
            for name in _SECTIONS
            for value in [getattr(artefact.record, name)]
        }
        nodes = tuple(_walk(document))
        live = LiveData.of(model)
        shapes = {}
        if "weights.safetensors" in artefact.manifest.files:
            shapes = {name: array.shape for name, array in artefact.tensors().items()}
        counts = {
            int(node.value)
            for node in nodes
            if is_number(node.value)
            and node.key.startswith(_COUNT_PREFIXES)
            and node.value == int(node.value)
        }
        if live is not None:
            counts |= {live.n_obs, *live.index_lengths}
        # with as many genes as cells a length says nothing
        counts = {count for count in counts if count >= MIN_PER_CELL}
        counts -= {artefact.record.input.n_genes}
        return cls(artefact, nodes, shapes, live, frozenset(counts))


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, truth values excluded."""
    return (
        isinstance(value, (int, float, np.number))
        and not isinstance(value, bool)
        and bool(np.isfinite(value))
    )


def _walk(document: dict[str, Any]) -> Iterator[Node]:
    stack = [Node((name,), value) for name, value in document.items()]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node.value, dict):
            stack.extend(
                Node((*node.path, str(key)), item, node.value) for key, item in node.value.items()
            )
        else:
            # elements keep the path of their list
            stack.extend(
                Node(node.path, item, node.value)
                for item in node.items() or ()
                if isinstance(item, (dict, list, tuple, np.ndarray))
            )


def strings_of(node: Node) -> list[str]:
    """Texts that a node holds directly: itself, the elements of a list, the keys of a mapping."""
    if isinstance(node.value, str):
        return [node.value]
    if isinstance(node.value, dict):
        return [str(key) for key in node.value]
    return [item for item in node.items() or () if isinstance(item, str)]
