"""Checks of what a run leaves behind: history, provenance, a usable model."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

from sczoo.errors import NotTrainedError
from sczoo.testing._case import SEED
from sczoo.testing._expect import (
    refuses,
    require,
    require_equal,
    require_finite,
    require_history,
)
from sczoo.testing._report import CheckFailedError

if TYPE_CHECKING:
    from sczoo.testing._case import ModelCase

_PROVENANCE = {
    "versions",
    "hardware",
    "seed",
    "genes_sha256",
    "arguments",
    "cpu_seconds",
    "epochs",
    "finished",
    "n_cells",
    "data_sha256",
}
_VERSIONS = {"python", "sczoo", "scvi-tools", "torch", "anndata", "numpy"}


def check_needs_training_first(case: ModelCase) -> None:
    """Refuse results and saving before training, with a typed error."""
    model: Any = case.build(case.cells())
    with refuses(NotTrainedError, "train", doing="Asking an untrained model for results"):
        case.embed(model)
    with refuses(NotTrainedError, "train", doing="Saving an untrained model"):
        model.save(case.folder / "untrained")
    require(not (case.folder / "untrained").exists(), "A refused save left a folder.")


def check_history(case: ModelCase) -> None:
    """Fill ``history`` with finite numbers, one row per epoch or step."""
    require_history(case.model)


def check_provenance(case: ModelCase) -> None:
    """Record versions, seed, data, genes, arguments and hardware as plain values."""
    found = case.model.provenance_
    missing = sorted(_PROVENANCE - set(found))
    require(not missing, f"provenance_ lacks {', '.join(missing)}.")
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckFailedError(f"provenance_ cannot be written as JSON: {error}") from error
    missing = sorted(_VERSIONS - set(found["versions"]))
    require(not missing, f"provenance_['versions'] lacks {', '.join(missing)}.")
    require(found["seed"] == SEED, f"provenance_ records the seed {found['seed']}, not {SEED}.")
    cells = case.cells()
    require(found["n_cells"] == cells.n_obs, f"provenance_ records {found['n_cells']} cells.")
    genes = hashlib.sha256("\n".join(cells.var_names).encode()).hexdigest()
    require(found["genes_sha256"] == genes, "provenance_ records the hash of other genes.")
    require(found["finished"] is True, "provenance_ does not say that training finished.")
    sections = {"setup", "init", "train"} - set(found["arguments"])
    require(not sections, f"provenance_['arguments'] lacks {sorted(sections)}.")
    epochs = case.train_kwargs.get("max_epochs")
    recorded = found["arguments"]["train"].get("max_epochs")
    require(epochs is None or recorded == epochs, f"provenance_ records {recorded} epochs.")


def check_training_goes_on(case: ModelCase) -> None:
    """Train a second time without an error and with finite results."""
    model = case.fit()
    case.train(model)
    require_finite(case.embed(model), case.cells().n_obs, "The representation after two runs")


class _Interrupt(Callback):
    """Press Ctrl-C after the first step."""

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


def check_interrupt_keeps_the_model(case: ModelCase) -> None:
    """Require that an interrupted run keeps a usable model, which says that it was interrupted."""
    model: Any = case.build(case.cells())
    try:
        case.train(model, callbacks=[_Interrupt()], max_epochs=5)
    except KeyboardInterrupt:
        pass
    except SystemExit as error:
        raise CheckFailedError("Ctrl-C during training would end the whole session.") from error
    latent = case.embed(model, case.query(bare=True))
    require_finite(latent, len(case.latent), "The representation after an interrupt")
    require(model.is_trained_, "The model does not count as trained after an interrupt.")
    require(not model.module.training, "The module was left in training mode by an interrupt.")
    finished = model.provenance_.get("finished")
    require(finished is False, "provenance_ does not say that training was interrupted.")
    model.save(case.folder / "interrupted")
    loaded = case.model_class.load(case.folder / "interrupted", accelerator="cpu")
    require_equal(
        case.embed(loaded, case.query(bare=True)), latent, "An interrupted model, saved and loaded"
    )


def check_evaluation_mode(case: ModelCase) -> None:
    """Leave the module in evaluation mode, also after asking for results."""
    require(not case.model.module.training, "The module is in training mode after training.")
    case.embed(case.model, case.query(bare=True))
    require(not case.model.module.training, "Asking for results put the module in training mode.")
