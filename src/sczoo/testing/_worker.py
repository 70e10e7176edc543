"""The fresh process of :mod:`sczoo.testing._process`: ``job.json`` in, arrays out."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path


def main(job_file: str) -> None:
    """Load the saved model and score the query; then train on the cells with the same seed."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    sys.path[:] = job["path"]

    import anndata
    import numpy as np
    import scvi
    import torch
    from safetensors.numpy import save_file

    from sczoo.testing._case import weights_of
    from sczoo.testing._quiet import disturb_random_states, quiet, seeded

    torch.set_num_threads(job["threads"])
    scvi.settings.verbosity = 40
    model_class = attrgetter(job["name"])(import_module(job["module"]))
    with quiet():
        disturb_random_states(31337)
        loaded = model_class.load(job["saved"], accelerator="cpu")
        latent = loaded._main_result(anndata.read_h5ad(job["query"]))
        with seeded(job["seed"]):
            cells = anndata.read_h5ad(job["cells"])
            model_class.setup_anndata(cells, **job["setup"])
            model = model_class(cells, **job["model"])
            model.train(**job["train"])
    arrays = {f"weight.{name}": weight for name, weight in weights_of(model).items()}
    arrays["latent"] = np.ascontiguousarray(latent)
    save_file(arrays, job["out"])


if __name__ == "__main__":
    main(sys.argv[1])
