from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sczoo.errors import (
    EmptyDataError,
    InputError,
    MissingKeyError,
    NegativeValuesError,
    NotCountsError,
    NotFiniteError,
    NotTrainedError,
    TooFewCellsError,
    TooFewGenesError,
)
from sczoo.model.sce2tm import SCE2TM
from sczoo.model.sce2tm._ecr import even_shares

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
N_TYPES, N_GENES = 4, 60


def simulated(n_cells=200, seed=0, response=True):
    """Cells of four types; half of them show a response in the last six genes."""
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(123).gamma(0.6, 1.0, size=(N_TYPES, N_GENES))
    kind, treated = rng.integers(N_TYPES, size=n_cells), rng.random(n_cells) < 0.5
    mean = profile[kind] * rng.lognormal(1.0, 0.3, size=(n_cells, 1))
    if response:
        mean[treated, -6:] = mean[treated, -6:] * 4 + 3
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)))
    adata.var_names = [f"GENE{i}" for i in range(N_GENES)]
    adata.obs_names = [f"cell{i}" for i in range(n_cells)]
    adata.obs["cell_type"] = [f"type{k}" for k in kind]
    adata.obs["condition"] = np.where(treated, "stim", "ctrl")
    adata.obs["batch"] = np.where(rng.random(n_cells) < 0.5, "a", "b")
    return adata


def fit(adata=None, setup=None, max_epochs=3, batch_size=64, **kwargs):
    adata = simulated() if adata is None else adata
    SCE2TM.setup_anndata(adata, **(setup or {}))
    model = SCE2TM(adata, **{"n_topics": 6, **kwargs})
    model.train(max_epochs=max_epochs, batch_size=batch_size, **QUIET)
    return model


@pytest.fixture(scope="module")
def model():
    import scvi

    scvi.settings.seed = 0
    return fit(max_epochs=250, batch_size=32, n_topics=8)


# --- results ---


