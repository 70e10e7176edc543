"""A small trained model of every class of the zoo, for tests of what all of them have."""

from __future__ import annotations

import inspect

from sczoo import model
from sczoo.testing import example_cells

# the example cells have no real genes: four types with five markers each
MARKERS = {f"type {k}": [f"GENE{n}A" for n in range(5 * k, 5 * k + 5)] for k in range(4)}
# Constructor and training arguments of a small model of each class.
SMALL = {
    "DPDCAN": ({"noise_multiplier": 0.0, "n_latent": 5}, {}),
    "GRIT": ({"markers": MARKERS, "n_components": 10}, {}),
    "GramDR": ({"n_latent": 8}, {}),
    "SCAGC": ({"n_clusters": 4}, {}),
    "SCDD": (
        {"n_latent": 6, "n_hidden": 32, "denoiser_hidden": 16, "denoiser_layers": 1},
        {"max_steps_diffusion": 4, "max_steps_student": 4},
    ),
    "SCE2TM": ({"n_topics": 5}, {}),
}
KEYS = {"batch_key": "batch", "labels_key": "cell_type"}


def taken(function, arguments):
    """Those of the arguments that a function takes."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in parameters}


def make(name):
    """Set up, build and train a small model of a class."""
    found = getattr(model, name)
    cells = example_cells(scale=found._input_scale)
    found.setup_anndata(cells, **taken(found.setup_anndata, KEYS))
    arguments, training = SMALL[name]
    made = found(cells, **arguments)
    made.train(**taken(found.train, {"max_epochs": 1, "batch_size": 64}), **training)
    return made
