from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sczoo.base import align_genes
from sczoo.base._genes import detect_namespace
from sczoo.errors import DuplicateGenesError, GeneOverlapError, InputError, SpeciesMismatchError

SYMBOLS = ["CD3E", "MS4A1", "LYZ", "NKG7", "C1orf54", "HLA-DRA", "ISG15", "MT-CO1", "PPBP", "FCN1"]
ENSEMBL = [f"ENSG{number:011d}" for number in range(100, 110)]


def align(query, reference=SYMBOLS, **kwargs):
    return align_genes(query, reference, **({"min_coverage": 0.0} | kwargs))


# --- properties -------------------------------------------------------------------------------

gene_lists = st.lists(
    st.integers(0, 40).map(lambda number: f"GENE{number}X"), min_size=1, max_size=25, unique=True
)


@given(query=gene_lists, reference=gene_lists, data=st.data())
def test_alignment_equals_looking_every_gene_up(query, reference, data):
    found = align(query, reference)
    brute = [query.index(gene) if gene in query else -1 for gene in reference]
    np.testing.assert_array_equal(found.positions, brute)
    matched = sum(position >= 0 for position in brute)
    assert found.n_matched == found.n_exact == matched
    assert found.coverage == matched / len(reference)
    assert found.missing == tuple(gene for gene in reference if gene not in query)
    assert found.n_extra == len(query) - matched
    assert found.identical == (query == reference)
    order = data.draw(st.permutations(range(len(query))))
    shuffled = align([query[position] for position in order], reference)
    recovered = [-1 if p < 0 else order[p] for p in shuffled.positions]
    np.testing.assert_array_equal(recovered, brute)


@given(query=gene_lists, reference=gene_lists, storage=st.sampled_from(["csr", "csc", "dense"]))
def test_apply_moves_every_value_to_its_gene(query, reference, storage):
    matrix = np.arange(1, 3 * len(query) + 1, dtype=np.float32).reshape(3, len(query))
    stored = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.array}[storage](
        matrix
    )
    aligned = align(query, reference).apply(stored)
    expected = np.zeros((3, len(reference)), dtype=np.float32)
    for column, gene in enumerate(reference):
        if gene in query:
            expected[:, column] = matrix[:, query.index(gene)]
    assert sparse.issparse(aligned) == sparse.issparse(stored)
    assert aligned.dtype == stored.dtype
    dense = aligned.toarray() if sparse.issparse(aligned) else aligned
    np.testing.assert_array_equal(dense, expected)


@given(reference=gene_lists, data=st.data())
def test_weighted_coverage_is_the_share_of_importance(reference, data):
    here = data.draw(st.lists(st.booleans(), min_size=len(reference), max_size=len(reference)))
    weights = np.random.default_rng(0).random(len(reference))
    query = [gene for gene, keep in zip(reference, here, strict=True) if keep] + ["OTHER1"]
    found = align(query, reference, importance=weights)
    assert found.weighted_coverage == pytest.approx(weights[here].sum() / weights.sum())


def test_apply_copies_nothing_where_the_genes_are_identical():
    matrix = sparse.csr_matrix(np.eye(10))
    assert align(SYMBOLS).apply(matrix) is matrix


# --- spellings --------------------------------------------------------------------------------


def test_version_suffixes_are_ignored_on_either_side():
    versioned = [f"{name}.{number}" for number, name in enumerate(ENSEMBL)]
    for query, reference in ((versioned, ENSEMBL), (ENSEMBL, versioned)):
        found = align(query, reference)
        assert found.coverage == 1
        assert found.n_exact == 0
        assert found.renamed == tuple(zip(query, reference, strict=True))
        assert found.namespace == "ensembl"


def test_dots_in_symbols_are_not_versions():
    assert align(["RP11.3", "AC0.1"], ["RP11", "AC0"]).n_matched == 0


def test_case_is_ignored_last():
    found = align([name.lower() for name in SYMBOLS])
    assert found.coverage == 1
    assert set(found.renamed) == {(name.lower(), name) for name in SYMBOLS}


def test_an_exact_name_wins_over_a_similar_one():
    found = align(["abc", "ABC", "xyz"], ["ABC", "XYZ"])
    np.testing.assert_array_equal(found.positions, [1, 2])


def test_an_ambiguous_name_is_never_guessed():
    # two columns fit one gene; one column fits two genes
    assert align(["abc", "Abc"], ["ABC"]).n_matched == 0
    assert align(["ENSG00000000001"], ["ENSG00000000001.1", "ENSG00000000001.2"]).n_matched == 0


