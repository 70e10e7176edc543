"""Where SCE2TM's embeddings start, and the scores of programs, against plain computations."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse

from sczoo.errors import InputError
from sczoo.model.sce2tm import SCE2TM
from sczoo.model.sce2tm._constants import training_constants
from sczoo.model.sce2tm._start import coexpression, starting_embeddings

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
N_GROUPS, OF_GROUP = 5, 8


def modules(n_cells=300, seed=0):
    """Five groups of eight genes, each driven by a factor of its own."""
    rng = np.random.default_rng(seed)
    factor = rng.gamma(0.5, 2.0, size=(n_cells, N_GROUPS))
    mean = np.repeat(factor, OF_GROUP, axis=1) + 0.2
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)))
    adata.var_names = [f"GENE{i}" for i in range(adata.n_vars)]
    return adata


def random_rows(n_rows, n_columns=12, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n_rows, n_columns)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def start(adata, n_topics=N_GROUPS, **kwargs):
    constants = training_constants(adata, None, None, 1e4)
    given = {"topics": random_rows(n_topics), "genes": random_rows(adata.n_vars, seed=1)}
    return starting_embeddings(adata, None, constants, **{**given, "seed": 0, **kwargs})


def test_coexpression_against_a_full_decomposition():
    x = np.random.default_rng(0).gamma(1.0, size=(40, 15)) @ np.diag(np.linspace(0.5, 3, 15))
    z = (x - x.mean(0)) / x.std(0)
    z = np.minimum(z, 10)
    _, size, right = np.linalg.svd(z - z.mean(0), full_matrices=False)
    expected = right[:4].T * np.sqrt(size[:4])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = coexpression(x, 4)
    # the signs of the components are free: compare the cosines of the genes
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-9)


def test_genes_that_are_expressed_together_start_together():
    topics, genes = start(modules())
    np.testing.assert_allclose(np.linalg.norm(genes, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(topics, axis=1), 1, rtol=1e-5)
    home = (topics @ genes.T).argmax(axis=0).reshape(N_GROUPS, OF_GROUP)
    assert (home == home[:, :1]).all()
    assert len(set(home[:, 0])) == N_GROUPS
    again = start(modules())
    np.testing.assert_array_equal(again[0], topics)
    np.testing.assert_array_equal(again[1], genes)


def test_genes_that_do_not_vary_keep_a_direction_of_their_own():
    adata = modules()
    dense = adata.X.toarray()
    dense[:, [3, 17]] = 0
    adata.X = sparse.csr_matrix(dense)
    _, genes = start(adata)
    np.testing.assert_array_equal(genes[[3, 17]], random_rows(adata.n_vars, seed=1)[[3, 17]])
    assert np.isfinite(genes).all()


def test_too_little_to_start_from():
    adata = modules(n_cells=1)
    topics, genes = start(adata)
    np.testing.assert_array_equal(topics, random_rows(N_GROUPS))
    np.testing.assert_array_equal(genes, random_rows(adata.n_vars, seed=1))


def test_a_sample_of_many_cells_is_enough(monkeypatch):
    import sczoo.model.sce2tm._start as module

    monkeypatch.setattr(module, "_MOST_CELLS", 200)
    topics, genes = start(modules(n_cells=400))
    home = (topics @ genes.T).argmax(axis=0).reshape(N_GROUPS, OF_GROUP)
    assert (home == home[:, :1]).all()


@pytest.fixture(scope="module")
def fitted():
    import scvi

    scvi.settings.seed = 0
    adata = modules()
    SCE2TM.setup_anndata(adata)
    model = SCE2TM(adata, n_topics=N_GROUPS)
    model.train(max_epochs=20, **QUIET)
    return model


def test_topics_stay_groups_of_genes_that_are_expressed_together(fitted):
    table = fitted.get_top_genes(OF_GROUP)
    group = table["gene"].str[4:].astype(int) // OF_GROUP
    agreed = group.groupby(table["topic"]).apply(lambda of: of.value_counts().iloc[0])
    assert agreed.sum() >= 0.9 * len(table)
    # the published start, trained as long, has not found them
    model = SCE2TM(fitted.adata, n_topics=N_GROUPS, embedding_init="random")
    model.train(max_epochs=20, **QUIET)
    table = model.get_top_genes(OF_GROUP)
    group = table["gene"].str[4:].astype(int) // OF_GROUP
    random = group.groupby(table["topic"]).apply(lambda of: of.value_counts().iloc[0])
    assert random.sum() < agreed.sum()


def test_training_goes_on_from_where_it_was(fitted):
    model = SCE2TM(fitted.adata, n_topics=N_GROUPS)
    model.train(max_epochs=1, **QUIET)
    before = model.module.gene_embedding.detach().clone()
    model.train(max_epochs=1, plan_kwargs={"lr": 1e-9}, **QUIET)
    torch.testing.assert_close(model.module.gene_embedding.detach(), before, atol=1e-5, rtol=0)


def test_the_start_is_recorded_and_checked(fitted):
    assert "embedding_init" in str(fitted.init_params_)
    paper = SCE2TM(fitted.adata, n_topics=N_GROUPS, preset="paper")
    before = paper.module.gene_embedding.detach().clone()
    paper.train(max_epochs=1, plan_kwargs={"lr": 1e-9}, **QUIET)
    torch.testing.assert_close(paper.module.gene_embedding.detach(), before, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="embedding_init"):
        SCE2TM(fitted.adata, embedding_init="pca")


def test_scores_are_projections_on_the_effects(fitted):
    query = modules(n_cells=25, seed=4)
    counts = query.X.toarray()
    x = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    effect = fitted.get_topic_gene_matrix("effect").to_numpy().astype(np.float64)
    direction = effect / np.linalg.norm(effect, axis=1, keepdims=True)
    expected = (x - fitted.module.gene_mean.numpy()) @ direction.T
    found = fitted.get_topic_scores(query)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(fitted.get_topic_scores(query, [7, 2]), found[[7, 2]], atol=1e-4)
    # a gene that is missing adds nothing, a batch size changes nothing
    few = query[:, :-1].copy()
    partial = fitted.get_topic_scores(few, batch_size=4)
    share = fitted.module.gene_fraction.numpy()[:-1].sum()
    total = counts[:, :-1].sum(axis=1, keepdims=True) / share
    less = np.log1p(1e4 * counts[:, :-1] / total) - fitted.module.gene_mean.numpy()[:-1]
    np.testing.assert_allclose(partial, less @ direction.T[:-1], rtol=1e-3, atol=1e-3)
    assert fitted.get_topic_scores(query, []).shape == (0, N_GROUPS)


def test_scores_need_a_trained_model():
    adata = modules(50)
    SCE2TM.setup_anndata(adata)
    with pytest.raises(Exception, match="train"):
        SCE2TM(adata, n_topics=3).get_topic_scores()