def test_shapes_and_sums(model):
    query = simulated(30, seed=9)
    latent = model.get_latent_representation(query)
    theta = model.get_topic_proportions(query)
    assert latent.shape == theta.shape == (30, 8)
    np.testing.assert_allclose(theta.sum(axis=1), 1, rtol=1e-5)
    expected = np.exp(latent) / np.exp(latent).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(theta, expected, rtol=1e-4)
    frequency = model.get_reconstruction(query)
    np.testing.assert_allclose(frequency.sum(axis=1), 1, rtol=1e-5)
    beta = model.get_topic_gene_matrix()
    assert list(beta.columns) == [f"GENE{i}" for i in range(N_GENES)]
    np.testing.assert_allclose(beta.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(model.get_topic_gene_matrix("gene").sum(axis=1), 1, rtol=1e-5)
    assert model.get_topic_embeddings().shape == (8, 64)
    assert model.get_gene_embeddings().shape == (N_GENES, 64)
    logit = model.get_topic_gene_matrix("logit")
    distance = (
        (model.get_topic_embeddings().to_numpy()[:, None] - model.get_gene_embeddings().to_numpy())
        ** 2
    ).sum(-1)
    np.testing.assert_allclose(logit, -distance / 0.2, atol=1e-3)


def test_reconstruction_on_the_scale_of_expression(model):
    query = simulated(20, seed=4)
    scaled = model.get_reconstruction(query, scale="expression")
    counts = query.X.toarray()
    x = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(scaled.sum(axis=1), x.sum(axis=1), rtol=1e-4)
    # cells are decoded better than by the mean cell
    error = np.linalg.norm(scaled - x, axis=1)
    mean = np.linalg.norm(x.mean(axis=0) - x, axis=1)
    assert (error < mean).mean() > 0.8


def test_top_genes(model):
    table = model.get_top_genes(5)
    assert list(table.columns) == ["topic", "rank", "gene", "score"]
    assert table.groupby("topic").size().tolist() == [5] * 8
    assert (table.groupby("topic")["score"].diff().dropna() <= 0).all()
    # a gene stands at the top with a positive score only in the topic that it belongs to
    owned = table[table["score"] > 0]
    home = even_shares(model.module.cost()).argmax(dim=0).numpy()
    home = pd.Series(home, index=model.var_names)
    assert (home.loc[owned["gene"]].to_numpy() == owned["topic"].to_numpy()).all()
    assert not owned["gene"].duplicated().any()
    beta = model.get_top_genes(3, score="beta")
    expected = model.get_topic_gene_matrix().apply(lambda row: row.nlargest(1).index[0], axis=1)
    assert beta[beta["rank"] == 0]["gene"].tolist() == expected.tolist()
    with pytest.raises(InputError, match="score"):
        model.get_top_genes(3, score="frex")
    with pytest.raises(InputError, match="n=0"):
        model.get_top_genes(0)
    with pytest.raises(InputError, match="normalize"):
        model.get_topic_gene_matrix("rows")


def test_effects_are_differences_of_decoded_logits(model):
    effect = model.get_topic_gene_matrix("effect").to_numpy()
    scale = model.module.decoder.log_scale.exp().detach().numpy()
    beta = model.get_topic_gene_matrix().to_numpy()
    np.testing.assert_allclose(effect, scale * (beta - 1 / 8), rtol=1e-3, atol=1e-4)


def test_clusters_are_labelled_by_size_and_repeat(model):
    found = model.get_cluster_assignments(model.adata)
    assert np.array_equal(found, model.get_cluster_assignments(model.adata))
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()
    fine = model.get_cluster_assignments(model.adata, resolution=4.0)
    assert fine.max() > found.max()


def test_needs_training_first():
    adata = simulated(40)
    SCE2TM.setup_anndata(adata)
    untrained = SCE2TM(adata, n_topics=4)
    for call in (
        untrained.get_latent_representation,
        untrained.get_top_genes,
        untrained.get_topic_gene_matrix,
        untrained.get_gene_embeddings,
        lambda: untrained.perturb([0], value=1.0),
        lambda: untrained.differential_topics("condition"),
        untrained.topic_stability,
    ):
        with pytest.raises(NotTrainedError):
            call()


# --- differential topics ---


def test_differential_topics_equal_scipy(model):
    from scipy.stats import false_discovery_control, mannwhitneyu

    adata = model.adata
    table = model.differential_topics("condition", group="stim", within="cell_type")
    latent = model.get_latent_representation()
    pvalues, differences = [], []
    for _, row in table.iterrows():
        inside = (adata.obs["cell_type"] == row["within"]).to_numpy()
        stim = (adata.obs["condition"] == "stim").to_numpy()
        first, second = (
            latent[inside & stim][:, row["topic"]],
            latent[inside & ~stim][:, row["topic"]],
        )
        pvalues.append(mannwhitneyu(first, second).pvalue)
        differences.append(first.mean() - second.mean())
    np.testing.assert_allclose(table["difference"], differences, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["p_value"], pvalues, rtol=1e-6)
    np.testing.assert_allclose(table["q_value"], false_discovery_control(pvalues), rtol=1e-6)
    assert (table["difference"].abs().diff().dropna() <= 1e-9).all()
    expected = (table["q_value"] < 0.05) & (table["difference"].abs() > 1)
    assert (table["specific"] == expected).all()
    assert len(table) == 8 * N_TYPES


def test_differential_topics_of_all_groups(model):
    table = model.differential_topics("cell_type")
    assert set(table["group"]) == {f"type{k}" for k in range(N_TYPES)}
    against = model.differential_topics("cell_type", group="type1", reference="type0")
    swapped = model.differential_topics("cell_type", group="type0", reference="type1")
    first = against.set_index("topic")["difference"].sort_index()
    second = swapped.set_index("topic")["difference"].sort_index()
    np.testing.assert_allclose(first, -second, rtol=1e-5)
    with pytest.raises(MissingKeyError, match="no_column"):
        model.differential_topics("no_column")
    with pytest.raises(MissingKeyError, match="type9"):
        model.differential_topics("cell_type", group="type9")
    with pytest.raises(TooFewCellsError, match="min_cells"):
        model.differential_topics("cell_type", min_cells=10_000)


# --- perturbation ---


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_shift_and_set(model):
    query = simulated(25, seed=5)
    latent = model.get_latent_representation(query)
    shifted = model.perturb([1, 4], query, mode="shift", value=[2.0, -1.0])
    expected = latent.copy()
    expected[:, 1] += 2
    expected[:, 4] -= 1
    np.testing.assert_allclose(shifted.latent, expected, atol=1e-6)
    np.testing.assert_allclose(shifted.proportions, softmax(expected), rtol=1e-4, atol=1e-7)
    replaced = model.perturb(3, query, mode="set", value=1.5)
    assert (replaced.latent[:, 3] == 1.5).all()
    np.testing.assert_allclose(np.delete(replaced.latent, 3, 1), np.delete(latent, 3, 1))
    none = model.perturb([2], query, value=0.0)
    np.testing.assert_allclose(none.change, 0, atol=1e-6)
    np.testing.assert_allclose(none.reconstruction, model.get_reconstruction(query), rtol=1e-5)


def test_ablation_removes_the_topic_and_shares_the_rest_out(model):
    query = simulated(25, seed=6)
    theta = model.get_topic_proportions(query)
    found = model.perturb([0, 5], query, mode="ablate")
    rest = theta.copy()
    rest[:, [0, 5]] = 0
    np.testing.assert_allclose(
        found.proportions, rest / rest.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7
    )
    assert np.isfinite(found.change.to_numpy()).all()


def test_response_is_the_mean_change(model):
    query = simulated(12, seed=7)
    found = model.perturb([2], query, value=3.0)
    counts = query.X.toarray()
    x = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    difference = found.perturbed_reconstruction - found.reconstruction
    expected = difference * x.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.change, expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.gene_response, expected.mean(axis=0), rtol=1e-3, atol=1e-6)
    assert found.change.index.tolist() == query.obs_names.tolist()
    ratio = np.log(found.perturbed_reconstruction / found.reconstruction)
    np.testing.assert_allclose(found.log_fold_change, ratio, atol=1e-5)


