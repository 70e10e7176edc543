"""Checks of ``setup_mudata``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata
import numpy as np

from sczoo.errors import InputError, MissingKeyError
from sczoo.testing._expect import CheckSkippedError, refuses, require_close

if TYPE_CHECKING:
    from mudata import MuData

    from sczoo.testing._case import ModelCase


def _need_setup_mudata(case: ModelCase) -> Any:
    found = getattr(case.model_class, "setup_mudata", None)
    if found is None:
        raise CheckSkippedError("the model has no setup_mudata")
    return found


def _mudata(cells: anndata.AnnData) -> MuData:
    from mudata import MuData

    other = anndata.AnnData(np.ones((cells.n_obs, 3), dtype=np.float32))
    other.obs_names = cells.obs_names
    other.var_names = ["PROTEIN1", "PROTEIN2", "PROTEIN3"]
    return MuData({"rna": cells, "protein": other})


def _modalities(case: ModelCase) -> dict[str, str]:
    cells = case.cells()
    places = {"layer": "rna"}
    for key, value in case.setup_kwargs.items():
        if isinstance(value, str) and (value in cells.obs or value in cells.obsm):
            places[key] = "rna"
    return places


def check_mudata_trains(case: ModelCase) -> None:
    """Give the same model for the expression in a MuData as for the AnnData alone."""
    setup_mudata = _need_setup_mudata(case)
    from sczoo.testing._quiet import seeded

    data = _mudata(case.cells())
    with seeded(case.model.provenance_["seed"]):
        setup_mudata(data, **case.setup_kwargs, modalities=_modalities(case))
        model: Any = case.model_class(data, **case.model_kwargs)
        model.train(**case.train_kwargs)
    require_close(
        case.embed(model, case.query(bare=True)), case.latent, "A model of a MuData", 1e-3
    )
    require_close(
        case.embed(model, _mudata(case.query())), case.embed(model, case.query()), "A MuData query"
    )
    model.save(case.folder / "mudata")
    loaded = case.model_class.load(case.folder / "mudata", accelerator="cpu")
    require_close(
        case.embed(loaded, case.query(bare=True)),
        case.embed(model, case.query(bare=True)),
        "A model of a MuData, saved and loaded",
    )


def check_mudata_is_checked(case: ModelCase) -> None:
    """Refuse an AnnData, a modality that does not exist, and NaN, with typed errors."""
    setup_mudata = _need_setup_mudata(case)
    with refuses(InputError, "MuData", doing="setup_mudata of an AnnData"):
        setup_mudata(case.cells(), **case.setup_kwargs, modalities=_modalities(case))
    wrong = _modalities(case) | {"layer": "no_such_modality"}
    with refuses(MissingKeyError, "no_such_modality", doing="A modality that does not exist"):
        setup_mudata(_mudata(case.cells()), **case.setup_kwargs, modalities=wrong)
    cells = case.cells()
    matrix = case.dense(cells).astype(np.float32)
    matrix[3, 2] = np.nan
    case.put_matrix(cells, matrix)
    name = str(cells.obs_names[3])
    with refuses(InputError, name, doing="setup_mudata of a modality with NaN"):
        setup_mudata(_mudata(cells), **case.setup_kwargs, modalities=_modalities(case))