def test_no_column_serves_two_genes():
    found = align(["abc"], ["abc", "ABC"])
    np.testing.assert_array_equal(found.positions, [0, -1])


@pytest.mark.parametrize(
    "column", ["ensembl_id", "gene_ids", "gene_id", "feature_id", "symbol", "gene_name"]
)
def test_a_better_name_column_is_used_and_reported(column):
    var = pd.DataFrame({column: SYMBOLS}, index=ENSEMBL)
    found = align(var)
    assert found.coverage == 1
    assert found.source == f"var[{column!r}]"
    assert found.renamed == tuple(zip(ENSEMBL, SYMBOLS, strict=True))
    assert found.as_dict()["query_names_from"] == f"var[{column!r}]"


def test_var_names_are_preferred_where_they_fit():
    var = pd.DataFrame({"symbol": SYMBOLS[::-1]}, index=SYMBOLS)
    found = align(var)
    assert found.source == "var_names"
    assert found.identical


def test_the_models_other_namespace_is_used():
    found = align(ENSEMBL[::-1], SYMBOLS, alternative=[*ENSEMBL[:-1], ""])
    np.testing.assert_array_equal(found.positions, [*range(9, 0, -1), -1])
    assert found.renamed[0] == (ENSEMBL[0], SYMBOLS[0])


def test_a_name_column_with_gaps_does_not_disturb():
    var = pd.DataFrame({"ensembl_id": [*ENSEMBL[:5], None, np.nan, "", "", ""]}, index=SYMBOLS)
    assert align(var).identical


@pytest.mark.parametrize(
    ("names", "namespace"),
    [
        (SYMBOLS, "symbol"),
        (ENSEMBL, "ensembl"),
        ([f"ENSMUSG{n:011d}.3" for n in range(4)], "ensembl"),
        (SYMBOLS[:4] + ENSEMBL[:6], "ensembl"),
        (SYMBOLS[:6] + ENSEMBL[:4], "symbol"),
    ],
)
def test_the_namespace_is_that_of_most_names(names, namespace):
    assert detect_namespace(names) == namespace


# --- refusals ---------------------------------------------------------------------------------


def test_too_few_genes_are_refused_with_the_share_and_the_missing():
    with pytest.raises(GeneOverlapError, match=r"7 of 10 genes.*70.0%.*80%") as raised:
        align(SYMBOLS[:7], min_coverage=0.8)
    assert SYMBOLS[7] in str(raised.value)
    assert align(SYMBOLS[:8], min_coverage=0.8).coverage == 0.8


def test_the_other_namespace_is_named_as_the_remedy():
    with pytest.raises(GeneOverlapError, match="Ensembl identifiers, the model needs gene"):
        align(ENSEMBL, min_coverage=0.8)


def test_mouse_genes_are_another_species():
    with pytest.raises(SpeciesMismatchError, match="orthologue"):
        align([name.capitalize() for name in SYMBOLS])
    mouse = [name.replace("ENSG", "ENSMUSG") for name in ENSEMBL]
    with pytest.raises(SpeciesMismatchError, match="orthologue"):
        align(mouse, ENSEMBL)


def test_a_human_query_for_a_mouse_model_is_refused_too():
    with pytest.raises(SpeciesMismatchError):
        align(SYMBOLS, [name.capitalize() for name in SYMBOLS])


def test_mouse_genes_for_a_mouse_model_are_fine():
    mouse = [name.capitalize() for name in SYMBOLS]
    assert align(mouse[::-1], mouse).coverage == 1


def test_duplicates_matter_only_among_the_models_genes():
    assert align([*SYMBOLS, "EXTRA", "EXTRA"]).coverage == 1
    with pytest.raises(DuplicateGenesError, match="'CD3E'"):
        align([*SYMBOLS, "CD3E"])


def test_missing_genes_are_logged(caplog):
    with caplog.at_level("WARNING", logger="sczoo"):
        align(SYMBOLS[:9])
    assert "9 of 10 genes matched" in caplog.text


def test_the_record_is_plain():
    import json

    found = align(SYMBOLS[:9])
    assert json.loads(json.dumps(found.as_dict()))["n_missing"] == 1
    assert "9 of 10" in found.summary()


@pytest.mark.parametrize("share", [-0.1, 1.5, 80, float("nan"), "0.5", None])
def test_a_coverage_that_is_no_share_is_refused(share):
    with pytest.raises(InputError, match="min_coverage"):
        align(SYMBOLS, min_coverage=share)


def test_the_repr_of_an_alignment_is_short():
    found = align([f"X{i}" for i in range(5000)], [f"Y{i}" for i in range(5000)])
    assert len(found.missing) == 5000
    assert len(repr(found)) < 300
