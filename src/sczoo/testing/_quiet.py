"""Random state and noise: checks neither depend on the caller's nor disturb it."""

from __future__ import annotations

import logging
import os
import random
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "scvi", "sczoo")


def random_states() -> tuple[Any, Any, Any]:
    """Return the states of Python's, numpy's and torch's global generators."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def put_random_states(states: tuple[Any, Any, Any]) -> None:
    """Restore what :func:`random_states` returned."""
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


def disturb_random_states(seed: int) -> None:
    """Put all global generators into a state that depends on `seed` alone."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Set ``scvi.settings.seed`` for a while; the global generators are left alone.

    Assigning the setting also seeds the global generators, which would hide a model that draws
    from them: their states are put back before the block.
    """
    previous, flags = settings.seed, os.environ.get("XLA_FLAGS")
    states = random_states()
    settings.seed = seed
    put_random_states(states)
    try:
        yield
    finally:
        states = random_states()
        settings.seed = previous
        put_random_states(states)
        # scvi-tools lengthens this variable with every seed
        if flags is None:
            os.environ.pop("XLA_FLAGS", None)
        else:
            os.environ["XLA_FLAGS"] = flags


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and the loggers of the libraries, and keep the caller's random state."""
    states = random_states()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        put_random_states(states)
