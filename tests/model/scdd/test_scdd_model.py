"""SCDD end to end on cells whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from sczoo.errors import (
    InputError,
    MissingKeyError,
    MissingValuesError,
    NotFiniteError,
    NotTrainedError,
    TooFewCellsError,
)
from sczoo.model import SCDD
from sczoo.model.scdd import evaluate_distillation, exact_copies, select_cells
from sczoo.model.scdd._diffusion import ancestral
from sczoo.model.scdd._flow_map import jacobian_norm


def same(a, b):
    return (a.X != b.X).nnz == 0 and (a.obs.astype(str) == b.obs.astype(str)).all().all()


@pytest.fixture(scope="module")
def small(model):
    return model.distill(4, seed=3, n_steps=50)


def test_what_a_distilled_set_is(model, small):
    assert small.n_obs == 20
    for matrix in (small.X, small.layers["counts_mode"], small.layers["counts_nb"]):
        values = matrix.toarray()
        assert (values == np.round(values)).all()
        assert (values >= 0).all()
        assert (values.sum(axis=1) > 0).all()
        assert not exact_copies(matrix, model.adata.X).any()
    assert list(small.obs["label"].cat.categories) == [f"kind {k}" for k in range(5)]
    assert (small.obs["label"].value_counts() == 4).all()
    assert set(small.obs["site"].cat.categories) == {"north", "south"}
    assert small.obs["is_synthetic"].all()
    assert small.obs["quality"].between(0, 1).all()
    assert small.obs["quality"].mean() > 0.7
    assert list(small.var_names) == list(model.var_names)
    assert small.obsm["X_scdd"].shape == small.obsm["X_scdd_code"].shape == (20, 8)
    record = small.uns["scdd"]
    assert record["seed"] == 3
    assert "not anonymous" in record["notice"]
    assert record["model"]["data_sha256"] == model.provenance_["data_sha256"]
    assert not set(small.obs_names) & set(model.adata.obs_names)


def test_it_can_be_set_up_and_written(small, tmp_path):
    import scvi
    from anndata import read_h5ad

    small.write_h5ad(tmp_path / "small.h5ad")
    assert same(read_h5ad(tmp_path / "small.h5ad"), small)
    again = small.copy()
    scvi.model.SCVI.setup_anndata(again, labels_key="label", batch_key="site")


def test_same_seed_same_cells_and_the_model_stays(model, small):
    from sczoo.testing._case import weights_of
    from sczoo.testing._quiet import disturb_random_states, random_states

    weights, data = weights_of(model), model.adata.X.copy()
    disturb_random_states(99)
    before = random_states()
    again = model.distill(4, seed=3, n_steps=50)
    assert np.array_equal(before[1][1], random_states()[1][1])
    assert same(again, small)
    np.testing.assert_array_equal(again.obsm["X_scdd_code"], small.obsm["X_scdd_code"])
    for name, weight in weights_of(model).items():
        np.testing.assert_array_equal(weight, weights[name])
    assert (data != model.adata.X).nnz == 0
    other = model.distill(4, seed=4, n_steps=0, emission="mode")
    assert not same(other, small)


def test_saved_and_loaded_it_distils_the_same(model, small, new_cells, tmp_path):
    model.save(tmp_path / "model", include_categories=["label", "site"])
    loaded = SCDD.load(tmp_path / "model", new_cells(), accelerator="cpu")
    assert same(loaded.distill(4, seed=3, n_steps=50), small)
    bare = SCDD.load(tmp_path / "model", accelerator="cpu")
    with pytest.raises(InputError, match="loaded without data"):
        bare.distill(4)
    made, expected = bare.generate(["kind 1"], 6, seed=2), model.generate(["kind 1"], 6, seed=2)
    np.testing.assert_array_equal(made.X.toarray(), expected.X.toarray())
    model.save(tmp_path / "nameless")
    assert "kind 1" not in (tmp_path / "nameless" / "artefact.json").read_text()
    nameless = SCDD.load(tmp_path / "nameless", accelerator="cpu")
    assert nameless.generate(["category_1"], 2).n_obs == 2


@pytest.mark.slow
def test_distilled_cells_teach_more_than_a_random_cell(model, new_cells):
    test = new_cells(300, seed=8)
    means = {"scdd": [], "random": []}
    for seed in range(3):
        sets = {
            "scdd": model.distill(1, seed=seed),
            "random": select_cells(model.adata, "random", 1, labels_key="label", seed=seed),
        }
        frame = evaluate_distillation(
            sets, test, classifiers=["lr", "knn"], fidelity=False, privacy=False
        )
        f1 = frame[frame["measure"] == "macro_f1"].groupby("set")["value"].mean()
        for name in means:
            means[name].append(f1[name])
    assert np.mean(means["scdd"]) > np.mean(means["random"]) + 0.1


def test_noisy_cells_look_like_real_ones(model, new_cells):
    test = new_cells(300, seed=8)
    made = model.generate([f"kind {k}" for k in range(5)], 40)
    frame = evaluate_distillation(
        made, test, train=model.adata, labels_key="label", classifiers=["knn"], privacy=False
    )
    rows = frame[frame["kind"] == "fidelity"].set_index("measure")
    assert rows.loc["mmd", "value"] < rows.loc["mmd", "reference"] + 0.05
    assert rows.loc["mean_gene_r", "value"] > 0.95
    assert abs(rows.loc["zero_rate", "value"] - rows.loc["zero_rate", "reference"]) < 0.05
    assert rows.loc["library_size_ks", "value"] < 0.25


def test_the_gradient_survives_one_step_and_not_a_stochastic_chain(model):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(40, 8, generator=generator)
    conditions = model._conditions(np.arange(40) % 5, np.arange(40) % 2)
    one_step = model._one_step(0.0)
    # of a Gaussian class the map's gradient is the spread of the class in each direction
    rows, labels, _ = model._training_classes(5, "error")
    source = model._source(rows, labels, model.adata.X[rows])
    spread = np.mean([source.latents[source.codes == k].std(axis=0).mean() for k in range(5)])
    found = jacobian_norm(lambda u: one_step(u, conditions), codes, generator)
    assert 0.6 * spread < found < 1.6 * spread
    chain = torch.Generator().manual_seed(1)

    def stochastic(u):
        return ancestral(model.module.denoiser, u, conditions, 50, chain)

    assert jacobian_norm(stochastic, codes, generator) < 0.02


def test_the_student_follows_the_teacher(model):
    from sczoo.model.scdd._diffusion import ddim

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(300, 8, generator=generator)
    conditions = model._conditions(np.arange(300) % 5, np.arange(300) % 2)
    with torch.no_grad():
        flow = ddim(model.module.denoiser, noise, conditions, 50)
        step = model._one_step(0.0)(noise, conditions)
    missed = float(((flow - step) ** 2).mean() / flow.var())
    assert missed < 0.1


def test_test_cells_are_never_read(train_scdd, new_cells):
    """Garbage in validation and test cells changes neither weights nor distilled cells."""
    from sczoo.testing._case import weights_of

    parts = [np.arange(300), np.arange(300, 340), np.arange(340, 400)]
    found = []
    for spoilt in (False, True):
        adata = new_cells()
        if spoilt:
            matrix = adata.X.toarray()
            matrix[300:] = np.random.default_rng(0).poisson(50, matrix[300:].shape)
            adata.X = sparse.csr_matrix(matrix)
            labels = adata.obs["label"].astype(str).to_numpy()
            labels[300:] = "kind 0"
            adata.obs["label"] = labels
        model = train_scdd(
            adata,
            train={
                "max_epochs": 2,
                "max_steps_diffusion": 5,
                "max_steps_student": 5,
                "datasplitter_kwargs": {"external_indexing": parts},
            },
        )
        made = model.distill(2, n_steps=4, emission="mode")
        found.append((weights_of(model), made, model.domain, model.provenance_))
    assert same(found[0][1], found[1][1])
    for name, weight in found[0][0].items():
        np.testing.assert_array_equal(weight, found[1][0][name])
    assert found[0][2] == found[1][2]
    assert found[0][3]["data_sha256"] == found[1][3]["data_sha256"]
    assert found[0][1].uns["scdd"]["n_source_cells"] == 300


def test_calibrated_profiles_have_the_mean_of_their_class(model):
    """The correction is exact on average: corrected reconstructions sum to the real counts."""
    from sczoo.model.scdd._making import class_correction

    rows, labels, _ = model._training_classes(5, "error")
    counts = model.adata.X[rows].tocsr()
    source = model._source(rows, labels, counts)
    factors = class_correction(model.module, source, counts)
    with torch.no_grad():
        shares = model.module.decode_standard(
            torch.as_tensor(source.latents), torch.as_tensor(source.batch)
        ).exp()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    for code in range(5):
        ours = source.codes == code
        fitted = (totals[ours, None] * shares.numpy()[ours]).sum(axis=0)
        seen = np.asarray(counts[ours].sum(axis=0)).ravel()
        np.testing.assert_allclose((fitted + 0.5) * factors[code], seen + 0.5, rtol=1e-3)


def test_groups_are_never_small():
    from sczoo.model.scdd._codes import cell_groups

    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(60, 3)), 50 + 9 * rng.normal(size=(3, 3))])
    for n_groups in (1, 4, 10, 30):
        groups = cell_groups(points, n_groups, rng)
        assert len(groups) == n_groups
        assert min(map(len, groups)) >= 5
        assert all(len(set(group)) == len(group) for group in groups)
    assert [len(group) for group in cell_groups(points[:3], 4, rng)] == [3, 3, 3, 3]


def test_pools_are_sums_and_follow_the_batch(model):
    """With the batch that a group is of, its pool is the sum of its counts."""
    from sczoo.model.scdd._codes import nearest_groups
    from sczoo.model.scdd._making import pooled_shares

    rows, labels, _ = model._training_classes(5, "error")
    counts = model.adata.X[rows].tocsr()
    source = model._source(rows, labels, counts)
    own = [np.flatnonzero((source.codes == k) & (source.batch == 0))[:9] for k in range(5)]
    zeros = torch.zeros(5, dtype=torch.long)
    same = pooled_shares(model.module, source, own, zeros)
    for share, group in zip(same, own, strict=True):
        summed = np.asarray(counts[group].sum(axis=0)).ravel()
        np.testing.assert_allclose(share, summed / summed.sum(), rtol=1e-6)
    other = pooled_shares(model.module, source, own, zeros + 1)
    assert np.abs(other - same).max() > 1e-5
    np.testing.assert_allclose(other.sum(axis=1), 1.0)
    near = nearest_groups(source, source.latents[[0, 1, 2]], source.codes[[0, 1, 2]])
    for group, code in zip(near, source.codes[[0, 1, 2]], strict=True):
        assert len(group) >= 5
        assert (source.codes[group] == code).all()


def test_the_weight_of_pools(model):
    """At 0 nothing is pooled, at 1 a cell without noise is the rounded pool of its group."""
    options = {"init": "pools", "emission": "mode", "n_steps": 0}
    plain = model.distill(2, pool_weight=0.0, **options)
    half = model.distill(2, pool_weight=0.5, **options)
    assert plain.uns["scdd"]["pool_weight"] == 0
    assert half.uns["scdd"]["pool_weight"] == 0.5
    assert plain.uns["scdd"]["init"] == half.uns["scdd"]["init"] == "pools"
    assert not np.array_equal(plain.X.toarray(), half.X.toarray())
    same_codes = plain.obsm["X_scdd_code"], half.obsm["X_scdd_code"]
    np.testing.assert_array_equal(*same_codes)
    auto = model.distill(2, n_steps=2, emission="typical").uns["scdd"]
    assert {name.split(":")[0] for name in auto["scores"]} >= {"start, kmeans", "start, pools"}


@pytest.mark.slow
def test_moved_codes_are_taken_only_if_they_score_higher(model):
    record = model.distill(2, seed=1).uns["scdd"]
    best = max(record["scores"].values())
    assert record["score"] == best
    unmoved = [v for k, v in record["scores"].items() if k.startswith("start")]
    assert record["codes_optimised"] == (best > max(unmoved))
    always = model.distill(2, seed=1, accept="always").uns["scdd"]
    assert always["codes_optimised"]


@pytest.mark.parametrize("matching", ["none", "dm", "krr", "gm", "dm+gm", "tm"])
def test_every_matching_makes_cells(model, matching):
    made = model.distill(2, matching=matching, n_steps=6, emission="mode", accept="always")
    assert made.n_obs == 10
    assert made.uns["scdd"]["codes_optimised"] == (matching != "none")


@pytest.mark.parametrize(
    "options",
    [
        {"init": "random"},
        {"init": "real"},
        {"match_space": "latent"},
        {"match_space": "raw"},
        {"emission": "nb"},
        {"emission": "typical"},
        {"emission": "half"},
        {"emission": "level"},
        {"emission": "mixed"},
        {"init": "pools"},
        {"init": "real", "pool_weight": 0.3},
        {"library": "median"},
        {"guidance": 1.0},
        {"class_shares": "sqrt"},
        {"calibrate": False},
    ],
    ids=str,
)
def test_options(model, options):
    made = model.distill(2, n_steps=4, **{"emission": "mode", **options})
    assert made.n_obs == 10
    assert (made.X.sum(axis=1) > 0).all()


def test_optimised_random_codes_score_higher_on_the_loss(model):
    from sczoo.model.scdd._codes import optimise_codes

    rows, labels, _ = model._training_classes(5, "error")
    source = model._source(rows, labels, model.adata.X[rows].tocsr())
    codes = np.repeat(np.arange(5), 2)
    conditions = model._conditions(labels[codes], np.zeros(10, dtype=np.int64))
    start = torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
    for matching in ("dm", "krr", "tm"):
        moved, curve = optimise_codes(
            model.module,
            model._one_step(0.0),
            source,
            start,
            codes,
            conditions,
            matching=matching,
            n_steps=60,
            rng=np.random.default_rng(0),
            generator=torch.Generator().manual_seed(1),
        )
        assert np.mean(curve[-10:]) < np.mean(curve[:10]), matching
        assert not torch.equal(moved, start)


def test_batches_and_metadata_follow_the_training_table(model):
    made = model.distill(
        10, matching="none", emission="mode", metadata_keys=["donor"], class_shares="balanced"
    )
    table = made.obs.groupby("label", observed=True)["site"].value_counts(normalize=True)
    truth = model.adata.obs.groupby("label", observed=True)["site"].value_counts(normalize=True)
    for key, share in truth.items():
        assert abs(table.get(key, 0.0) - share) <= 0.1
    pairs = set(zip(made.obs["label"], made.obs["donor"], strict=True))
    assert pairs <= set(zip(model.adata.obs["label"], model.adata.obs["donor"], strict=True))
    with pytest.raises(MissingKeyError, match="'no_such'"):
        model.distill(2, metadata_keys=["no_such"])


def test_metadata_show_what_is_missing_and_point_at_nobody(train_scdd, new_cells):
    adata = new_cells()
    rng = np.random.default_rng(0)
    adata.obs["age"] = rng.normal(50, 10, adata.n_obs)
    adata.obs["barcode"] = adata.obs_names
    adata.obs["stage"] = pd.Categorical(
        np.where(np.arange(adata.n_obs) < 300, "early", "held out"),
        categories=["late", "early", "held out"],
    )
    adata.obs.loc[adata.obs_names[::2], "stage"] = np.nan
    adata.obs["empty"] = pd.Series([None] * adata.n_obs, index=adata.obs_names, dtype=object)
    adata.obs["site"] = adata.obs["site"].cat.add_categories("elsewhere")
    adata.obs.loc[adata.obs_names[300:], "site"] = "elsewhere"
    parts = [np.arange(300), np.arange(300, 400), np.zeros(0, dtype=int)]
    short = {"max_epochs": 2, "max_steps_diffusion": 5, "max_steps_student": 5}
    short["datasplitter_kwargs"] = {"external_indexing": parts}
    model = train_scdd(adata, setup={"batch_key": "site"}, train=short)
    options = {"emission": "mode", "matching": "none"}
    made = model.distill(10, metadata_keys=["stage", "empty"], **options)
    # every second cell of each class has no stage
    assert made.obs["stage"].isna().groupby(made.obs["label"], observed=True).sum().eq(5).all()
    assert made.obs["empty"].isna().all()
    # names that the training cells do not have stay behind, also those of batches
    assert list(made.obs["stage"].cat.categories) == ["early"]
    assert set(made.obs["site"].cat.categories) == {"north", "south"}
    assert not made.obs["site"].isna().any()
    assert "donor" in model.distill(2, metadata_keys="donor", **options).obs
    for name in ("age", "barcode"):
        with pytest.raises(InputError, match=rf"'{name}'.*point at single cells"):
            model.distill(2, metadata_keys=[name], **options)
    adata.obs["weight"] = "heavy"
    with pytest.raises(InputError, match="'weight' of its own"):
        model.distill(2, metadata_keys=["weight"], **options)


def test_a_loaded_model_does_not_read_the_cells_that_were_put_aside(
    train_scdd, new_cells, tmp_path
):
    """Which cells were held out is not saved, so they must not be attached."""
    train = {"max_epochs": 2, "stages": ["autoencoder"], "train_size": 0.75}
    model = train_scdd(new_cells(), train=train)
    rows = np.sort(model.train_indices_)
    model.save(tmp_path / "begun", include_categories=["label"])
    quick = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    steps = {"stages": "missing", "max_steps_diffusion": 5, "max_steps_student": 5}
    options = {"emission": "mode", "matching": "none"}
    loaded = SCDD.load(tmp_path / "begun", new_cells(), accelerator="cpu")
    with pytest.raises(InputError, match="400 cells are not the 300"):
        loaded.train(**steps, **quick)
    own = new_cells()[rows].copy()
    loaded = SCDD.load(tmp_path / "begun", own, accelerator="cpu")
    loaded.train(**steps, **quick)  # goes on where the other process stopped
    made = loaded.distill(2, **options)
    assert made.uns["scdd"]["n_source_cells"] == 300
    loaded.save(tmp_path / "done", include_categories=["label"])
    with pytest.raises(InputError, match="validation or test"):
        SCDD.load(tmp_path / "done", new_cells(), accelerator="cpu").distill(2, **options)
    again = SCDD.load(tmp_path / "done", own.copy(), accelerator="cpu")
    assert same(again.distill(2, **options), made)


def test_more_cells_than_a_class_has(train_scdd, new_cells, caplog):
    """Documented: groups overlap. No cell is a copy of a real one even then."""
    adata = new_cells(200)
    adata.obs["label"] = np.where(np.arange(200) < 6, "rare", "common")
    short = {"max_epochs": 2, "max_steps_diffusion": 5, "max_steps_student": 5}
    model = train_scdd(adata, train=short)
    with caplog.at_level("WARNING"):
        made = model.distill(9, emission="mode", matching="none")
    assert "'rare'" in caplog.text
    assert made.obs["label"].value_counts().to_dict() == {"common": 9, "rare": 9}
    assert not exact_copies(made.X, adata.X).any()


def test_fraction(model):
    assert model.distill(fraction=0.05, matching="none", emission="mode").n_obs == 20


def test_generate(model):
    made = model.generate(["kind 0", "kind 3"], 7, seed=1)
    assert made.obs["label"].astype(str).value_counts().to_dict() == {"kind 0": 7, "kind 3": 7}
    assert (model.predict(made) == made.obs["label"].astype(str)).mean() > 0.8
    again = model.generate(["kind 0", "kind 3"], 7, seed=1)
    assert same(made, again)
    teacher = model.generate("kind 0", 5, steps=20)
    assert teacher.n_obs == 5
    for wrong in (
        {"labels": ["kind 9"]},
        {"labels": []},
        {"labels": None},
        {"labels": "kind 0", "n": 0},
        {"labels": "kind 0", "seed": -1},
        {"labels": "kind 0", "guidance": "strong"},
    ):
        with pytest.raises(InputError):
            model.generate(**wrong)


def test_stages_can_be_resumed(train_scdd, new_cells):
    model = train_scdd(new_cells(200), train={"stages": "autoencoder", "max_epochs": 2})
    with pytest.raises(NotTrainedError, match=r"'diffusion'.*stages='missing'"):
        model.distill(2)
    with pytest.raises(InputError, match="stages=None"):
        model.train(stages=None)
    with pytest.raises(InputError, match="'student' needs"):
        model.train(stages=["student"])
    latent = model.get_latent_representation()
    split = model.train_indices_.copy()
    quick = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    model.train(stages="missing", max_steps_diffusion=3, max_steps_student=3, **quick)
    np.testing.assert_array_equal(latent, model.get_latent_representation())
    np.testing.assert_array_equal(split, model.train_indices_)
    assert {"diffusion_loss", "student_loss", "train_loss"} <= set(model.history)
    assert model.distill(2, matching="none", emission="mode").n_obs == 10
    weights = model.module.denoiser.inputs.weight.clone()
    model.train(stages=["student"], max_steps_student=3, **quick)
    assert torch.equal(weights, model.module.denoiser.inputs.weight)
    model.train(stages="missing", **quick)  # nothing is missing


def test_the_minimal_generator(train_scdd, new_cells):
    model = train_scdd(new_cells(), generator="x0_t", train={"stages": ["autoencoder"]})
    model.train(
        stages=["diffusion"],
        max_steps_diffusion=200,
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
    )
    made = model.distill(2, n_steps=5, emission="mode")
    assert made.uns["scdd"]["generator"] == "x0_t"
    assert made.obs["quality"].mean() > 0.6


@pytest.mark.parametrize("mode", ["align", "concat"])
def test_outside_embeddings(train_scdd, new_cells, mode, tmp_path):
    model = train_scdd(
        new_cells(),
        setup={"embedding_key": "X_outside"},
        embedding_mode=mode,
        train={"max_steps_diffusion": 50, "max_steps_student": 50},
    )
    if mode == "align":
        assert model.history["alignment_error_train"].iloc[-1, 0] < 0.5
    made = model.distill(2, n_steps=5, emission="mode")
    assert made.uns["scdd"]["outside_embedding"] == mode
    # a new patient has no embedding
    model.save(tmp_path / "model")
    loaded = SCDD.load(tmp_path / "model", accelerator="cpu")
    patient = new_cells(50, seed=4)
    del patient.obsm["X_outside"]
    truth = patient.obs["label"].cat.codes.to_numpy()
    found = [int(str(name).split("_")[1]) for name in loaded.predict(patient)]
    assert (np.array(found) == truth).mean() > 0.7


def test_an_outside_embedding_as_a_modality(new_cells):
    """The X of a second modality, or a key of its obsm; metadata come from the joint table."""
    from anndata import AnnData
    from mudata import MuData

    cells = new_cells()
    outside = AnnData(cells.obsm["X_outside"].copy())
    outside.obs_names = cells.obs_names
    outside.obsm["X_twice"] = 2 * outside.X
    quick = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    for key in (None, "X_twice"):
        data = MuData({"rna": cells.copy(), "fm": outside.copy()})
        data.obs["centre"] = np.where(np.arange(400) % 2, "A", "B")
        SCDD.setup_mudata(
            data,
            labels_key="label",
            batch_key="site",
            embedding_key=key,
            modalities={
                "layer": "rna",
                "labels_key": "rna",
                "batch_key": "rna",
                "embedding_key": "fm",
            },
        )
        model = SCDD(data, n_latent=6, n_hidden=32, denoiser_hidden=16, denoiser_layers=1)
        model.train(20, max_steps_diffusion=5, max_steps_student=5, **quick)
        assert model.module.n_embedding == 12
        assert model.history["alignment_error_train"].iloc[-1, 0] < 0.8
        made = model.distill(2, emission="mode", matching="none", metadata_keys="centre")
        assert made.uns["scdd"]["outside_embedding"] == "align"
        assert list(made.var_names) == list(cells.var_names)
        assert set(made.obs["site"]) <= {"north", "south"}
        assert set(made.obs["centre"]) <= {"A", "B"}
    outside.X[3, 2] = np.nan
    data = MuData({"rna": cells.copy(), "fm": outside})
    with pytest.raises(NotFiniteError, match=r"'fm'.*X is not finite.*row 3"):
        SCDD.setup_mudata(
            data,
            labels_key="label",
            modalities={"layer": "rna", "labels_key": "rna", "embedding_key": "fm"},
        )


def test_two_classes_a_small_class_and_no_batch(train_scdd, new_cells):
    adata = new_cells(200)
    labels = np.where(np.arange(200) < 3, "rare", "common")
    adata.obs["label"] = labels
    short = {"max_epochs": 2, "max_steps_diffusion": 5, "max_steps_student": 5}
    model = train_scdd(adata, train=short)
    with pytest.raises(TooFewCellsError, match=r"'rare' \(3\).*rare='drop'"):
        model.distill(2)
    with pytest.raises(TooFewCellsError, match="needs two"):
        model.distill(2, rare="drop")
    made = model.distill(5, min_cells_per_class=3, n_steps=3, emission="mode")
    assert (made.obs["label"] == "rare").sum() == 5
    assert not exact_copies(made.X, adata.X).any()
    assert not exact_copies(made.layers["counts_nb"], adata.X).any()


def test_a_small_class_can_be_left_out(train_scdd, new_cells):
    adata = new_cells(200)
    labels = adata.obs["label"].astype(str).to_numpy()
    labels[:2] = "a class of two"
    adata.obs["label"] = labels
    short = {"max_epochs": 2, "max_steps_diffusion": 5, "max_steps_student": 5}
    made = train_scdd(adata, train=short).distill(2, rare="drop", n_steps=0, emission="mode")
    assert "a class of two" not in set(made.obs["label"])
    assert made.n_obs == 10


def test_bad_data(cells):
    with pytest.raises(MissingKeyError, match="labels_key"):
        SCDD.setup_anndata(cells)
    cells.obs["one"] = "T"
    with pytest.raises(InputError, match="at least two"):
        SCDD.setup_anndata(cells, labels_key="one")
    cells.obs["some"] = [None, *["a", "b"] * 199, "a"]
    with pytest.raises(MissingValuesError, match=r"'some'.*missing for 1 cell"):
        SCDD.setup_anndata(cells, labels_key="some")
    cells.obsm["X_outside"][3, 2] = np.nan
    with pytest.raises(NotFiniteError, match="X_outside"):
        SCDD.setup_anndata(cells, labels_key="label", embedding_key="X_outside")
    assert not cells.uns
    assert not [name for name in cells.obs if name.startswith("_scvi")]


def test_bad_arguments(model, cells):
    for wrong, match in (
        ({"n_cells_per_class": 0}, "n_cells_per_class"),
        ({"n_cells_per_class": 2, "fraction": 0.1}, "not both"),
        ({"matching": "best"}, "matching"),
        ({"init": "zeros"}, "init"),
        ({"emission": "poisson"}, "emission"),
        ({"pool_weight": 1.2}, "pool_weight"),
        ({"pool_weight": "some"}, "pool_weight"),
        ({"guidance": -1}, "guidance"),
        ({"guidance": np.nan}, "guidance"),
        ({"guidance": "strong"}, "guidance"),
        ({"fraction": "half"}, "fraction"),
        ({"fraction": 1.0}, "fraction"),
        ({"lr": 0}, "lr"),
        ({"lr": np.nan}, "lr"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"seed": 2**40}, "seed"),
        ({"min_cells_per_class": 0}, "min_cells_per_class"),
        ({"n_steps": -1}, "n_steps"),
        ({"rare": "keep"}, "rare"),
    ):
        with pytest.raises(InputError, match=match):
            model.distill(**wrong)
    with pytest.raises(TooFewCellsError, match="smaller than its source"):
        model.distill(80)
    SCDD.setup_anndata(cells, labels_key="label")
    for wrong, match in (
        ({"generator": "gan"}, "generator"),
        ({"embedding_mode": "both"}, "embedding_mode"),
        ({"n_latent": 0}, "n_latent"),
        ({"t_star": 2.0}, "t_star"),
    ):
        with pytest.raises(InputError, match=match):
            SCDD(cells, **wrong)


def test_missing_genes_and_depth(model, new_cells):
    """A query without a fifth of its genes, or at twice the depth, keeps its classes."""
    patient = new_cells(150, seed=5)
    truth = patient.obs["label"].astype(str).to_numpy()
    whole = (model.predict(patient) == truth).mean()
    assert whole > 0.85
    fewer = patient[:, 12:].copy()
    assert (model.predict(fewer) == truth).mean() > whole - 0.1
    deeper = patient.copy()
    deeper.X = deeper.X * 2
    assert (model.predict(deeper) == truth).mean() > whole - 0.1