def test_to_group_moves_control_cells_to_the_stimulated(model):
    patient = simulated(300, seed=11)
    control = patient[patient.obs["condition"] == "ctrl"].copy()
    options = {"mode": "to_group", "groupby": "condition", "source": "ctrl", "target": "stim"}
    found = model.perturb(None, control, within="cell_type", max_topics=8, **options)
    # the shift comes from the model's own cells, and is their difference of means
    latent = model.get_latent_representation()
    obs = model.adata.obs
    for kind in ("type0", "type2"):
        inside = (obs["cell_type"] == kind).to_numpy()
        stim = (obs["condition"] == "stim").to_numpy()
        shift = latent[inside & stim].mean(0) - latent[inside & ~stim].mean(0)
        cells = (control.obs["cell_type"] == kind).to_numpy()
        moved = found.latent[cells] - model.get_latent_representation(control)[cells]
        np.testing.assert_allclose(moved, np.tile(shift, (cells.sum(), 1)), atol=1e-5)
    # the response is that of the genes which respond
    respond = {f"GENE{i}" for i in range(N_GENES - 6, N_GENES)}
    assert len(respond & set(found.gene_response.nlargest(6).index)) >= 5
    by_reference = model.perturb(
        None, control, within="cell_type", max_topics=8, response="reference", **options
    )
    assert set(by_reference.gene_response.nlargest(6).index) == respond
    counts, stim = patient.X.toarray(), (patient.obs["condition"] == "stim").to_numpy()
    x = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    observed = x[stim].mean(axis=0) - x[~stim].mean(axis=0)
    assert np.corrcoef(observed, found.gene_response)[0, 1] > 0.5


