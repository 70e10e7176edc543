"""The converter for models that scvi-tools saved: the one place where a pickle is read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.errors import ArtefactError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from anndata import AnnData

__all__ = ["from_scvi"]

logger = logging.getLogger("sczoo")

_FILE = "model.pt"
_FIELDS = ("X", "batch", "labels")
_NOT_OF_THE_MODULE = ("adata", "registry", "datamodule", "n_labels", "n_batch", "n_input")
_CLASSES = {"SCVI": "scvi", "SCANVI": "scanvi"}


def from_scvi(
    dir_path: str | os.PathLike[str],
    adata: AnnData | None = None,
    *,
    trust_pickle: bool = False,
    prefix: str = "",
) -> Any:
    """Turn an SCVI or SCANVI model that scvi-tools saved into a model of the zoo.

    scvi-tools' file ``model.pt`` is a pickle: reading it runs whatever code its maker put in.
    Nothing else in sczoo reads one. The result is saved, published, loaded and transferred like
    any model of the zoo, without pickle; training history and the indices and labels of single
    cells stay behind.

    Parameters
    ----------
    dir_path
        Folder that ``model.save`` of scvi-tools wrote.
    adata
        Its training data, or data like them, to attach: with them the model also knows what is
        usual, and warns of patients that are not. They need its genes in its order.
    trust_pickle
        ``True`` states that you trust whoever made the file as much as the programs that you run.
    prefix
        Prefix of the file's name, as given to scvi-tools.

    Returns
    -------
    An :class:`~sczoo.model.scvitools.ImportedSCVI` or
    :class:`~sczoo.model.scvitools.ImportedSCANVI`.

    Raises
    ------
    ArtefactError
        `trust_pickle` is not ``True``, there is no such file, it is not a trained SCVI or SCANVI
        model, or its encoder reads batches or covariates, which no new patient has.

    Examples
    --------
    >>> model = sczoo.hub.from_scvi("scvi_model/", adata, trust_pickle=True)
    >>> model.save("zoo-model/")
    """
    path = Path(dir_path) / f"{prefix}{_FILE}"
    if trust_pickle is not True:
        raise ArtefactError(
            f"{path} is a pickle: reading it runs whatever code its maker put in, with your "
            "rights. If you trust whoever made it as much as the programs that you run, pass "
            "trust_pickle=True; otherwise ask for the zoo's own format, which cannot run code."
        )
    attributes, weights, genes = _read(path)
    registry: Any = attributes.get("registry_")
    name = registry.get("model_name") if isinstance(registry, dict) else None
    if name not in _CLASSES:
        raise ArtefactError(
            f"{path} holds a model of class {name!r}; the converter knows "
            f"{' and '.join(_CLASSES)}. Models of the zoo that were exported with to_scvi are "
            "read by scvi.hub.HubModel."
        )
    if not attributes.get("is_trained_"):
        raise ArtefactError(f"The model in {path} was never trained.")
    from sczoo.model import get_model_class

    cls: Any = get_model_class(_CLASSES[name])
    try:
        model = cls(
            registry=_registry(registry, genes, cls),
            **_architecture(attributes, registry, weights, name),
        )
        weights.pop("pyro_param_store", None)
        model.module.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ArtefactError(
            f"The model in {path} does not fit the installed scvi-tools ({error}). Save it again "
            "with a version like the installed one."
        ) from error
    model.is_trained_ = True
    model.module.eval()
    model.provenance_ = _provenance(attributes, registry, name, path, model)
    if adata is not None:
        model._attach(adata)
        model._alternative_genes = model._find_alternative_genes()
        model._describe_data(0, None)
    logger.info("Converted %s of %s, %d genes.", name, path, len(genes))
    return model


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    import torch

    if not path.is_file():
        raise ArtefactError(f"{path} does not exist; scvi-tools saves a model as {_FILE}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
        attributes = dict(content["attr_dict"])
        weights = dict(content["model_state_dict"])
        genes = content["var_names"]
    except Exception as error:  # an unpickler raises whatever the file makes it raise
        raise ArtefactError(
            f"{path} cannot be read as a model of scvi-tools 0.15 or newer ({error}). If it was "
            "saved with other versions of pandas or scvi-tools, convert it where it was saved."
        ) from error
    if isinstance(genes, dict):
        raise ArtefactError(f"{path} was made of a MuData; the converter reads AnnData models.")
    return attributes, weights, np.asarray(genes).astype(str).astype(object)


def _registry(registry: Mapping[str, Any], genes: np.ndarray, cls: Any) -> dict[str, Any]:
    """Reduce scvi-tools' registry to the fields of the imported class, as plain values."""
    from sczoo import _compat

    fields: dict[str, Any] = {}
    for key in _FIELDS:
        saved = registry[_compat.FIELD_REGISTRIES][key]
        state = dict(saved[_compat.STATE_REGISTRY])
        state.pop("unlabeled_category", None)
        if "categorical_mapping" in state:
            state["categorical_mapping"] = np.asarray(state["categorical_mapping"], dtype=object)
        if key == "X":
            state["column_names"] = genes
        fields[key] = {
            _compat.DATA_REGISTRY: dict(saved[_compat.DATA_REGISTRY]),
            _compat.STATE_REGISTRY: state,
            _compat.SUMMARY_STATS: dict(saved[_compat.SUMMARY_STATS]),
        }
    arguments = registry[_compat.SETUP_ARGS]
    return {
        _compat.SCVI_VERSION: str(registry[_compat.SCVI_VERSION]),
        _compat.MODEL_NAME: cls.__name__,
        _compat.SETUP_METHOD: "setup_anndata",
        _compat.SETUP_ARGS: {
            name: arguments.get(name) for name in ("layer", "batch_key", "labels_key")
        },
        _compat.FIELD_REGISTRIES: fields,
    }


