"""From a model to an artefact and back, without pickle and without single patients."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData

from sczoo import _compat
from sczoo.base._artefact import (
    Artefact,
    ArtefactRecord,
    InputContract,
    SetupCall,
    decode_typed,
    encode_typed,
    genes_sha256,
    read_artefact,
    write_artefact,
)
from sczoo.base._genes import DEFAULT_MIN_COVERAGE, detect_namespace
from sczoo.base._selftest import selftest_cells
from sczoo.errors import ArtefactError, CorruptedArtefactError, InputError, SelfTestError

if TYPE_CHECKING:
    from os import PathLike

    from mudata import MuData

    from sczoo.base._model import ZooModelClass

# the gene names of the main matrix are stored once, in genes.tsv
_GENES_REFERENCE = {"$genes": "genes.tsv"}
_REGISTRY_KEPT = (
    _compat.MODEL_NAME,
    _compat.SCVI_VERSION,
    _compat.SETUP_METHOD,
)
# Outputs of one machine agree to rounding; other versions and machines round elsewhere.
SELFTEST_TOLERANCE = 1e-3


def save(
    model: ZooModelClass,
    dir_path: str | PathLike[str],
    overwrite: bool,
    include_categories: tuple[str, ...],
) -> None:
    """Write `model` as an artefact; see :meth:`ZooModelClass.save`."""
    names = [str(name) for name in model.var_names]
    importance = model._gene_importance()
    registry = model.registry_
    attributes = {name: encode_typed(getattr(model, name)) for name in model._saved_attributes}
    if model._alternative_genes is not None:
        attributes["alternative_genes"] = list(model._alternative_genes)
    record = ArtefactRecord(
        kind="model",
        method=model._method,
        init_params=_init_params(model),
        setup=SetupCall(
            method=registry.get(_compat.SETUP_METHOD, "setup_anndata"),
            args=encode_typed(dict(registry[_compat.SETUP_ARGS])),
        ),
        scvi_registry=_public_registry(registry, include_categories),
        input=InputContract(
            namespace=detect_namespace(names),
            n_genes=len(names),
            genes_sha256=genes_sha256(names),
            scale=model._scale,
            min_coverage=DEFAULT_MIN_COVERAGE,
        ),
        domain=model.domain,
        provenance=model._saved_provenance(),
        attributes=attributes,
    )
    x, expected = _selftest(model)
    write_artefact(
        dir_path,
        record,
        tensors=_state_arrays(model),
        genes=[
            {
                "id": name,
                "symbol": None,
                "importance": None if importance is None else float(importance[position]),
            }
            for position, name in enumerate(names)
        ],
        selftest={
            "x": x,
            "expected": expected,
            "tolerance": SELFTEST_TOLERANCE * max(1e-6, float(np.abs(expected).max(initial=0))),
        },
        overwrite=overwrite,
    )


def load(
    cls: type[ZooModelClass],
    dir_path: str | PathLike[str],
    adata: AnnData | MuData | None,
    device: torch.device,
) -> ZooModelClass:
    """Build a model of class `cls` from an artefact; see :meth:`ZooModelClass.load`."""
    model = from_artefact(cls, read_artefact(dir_path))
    model.to_device(device)
    if adata is not None:
        model._attach(adata)
    return model


def load_any(dir_path: str | PathLike[str]) -> ZooModelClass:
    """Load a saved model of any installed method."""
    # the allow-list of methods belongs to sczoo.model, which stands on this package
    from sczoo.model import get_model_class

    artefact = read_artefact(dir_path)
    return from_artefact(get_model_class(artefact.record.method), artefact)


def from_artefact(cls: type[ZooModelClass], artefact: Artefact) -> ZooModelClass:
    """Build a model from a verified artefact, on the CPU, without data."""
    record = artefact.record
    if record.kind != "model":
        raise ArtefactError(
            f"The artefact in {artefact.path} is a {record.kind}, not a model; open it with "
            "sczoo.load."
        )
    if record.method != cls._method:
        raise ArtefactError(
            f"The artefact in {artefact.path} holds a model of the method {record.method!r}, not "
            f"{cls._method!r}. sczoo.load opens any method."
        )
    registry = _restore_registry(artefact)
    try:
        params = decode_typed(record.init_params)
        model = cls(registry=registry, **params)
    except (TypeError, KeyError, AttributeError, InputError, RuntimeError, ValueError) as error:
        raise CorruptedArtefactError(
            f"artefact.json in {artefact.path} does not describe a {cls.__name__}: {error}"
        ) from error
    _load_state(model, artefact)
    attributes = dict(record.attributes)
    alternative = attributes.pop("alternative_genes", None)
    if alternative is not None:
        if not isinstance(alternative, list) or len(alternative) != len(model.var_names):
            raise CorruptedArtefactError(
                f"artefact.json in {artefact.path}: alternative_genes does not fit the genes."
            )
        model._alternative_genes = [str(name) for name in alternative]
    for name in cls._saved_attributes:
        if name not in attributes:
            raise CorruptedArtefactError(f"artefact.json in {artefact.path} lacks {name!r}.")
        setattr(model, name, decode_typed(attributes[name]))
    model.provenance_ = dict(record.provenance)
    model.domain = dict(record.domain)
    model.is_trained_ = True
    model.module.eval()
    return model


def copy_state(source: ZooModelClass, target: ZooModelClass) -> None:
    """Copy weights and fitted attributes to a model with the same registry and arguments."""
    target.module.load_state_dict(source.module.state_dict())
    for name in source._saved_attributes:
        setattr(target, name, copy.deepcopy(getattr(source, name)))
    target.provenance_ = copy.deepcopy(source.provenance_)
    target.domain = copy.deepcopy(source.domain)
    target._alternative_genes = source._alternative_genes
    target.is_trained_ = True
    target.module.eval()


def run_selftest(model: ZooModelClass, artefact: Artefact) -> float | None:
    """Recompute the stored outputs of the synthetic cells.

    Returns
    -------
    The largest absolute difference, or ``None`` if the artefact has no self-test.

    Raises
    ------
    SelfTestError
        The difference is larger than the stored tolerance.
    """
    stored = artefact.selftest()
    if stored is None:
        return None
    computed = selftest_output(model, stored.x)
    if computed.shape != stored.expected.shape:
        raise SelfTestError(
            f"The self-test of {artefact.path} expects outputs of shape {stored.expected.shape}, "
            f"the model gives {computed.shape}."
        )
    difference = float(np.abs(computed - stored.expected).max()) if computed.size else 0.0
    if not difference <= stored.tolerance:
        trained_with = artefact.record.provenance.get("versions")
        raise SelfTestError(
            f"The model in {artefact.path} does not reproduce its stored outputs with the "
            f"installed libraries (largest difference {difference:.2g}, allowed "
            f"{stored.tolerance:.2g}). It was saved with {trained_with}; install those versions."
        )
    return difference


def selftest_output(model: ZooModelClass, x: np.ndarray) -> np.ndarray:
    """Run the model on self-test cells; float32, one row per cell."""
    cells = AnnData(x.astype(np.float32))
    cells.var_names = model.var_names
    if model._layer is not None:
        cells.layers[model._layer] = cells.X
    return np.asarray(model._main_result(cells), dtype=np.float32)


def _selftest(model: ZooModelClass) -> tuple[np.ndarray, np.ndarray]:
    x = selftest_cells(len(model.var_names), model._scale)
    return x, selftest_output(model, x)


def _init_params(model: ZooModelClass) -> dict[str, Any]:
    params = _compat.flat_init_params(model.init_params_)
    try:
        encoded = encode_typed(params)
        json.dumps(encoded)
    except (TypeError, ValueError, ArtefactError) as error:
        raise ArtefactError(
            f"A constructor argument of this {type(model).__name__} cannot be written as JSON: "
            f"{error}. Construct it with plain values to save it."
        ) from error
    return encoded


def _state_arrays(model: ZooModelClass) -> dict[str, np.ndarray]:
    return {
        name: tensor.detach().cpu().numpy() for name, tensor in model.module.state_dict().items()
    }


def _load_state(model: ZooModelClass, artefact: Artefact) -> None:
    state = {
        # from_numpy shares memory; the copy makes the parameters writeable
        name: torch.from_numpy(np.array(array))
        for name, array in artefact.tensors().items()
    }
    try:
        model.module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CorruptedArtefactError(
            f"weights.safetensors in {artefact.path} does not fit the model that artefact.json "
            f"describes: {error}"
        ) from error


def _public_registry(registry: dict[str, Any], include: tuple[str, ...]) -> dict[str, Any]:
    """Reduce scvi-tools' registry to what loading needs: category names become numbers."""
    public: dict[str, Any] = {key: registry[key] for key in _REGISTRY_KEPT if key in registry}
    public[_compat.FIELD_REGISTRIES] = {}
    for name, field in registry[_compat.FIELD_REGISTRIES].items():
        field = {
            key: copy.deepcopy(dict(field[key]))
            for key in (_compat.DATA_REGISTRY, _compat.STATE_REGISTRY, _compat.SUMMARY_STATS)
        }
        state = field[_compat.STATE_REGISTRY]
        if name == "X":
            state["column_names"] = dict(_GENES_REFERENCE)
        key = str(state.get("original_key"))
        # without a column, scvi-tools registers a single category of its own making
        personal = not key.startswith("_scvi_") and key not in include
        if "categorical_mapping" in state and personal:
            n_categories = len(state["categorical_mapping"])
            state["categorical_mapping"] = np.array(
                [f"category_{number}" for number in range(n_categories)], dtype=object
            )
        public[_compat.FIELD_REGISTRIES][name] = field
    return encode_typed(public)


def _restore_registry(artefact: Artefact) -> dict[str, Any]:
    where = f"scvi_registry of {artefact.path}"
    registry = decode_typed(artefact.record.scvi_registry, where=where)
    try:
        state = registry[_compat.FIELD_REGISTRIES]["X"][_compat.STATE_REGISTRY]
        if state["column_names"] != _GENES_REFERENCE:
            raise CorruptedArtefactError(f"{where}: the gene names must be those of genes.tsv.")
        state["column_names"] = np.asarray(artefact.gene_ids(), dtype=object)
        for field in registry[_compat.FIELD_REGISTRIES].values():
            for key in (_compat.DATA_REGISTRY, _compat.STATE_REGISTRY, _compat.SUMMARY_STATS):
                if not isinstance(field[key], dict):
                    raise CorruptedArtefactError(f"{where}: {key} is not a mapping.")
    except (KeyError, TypeError) as error:
        raise CorruptedArtefactError(f"{where} lacks {error}.") from error
    registry[_compat.SETUP_METHOD] = artefact.record.setup.method
    registry[_compat.SETUP_ARGS] = decode_typed(artefact.record.setup.args, where=where)
    return registry