def test_response_of_the_reference_is_ridge_regression_within_the_type(model):
    from sklearn.linear_model import Ridge

    patient = simulated(60, seed=13)
    patient.obs["cell_type"] = patient.obs["cell_type"].astype(str)
    patient.obs.iloc[:5, patient.obs.columns.get_loc("cell_type")] = "unheard_of"
    options = {"mode": "to_group", "groupby": "condition", "target": "stim", "within": "cell_type"}
    found = model.perturb([1, 3], patient, response="reference", **options)
    counts, obs = model.adata.X.toarray(), model.adata.obs
    x = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    latent = model.get_latent_representation()[:, [1, 3]]
    stim = (obs["condition"] == "stim").to_numpy()

    def weights(cells):
        return np.where(stim[cells], 1.0, stim[cells].sum() / (~stim[cells]).sum())

    rows, genes, weight = [], [], []
    for kind in np.unique(obs["cell_type"]):
        cells = np.flatnonzero((obs["cell_type"] == kind).to_numpy())
        w = weights(cells)
        rows.append(latent[cells] - np.average(latent[cells], axis=0, weights=w))
        genes.append(x[cells] - np.average(x[cells], axis=0, weights=w))
        weight.append(w)
    overall = Ridge(50.0, fit_intercept=False).fit(
        np.concatenate(rows), np.concatenate(genes), np.concatenate(weight)
    )
    moved = found.latent - model.get_latent_representation(patient)
    np.testing.assert_allclose(
        found.change.to_numpy()[:5], moved[:5][:, [1, 3]] @ overall.coef_.T, atol=1e-3
    )
    # within a type: a ridge on what the regression over all leaves
    kind = np.unique(obs["cell_type"]).tolist().index("type0")
    rest = genes[kind] - rows[kind] @ overall.coef_.T
    own = Ridge(50.0, fit_intercept=False).fit(rows[kind], rest, weight[kind])
    cells = (patient.obs["cell_type"] == "type0").to_numpy()
    expected = moved[cells][:, [1, 3]] @ (overall.coef_ + own.coef_).T
    np.testing.assert_allclose(found.change.to_numpy()[cells], expected, atol=1e-3)
    # twice the difference changes the genes twice as much
    twice = model.perturb([1, 3], patient, response="reference", value=2.0, **options)
    np.testing.assert_allclose(twice.change, 2 * found.change, atol=1e-4)


def test_to_group_with_indices_and_cell_types_that_the_reference_lacks(model):
    patient = simulated(40, seed=12)
    patient.obs["cell_type"] = ["type0"] * 20 + ["unheard_of"] * 20
    options = {"mode": "to_group", "groupby": "condition", "target": "stim"}
    rows = [39, 0, 21]
    found = model.perturb(
        [0, 1], patient, rows, within="cell_type", reference=model.adata, **options
    )
    moved = found.latent - model.get_latent_representation(patient, rows)
    assert found.change.index.tolist() == ["cell39", "cell0", "cell21"]
    np.testing.assert_allclose(moved[0], moved[2], atol=1e-6)
    assert np.abs(moved[0, :2] - moved[1, :2]).max() > 1e-4
    assert np.abs(moved[:, 2:]).max() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"topics": [99], "value": 1.0}, InputError, "99"),
        ({"topics": [], "value": 1.0}, InputError, "at least one"),
        ({"topics": [1, 1], "value": 1.0}, InputError, "once"),
        ({"topics": None, "value": 1.0}, InputError, "Name the topics"),
        ({"topics": [1]}, InputError, "value="),
        ({"topics": [1], "value": [1.0, 2.0]}, InputError, "one number"),
        ({"topics": [1], "value": np.nan}, InputError, "finite"),
        ({"topics": [1], "mode": "delete"}, InputError, "mode"),
        ({"topics": range(8), "mode": "ablate"}, InputError, "All topics"),
        ({"topics": [1], "mode": "to_group"}, InputError, "groupby"),
        ({"topics": [1], "value": 1.0, "response": "oracle"}, InputError, "response"),
        ({"topics": [1], "value": 1.0, "response": "reference"}, InputError, "to_group"),
        (
            {
                "topics": [1],
                "mode": "to_group",
                "groupby": "condition",
                "target": "stim",
                "value": [1.0, 2.0],
            },
            InputError,
            "one finite number",
        ),
        (
            {"topics": [1], "mode": "to_group", "groupby": "nothing", "target": "stim"},
            MissingKeyError,
            "nothing",
        ),
        (
            {"topics": [1], "mode": "to_group", "groupby": "condition", "target": "cured"},
            MissingKeyError,
            "cured",
        ),
    ],
)
def test_bad_perturbations(model, arguments, error, match):
    with pytest.raises(error, match=match):
        model.perturb(adata=simulated(10), **arguments)


# --- knowledge ---


def with_embedding(width=7, n_cells=120):
    adata = simulated(n_cells)
    rng = np.random.default_rng(0)
    adata.obsm["X_fm"] = rng.normal(size=(n_cells, width)).astype(np.float32)
    return adata


