"""A fresh Python process that loads the saved model and repeats the training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import torch
from safetensors.numpy import load_file

from sczoo.testing._case import SEED
from sczoo.testing._expect import CheckSkippedError, require

if TYPE_CHECKING:
    import numpy as np

    from sczoo.testing._case import ModelCase

_HASH_SEED = "4242"
_TIMEOUT = 600
_ERROR_LINES = 6


class FreshProcess:
    """What a fresh process made of a saved model and of the training cells.

    Parameters
    ----------
    case
        The case; its class must be importable by name.
    """

    def __init__(self, case: ModelCase) -> None:
        model_class = case.model_class
        if "<locals>" in model_class.__qualname__ or model_class.__module__ == "__main__":
            raise CheckSkippedError(
                f"{model_class.__name__} is defined where a fresh process cannot import it"
            )
        folder = case.folder / "fresh"
        folder.mkdir()
        job: dict[str, Any] = {
            "path": sys.path,
            "module": model_class.__module__,
            "name": model_class.__qualname__,
            "saved": str(case.saved),
            "cells": str(folder / "cells.h5ad"),
            "query": str(folder / "query.h5ad"),
            "setup": case.setup_kwargs,
            "model": case.model_kwargs,
            "train": case.train_kwargs,
            "seed": SEED,
            "threads": torch.get_num_threads(),
            "out": str(folder / "out.safetensors"),
        }
        try:
            text = json.dumps(job)
            plain = json.loads(text) == job
        except (TypeError, ValueError):
            plain = False
        if not plain:
            raise CheckSkippedError("the arguments cannot be passed to a fresh process as JSON")
        case.cells().write_h5ad(job["cells"])
        case.query(bare=True).write_h5ad(job["query"])
        (folder / "job.json").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "sczoo.testing._worker", str(folder / "job.json")],
            env=os.environ | {"PYTHONHASHSEED": _HASH_SEED},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        tail = "\n".join(done.stderr.strip().splitlines()[-_ERROR_LINES:])
        require(done.returncode == 0, f"The fresh process failed: {tail}")
        self._arrays = load_file(job["out"])

    def latent(self) -> np.ndarray:
        """Representation of the bare query by the saved model."""
        return self._arrays["latent"]

    def weights(self) -> dict[str, np.ndarray]:
        """Weights after the same training."""
        prefix = "weight."
        return {
            name.removeprefix(prefix): array
            for name, array in self._arrays.items()
            if name.startswith(prefix)
        }
