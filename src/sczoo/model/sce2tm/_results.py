"""Results of SCE2TM: cells in terms of topics, topics in terms of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from sczoo.errors import InputError
from sczoo.graph import leiden
from sczoo.model.sce2tm._ecr import even_shares

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from mudata import MuData

    from sczoo.model.sce2tm._module import SCE2TMModule

__all__ = ["TopicResultsMixin", "topic_gene_effects"]

Normalisation = Literal["topic", "gene", "logit", "effect"]


@torch.inference_mode()
def topic_gene_effects(module: SCE2TMModule) -> np.ndarray:
    """How far a cell of one topic alone is from an even cell, in log-frequency per gene.

    Before the frequencies are made to sum to one: a topic of strong genes would otherwise push
    down all others, and topics could not be compared.
    """
    device = module.topic_embedding.device
    pure = torch.eye(module.n_topics, device=device)
    even = torch.full((1, module.n_topics), 1.0 / module.n_topics, device=device)
    logits = module.generative(torch.cat([pure, even]))["logits"]
    return (logits[:-1] - logits[-1:]).cpu().numpy()


class TopicResultsMixin:
    """What a trained model says about cells, topics and genes."""

    @torch.inference_mode()
    def _outputs(
        self, adata: Any, indices: Any, batch_size: int | None
    ) -> Iterator[dict[str, torch.Tensor]]:
        model: Any = self
        model._require_trained()
        model.module.eval()
        for batch in model._iter_batches(adata, indices, batch_size):
            encoded = model.module.inference(batch["X"], gene_mask=batch["gene_mask"])
            yield {**encoded, "X": batch["X"]}

    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the mean topic logits of each cell.

        Parameters
        ----------
        adata
            Cells, of the training data or new; the model's own by default. Genes are matched by
            name; genes that are missing count as unknown, not as zero.
        indices
            Cells to use, in this order.
        batch_size
            Cells at a time.

        Returns
        -------
        Cells x topics, float32.
        """
        model: Any = self
        parts = [out["mean"].cpu().numpy() for out in self._outputs(adata, indices, batch_size)]
        empty = np.zeros((0, model.module.n_topics), dtype=np.float32)
        return np.concatenate([empty, *parts])

    def get_topic_proportions(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the share of each topic in each cell.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.

        Returns
        -------
        Cells x topics, float32; rows sum to one.
        """
        logits = self.get_latent_representation(adata, indices, batch_size)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def get_topic_scores(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        r"""Return how much each cell expresses the genes of each topic.

        The encoder says which mixture of topics explains a cell best, so that the share of one
        topic depends on the others. The score of a topic depends on its own genes alone: the
        log-normalised expression, less its mean over the training cells, is projected on the
        direction of the topic's effects on the genes,
        :math:`s_{ik} = (x_i - \bar x)\cdot w_k/\lVert w_k\rVert`, with :math:`w_k` the row of
        ``get_topic_gene_matrix("effect")``. To find the cells of a program in a patient who was
        not in the training, use this one. Missing genes add nothing.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.

        Returns
        -------
        Cells x topics, float32.
        """
        model: Any = self
        model._require_trained()
        direction = topic_gene_effects(model.module)
        length = np.linalg.norm(direction, axis=1, keepdims=True)
        direction = (direction / np.maximum(length, 1e-12)).T
        mean = model.module.gene_mean.cpu().numpy()
        parts = [np.zeros((0, model.module.n_topics), dtype=np.float32)]
        for out in self._outputs(adata, indices, batch_size):
            parts.append((out["x"].cpu().numpy() - mean) @ direction)
        return np.concatenate(parts)

    def get_reconstruction(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        scale: Literal["frequency", "expression"] = "frequency",
    ) -> np.ndarray:
        """Return the expression that the topics of each cell decode to, without batch offsets.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.
        scale
            ``"frequency"``: shares of the genes, which sum to one. ``"expression"``: multiplied by
            the sum of the cell's log-normalised expression, so that values compare with it.

        Returns
        -------
        Cells x genes, float32.
        """
        model: Any = self
        if scale not in ("frequency", "expression"):
            raise InputError(f"scale={scale!r} is not known: use 'frequency' or 'expression'.")
        parts = [np.zeros((0, model.module.n_genes), dtype=np.float32)]
        for out in self._outputs(adata, indices, batch_size):
            with torch.inference_mode():
                logits = model.module.generative(out["log_theta"].exp())["logits"]
                values = F.softmax(logits, dim=1)
                if scale == "expression":
                    values = values * out["x"].sum(dim=1, keepdim=True)
            parts.append(values.cpu().numpy())
        return np.concatenate(parts)

    def get_cluster_assignments(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        resolution: float = 1.0,
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> np.ndarray:
        """Cluster cells by Leiden communities of their neighbours in the latent representation.

        No label takes part; the resolution is fixed, not chosen.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.
        resolution
            Higher values give more clusters.
        n_neighbors
            Neighbours per cell, the cell itself counted.
        seed
            Seed of the algorithm.

        Returns
        -------
        Cluster of each cell, integers; 0 is the largest.
        """
        latent = self.get_latent_representation(adata, indices, batch_size)
        return leiden(latent, resolution=resolution, n_neighbors=n_neighbors, seed=seed)

    # --- topics and genes ---------------------------------------------------------------------

    def get_topic_gene_matrix(self, normalize: Normalisation = "topic") -> pd.DataFrame:
        r"""Return how genes belong to topics.

        Parameters
        ----------
        normalize
            ``"topic"``: :math:`\beta`, which sums to one over the topics of each gene.
            ``"gene"``: the same, each topic's row divided by its sum, so that it sums to one over
            genes. ``"logit"``: negative squared distance over temperature. ``"effect"``: by how
            much a cell of that topic alone exceeds an even cell, in log-frequency.

        Returns
        -------
        Topics x genes.
        """
        model: Any = self
        model._require_trained()
        module = model.module
        with torch.inference_mode():
            if normalize == "topic":
                values = module.beta().cpu().numpy()
            elif normalize == "gene":
                beta = module.beta()
                values = (beta / beta.sum(dim=1, keepdim=True)).cpu().numpy()
            elif normalize == "logit":
                values = (-module.cost() / module.temperature).cpu().numpy()
            elif normalize == "effect":
                values = topic_gene_effects(module)
            else:
                raise InputError(
                    f"normalize={normalize!r} is not known: use 'topic', 'gene', 'logit' or "
                    "'effect'."
                )
        return self._topic_table(values, model.var_names, "gene")

    def get_top_genes(
        self, n: int = 10, *, score: Literal["specific", "beta", "effect"] = "specific"
    ) -> pd.DataFrame:
        """Return the genes that stand for each topic.

        Parameters
        ----------
        n
            Genes per topic.
        score
            ``"effect"``: by how much a cell of that topic alone exceeds an even cell, in
            log-frequency. ``"specific"``: the same times the mean expression of the gene, among
            the topic's own genes, where optimal transport of the embeddings gives every gene to
            one topic and every topic equally many; other topics' genes follow with negative
            scores. ``"beta"``: the published score.

        Returns
        -------
        Table with the columns ``topic``, ``rank`` (from 0), ``gene`` and ``score``.
        """
        model: Any = self
        if not 1 <= n <= model.module.n_genes:
            raise InputError(f"n={n}: it must lie between 1 and {model.module.n_genes} genes.")
        scores = self._gene_scores(score)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        n_topics = len(scores)
        return pd.DataFrame(
            {
                "topic": np.repeat(np.arange(n_topics), n),
                "rank": np.tile(np.arange(n), n_topics),
                "gene": model.var_names[order.ravel()].astype(str),
                "score": np.take_along_axis(scores, order, axis=1).ravel(),
            }
        )

    def _gene_scores(self, score: str) -> np.ndarray:
        model: Any = self
        model._require_trained()
        if score == "beta":
            with torch.inference_mode():
                return model.module.beta().cpu().numpy()
        effect = topic_gene_effects(model.module)
        if score == "effect":
            return effect
        if score != "specific":
            raise InputError(f"score={score!r} is not known: use 'specific', 'effect' or 'beta'.")
        share = even_shares(model.module.cost().cpu()).numpy()
        behind = share - share.max(axis=0)
        # To first order what the topic adds to the expression. By the effect alone, genes that
        # hardly any cell expresses would lead.
        effect = effect * model.module.gene_mean.cpu().numpy()
        # Genes of other topics follow by how far the topic is behind; below zero, so that they
        # stay behind the topic's own.
        return np.where(behind == 0, np.maximum(effect, 0.0), np.minimum(behind, -1e-6))

    def get_topic_embeddings(self) -> pd.DataFrame:
        """Return the embeddings of the topics, topics x dimensions."""
        model: Any = self
        model._require_trained()
        values = model.module.topic_embedding.detach().cpu().numpy()
        return self._topic_table(values, np.arange(values.shape[1]), "dimension")

    def get_gene_embeddings(self) -> pd.DataFrame:
        """Return the embeddings of the genes, genes x dimensions, in the space of the topics'."""
        model: Any = self
        model._require_trained()
        values = model.module.gene_embedding.detach().cpu().numpy()
        return pd.DataFrame(values, index=pd.Index(model.var_names.astype(str), name="gene"))

    def _topic_table(self, values: np.ndarray, columns: np.ndarray, name: str) -> pd.DataFrame:
        if name == "gene":
            columns = columns.astype(str)
        topics = pd.RangeIndex(len(values), name="topic")
        return pd.DataFrame(values, index=topics, columns=pd.Index(columns, name=name))

    def _gene_importance(self) -> np.ndarray | None:
        """Weight of each gene in the encoder, times the square root of its mean expression."""
        module: SCE2TMModule = self.module  # type: ignore[attr-defined]
        weight = module.encoder.input_weight().detach().norm(dim=0)
        return (weight * module.gene_mean.sqrt()).cpu().numpy()