@pytest.mark.parametrize("guidance", ["geometry", "assignments"])
@pytest.mark.parametrize("knowledge", ["pca", "registered", None])
def test_guidance(guidance, knowledge, tmp_path):
    adata = with_embedding()
    fitted = fit(adata, {"knowledge_key": "X_fm"}, knowledge=knowledge, guidance=guidance)
    name = "geometry_train" if guidance == "geometry" else "distill_train"
    assert (name in fitted.history) == (knowledge is not None)
    fitted.save(tmp_path / "model")
    loaded = SCE2TM.load(tmp_path / "model", accelerator="cpu")
    query = simulated(20, seed=3)  # without the embedding
    expected = fitted.get_latent_representation(query)
    np.testing.assert_array_equal(loaded.get_latent_representation(query), expected)
    tuned = SCE2TM.load_query_data(query, loaded)
    tuned.train(max_epochs=1, **QUIET)
    assert np.isfinite(tuned.get_latent_representation()).all()


def test_guidance_changes_the_model_and_the_registered_one_is_the_default():
    adata = with_embedding()
    latent = {}
    for name, knowledge in {"auto": "auto", "own": "registered", "pca": "pca", "no": None}.items():
        fitted = fit(adata.copy(), {"knowledge_key": "X_fm"}, knowledge=knowledge, max_epochs=10)
        latent[name] = fitted.get_latent_representation(simulated(15, seed=2))
    np.testing.assert_array_equal(latent["auto"], latent["own"])
    for other in ("pca", "no"):
        assert np.abs(latent["own"] - latent[other]).max() > 1e-3


def test_guidance_is_felt():
    # knowledge that says nothing but the cell type must draw the types apart
    adata = simulated(300)
    kind = adata.obs["cell_type"].astype("category").cat.codes.to_numpy()
    rng = np.random.default_rng(0)
    adata.obsm["X_fm"] = np.eye(N_TYPES)[kind] * 10 + rng.normal(size=(300, N_TYPES))
    ratio = {}
    for knowledge in ("registered", None):
        fitted = fit(adata.copy(), {"knowledge_key": "X_fm"}, knowledge=knowledge, max_epochs=80)
        latent = fitted.get_latent_representation(simulated(300, seed=1))
        codes = simulated(300, seed=1).obs["cell_type"].astype("category").cat.codes.to_numpy()
        between = np.stack([latent[codes == k].mean(0) for k in range(N_TYPES)]).var(0).sum()
        within = np.mean([latent[codes == k].var(0).sum() for k in range(N_TYPES)])
        ratio[knowledge] = between / within
    assert ratio["registered"] > 1.5 * ratio[None]


def test_bad_knowledge():
    adata = with_embedding()
    with pytest.raises(MissingKeyError, match="X_scGPT"):
        SCE2TM.setup_anndata(adata, knowledge_key="X_scGPT")
    SCE2TM.setup_anndata(adata)
    with pytest.raises(MissingKeyError, match="knowledge_key"):
        SCE2TM(adata, knowledge="registered", n_topics=4)
    with pytest.raises(InputError, match="knowledge="):
        SCE2TM(adata, knowledge="scgpt", n_topics=4)
    for fill, error, match in (
        (np.nan, NotFiniteError, "X_fm"),
        (np.inf, NotFiniteError, "X_fm"),
        (0.0, InputError, "same value in every column for 2 cell"),
    ):
        broken = with_embedding()
        broken.obsm["X_fm"][[5, 9]] = fill
        with pytest.raises(error, match=match):
            SCE2TM.setup_anndata(broken, knowledge_key="X_fm")
        assert "_scvi_uuid" not in broken.uns
    same = with_embedding()
    same.obsm["X_fm"] = np.tile(np.arange(7.0), (120, 1))
    with pytest.raises(InputError, match="same for every cell"):
        SCE2TM.setup_anndata(same, knowledge_key="X_fm")


def test_knowledge_from_mudata(tmp_path):
    from mudata import MuData

    rna = simulated(80)
    other = ad.AnnData(np.random.default_rng(1).normal(size=(80, 5)).astype(np.float32))
    other.obs_names = rna.obs_names
    other.var_names = [f"dimension{i}" for i in range(5)]
    other.obsm["X_fm"] = other.X[:, :4].copy()
    for key in (None, "X_fm"):
        mdata = MuData({"rna": rna.copy(), "fm": other.copy()})
        places = {"layer": "rna", "knowledge_key": "fm"}
        SCE2TM.setup_mudata(mdata, knowledge_key=key, modalities=places)
        fitted = SCE2TM(mdata, n_topics=4, guidance="assignments")
        assert fitted.module.n_knowledge == (5 if key is None else 4)
        fitted.train(max_epochs=2, **QUIET)
        assert "distill_train" in fitted.history
        fitted.save(tmp_path / str(key))
        loaded = SCE2TM.load(tmp_path / str(key), accelerator="cpu")
        query = simulated(9, seed=8)
        np.testing.assert_array_equal(
            loaded.get_latent_representation(query), fitted.get_latent_representation(query)
        )
    mdata = MuData({"rna": rna.copy(), "fm": other.copy()})
    with pytest.raises(MissingKeyError, match="X_other"):
        SCE2TM.setup_mudata(
            mdata, knowledge_key="X_other", modalities={"layer": "rna", "knowledge_key": "fm"}
        )