def _architecture(
    attributes: Mapping[str, Any],
    registry: Mapping[str, Any],
    weights: Mapping[str, Any],
    name: str,
) -> dict[str, Any]:
    """Gather what the module is built with: the constructor's arguments and sizes of the data."""
    from sczoo import _compat

    found = {
        key: value
        for key, value in _compat.flat_init_params(attributes["init_params_"]).items()
        if key not in _NOT_OF_THE_MODULE
    }
    fields = registry[_compat.FIELD_REGISTRIES]
    if "minify_type" in fields:
        raise ArtefactError(
            "The model was saved minified, with a latent representation in place of its cells; "
            "save it with the full data."
        )
    if found.get("encode_covariates"):
        raise ArtefactError(
            "The model's encoder reads batches and covariates (encode_covariates=True). A new "
            "patient's batch is none that it knows, so it cannot be transferred."
        )
    if found.get("latent_distribution", "normal") != "normal":
        raise ArtefactError(
            "The model's latent distribution is not normal; the converter reads "
            "latent_distribution='normal' only."
        )

    def statistic(key: str, name: str) -> Any:
        return (fields.get(key) or {}).get(_compat.SUMMARY_STATS, {}).get(name, 0)

    found["n_batch"] = int(statistic("batch", "n_batch"))
    found["n_continuous_cov"] = int(statistic("extra_continuous_covs", "n_extra_continuous_covs"))
    covariates = (fields.get("extra_categorical_covs") or {}).get(_compat.STATE_REGISTRY) or {}
    sizes = covariates.get("n_cats_per_key")
    found["n_cats_per_cov"] = None if sizes is None else [int(size) for size in sizes]
    found["n_labels"] = (
        int(weights["y_prior"].shape[-1])
        if name == "SCANVI"
        else int(statistic("labels", "n_labels"))
    )
    found["use_size_factor_key"] = bool(registry[_compat.SETUP_ARGS].get("size_factor_key"))
    return found


def _provenance(
    attributes: Mapping[str, Any], registry: Mapping[str, Any], name: str, path: Path, model: Any
) -> dict[str, Any]:
    from sczoo import _compat
    from sczoo.base._artefact import genes_sha256
    from sczoo.base._files import sha256_file

    rows = attributes.get("train_indices_")
    x_field = registry[_compat.FIELD_REGISTRIES]["X"]
    n_cells = x_field[_compat.SUMMARY_STATS].get("n_cells") if rows is None else len(rows)
    recorded: dict[str, Any] = {
        "versions": {"scvi-tools": str(registry[_compat.SCVI_VERSION])},
        "genes_sha256": genes_sha256(model.var_names),
        "converted_from": {"class": name, "model_pt_sha256": sha256_file(path)},
    }
    if n_cells is not None:
        recorded["n_cells"] = int(n_cells)
    return recorded
