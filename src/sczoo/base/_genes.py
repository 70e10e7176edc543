"""Matching a query's genes to a model's genes by name, and saying how it went."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from sczoo.errors import DuplicateGenesError, GeneOverlapError, InputError, SpeciesMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

Namespace = Literal["symbol", "ensembl"]
DEFAULT_MIN_COVERAGE = 0.8

_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{11}(\.\d+)?$")
_VERSION = re.compile(r"^(ENS[A-Z]*G\d{11})\.\d+$")
# Columns of adata.var in which common tools keep the other name of a gene.
_ALTERNATIVE_COLUMNS = (
    "ensembl_id",
    "gene_ids",
    "gene_id",
    "feature_id",
    "symbol",
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "feature_name",
)


def detect_namespace(names: Sequence[str]) -> Namespace:
    """Say whether gene names are Ensembl identifiers (at least half of them) or symbols."""
    hits = sum(bool(_ENSEMBL.match(str(name))) for name in names)
    return "ensembl" if 2 * hits > len(names) else "symbol"


@dataclass(frozen=True)
class GeneAlignment:
    """How the genes of a query map to those of a model.

    Attributes
    ----------
    positions
        For every model gene its column in the query, or -1 where the query lacks it; shape
        ``(n_genes,)``.
    n_exact
        Number of genes matched letter by letter.
    renamed
        ``(query name, model name)`` of genes matched after a change of version suffix, case or
        name column.
    missing
        Model genes that the query lacks.
    n_extra
        Number of query genes that the model does not use.
    coverage
        Share of the model's genes found in the query, between 0 and 1.
    weighted_coverage
        The same, each gene weighted by its importance to the model.
    """

    # the long ones stay out of the repr, which notebooks show by themselves
    positions: np.ndarray = field(repr=False)
    n_exact: int
    renamed: tuple[tuple[str, str], ...] = field(repr=False)
    missing: tuple[str, ...] = field(repr=False)
    n_extra: int
    coverage: float
    weighted_coverage: float
    namespace: Namespace = "symbol"
    source: str = "var_names"
    present: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "present", self.positions >= 0)

    @property
    def identical(self) -> bool:
        """Whether the query has exactly the model's genes in the model's order."""
        return self.n_extra == 0 and bool(
            np.array_equal(self.positions, np.arange(self.positions.size))
        )

    @property
    def n_matched(self) -> int:
        """Number of model genes found in the query."""
        return int(self.present.sum())

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.n_matched} of {self.positions.size} genes matched "
            f"({self.coverage:.1%}; {len(self.renamed)} renamed, {len(self.missing)} missing, "
            f"{self.n_extra} not used)"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for ``uns`` and reports."""
        return {
            "n_model_genes": int(self.positions.size),
            "n_matched": self.n_matched,
            "n_renamed": len(self.renamed),
            "n_missing": len(self.missing),
            "n_extra": int(self.n_extra),
            "coverage": float(self.coverage),
            "weighted_coverage": float(self.weighted_coverage),
            "namespace": self.namespace,
            "query_names_from": self.source,
        }

    def apply(self, matrix: Any) -> Any:
        """Reorder the columns of `matrix` to the model's genes; absent genes become zero.

        Sparse stays CSR, dense stays dense, the dtype is kept; nothing is copied when the genes
        are identical.
        """
        if self.identical:
            return matrix
        kept = np.flatnonzero(self.present)
        columns = self.positions[kept]
        shape = (matrix.shape[0], self.positions.size)
        if sparse.issparse(matrix):
            chosen = sparse.csr_matrix(matrix)[:, columns]
            return sparse.csr_matrix(
                (chosen.data, kept[chosen.indices], chosen.indptr), shape=shape
            )
        aligned = np.zeros(shape, dtype=matrix.dtype)
        aligned[:, kept] = matrix[:, columns]
        return aligned


def _strip_version(name: str) -> str:
    return _VERSION.sub(r"\1", name)


def _lookup(names: Sequence[str]) -> dict[str, int]:
    """Map each name to its position; names that occur twice are left out as ambiguous."""
    positions: dict[str, int] = {}
    twice: set[str] = set()
    for position, name in enumerate(names):
        if name in positions:
            twice.add(name)
        positions[name] = position
    return {name: position for name, position in positions.items() if name not in twice}


def _match(
    query: list[str], reference: list[str]
) -> tuple[np.ndarray, list[tuple[str, str]], int]:
    """Match in three passes: the exact name, without version suffix, without regard to case."""
    positions = np.full(len(reference), -1, dtype=np.int64)
    taken: set[int] = set()
    renamed: list[tuple[str, str]] = []
    n_exact = 0
    passes = (lambda name: name, _strip_version, lambda name: _strip_version(name).upper())
    for number, normalise in enumerate(passes):
        lookup = _lookup([normalise(name) for name in query])
        # an ambiguous reference (GENE.1 and GENE.2 of one gene) must not both take one column
        keys = [normalise(name) for name in reference]
        unique = _lookup(keys)
        for index, key in enumerate(keys):
            if positions[index] >= 0 or key not in unique:
                continue
            found = lookup.get(key, -1)
            if found < 0 or found in taken:
                continue
            positions[index] = found
            taken.add(found)
            if number == 0:
                n_exact += 1
            else:
                renamed.append((query[found], reference[index]))
    return positions, renamed, n_exact


def _looks_murine(names: Sequence[str]) -> bool:
    """Whether most symbols are written in title case, the convention for mouse and rat."""
    letters = [name for name in names if sum(map(str.isalpha, name)) >= 3]
    if not letters:
        return False
    titled = sum(name[:1].isupper() and not name.isupper() for name in letters)
    return titled > 0.5 * len(letters)