# --- input ---


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("rest", [0, 1, 2])
def test_any_number_of_cells(preset, rest):
    fitted = fit(simulated(96 + rest), batch_size=32, max_epochs=2, preset=preset)
    latent = fitted.get_latent_representation()
    assert latent.shape == (96 + rest, 6)
    assert np.isfinite(latent).all()
    one = fitted.get_latent_representation(simulated(1, seed=1))
    assert np.isfinite(one).all()


def test_few_cells_take_part_with_fewer_neighbours():
    fitted = fit(simulated(9), guidance="assignments", max_epochs=2)
    assert "distill_train" in fitted.history
    adata = simulated(9)
    SCE2TM.setup_anndata(adata)
    strict = SCE2TM(adata, n_topics=4, guidance="assignments", n_neighbors=15)
    with pytest.raises(TooFewCellsError, match="n_neighbors=15"):
        strict.train(max_epochs=1, **QUIET)


def test_bad_input():
    adata = simulated(30)
    SCE2TM.setup_anndata(adata)
    with pytest.raises(TooFewGenesError, match="60 genes for 61 topics"):
        SCE2TM(adata, n_topics=61)
    with pytest.raises(InputError, match="two topics"):
        SCE2TM(adata, n_topics=1)
    with pytest.raises(InputError, match="preset"):
        SCE2TM(adata, n_topics=4, preset="nature")
    with pytest.raises(InputError, match="input_kind"):
        SCE2TM(adata, n_topics=4, input_kind="cpm")
    negative = simulated(30)
    negative.X = negative.X.toarray() - 1
    with pytest.raises(NegativeValuesError):
        SCE2TM.setup_anndata(negative)
    silent = simulated(30)
    silent.X = sparse.csr_matrix(silent.shape, dtype=np.float32)
    SCE2TM.setup_anndata(silent)
    with pytest.raises(EmptyDataError, match="total of zero"):
        SCE2TM(silent, n_topics=4)
    fractions = simulated(30)
    fractions.X = fractions.X * 0.5
    SCE2TM.setup_anndata(fractions)
    with pytest.raises(InputError, match="input_kind='counts'"):
        SCE2TM(fractions, n_topics=4, input_kind="counts")


def test_kinds_of_input(tmp_path):
    counts = simulated(80)
    linear, logarithms = counts.copy(), counts.copy()
    share = counts.X.toarray() / counts.X.toarray().sum(axis=1, keepdims=True)
    linear.X = (share * 1e6).astype(np.float32)
    logarithms.X = np.log1p(share * 1e4).astype(np.float32)
    models = {}
    for kind, adata in {"counts": counts, "linear": linear, "log": logarithms}.items():
        models[kind] = fit(adata.copy(), knowledge=None)
        assert models[kind].input_kind_ == kind
        models[kind].save(tmp_path / kind)
        assert SCE2TM.load(tmp_path / kind, accelerator="cpu").input_kind_ == kind
    # the same cells, given as shares or as logarithms, look the same to the encoder
    x = {kind: models[kind].module.gene_mean.numpy() for kind in models}
    np.testing.assert_allclose(x["counts"], x["linear"], rtol=1e-4)
    np.testing.assert_allclose(x["counts"], x["log"], rtol=1e-4)
    with pytest.raises(NotCountsError):
        models["counts"].get_latent_representation(logarithms)


