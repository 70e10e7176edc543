"""The slice of the Cell Ontology that sczoo ships with: the terms of its markers, and above."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Ontology", "cell_ontology"]


@dataclass(frozen=True)
class Ontology:
    """Terms, their names and definitions, and who is a kind of whom.

    Attributes
    ----------
    names, definitions
        Of each term, by identifier.
    parents
        Direct parents of each term.
    """

    names: dict[str, str]
    definitions: dict[str, str]
    parents: dict[str, tuple[str, ...]]

    def find(self, text: str) -> str | None:
        """Find a term by identifier or name; ``None`` if it is not there."""
        if text in self.names:
            return text
        lowered = text.strip().lower()
        for term, name in self.names.items():
            if name.lower() == lowered:
                return term
        return None

    def ancestors(self, term: str) -> dict[str, int]:
        """Ancestors of a term and the number of steps to each; the term itself at 0."""
        if term not in self.names:
            raise InputError(
                f"{term!r} is not in the slice of the Cell Ontology that sczoo ships with."
            )
        found, level, steps = {term: 0}, [term], 0
        while level:
            steps += 1
            level = [p for t in level for p in self.parents[t] if p not in found]
            for parent in level:
                found.setdefault(parent, steps)
        return found

    def common_parent(self, terms: Sequence[str]) -> str:
        """Closest common ancestor: the one with the fewest steps to all of `terms`."""
        shared = [self.ancestors(term) for term in terms]
        common = set(shared[0]).intersection(*shared[1:])
        return min(common, key=lambda term: (sum(steps[term] for steps in shared), term))

    def similarity(self, terms: Sequence[str | None]) -> np.ndarray:
        """Resnik-like similarity of terms in [0, 1]: shared ancestors over all ancestors.

        Terms that are ``None`` are similar to nothing but themselves.
        """
        sets = [set(self.ancestors(t)) if t is not None else set() for t in terms]
        out = np.eye(len(terms))
        for i, a in enumerate(sets):
            for j, b in enumerate(sets[:i]):
                out[i, j] = out[j, i] = len(a & b) / len(a | b) if a and b else 0.0
        return out


@cache
def cell_ontology() -> Ontology:
    """Read the slice of the Cell Ontology (release of 15 September 2022, CC BY 4.0)."""
    import gzip

    names, definitions, parents = {}, {}, {}
    packed = files("sczoo.model.grit").joinpath("cell_ontology.tsv.gz").read_bytes()
    for line in gzip.decompress(packed).decode().splitlines()[1:]:
        term, name, above, definition = line.split("\t")
        names[term], definitions[term] = name, definition.strip('"')
        parents[term] = tuple(filter(None, above.split(",")))
    return Ontology(names, definitions, parents)