def align_genes(
    query: Any,
    reference: Sequence[str],
    *,
    importance: np.ndarray | None = None,
    min_coverage: float = DEFAULT_MIN_COVERAGE,
    alternative: Sequence[str] | None = None,
) -> GeneAlignment:
    """Match the genes of a query to those of a model.

    Names are compared exactly, then without Ensembl version suffixes, then without regard to
    case; a name that would fit two columns is never guessed. If the model's other namespace is
    found in a column of ``adata.var`` (``ensembl_id``, ``gene_ids``, ``symbol``, ...) and fits
    better than ``var_names``, that column is used and the report says so.

    Parameters
    ----------
    query
        ``adata.var`` (a data frame), or a plain list of gene names.
    reference
        Gene names of the model, in its order.
    importance
        Weight of each gene for the weighted coverage; uniform by default.
    min_coverage
        Smallest acceptable share of the model's genes.
    alternative
        The model's genes in its other namespace (identifiers for a model of symbols, and the
        other way round), if it has them; ``""`` for unknown.

    Raises
    ------
    DuplicateGenesError
        The query has a duplicated name among the genes that matter.
    SpeciesMismatchError
        The names look like those of another species.
    GeneOverlapError
        Fewer than `min_coverage` of the genes were found.
    InputError
        `min_coverage` is not between 0 and 1.
    """
    if not isinstance(min_coverage, Real) or not 0 <= min_coverage <= 1:
        raise InputError(
            f"min_coverage is {min_coverage!r}; it is a share of the genes, between 0 and 1."
        )
    reference = [str(name) for name in reference]
    candidates: list[tuple[str, list[str]]] = []
    if hasattr(query, "columns"):
        candidates.append(("var_names", [str(name) for name in query.index]))
        candidates += [
            (f"var[{column!r}]", [str(name) for name in query[column]])
            for column in _ALTERNATIVE_COLUMNS
            if column in query.columns
        ]
    else:
        candidates.append(("var_names", [str(name) for name in query]))

    names = candidates[0][1]
    duplicated = _duplicates(names).intersection(reference)
    if duplicated:
        first = sorted(duplicated)[0]
        raise DuplicateGenesError(
            f"{len(duplicated)} of the model's genes occur more than once in the query's "
            f"var_names, the first is {first!r}. Sum the duplicates or keep one of them."
        )

    targets = [reference]
    if alternative is not None and any(alternative):
        # a name that cannot occur keeps the positions of genes without the other name
        targets.append([str(n) or f"\0{i}" for i, n in enumerate(alternative)])
    best: tuple[int, str, list[str], np.ndarray, list[tuple[str, str]], int] | None = None
    for source, column in candidates:
        for number, target in enumerate(targets):
            positions, renamed, n_exact = _match(column, target)
            if number == 1 or source != "var_names":
                found = np.flatnonzero(positions >= 0)
                renamed = [(names[positions[i]], reference[i]) for i in found]
                n_exact = 0
            matched = int((positions >= 0).sum())
            if best is None or matched > best[0]:
                best = (matched, source, column, positions, renamed, n_exact)
    assert best is not None
    matched, source, column, positions, renamed, n_exact = best

    weights = np.ones(len(reference)) if importance is None else np.asarray(importance, float)
    total = weights.sum()
    present = positions >= 0
    alignment = GeneAlignment(
        positions=positions,
        n_exact=n_exact,
        renamed=tuple(renamed),
        missing=tuple(name for name, here in zip(reference, present, strict=True) if not here),
        n_extra=len(column) - matched,
        coverage=matched / len(reference),
        weighted_coverage=float(weights[present].sum() / total) if total > 0 else 0.0,
        namespace=detect_namespace(reference),
        source=source,
    )
    _raise_for_alignment(alignment, column, reference, min_coverage)
    return alignment


def _duplicates(names: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


def _raise_for_alignment(
    alignment: GeneAlignment, names: list[str], reference: list[str], min_coverage: float
) -> None:
    prefixes = [
        {name[:7] for name in group if _ENSEMBL.match(name)} for group in (names, reference)
    ]
    other_ensembl = (
        detect_namespace(names) == detect_namespace(reference) == "ensembl"
        and alignment.n_matched == 0
        and prefixes[0] != prefixes[1]
    )
    by_case = len(alignment.renamed) > alignment.n_exact and alignment.source == "var_names"
    other_symbols = (
        by_case
        and _looks_murine(names) != _looks_murine(reference)
        and detect_namespace(names) == detect_namespace(reference) == "symbol"
        and not all(name.islower() for name in names)
    )
    if other_ensembl or other_symbols:
        raise SpeciesMismatchError(
            f"The query's gene names (such as {names[0]!r}) look like those of another species "
            f"than the model's (such as {reference[0]!r}); letters alone do not make orthologues. "
            "Map the query's genes to the model's species with an orthologue table first."
        )
    if alignment.coverage < min_coverage:
        hint = ""
        if detect_namespace(names) != alignment.namespace:
            kinds = {"symbol": "gene symbols", "ensembl": "Ensembl identifiers"}
            hint = (
                f" The query has {kinds[detect_namespace(names)]}, the model needs "
                f"{kinds[alignment.namespace]}: put them into adata.var_names or a column "
                "adata.var['ensembl_id'] or adata.var['symbol']."
            )
        raise GeneOverlapError(
            f"Only {alignment.summary()}; at least {min_coverage:.0%} is needed. First missing: "
            f"{', '.join(alignment.missing[:5])}.{hint} Pass the unfiltered genes, or a lower "
            "min_coverage if you accept a less certain result."
        )
    if alignment.missing:
        logger.warning("%s", alignment.summary())
