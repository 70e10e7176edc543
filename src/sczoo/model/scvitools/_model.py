"""scvi-tools' SCVI and SCANVI with the zoo's ways of saving, aligning and applying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from scvi.data.fields import CategoricalObsField, LayerField
from scvi.module import SCANVAE, VAE

from sczoo import _compat
from sczoo.base import ZooModelClass
from sczoo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

_SCVI_PAPER = {
    "text": "Lopez R. et al. Deep generative modeling for single-cell transcriptomics. Nature "
    "Methods 15, 1053-1058 (2018).",
    "doi": "10.1038/s41592-018-0229-2",
}
_SCANVI_PAPER = {
    "text": "Xu C. et al. Probabilistic harmonization and annotation of single-cell "
    "transcriptomics data with deep generative models. Molecular Systems Biology 17, e9620 "
    "(2021).",
    "doi": "10.15252/msb.20209620",
}


class ImportedSCVI(ZooModelClass):
    """An ``scvi.model.SCVI`` trained elsewhere; made by :func:`sczoo.hub.from_scvi`.

    It embeds new patients with its genes matched by name, is saved without pickle and published
    like any model of the zoo. It is not trained here: train with scvi-tools and import again.

    Parameters
    ----------
    adata
        Data that went through ``setup_anndata``.
    registry
        Registry of a saved model.
    **architecture
        Arguments of :class:`scvi.module.VAE` besides the number of genes.
    """

    _method = "scvi"
    _module_cls: ClassVar[type] = VAE
    _describes_latent = True
    _summary = "An SCVI model of scvi-tools: a latent representation of counts"
    _citation: ClassVar = [_SCVI_PAPER]

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        **architecture: Any,
    ) -> None:
        super().__init__(adata, registry)
        prior = {}
        if not architecture.get("use_observed_lib_size", True):
            # their values come with the weights
            empty = np.zeros((1, int(architecture.get("n_batch", 1))), dtype=np.float32)
            prior = {"library_log_means": empty, "library_log_vars": empty.copy()}
        if architecture.get("use_size_factor_key"):
            prior = {}
        self.module = self._build_module(n_input=len(self.var_names), **prior, **architecture)
        self._model_summary_string = f"{type(self).__name__}, {len(self.var_names)} genes"
        self._finish_init(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register counts, batches and labels.

        Parameters
        ----------
        adata
            The data.
        layer
            Layer with the counts, ``None`` for ``adata.X``.
        batch_key, labels_key
            Columns of ``adata.obs``.
        """
        setup_locals = locals()
        cls._check_setup(adata, layer=layer, categorical_keys=[batch_key, labels_key])
        fields: list[Any] = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
            CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key),
        ]
        cls._register(adata, fields, setup_locals, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: imported models are applied, not trained.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError(
            f"{type(self).__name__} holds a model that scvi-tools trained; it is applied here, "
            "not trained. Train with scvi-tools, save there, and import with "
            "sczoo.hub.from_scvi(folder, trust_pickle=True)."
        )

    @torch.inference_mode()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Return the mean of the posterior of each cell.

        Missing genes count as zero, as in scvi-tools.

        Parameters
        ----------
        adata
            Any data with enough of the model's genes; the attached ones by default.
        indices
            Rows, in this order.
        batch_size
            Cells in a minibatch.

        Returns
        -------
        Array of shape ``(n_cells, n_latent)``, float32.
        """
        self._require_trained()
        parts = [
            self.module.inference(x, batch_index=batch)["qz"].loc.cpu().numpy()
            for x, batch in self._inputs(adata, indices, batch_size)
        ]
        empty = np.zeros((0, self.module.n_latent), dtype=np.float32)
        return np.concatenate([empty, *parts])

    def _inputs(
        self, adata: AnnData | None, indices: Sequence[int] | None, batch_size: int | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield counts, and batch numbers that the encoder takes but does not read."""
        for batch in self._iter_batches(adata, indices, batch_size):
            x = batch["X"]
            yield x, torch.zeros((len(x), 1), dtype=torch.int64, device=x.device)


class _ImportedSCANVAE(SCANVAE):
    """scvi-tools' module, which looks in the training data for old versions of itself on load."""

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Do nothing: there are no data, and the converter has dealt with the version."""


class ImportedSCANVI(ImportedSCVI):
    """An ``scvi.model.SCANVI`` trained elsewhere; made by :func:`sczoo.hub.from_scvi`.

    As :class:`ImportedSCVI`, with :meth:`predict`. The names of its labels are categories of the
    training data: ``save`` and ``publish`` replace them by numbers unless their column is listed.

    Parameters
    ----------
    adata
        Data that went through ``setup_anndata``.
    registry
        Registry of a saved model.
    **architecture
        Arguments of :class:`scvi.module.SCANVAE` besides the number of genes.
    """

    _method = "scanvi"
    _module_cls: ClassVar[type] = _ImportedSCANVAE
    _summary = "A SCANVI model of scvi-tools: a latent representation and labels"
    _citation: ClassVar = [_SCANVI_PAPER, _SCVI_PAPER]

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        **architecture: Any,
    ) -> None:
        super().__init__(adata, registry, **architecture)
        self._finish_init(locals())

    @property
    def label_names(self) -> list[str]:
        """Names of the labels, in the order of the columns of ``predict(soft=True)``."""
        field = self.registry_[_compat.FIELD_REGISTRIES][REGISTRY_KEYS.LABELS_KEY]
        mapping = field[_compat.STATE_REGISTRY]["categorical_mapping"]
        # the category of cells without a label is the last, and no class
        return [str(name) for name in mapping][: self.module.n_labels]

    @torch.inference_mode()
    def predict(
        self,
        adata: AnnData | None = None,
        soft: bool = False,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Return the label of each cell, or how probable each is.

        Parameters
        ----------
        adata, indices, batch_size
            As of :meth:`get_latent_representation`.
        soft
            Return probabilities, one column for each label.

        Returns
        -------
        Names of labels, or a table of cells x labels.
        """
        self._require_trained()
        parts = []
        for x, batch in self._inputs(adata, indices, batch_size):
            scores = self.module.classify(x, batch_index=batch)
            if self.module.classifier.logits:
                scores = torch.softmax(scores, dim=-1)
            parts.append(scores.cpu().numpy())
        names = self.label_names
        table = np.concatenate([np.zeros((0, len(names)), dtype=np.float32), *parts])
        if not soft:
            return np.asarray(names, dtype=object)[table.argmax(axis=1)]
        data: Any = self.adata if adata is None else adata
        index = data.obs_names if indices is None else data.obs_names[np.asarray(indices)]
        return pd.DataFrame(table, index=index, columns=names)
