r"""Scores by marker genes: no training, no reference, no network.

The score of a cell for a class is the mean of the clipped z-scores of the class's markers,

.. math:: P_{ic} = \frac{1}{|M_c| + \kappa}\sum_{j \in M_c}
          \mathrm{clip}\left(\frac{x_{ij} - \bar x_j}{s_j}, -2.5, 5\right) \tag{1}

over log-normalised values. Among many candidates of which most are not there, the constant
:math:`\kappa = 2` keeps those of which few markers were measured from winning by noise; where the
candidates were named, :math:`\kappa = 0`.
"""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from sczoo.base._genes import detect_namespace
from sczoo.errors import GeneOverlapError, InputError
from sczoo.model.grit._expression import Expression
from sczoo.model.grit.ontology import cell_ontology
from sczoo.model.grit.scorers._protocol import Scores, check_classes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

__all__ = ["MarkerEntry", "MarkerScorer", "choose_markers", "marker_table", "tissues"]

logger = logging.getLogger(__name__)

CLIP = (-2.5, 5.0)
# Of equation (1), for candidates that were not named one by one.
OPEN_PRIOR = 2.0
# With fewer markers a class is decided by dropout: for candidates that were named, and others.
_FEWEST_NAMED, _FEWEST_OPEN = 2, 3


@dataclass(frozen=True)
class MarkerEntry:
    """A cell type of the table.

    Attributes
    ----------
    name, term
        Its name, and its identifier in the Cell Ontology.
    tissues
        Where it is looked for.
    genes
        Its markers by species: ``"human"`` and ``"mouse"`` symbols.
    certain
        Those of its human markers that all three resources list; see the README of the table.
    """

    name: str
    term: str
    tissues: tuple[str, ...]
    genes: dict[str, tuple[str, ...]]
    certain: frozenset[str] = frozenset()


@cache
def marker_table() -> dict[str, MarkerEntry]:
    """Read the marker table that sczoo ships with, by name; see its README for the sources."""
    found = {}
    for fields in _rows("markers.tsv.gz"):
        name, term, _, where, human, mouse, listed = fields
        genes = {
            "human": tuple(filter(None, human.split(","))),
            "mouse": tuple(filter(None, mouse.split(","))),
        }
        counts = zip(genes["human"], filter(None, listed.split(",")), strict=True)
        certain = frozenset(gene for gene, n_resources in counts if n_resources == "3")
        found[name] = MarkerEntry(name, term, tuple(where.split(",")), genes, certain)
    return found


def tissues() -> list[str]:
    """Names of the tissues of the marker table."""
    return sorted({tissue for entry in marker_table().values() for tissue in entry.tissues})


@cache
def _identifiers() -> dict[str, dict[str, str]]:
    """Ensembl identifiers of the markers, by species and symbol."""
    found: dict[str, dict[str, str]] = {"human": {}, "mouse": {}}
    for species, symbol, identifier in _rows("marker_genes.tsv.gz"):
        found[species][symbol] = identifier
    return found


def _rows(name: str) -> list[list[str]]:
    packed = files("sczoo.model.grit").joinpath(name).read_bytes()
    return [line.split("\t") for line in gzip.decompress(packed).decode().splitlines()[1:]]


def detect_species(names: Sequence[str]) -> str:
    """Say whether gene names are those of ``"human"`` or ``"mouse"``."""
    if detect_namespace(names) == "ensembl":
        mouse = sum(str(name).startswith("ENSMUSG") for name in names)
        return "mouse" if 2 * mouse > len(names) else "human"
    letters = [n for n in map(str, names) if sum(map(str.isalpha, n)) >= 3]
    titled = sum(n[:1].isupper() and not n.isupper() and n[1:].islower() for n in letters)
    return "mouse" if 2 * titled > len(letters) else "human"


