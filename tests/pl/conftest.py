"""A model made of arrays, and cells to draw."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture
def cells():
    """Return 60 cells with an embedding of five dimensions and one of two."""
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    kind = np.arange(60) % 3
    adata = AnnData(csr_matrix(rng.poisson(2, size=(60, 4)).astype(np.float32)))
    adata.var_names = ["ISG15", "MX1", "CD3D", "CD79A"]
    adata.obs_names = [f"cell{k}" for k in range(60)]
    adata.obs["cell_type"] = pd.Categorical(np.array(["B", "T", "NK"])[kind], ["T", "B", "NK"])
    adata.obs["condition"] = np.where(np.arange(60) < 30, "ctrl", "stim")
    adata.obs["depth"] = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.obsm["X_toy"] = rng.normal(size=(60, 5)) + 6 * kind[:, None]
    adata.obsm["X_flat"] = rng.normal(size=(60, 2))
    return adata


class TopicModel:
    """Five topics over eight genes, with known proportions."""

    genes = tuple(f"G{k}" for k in range(8))

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.matrix = pd.DataFrame(rng.random((5, 8)), columns=self.genes)

    def get_topic_gene_matrix(self):
        return self.matrix

    def get_topic_proportions(self, adata=None):
        share = np.full((adata.n_obs, 5), 0.1)
        share[np.arange(adata.n_obs), np.arange(adata.n_obs) % 3] = 0.6
        return share

    def get_latent_representation(self, adata=None):
        return np.log(self.get_topic_proportions(adata))


class ModelWithTopGenes(TopicModel):
    def get_top_genes(self, n=10):
        rows = [
            {"topic": topic, "rank": rank, "gene": gene, "score": score}
            for topic, row in self.matrix.iterrows()
            for rank, (gene, score) in enumerate(row.sort_values(ascending=False)[:n].items())
        ]
        return pd.DataFrame(rows)


@pytest.fixture
def model():
    return ModelWithTopGenes()


@pytest.fixture
def matrix_model():
    return TopicModel()
