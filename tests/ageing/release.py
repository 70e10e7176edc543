"""Keep what this version writes, so that every later version can be asked to read it.

Run once for each release, from the root: ``python tests/ageing/release.py``. It writes
``tests/ageing/<version>/``: for every method a saved model, for SCDD a distilled set too, 64 cells
and what the model said about them; and a registry with one artefact. What is there already is
never replaced. A version in development is kept too, under the version that it will become, and
may be made again until it is released.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
N_CELLS = 64
_MARKERS = {
    f"type {kind}": [f"GENE{number}A" for number in range(5 * kind, 5 * kind + 5)]
    for kind in range(4)
}
# arguments that make the models small; every class of the zoo must be here
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "SCE2TM": ({"n_topics": 5}, {"max_epochs": 20}),
    "SCAGC": ({"n_clusters": 4}, {"max_epochs": 10}),
    "DPDCAN": ({"noise_multiplier": 1.0, "n_latent": 5}, {"max_epochs": 5}),
    "SCDD": (
        {"n_latent": 6, "n_hidden": 32, "denoiser_hidden": 16, "denoiser_layers": 1},
        {"max_epochs": 20, "max_steps_diffusion": 20, "max_steps_student": 20},
    ),
    "GRIT": ({"markers": _MARKERS, "n_components": 10}, {}),
    "GramDR": ({"n_latent": 8}, {}),
}
CARD = {
    "summary": "A topic model of simulated cells, kept to see that it can still be read",
    "licence": {"weights": "CC0-1.0", "data": "CC0-1.0"},
    "training": {
        "data": [{"name": "simulated cells", "access": "synthetic"}],
        "n_donors": 2,
        "split": "no split: every cell was trained on",
        "command": "python tests/ageing/release.py",
    },
    "metrics": "not applicable: simulated cells have nothing to predict",
    "input": {"species": "homo_sapiens"},
    "limits": ["Simulated cells only."],
    "out_of_scope": ["Any use on real patients."],
}


def said_about(subject: Any, cells: Any) -> dict[str, np.ndarray]:
    """Everything that a model or a distilled set writes about cells, as arrays."""
    import sczoo

    cells = cells.copy()
    sczoo.transfer(subject, cells)
    said = {f"obsm.{key}": np.asarray(value) for key, value in cells.obsm.items()}
    for key in cells.obs:
        column = cells.obs[key]
        if column.dtype == "category" or column.dtype == object:
            said[f"obs.{key}"] = column.astype(str).to_numpy(dtype=str)
        else:
            said[f"obs.{key}"] = column.to_numpy()
    return said


def query() -> Any:
    """64 cells of a new patient, without any annotation."""
    from sczoo.testing import example_cells

    cells = example_cells(N_CELLS, seed=1)
    cells.obs = cells.obs[[]]
    return cells


def main(again: bool) -> None:
    """Write the folder of this version."""
    import sczoo
    from sczoo import hub
    from sczoo.model.scdd import save_dataset
    from sczoo.testing import ModelCase

    target = FOLDER / sczoo.__version__
    if target.exists():
        if not again:
            raise SystemExit(f"{target} exists: what was released is never changed.")
        shutil.rmtree(target)
    cells = query()
    target.mkdir()
    counts = cells.X.toarray()
    np.savez_compressed(
        target / "cells.npz",
        counts=counts.astype(np.uint16),
        genes=np.asarray(cells.var_names, dtype=str),
    )
    for name, (arguments, training) in MODELS.items():
        case = ModelCase(getattr(sczoo.model, name), model_kwargs=arguments, train_kwargs=training)
        with case:
            model = case.model
            folder = target / name.lower()
            model.save(folder / "model")
            # of the loaded model: names of categories are not saved unless asked for
            said = said_about(sczoo.load(folder / "model"), cells)
            np.savez_compressed(folder / "said.npz", **said)
            if name == "SCE2TM":
                hub.publish(model, "sce2tm/old", registry=target / "registry", card=CARD)
            if name == "SCDD":
                distilled = model.distill(2)
                save_dataset(distilled, target / "scdd-cells" / "model")
                said = said_about(distilled, cells)
                np.savez_compressed(target / "scdd-cells" / "said.npz", **said)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--again", action="store_true", help="replace a version in development")
    warnings.simplefilter("ignore")
    main(parser.parse_args().again)
