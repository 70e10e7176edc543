"""Where the embeddings of topics and genes start: at what is expressed together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from sczoo.model.sce2tm._knowledge import expression_matrix

if TYPE_CHECKING:
    from anndata import AnnData

    from sczoo.model.sce2tm._constants import TrainingConstants

__all__ = ["EmbeddingStart", "coexpression", "starting_embeddings"]

EmbeddingStart = Literal["coexpression", "random"]

# More components are mostly noise of single genes, and topics made of it have genes in common by
# chance alone.
_WIDTH = 20
_MOST_CELLS = 5_000
# as scanpy's scaling: a gene that a few cells express is not to decide a component
_LARGEST_SCALED = 10.0
# Topics that start at one point would stay together for ever.
_APART = 0.02


def coexpression(values: np.ndarray, width: int = _WIDTH) -> np.ndarray:
    """Directions of the genes by what they are expressed together with.

    The loadings of the principal components of scaled genes, times the square roots of the
    singular values: at full length the two largest programs would decide which genes are close.

    Parameters
    ----------
    values
        Log-normalised expression, cells x genes.
    width
        Largest number of components.

    Returns
    -------
    Genes x components, float64, rows of unit length; zero for genes that do not vary.
    """
    scaled = values - values.mean(axis=0)
    deviation = scaled.std(axis=0)
    varies = deviation > 1e-9
    scaled /= np.where(varies, deviation, np.inf)  # in place: as large as the cells are many
    np.minimum(scaled, _LARGEST_SCALED, out=scaled)
    width = min(width, min(scaled.shape) - 1)
    if width < 1:
        return np.zeros((values.shape[1], 0))
    pca = PCA(width, svd_solver="arpack", random_state=0).fit(scaled)
    found = pca.components_.T * np.sqrt(pca.singular_values_)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(varies[:, None] & (length > 1e-9), found / np.maximum(length, 1e-9), 0.0)


def starting_embeddings(
    adata: AnnData,
    layer: str | None,
    constants: TrainingConstants,
    *,
    topics: np.ndarray,
    genes: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of topics and genes to start from.

    Genes that are expressed together lie together, and every topic is in the middle of such a
    group, so that clustering (the transport between topics and genes) sharpens groups that are in
    the data instead of forming any.

    Parameters
    ----------
    adata, layer
        The expression of the training cells; at most 5,000 of them are read, drawn at random.
    constants
        Constants of the normalisation.
    topics, genes
        Embeddings of unit length in random directions, topics and genes x dimensions: what is kept
        of genes that do not vary, and says how many dimensions there are.
    seed
        Seed of the draw and of the groups.

    Returns
    -------
    Topics and genes x dimensions, float32, of unit length.
    """
    rng = np.random.default_rng(seed)
    if adata.n_obs > _MOST_CELLS:
        adata = adata[np.sort(rng.choice(adata.n_obs, _MOST_CELLS, replace=False))]
    values = expression_matrix(adata, layer, constants).astype(np.float64).toarray()
    found = coexpression(values, min(_WIDTH, genes.shape[1]))
    known = np.flatnonzero(np.abs(found).sum(axis=1) > 0)
    if len(known) < len(topics):
        return topics, genes
    genes = genes.copy()
    genes[known] = 0.0
    genes[known, : found.shape[1]] = found[known]
    centres = KMeans(len(topics), n_init=3, random_state=seed).fit(genes[known]).cluster_centers_
    centres = centres + _APART * rng.standard_normal(centres.shape)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return centres.astype(np.float32), genes
