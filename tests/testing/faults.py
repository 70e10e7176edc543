"""Register of models with one planted fault each, and of the checks that must find it."""

from __future__ import annotations

import numpy as np
import torch
from zoo_toys import ToyLinear

FAULTS: dict[str, tuple[type, tuple[str, ...], dict]] = {}


def caught_by(*checks, **case):
    """Register a faulty class with the checks that must fail, and arguments of the case."""

    def register(cls):
        FAULTS[cls.__name__] = (cls, checks, case)
        return cls

    return register


def scale_weights(model, factor):
    with torch.no_grad():
        model.module.encoder.weight *= factor


class FaultyModel(ToyLinear):
    """A toy with a fault; documented, so that its documentation is not the fault."""

    def latent_of(self, x):
        """Encode counts."""
        with torch.inference_mode():
            encoded = self.module.inference(torch.as_tensor(np.asarray(x, dtype=np.float32)))
            return encoded["z"].numpy()