def choose_markers(
    names: Sequence[str],
    *,
    alternative: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    tissue: str | Sequence[str] | None = None,
    species: str | None = None,
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Choose from the table the types, and their markers, that can be scored with these genes.

    A type of which too few markers are there (two of a type that was named, else three) borrows
    those of its closest ancestor in the Cell Ontology that is in the table, unless the ancestor
    is a candidate itself. Among the types of a tissue, one without a relative among those that can
    be scored is scored by what is left of its surest markers, if they mark no other lineage: its
    cells would get the label of another lineage. A type that cannot be scored in any way is left
    out and named.

    Parameters
    ----------
    names
        Genes of the data.
    alternative
        Their names in the other namespace, if known.
    classes
        Types to choose among, by name in the table or identifier; all by default.
    tissue
        Choose among the types of these tissues.
    species
        ``"human"`` or ``"mouse"``; recognised from the names by default.

    Returns
    -------
    Markers of each type, the identifier of each type, and notes in words.
    """
    table = marker_table()
    species = species or detect_species(names)
    if species not in ("human", "mouse"):
        raise InputError(f"species={species!r}: the marker table has human and mouse genes.")
    wanted = _candidates(classes, tissue)
    places = _lookup(names, alternative)
    fewest = _FEWEST_OPEN if classes is None else _FEWEST_NAMED
    chosen: dict[str, list[str]] = {}
    notes, lost = [], []
    for name in wanted:
        entry = table[name]
        genes = list(entry.genes[species])
        if _n_found(name, places, species) < fewest:
            lender = _lender(entry, wanted, places, species, fewest)
            if lender is not None:
                notes.append(f"{name}: scored by the markers of {lender}, its closest ancestor.")
                genes = list(table[lender].genes[species])
            elif _n_found(name, places, species) == 0 or classes is None:
                lost.append(name)
                continue
        chosen[name] = genes
    if classes is None and tissue is not None:
        for name, genes in _rescue(lost, chosen, places, species).items():
            chosen[name] = genes
            lost.remove(name)
    for name, genes in chosen.items():
        measured = [gene for gene in genes if find_markers([gene], places, species)]
        if len(measured) < fewest:
            notes.append(
                f"{name}: scored by {' and '.join(measured)} alone, as no other of its markers is "
                "among the genes; cells in which it was not detected get another label."
            )
    notes += _losses(lost, chosen, open_tissue=classes is None and tissue is None)
    if len(chosen) < 2:
        raise GeneOverlapError(
            f"Markers of {len(chosen)} of {len(wanted)} cell types are among the {len(names)} "
            f"genes (such as {names[0]!r}), read as {species}. Gene symbols or Ensembl "
            "identifiers of human or mouse are needed; pass markers={type: [genes]} for others."
        )
    return chosen, {name: table[name].term for name in chosen}, notes


def _candidates(classes: Sequence[str] | None, tissue: str | Sequence[str] | None) -> list[str]:
    table = marker_table()
    by_term = {entry.term: name for name, entry in table.items()}
    if classes is not None:
        names = [by_term.get(name, name) for name in check_classes(classes, "classes")]
        unknown = [name for name in names if name not in table]
        if unknown:
            import difflib

            close = difflib.get_close_matches(unknown[0], table, n=3)
            hint = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
            raise InputError(
                f"The marker table has no type {unknown[0]!r}.{hint} "
                "sczoo.model.grit.scorers.marker_table() lists them; pass markers={type: [genes]} "
                "for types of your own."
            )
        return names
    if tissue is None:
        return list(table)
    asked = {tissue} if isinstance(tissue, str) else set(tissue)
    unknown = sorted(asked - set(tissues()))
    if unknown:
        raise InputError(
            f"The marker table has no tissue {unknown[0]!r}; it has {', '.join(tissues())}."
        )
    return [name for name, entry in table.items() if asked & set(entry.tissues)]


def _lender(
    entry: MarkerEntry,
    wanted: Sequence[str],
    places: Mapping[str, int],
    species: str,
    fewest: int,
) -> str | None:
    table = marker_table()
    by_term = {other.term: name for name, other in table.items()}
    above = cell_ontology().ancestors(entry.term)
    for term in sorted(above, key=lambda t: (above[t], t)):
        name = by_term.get(term)
        if name is None or name == entry.name:
            continue
        if _n_found(name, places, species) >= fewest:
            # two candidates with the same markers could not be told apart
            return None if name in wanted else name
    return None


def _related(name: str, other: str) -> bool:
    """Whether one of two types of the table is a kind of the other."""
    table, ontology = marker_table(), cell_ontology()
    one, two = table[name].term, table[other].term
    return two in ontology.ancestors(one) or one in ontology.ancestors(two)


def _rescue(
    lost: Sequence[str], chosen: Mapping[str, object], places: Mapping[str, int], species: str
) -> dict[str, list[str]]:
    """Few but specific markers of types without a relative among the chosen ones.

    Of a lost lineage only the uppermost type is scored: those below it could not be told apart.
    """
    table = marker_table()
    found = {}
    for name in _uppermost(_orphans(lost, chosen)):
        foreign = {
            gene
            for other, entry in table.items()
            if not _related(name, other)
            for gene in entry.genes[species]
        }
        genes = [
            gene
            for gene in table[name].genes[species]
            # mouse symbols are those of the orthologues
            if gene.upper() in table[name].certain
            and gene not in foreign
            and find_markers([gene], places, species)
        ]
        if genes:
            found[name] = genes
    return found


def _orphans(lost: Sequence[str], chosen: Mapping[str, object]) -> list[str]:
    """Lost types of which no chosen one is a kind, and which are no kind of a chosen one."""
    return [name for name in lost if not any(_related(name, other) for other in chosen)]


def _uppermost(names: Sequence[str]) -> list[str]:
    """Leave out types that are a kind of another one."""
    table, ontology = marker_table(), cell_ontology()
    terms = {table[name].term for name in names}
    above = {name: set(ontology.ancestors(table[name].term)) for name in names}
    return [name for name in names if not terms & (above[name] - {table[name].term})]


def _losses(lost: Sequence[str], chosen: Mapping[str, object], *, open_tissue: bool) -> list[str]:
    """Say which types cannot be called, and what happens to their cells."""
    orphans, notes = _orphans(lost, chosen), []
    if orphans:
        remedy = "name the tissue, " * open_tissue + "use data with all genes"
        notes.append(
            f"{len(orphans)} type(s) without markers among the genes, and without a broader or "
            f"narrower type that has them: {_listed(_uppermost(orphans))}. If such cells are "
            "there, they get the label of another type, and their confidence does not show it: "
            f"{remedy}, or pass scores or markers of your own."
        )
    others = [name for name in lost if name not in orphans]
    if others:
        notes.append(
            f"{len(others)} type(s) without markers among the genes, whose cells get the label of "
            f"a broader or a similar type: {_listed(others)}."
        )
    return notes


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _lookup(names: Sequence[str], alternative: Sequence[str] | None) -> dict[str, int]:
    places: dict[str, int] = {}
    for group in (alternative or (), names):
        for position, name in enumerate(group):
            if name:
                places[str(name).split(".")[0] if str(name).startswith("ENS") else str(name)] = (
                    position
                )
    return places


def _n_found(name: str, places: Mapping[str, int], species: str) -> int:
    return len(find_markers(marker_table()[name].genes[species], places, species))


def find_markers(
    genes: Sequence[str], places: Mapping[str, int], species: str | None
) -> list[int]:
    """Positions of markers: by symbol, else by the Ensembl identifier that sczoo knows."""
    known = _identifiers().get(species or "", {})
    found = {places.get(gene, places.get(known.get(gene, ""), -1)) for gene in genes}
    return sorted(found - {-1})


class MarkerScorer:
    """Scores by marker genes.

    Parameters
    ----------
    markers
        Genes of each class: ``{"B cell": ["CD79A", "MS4A1"], ...}``. By default those of the
        table that sczoo ships with, as far as they are among the genes.
    classes, tissue, species
        What to choose from the table; see :func:`choose_markers`.
    input_kind
        Scale of the expression; recognised by default.

    Examples
    --------
    >>> from sczoo.model.grit.scorers import MarkerScorer
    >>> scores = MarkerScorer(tissue="blood").score(adata)
    """

    name = "markers"

    def __init__(
        self,
        markers: Mapping[str, Sequence[str]] | None = None,
        *,
        classes: Sequence[str] | None = None,
        tissue: str | Sequence[str] | None = None,
        species: str | None = None,
        input_kind: str | None = None,
    ) -> None:
        self.markers = None if markers is None else check_markers(markers)
        self.classes, self.tissue, self.species = classes, tissue, species
        self.input_kind = input_kind

    def score(self, adata: AnnData, *, layer: str | None = None) -> Scores:
        """Score the cells of `adata` against each other."""
        names = [str(name) for name in adata.var_names]
        alternative = alternative_names(adata)
        notes: list[str] = []
        markers = self.markers
        if markers is None:
            markers, _, notes = choose_markers(
                names,
                alternative=alternative,
                classes=self.classes,
                tissue=self.tissue,
                species=self.species,
            )
        positions = locate(markers, names, alternative)
        cells = Expression(adata, layer, kind=self.input_kind)  # type: ignore[arg-type]
        named = self.markers is not None or self.classes is not None
        values, silent = marker_scores(
            cells, positions, list(markers), prior=0.0 if named else OPEN_PRIOR
        )
        return Scores(values, tuple(markers), False, tuple(notes + silent))


def check_markers(markers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Require a list of genes for each of at least two classes."""
    names = check_classes(list(markers), "markers")
    out = {}
    for name, genes in zip(names, markers.values(), strict=True):
        if isinstance(genes, str) or not len(genes):
            raise InputError(f"markers[{name!r}] must be a list of at least one gene.")
        out[name] = [str(gene) for gene in genes]
    return out


def alternative_names(adata: AnnData) -> list[str] | None:
    """Names of the genes in the other namespace, if ``adata.var`` has them."""
    from sczoo.base._model import _ALTERNATIVE_NAMES

    for column in _ALTERNATIVE_NAMES[detect_namespace([str(n) for n in adata.var_names])]:
        if column in adata.var.columns:
            return [str(name) for name in adata.var[column].astype(object).fillna("")]
    return None


def locate(
    markers: Mapping[str, Sequence[str]],
    names: Sequence[str],
    alternative: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """Positions of each class's markers among the genes."""
    places = _lookup(names, alternative)
    species = detect_species(names)
    found = [np.array(find_markers(genes, places, species), int) for genes in markers.values()]
    if sum(len(part) > 0 for part in found) < 2:
        raise GeneOverlapError(
            f"Of {len(found)} classes {sum(len(part) > 0 for part in found)} have a marker among "
            f"the genes, which are named like {names[0]!r}. Use the same kind of names in markers "
            "and data."
        )
    return found


def marker_scores(
    cells: Expression,
    positions: Sequence[np.ndarray],
    classes: Sequence[str],
    *,
    prior: float = 0.0,
    mean: np.ndarray | None = None,
    scale: np.ndarray | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Compute equation (1).

    Parameters
    ----------
    cells
        The cells.
    positions
        Positions of each class's markers among the genes of `cells`.
    classes
        Names of the classes.
    prior
        The constant of equation (1).
    mean, scale
        Of each gene; those of the cells themselves by default.

    Returns
    -------
    Scores ``(n_cells, n_classes)``, float32, and notes on classes without a single marker.

    Raises
    ------
    InputError
        No marker of any class varies.
    """
    genes = np.unique(np.concatenate(positions))
    if mean is None or scale is None:
        mean, scale = np.zeros(len(cells.columns)), np.zeros(len(cells.columns))
        mean[genes], scale[genes] = moments(cells, genes)
    present = (cells.columns[genes] >= 0) & (scale[genes] > 0)
    assignment = np.zeros((len(genes), len(positions)), dtype=np.float32)
    for column, part in enumerate(positions):
        rows = np.searchsorted(genes, part)
        rows = rows[present[rows]]
        if len(rows):
            assignment[rows, column] = 1.0 / (len(rows) + prior)
    silent = np.asarray(~assignment.any(axis=0))
    if silent.all():
        raise InputError(
            f"No marker of the {len(classes)} classes varies among these {cells.n_obs} cells, so "
            "that nothing tells them apart. Give more cells and the measured expression; a single "
            "new cell is scored with graph='model'."
        )
    values = np.zeros((cells.n_obs, len(positions)), dtype=np.float32)
    divisor = np.where(present, scale[genes], np.inf).astype(np.float32)
    for rows, block in cells.blocks(genes):
        z = (block - mean[genes].astype(np.float32)) / divisor
        values[rows] = np.clip(z, *CLIP) @ assignment
    notes = []
    if silent.any():
        # below every other class, so that it is never chosen, and constant, so that it is smooth
        lowest = values[:, ~silent].min()
        values[:, silent] = min(float(lowest), CLIP[0])
        names = [classes[column] for column in range(len(classes)) if silent[column]]
        notes.append(
            f"No marker of {', '.join(names)} varies among these cells; no cell is called so."
        )
    return values, notes


def moments(cells: Expression, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of genes over all cells."""
    total, squares = np.zeros(len(genes)), np.zeros(len(genes))
    for _, block in cells.blocks(genes):
        values = block.astype(np.float64)
        total += values.sum(axis=0)
        squares += (values**2).sum(axis=0)
    mean = total / cells.n_obs
    variance = np.maximum(squares / cells.n_obs - mean**2, 0.0)
    return mean, np.where(variance > 1e-10, np.sqrt(variance), 0.0)
