"""Markers, precomputed scores, CellTypist and SCANVI."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from sczoo.errors import GeneOverlapError, InputError, MissingKeyError, NotFiniteError
from sczoo.model.grit.ontology import cell_ontology
from sczoo.model.grit.scorers import (
    CellTypistScorer,
    MarkerScorer,
    SCANVIScorer,
    Scorer,
    attach_scores,
    marker_table,
    tissues,
)
from sczoo.model.grit.scorers._markers import choose_markers, detect_species
from sczoo.model.grit.scorers._precomputed import read_scores

BLOOD = ["B cell", "CD14 monocyte", "natural killer cell", "T cell"]


def cells_of(genes, n=60, seed=0, **kwargs):
    counts = np.random.default_rng(seed).poisson(2.0, (n, len(genes))).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(counts), **kwargs)
    adata.var_names = list(genes)
    return adata


def blood_genes(species="human"):
    return sorted({gene for name in BLOOD for gene in marker_table()[name].genes[species]})


# --- the table ---


def test_table_has_many_types_with_enough_genes_and_identifiers():
    table, ontology = marker_table(), cell_ontology()
    assert len(table) >= 60
    assert all(len(set(entry.genes["human"])) >= 5 for entry in table.values())
    assert all(entry.term in ontology.names for entry in table.values())
    assert len({entry.term for entry in table.values()}) == len(table)
    assert {"blood", "pancreas", "lung", "brain", "immune", "tumour"} <= set(tissues())
    # nearly every human marker has an orthologue
    human = sum(len(entry.genes["human"]) for entry in table.values())
    mouse = sum(len(entry.genes["mouse"]) for entry in table.values())
    assert mouse > 0.85 * human


def test_every_term_has_its_ancestors_up_to_the_root():
    ontology = cell_ontology()
    for entry in marker_table().values():
        assert "CL:0000000" in ontology.ancestors(entry.term)
    assert all(parent in ontology.names for p in ontology.parents.values() for parent in p)


def test_ontology_by_hand():
    ontology = cell_ontology()
    naive, b, t = "CL:0000788", "CL:0000236", "CL:0000084"
    assert b in ontology.ancestors(naive)
    assert ontology.ancestors(naive)[naive] == 0
    assert ontology.names[ontology.common_parent([b, t])] == "lymphocyte"
    assert ontology.common_parent([naive, b]) == b
    similar = ontology.similarity([naive, b, "CL:0000171", None])
    assert similar[0, 1] > similar[0, 2] > 0
    assert np.allclose(similar[3, :3], 0)
    assert ontology.find("B cell") == b == ontology.find("cl:0000236".upper())
    assert ontology.find("no such cell") is None
    with pytest.raises(InputError, match="slice"):
        ontology.ancestors("CL:9999999")


@pytest.mark.parametrize("species", ["human", "mouse"])
@pytest.mark.parametrize("namespace", ["symbol", "ensembl"])
def test_markers_are_found_in_both_species_and_namespaces(species, namespace):
    from sczoo.model.grit.scorers._markers import _identifiers

    genes = blood_genes(species)
    known = _identifiers()[species]
    if namespace == "ensembl":
        genes = [f"{known[gene]}.4" for gene in genes if gene in known]
    assert detect_species(genes) == species
    scores = MarkerScorer(classes=BLOOD).score(cells_of(genes))
    assert list(scores.classes) == BLOOD
    assert np.isfinite(scores.values).all()
    assert not scores.probability


def test_scores_are_means_of_clipped_z_scores():
    adata = cells_of([*"ABCDEF"], 200)
    adata.X[3] = 50
    markers = {"one": ["A", "B"], "two": ["C", "F", "missing"]}
    found = MarkerScorer(markers).score(adata).values
    x = adata.X.toarray().astype(np.float64)
    x = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    z = np.clip((x - x.mean(0)) / x.std(0), -2.5, 5)
    expected = np.stack([z[:, [0, 1]].mean(1), z[:, [2, 5]].mean(1)], axis=1)
    assert np.abs(found - expected).max() < 1e-4


def test_a_type_without_markers_borrows_from_its_ancestor_or_is_named():
    genes = [*blood_genes(), *marker_table()["dendritic cell"].genes["human"]]
    own = marker_table()["type 1 dendritic cell"].genes["human"]
    genes = [gene for gene in genes if gene not in own]
    wanted = ["B cell", "T cell", "type 1 dendritic cell"]
    markers, terms, notes = choose_markers(sorted(set(genes)), classes=wanted)
    assert markers["type 1 dendritic cell"] == list(
        marker_table()["dendritic cell"].genes["human"]
    )
    assert any("dendritic cell, its closest ancestor" in note for note in notes)
    assert terms["type 1 dendritic cell"] == "CL:0002394"
    # not if the ancestor is a candidate itself
    wanted.append("dendritic cell")
    markers, _, notes = choose_markers(sorted(set(genes)), classes=wanted)
    assert "type 1 dendritic cell" not in markers
    assert any("without markers" in note and "type 1 dendritic" in note for note in notes)


def test_a_lineage_with_few_markers_left_is_scored_by_what_marks_it_alone():
    table = marker_table()
    b_types = ["B cell", "naive B cell", "memory B cell", "plasma cell"]
    left_out = {g for name in b_types for g in table[name].genes["human"]} - {"CD79A"}
    names = ["CD4 T cell", "CD14 monocyte", "natural killer cell", "dendritic cell"]
    genes = sorted({g for n in names for g in table[n].genes["human"]} - left_out | {"CD79A"})
    markers, _, notes = choose_markers(genes, tissue="blood")
    assert markers["B cell"] == ["CD79A"]
    assert any("B cell: scored by CD79A alone" in note for note in notes)
    # of the lineage only the uppermost, and nothing by a gene that marks other lineages too
    assert not {"naive B cell", "memory B cell", "plasma cell"} & set(markers)
    (orphans,) = (note for note in notes if "label of another type" in note)
    assert "plasma cell" in orphans
    assert "confidence does not show it" in orphans
    assert "memory B cell" not in orphans
    assert any("memory B cell" in n for n in notes if "a broader or a similar type" in n)
    # among the types of all tissues one gene is not enough
    markers, _, notes = choose_markers(genes)
    assert "B cell" not in markers
    assert any("name the tissue" in note and ", B cell" in note for note in notes)
    # of a type that was named, one gene is used and said
    notes = choose_markers(genes, classes=["B cell", *names])[2]
    assert any("B cell: scored by CD79A alone" in note for note in notes)


def test_a_type_whose_markers_are_silent_is_never_called():
    adata = cells_of(blood_genes(), 80)
    silent = [adata.var_names.get_loc(g) for g in marker_table()["B cell"].genes["human"]]
    matrix = adata.X.toarray()
    matrix[:, silent] = 0
    adata.X = sparse.csr_matrix(matrix)
    found = MarkerScorer(classes=BLOOD).score(adata)
    assert (found.values.argmax(1) != BLOOD.index("B cell")).all()
    assert any("B cell" in note for note in found.notes)


def test_cells_that_no_marker_tells_apart_are_refused():
    adata = cells_of(blood_genes(), 80)
    adata.X = adata.X * 0
    with pytest.raises(InputError, match="No marker of the"):
        MarkerScorer(classes=BLOOD).score(adata)


def test_wrong_candidates_are_refused():
    genes = blood_genes()
    with pytest.raises(InputError, match=r"'B cel'.*Did you mean.*'B cell'"):
        choose_markers(genes, classes=["B cel", "T cell"])
    with pytest.raises(InputError, match="tissue 'liver'"):
        choose_markers(genes, tissue="liver")
    with pytest.raises(InputError, match="nothing to"):
        choose_markers(genes, classes=["B cell"])
    with pytest.raises(GeneOverlapError, match="Gene symbols"):
        choose_markers([f"gene_{n:05d}" for n in range(100)])
    with pytest.raises(InputError, match="species"):
        choose_markers(genes, species="worm")
    with pytest.raises(GeneOverlapError, match="named like"):
        MarkerScorer({"one": ["X"], "two": ["Y"]}).score(cells_of("ABC"))
    with pytest.raises(InputError, match="at least one gene"):
        MarkerScorer({"one": [], "two": ["Y"]})


# --- scores of other models ---


def scored(n=20, classes=("a", "b", "c")):
    adata = cells_of("ABCD", n)
    values = np.random.default_rng(1).normal(size=(n, len(classes))).astype(np.float32)
    adata.obsm["X_scores"] = values
    adata.uns["X_scores_classes"] = list(classes)
    return adata, values


def test_scores_are_read_from_arrays_and_data_frames():
    adata, values = scored()
    found = read_scores(adata, "X_scores")
    assert found.classes == ("a", "b", "c")
    assert np.array_equal(found.values, values)
    assert not found.probability
    adata.obsm["frame"] = pd.DataFrame(values, adata.obs_names, ["a", "b", "c"])
    turned = read_scores(adata, "frame", ["c", "a", "b"])
    assert np.array_equal(turned.values, values[:, [2, 0, 1]])
    chance = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    adata.obsm["X_scores"] = chance
    assert read_scores(adata, "X_scores").probability


def test_scores_that_do_not_fit_are_refused():
    adata, values = scored()
    with pytest.raises(MissingKeyError, match="'nothing'"):
        read_scores(adata, "nothing")
    with pytest.raises(InputError, match="not the model's"):
        read_scores(adata, "X_scores", ["a", "b", "x"])
    adata.uns["X_scores_classes"] = ["a", "b"]
    with pytest.raises(InputError, match="3 columns, but 2 class names"):
        read_scores(adata, "X_scores")
    adata.uns["X_scores_classes"] = ["a", "b", "a"]
    with pytest.raises(InputError, match="'a' twice"):
        read_scores(adata, "X_scores")
    adata.uns["X_scores_classes"] = ["a"]
    with pytest.raises(InputError, match="1 class"):
        read_scores(adata, "X_scores")
    del adata.uns["X_scores_classes"]
    with pytest.raises(MissingKeyError, match="X_scores_classes"):
        read_scores(adata, "X_scores")
    values[4, 1] = np.nan
    adata.obsm["X_scores"], adata.uns["X_scores_classes"] = values, ["a", "b", "c"]
    with pytest.raises(NotFiniteError, match="row 4, column 1"):
        read_scores(adata, "X_scores")


def test_scores_of_other_cells_are_refused():
    adata, values = scored()
    frame = pd.DataFrame(values, adata.obs_names, ["a", "b", "c"])
    key = attach_scores(adata, frame.iloc[::-1], key="X_again")
    assert np.array_equal(adata.obsm[key], values)
    with pytest.raises(InputError, match="not those of these cells"):
        attach_scores(adata, frame.set_index(pd.Index([f"other{n}" for n in range(20)])))
    with pytest.raises(InputError, match="shape"):
        attach_scores(adata, values[:5], ["a", "b", "c"])
    with pytest.raises(InputError, match="names of its columns"):
        attach_scores(adata, values)
    with pytest.raises(InputError, match="3 columns of scores for 2"):
        attach_scores(adata, values, ["a", "b"])


# --- CellTypist ---


class Logistic:
    """A one-versus-rest logistic regression as CellTypist stores it."""

    def __init__(self, genes, classes, seed=0):
        rng = np.random.default_rng(seed)
        n_rows = 1 if len(classes) == 2 else len(classes)
        self.coef_ = rng.normal(0, 0.3, (n_rows, len(genes)))
        self.intercept_ = rng.normal(size=n_rows)
        self.classes_ = np.array(classes)
        self.features = np.array(genes)


class Model:
    def __init__(self, classifier, scaler):
        self.classifier, self.scaler = classifier, scaler


class Scaler:
    def __init__(self, n):
        self.mean_ = np.random.default_rng(4).uniform(0, 3, n)
        self.scale_ = np.random.default_rng(5).uniform(0.5, 2, n)


def test_celltypist_decisions_by_hand():
    genes = [f"G{n}" for n in range(70)]
    adata = cells_of(genes)
    model = Model(Logistic(genes[::-1], ["a", "b", "c"]), Scaler(70))
    scorer = CellTypistScorer(model, kind="decision")
    assert isinstance(scorer, Scorer)
    x = adata.X.toarray().astype(np.float64)
    x = np.log1p(1e4 * x / x.sum(1, keepdims=True))[:, ::-1]
    z = np.minimum((x - model.scaler.mean_) / model.scaler.scale_, 10)
    expected = z @ model.classifier.coef_.T + model.classifier.intercept_
    assert np.abs(scorer.score(adata).values - expected).max() < 1e-3
    soft = CellTypistScorer(model).score(adata)
    chance = 1 / (1 + np.exp(-expected))
    assert np.abs(soft.values - chance / chance.sum(1, keepdims=True)).max() < 1e-4
    assert soft.probability


def test_celltypist_itself_gives_the_same_labels():
    celltypist = pytest.importorskip("celltypist")
    from sklearn.preprocessing import StandardScaler

    genes = [f"G{n}" for n in range(80)]
    adata = cells_of(genes, 120)
    logged = adata.copy()
    x = adata.X.toarray()
    logged.X = np.log1p(1e4 * x / x.sum(1, keepdims=True)).astype(np.float32)
    scaler = StandardScaler().fit(logged.X)
    classifier = Logistic(genes, ["a", "b", "c"])
    classifier.n_features_in_ = 80
    model = celltypist.models.Model(classifier, scaler, {})
    ours = CellTypistScorer(model, kind="decision").score(adata).values
    z = np.minimum(scaler.transform(logged.X), 10)
    theirs = z @ classifier.coef_.T + classifier.intercept_
    assert np.abs(ours - theirs).max() < 1e-3


def test_celltypist_of_two_classes_and_of_missing_genes():
    genes = [f"G{n}" for n in range(70)]
    scorer = CellTypistScorer(Model(Logistic(genes, ["a", "b"]), Scaler(70)), kind="decision")
    values = scorer.score(cells_of(genes)).values
    assert np.allclose(values[:, 0], -values[:, 1], atol=1e-5)
    few = scorer.score(cells_of(genes[:55]))
    assert "55 of the 70" in few.notes[0]
    with pytest.raises(GeneOverlapError, match="of the model's 70 genes"):
        scorer.score(cells_of([*genes[:10], *(f"X{n}" for n in range(50))]))


def test_what_is_not_a_celltypist_model_is_refused(tmp_path):
    for path in ("Immune_All_Low.pkl", tmp_path / "model.pkl"):
        with pytest.raises(InputError, match="pickle"):
            CellTypistScorer(path)
    with pytest.raises(InputError, match="not a CellTypist model"):
        CellTypistScorer(object())
    with pytest.raises(InputError, match="kind"):
        CellTypistScorer(Logistic(["A"], ["a", "b"]), kind="other")


# --- SCANVI ---


class Soft:
    """What the adapter uses of a SCANVI."""

    is_trained_ = True
    adata = None

    def predict(self, adata, soft):
        assert soft
        adata.obs["_scvi_batch"] = 1  # as scvi-tools does
        values = np.random.default_rng(0).dirichlet(np.ones(3), adata.n_obs)
        return pd.DataFrame(values, adata.obs_names, ["a", "b", "c"])


def test_scanvi_probabilities_and_untouched_cells():
    adata = cells_of("ABC")
    found = SCANVIScorer(Soft()).score(adata)
    assert found.probability
    assert np.allclose(found.values.sum(1), 1, atol=1e-6)
    assert "_scvi_batch" not in adata.obs


def test_scanvi_of_permuted_genes_is_refused():
    model = Soft()
    model.adata = cells_of("CAB")
    with pytest.raises(InputError, match="another order"):
        SCANVIScorer(model).score(cells_of("ABC"))
    with pytest.raises(InputError, match="predict"):
        SCANVIScorer(object())
    model.is_trained_ = False
    with pytest.raises(InputError, match="not trained"):
        SCANVIScorer(model)


@pytest.mark.slow
def test_a_real_scanvi_is_refined():
    import scvi

    import sczoo
    from sczoo.testing import example_cells

    adata = example_cells()
    scvi.model.SCVI.setup_anndata(adata, labels_key="cell_type")
    vae = scvi.model.SCVI(adata, n_latent=4, n_hidden=16)
    options = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    vae.train(max_epochs=3, **options)
    scanvi = scvi.model.SCANVI.from_scvi_model(vae, "nobody")
    scanvi.train(max_epochs=3, **options)
    query = example_cells(80, seed=1)
    sczoo.model.GRIT.setup_anndata(query)
    model = sczoo.model.GRIT(query, scorer=SCANVIScorer(scanvi), guard="warn")
    model.train(accelerator="cpu", enable_progress_bar=False)
    expected = scanvi.predict(example_cells(80, seed=1), soft=True)
    assert list(expected.columns) == model.classes
    assert np.allclose(model.refine().raw, expected.to_numpy(), atol=1e-4)
