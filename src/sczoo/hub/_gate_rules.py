"""The rules of the release gate: each looks for one kind of content about single patients."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.hub._gate_facts import Facts, Node, is_number, strings_of
from sczoo.hub._gate_report import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["RULES", "parameters", "unlisted_files"]

_RARE = 10  # categories with fewer cells can point at a person
_DONOR = re.compile(
    r"(^|[_.\s-])(donors?|patients?|subjects?|individuals?|participants?|persons?|people|samples?"
    r"|mouse|mice|animals?|case_?ids?|orig\.ident|sample_?ids?|patient_?ids?|donor_?ids?)"
    r"($|[_.\s-])",
    re.IGNORECASE,
)
_BARCODE = re.compile(r"(?<![A-Za-z])[ACGT]{12,32}(?![A-Za-z])")
_TOKEN = re.compile(r"[^\s,;|()\[\]{}<>\"'`]+")
_PER_CELL_NAME = re.compile(
    r"(^|[_.])(indices|idx|obs_names|barcodes?|cell_ids?|labels|memory_bank|ref(erence)?_"
    r"(embeddings?|latent))_?$",
    re.IGNORECASE,
)
_HISTORY_NAME = re.compile(
    r"^history_?$|(train|validation|val|test)_(loss|elbo)|(loss|elbo|kl\w*|reconstruction\w*)_"
    r"(train|validation|val|test|epoch|step)|(loss|elbo)_(curve|history)|_per_epoch$",
    re.IGNORECASE,
)
_COUNT_NAME = re.compile(
    r"(^|_)(counts?|composition|n_cells_(per|by)\w*|(n_)?cells_(per|by)\w*|frequenc(y|ies)"
    r"|(per|by)_(class|label|categor(y|ies)|cell_?type|type|donor|batch|cluster|condition))($|_)",
    re.IGNORECASE,
)
_CATEGORY_NAME = re.compile(r"categor|label|class(es|_names)|mapping", re.IGNORECASE)
# Lists of names of columns, not of what stands in them.
_COLUMN_NAMES = {"field_keys", "attr_keys", "columns", "column_names"}
_ANONYMOUS = re.compile(r"category_\d+")
_CELL_MESSAGE = "barcodes or other names of cells"


def is_donor_like(name: str) -> bool:
    """Whether a column or key is named for people or samples."""
    return bool(_DONOR.search(name))


def looks_like_barcode(text: str) -> bool:
    """Whether a text holds a run of bases as sequencing machines name cells."""
    return bool(_BARCODE.search(text))


def barcodes(facts: Facts) -> Iterator[Finding]:
    """Names of cells, by their look and by comparison with the training data."""
    for node in facts.nodes:
        if any(_names_a_cell(text, facts) for text in strings_of(node)):
            yield Finding(f"barcodes:{node.key}", node.where, _CELL_MESSAGE, "cell")
    if any(_names_a_cell(name, facts) for name in facts.shapes):
        yield Finding("barcodes:weights", "weights.safetensors: names", _CELL_MESSAGE, "cell")
    card = facts.artefact.card
    if card is not None and _names_a_cell(card, facts):
        yield Finding("barcodes:card", "card.md", _CELL_MESSAGE, "cell")
    if facts.live is not None:
        listed = {gene["id"] for gene in facts.artefact.genes()}
        listed |= {gene["symbol"] for gene in facts.artefact.genes() if gene["symbol"]}
        if listed & facts.live.obs_names:
            yield Finding("barcodes:genes", "genes.tsv", _CELL_MESSAGE, "cell")


def _names_a_cell(text: str, facts: Facts) -> bool:
    if looks_like_barcode(text):
        return True
    if facts.live is None:
        return False
    names = facts.live.obs_names
    return text in names or any(token in names for token in _tokens(text))


def _tokens(text: str) -> list[str]:
    """Split a text into the whole, its words, and its words without marks around them."""
    words = _TOKEN.findall(text)
    return [text, *words, *(word.strip(".:!?#*") for word in words)]


def categories(facts: Facts) -> Iterator[Finding]:
    """Values of annotation columns: donors, batches, conditions, cell types."""
    for node in facts.nodes:
        items = node.items()
        if not items or _is_anonymous(items) or node.key in _COLUMN_NAMES:
            continue
        original = node.parent.get("original_key") if isinstance(node.parent, dict) else None
        column = original if isinstance(original, str) else node.key
        if _is_category_list(node, items, facts):
            yield _category(column, node)


def _is_category_list(node: Node, items: list[Any], facts: Facts) -> bool:
    if "categorical_mapping" in node.path or "mappings" in node.path:
        return True  # also numbered donors
    if not all(isinstance(item, str) for item in items):
        return False
    if node.path == ("attributes", "alternative_genes"):
        return len(items) != facts.artefact.record.input.n_genes
    if node.section in ("scvi_registry", "attributes"):
        return True
    return bool(_CATEGORY_NAME.search(node.key))


def _is_anonymous(items: list[Any]) -> bool:
    # [0] is what scvi-tools writes for a column that was not given
    return items == [0] or all(
        isinstance(item, str) and _ANONYMOUS.fullmatch(item) for item in items
    )


def _category(column: str, node: Node) -> Finding:
    if is_donor_like(column):
        return Finding(
            f"categories:{column}", node.where, f"names of donors or samples ({column})", "donor"
        )
    return Finding(f"categories:{column}", node.where, f"category names of {column}")


def donor_entries(facts: Facts) -> Iterator[Finding]:
    """Anything stored for each donor: mappings and lists under a name for people."""
    for node in facts.nodes:
        # scvi-tools names fields freely; what they hold is the business of `categories`
        if node.section == "scvi_registry" or not is_donor_like(node.key):
            continue
        items = node.items()
        if (isinstance(node.value, dict) and node.value) or (items and not _is_anonymous(items)):
            yield Finding(
                f"donors:{node.key}", node.where, f"values per donor ({node.key})", "donor"
            )


def values_of_the_data(facts: Facts) -> Iterator[Finding]:
    """Category values of the training data, wherever they stand."""
    if facts.live is None:
        return
    card = facts.artefact.card
    for column, counts in facts.live.columns.items():
        if card is not None and _is_telling_scalar(card, column, counts):
            yield Finding(
                f"categories:{column}",
                "card.md",
                f"names of donors or samples ({column})",
                "donor",
            )
    for node in facts.nodes:
        texts = [text for text in strings_of(node) if text not in facts.live.vocabulary]
        if not texts or _is_anonymous(texts):
            continue
        for column, counts in facts.live.columns.items():
            found = [text for text in texts if text in counts]
            if isinstance(node.value, str):
                hit = _is_telling_scalar(node.value, column, counts)
            elif isinstance(node.value, dict):
                hit = len(found) > 1 or (is_donor_like(column) and any(map(_is_telling, found)))
            else:
                hit = bool(found)
            if not hit:
                continue
            yield _category(column, node)
            if any(0 < counts[text] < _RARE for text in found):
                yield _rare(column, node.where)


def _is_telling_scalar(text: str, column: str, counts: Mapping[str, int]) -> bool:
    if not is_donor_like(column):
        return False
    return any(_is_telling(token) and token in counts for token in _tokens(text))


def _is_telling(text: str) -> bool:
    return len(text) >= 4 and not text.isdigit()


def per_cell_arrays(facts: Facts) -> Iterator[Finding]:
    """Arrays with one value for each cell: indices, labels, reference embeddings."""
    for name, shape in facts.shapes.items():
        by_name = _PER_CELL_NAME.search(name) and int(np.prod(shape)) > 1
        if by_name or facts.cell_counts & set(shape):
            yield _per_cell(name, f"weights.safetensors: {name}, shape {tuple(shape)}")
    for node in facts.nodes:
        items = node.items()
        if not items:
            continue
        numeric = all(is_number(item) or isinstance(item, bool) for item in items)
        listed = numeric and len(items) > 1 and _PER_CELL_NAME.search(node.key)
        if listed or facts.cell_counts & node.lengths():
            yield _per_cell(node.key, node.where)


def _per_cell(name: str, where: str) -> Finding:
    return Finding(f"percell:{name}", where, f"one value per cell ({name})", "cell")


def history(facts: Facts) -> Iterator[Finding]:
    """Training curves: they are measured on the training cells."""
    message = "training history"
    for name in facts.shapes:
        if _HISTORY_NAME.search(name):
            yield Finding("history", f"weights.safetensors: {name}", message, "cell")
    for node in facts.nodes:
        if isinstance(node.value, (dict, list, tuple, np.ndarray)) and len(node.value):
            if _HISTORY_NAME.search(node.key):
                yield Finding("history", node.where, message, "cell")


def parameter_store(facts: Facts) -> Iterator[Finding]:
    """Pyro's global store, in which parameters of other models of the process travel along."""
    message = "Pyro's parameter store, which can hold other models"
    for name in facts.shapes:
        if "pyro" in name.lower():
            yield Finding("pyro-param-store", f"weights.safetensors: {name}", message)
    for node in facts.nodes:
        if "pyro_param_store" in node.key.lower():
            yield Finding("pyro-param-store", node.where, message)