def test_missing_genes_move_the_latent_less_than_zeros():
    fitted = fit(simulated(400), max_epochs=60)
    query = simulated(100, seed=21)
    whole = fitted.get_latent_representation(query)
    gone = np.arange(0, N_GENES, 8)
    few = query[:, np.setdiff1d(np.arange(N_GENES), gone)].copy()
    zeros = query.copy()
    zeros.X = zeros.X.toarray()
    zeros.X[:, gone] = 0
    missing = fitted.get_latent_representation(few) - whole
    filled = fitted.get_latent_representation(zeros) - whole
    # what a gene would have said about its cell is lost either way; zeros also move all cells
    assert np.abs(missing).mean() < 0.85 * np.abs(filled).mean()
    assert np.abs(missing.mean(axis=0)).mean() < 0.4 * np.abs(filled.mean(axis=0)).mean()


def test_fine_tuning_ignores_missing_genes_and_keeps_the_topics(model):
    import torch

    query = simulated(60, seed=31)
    few = query[:, 5:].copy()
    tuned = SCE2TM.load_query_data(few, model)
    assert not tuned.module.present[:5].any()
    tuned.train(max_epochs=3, **QUIET)
    old, new = model.module.state_dict(), tuned.module.state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved
    assert all(name.startswith("encoder.") for name in moved)
    pd.testing.assert_frame_equal(tuned.get_topic_gene_matrix(), model.get_topic_gene_matrix())
    shift = tuned.get_latent_representation(query) - model.get_latent_representation(query)
    assert np.abs(shift).max() > 0


def test_batch_covariate(tmp_path):
    adata = simulated(150)
    fitted = fit(adata, {"batch_key": "batch"}, max_epochs=5)
    assert fitted.module.batch_offset.shape == (2, N_GENES)
    assert float(fitted.module.batch_offset.abs().max()) > 0
    fitted.save(tmp_path / "model")
    loaded = SCE2TM.load(tmp_path / "model", accelerator="cpu")
    unseen = simulated(20, seed=2)
    unseen.obs["batch"] = "c"
    bare = unseen.copy()
    del bare.obs["batch"]
    expected = loaded.get_latent_representation(unseen)
    np.testing.assert_array_equal(loaded.get_latent_representation(bare), expected)
    tuned = SCE2TM.load_query_data(unseen, loaded)
    tuned.train(max_epochs=1, **QUIET)


def test_published_preset():
    fitted = fit(simulated(120), preset="paper", max_epochs=2)
    assert fitted.module.ecr.solver == "unrolled"
    assert {"ecr_train", "distill_train", "consistency_train", "balance_train"} <= set(
        fitted.history
    )
    optimizer = fitted.trainer.optimizers[0]
    assert type(optimizer).__name__ == "RMSprop"
    assert optimizer.param_groups[0]["lr"] == 1e-3
    scheduler = fitted.trainer.lr_scheduler_configs[0].scheduler
    assert type(scheduler).__name__ == "StepLR"
    assert (scheduler.step_size, scheduler.gamma) == (125, 0.5)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_same_seed_same_weights(preset):
    import torch

    first, second = (fit(simulated(100), preset=preset, max_epochs=3) for _ in range(2))
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[name]), name


@pytest.mark.slow
def test_topic_stability(model):
    table = model.topic_stability(seeds=[0, 1], max_epochs=250, batch_size=32, **QUIET)
    assert table.shape == (8, 3)
    assert table["similarity"].between(-1, 1).all()
    assert set(table["recurrence"]) <= {0.0, 0.5, 1.0}
    # seed 0 is the model's own seed: that run repeats it, so that every topic recurs at least once
    assert (table["recurrence"] >= 0.5).all()
    assert (table["recurs"] == (table["recurrence"] >= 0.5)).all()
    with pytest.raises(InputError, match="seeds"):
        model.topic_stability(seeds=[])


def test_early_stopping_and_validation():
    adata = simulated(200)
    SCE2TM.setup_anndata(adata)
    fitted = SCE2TM(adata, n_topics=5)
    fitted.train(
        max_epochs=6,
        batch_size=64,
        train_size=0.8,
        early_stopping=True,
        plan_kwargs={"lr": 2e-3, "schedule": "constant"},
        **QUIET,
    )
    assert {"elbo_validation", "geometry_validation"} <= set(fitted.history)


def test_bad_plan():
    adata = simulated(40)
    SCE2TM.setup_anndata(adata)
    fitted = SCE2TM(adata, n_topics=4)
    for bad in ({"optimizer": "SGD"}, {"schedule": "linear"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            fitted.train(max_epochs=1, plan_kwargs=bad, **QUIET)