def rare_counts(facts: Facts) -> Iterator[Finding]:
    """Numbers of cells in a category, where they are below ten."""
    for node in facts.nodes:
        values = list(node.value.values()) if isinstance(node.value, dict) else node.items()
        if not values or not all(is_number(value) and value >= 0 for value in values):
            continue
        named = any(_COUNT_NAME.search(part) for part in node.path)
        of_data = (
            facts.live is not None
            and isinstance(node.value, dict)
            and any(
                len(counts.keys() & set(map(str, node.value))) > 1
                for counts in facts.live.columns.values()
            )
        )
        whole = all(value == int(value) for value in values)
        if (named or of_data) and whole and any(0 < value < _RARE for value in values):
            yield _rare(node.key, node.where)


def _rare(column: str, where: str) -> Finding:
    return Finding(
        f"rare:{column}", where, f"categories of fewer than {_RARE} cells ({column})", "cell"
    )


def selftest(facts: Facts) -> Iterator[Finding]:
    """Self-test cells must be the synthetic ones, which are a function of the gene count."""
    from sczoo.base._selftest import selftest_cells

    stored = facts.artefact.selftest()
    where = "selftest.safetensors"
    if stored is None:
        if facts.artefact.record.kind == "model":
            yield Finding("selftest", where, "the self-test is missing")
        return
    contract = facts.artefact.record.input
    synthetic = selftest_cells(contract.n_genes, contract.scale)
    same = stored.x.shape == synthetic.shape and np.allclose(
        stored.x.astype(np.float64), synthetic, rtol=1e-5, atol=1e-6
    )
    if not same:
        yield Finding("selftest", where, "self-test cells that are not the synthetic ones", "cell")


def parameters(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> Iterator[Finding]:
    """Arrays that the declared method does not build: another model's parameters."""
    for name, shape in shapes.items():
        if name not in expected:
            message = f"an array that the method does not have ({name})"
        elif tuple(shape) != tuple(expected[name]):
            message = f"an array of another shape than the method builds ({name})"
        else:
            continue
        yield Finding(f"parameters:{name}", f"weights.safetensors: {name}", message)


def unlisted_files(facts: Facts) -> Iterator[Finding]:
    """Files that lie in the folder without standing in the manifest."""
    listed = {*facts.artefact.manifest.files, "manifest.json"}
    for entry in sorted(facts.artefact.path.iterdir()):
        if entry.name not in listed:
            yield Finding(f"unlisted:{entry.name}", entry.name, "a file that is not listed")


RULES = (
    barcodes,
    categories,
    donor_entries,
    values_of_the_data,
    per_cell_arrays,
    history,
    parameter_store,
    rare_counts,
    selftest,
    unlisted_files,
)
