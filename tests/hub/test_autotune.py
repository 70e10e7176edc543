"""scvi-tools' tuner runs every class of the zoo: its own trial, with a stand-in for ray.

``scvi.autotune`` needs ray, which is not a dependency. What it does with a model happens in the
function of one trial, which runs here as it is: it sets the data up again from the arguments on
record, builds the model from sampled parameters, trains it with a callback and a logger of its
own, and reads a metric by name.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import ClassVar
from unittest.mock import MagicMock

import pytest
import scvi
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from small_models import MARKERS

import sczoo
from sczoo.testing import example_cells

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is not None, reason="ray is here; this stands in for it"
)

# metric, constructor's and training's parameters, as a search space would sample them
TRIALS = {
    "DPDCAN": ("train_loss", {"noise_multiplier": 0.0, "n_latent": 5}, {"max_epochs": 1}),
    "GRIT": ("residual_train", {"markers": MARKERS, "n_components": 8}, {}),
    "GramDR": ("residual", {"n_latent": 6}, {}),
    "SCAGC": ("validation_loss", {"n_clusters": 4}, {"max_epochs": 1, "train_size": 0.8}),
    "SCDD": (
        "elbo_validation",
        {"n_latent": 6, "n_hidden": 32, "denoiser_hidden": 16, "denoiser_layers": 1},
        {"max_epochs": 1, "train_size": 0.8, "max_steps_diffusion": 2, "max_steps_student": 2},
    ),
    "SCE2TM": ("elbo_validation", {"n_topics": 5}, {"max_epochs": 1, "train_size": 0.8}),
}


class Report(Callback):
    """What ray's callback does: at one of Lightning's hooks it reads metrics by their names."""

    seen: ClassVar[list[dict[str, float]]] = []

    def __init__(self, metrics, on, save_checkpoints=False):
        self._metrics, self._on = [metrics] if isinstance(metrics, str) else metrics, on

    def _report(self, trainer):
        if not trainer.sanity_checking:
            values = {name: trainer.callback_metrics[name].item() for name in self._metrics}
            Report.seen.append(values)

    def on_validation_end(self, trainer, pl_module):
        if self._on == "validation_end":
            self._report(trainer)

    def on_train_end(self, trainer, pl_module):
        if self._on == "train_end":
            self._report(trainer)


@pytest.fixture
def experiment_module(monkeypatch):
    """Import scvi-tools' module of experiments with a stand-in for ray."""
    # a trial asks for the names of its metrics, which none of the zoo's is
    scores = ("scib_metrics", "scib_metrics.benchmark", "scib_metrics.benchmark._core")
    for name in (
        *scores,
        "ray",
        "ray.tune",
        "ray.tune.schedulers",
        "ray.tune.search",
        "ray.tune.search.hyperopt",
        "ray.tune.integration",
        "ray.tune.integration.pytorch_lightning",
        "ray.util",
        "ray.util.annotations",
        "hyperopt",
    ):
        module = ModuleType(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None), []
        module.__getattr__ = lambda attribute: MagicMock(name=attribute)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["scib_metrics.benchmark._core"].metric_name_cleaner = {}
    sys.modules["ray.util.annotations"].PublicAPI = lambda found: found
    sys.modules["ray.tune.integration.pytorch_lightning"].TuneReportCheckpointCallback = Report
    sys.modules["ray.tune"].get_context = lambda: SimpleNamespace(get_trial_name=lambda: "trial")
    for name in [name for name in sys.modules if name.startswith("scvi.autotune")]:
        monkeypatch.delitem(sys.modules, name)
    module = importlib.import_module("scvi.autotune._experiment")
    yield module
    for name in [name for name in sys.modules if name.startswith("scvi.autotune")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", sorted(TRIALS))
def test_a_trial(experiment_module, tmp_path, monkeypatch, name):
    monkeypatch.setattr(
        experiment_module.AutotuneExperiment,
        "get_logger",
        lambda self, trial: CSVLogger(tmp_path, trial),
    )
    metric, model_params, train_params = TRIALS[name]
    model_class = getattr(sczoo.model, name)
    assert set(model_params) <= set(inspect.signature(model_class).parameters)
    cells = example_cells(scale=model_class._input_scale)
    takes = inspect.signature(model_class.setup_anndata).parameters
    keys = {"batch_key": "batch", "labels_key": "cell_type"}
    model_class.setup_anndata(cells, **{k: v for k, v in keys.items() if k in takes})
    experiment = experiment_module.AutotuneExperiment(
        model_class,
        cells,
        metrics=metric,
        mode="min",
        search_space={"model_params": model_params, "train_params": train_params},
        num_samples=1,
        seed=3,
        scheduler="fifo",
        searcher="random",
        logging_dir=str(tmp_path),
    )
    before = scvi.settings.seed
    Report.seen = []
    try:
        experiment_module._trainable(
            {"model_params": dict(model_params), "train_params": dict(train_params)}, experiment
        )
    finally:
        scvi.settings.seed = before
    assert Report.seen
    assert all(value == value for seen in Report.seen for value in seen.values())


@pytest.mark.parametrize("name", sorted(TRIALS))
def test_every_parameter_can_be_named(name):
    """A search space names parameters; those hidden in ``*args`` could not be."""
    model_class = getattr(sczoo.model, name)
    for function in (model_class.__init__, model_class.train, model_class.setup_anndata):
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        assert inspect.Parameter.VAR_POSITIONAL not in kinds
        assert inspect.Parameter.POSITIONAL_ONLY not in kinds
    parameters = inspect.signature(model_class.__init__).parameters
    assert [*parameters][1:3] == ["adata", "registry"]
    for own in [*parameters][3:]:
        assert parameters[own].default is not inspect.Parameter.empty, own
    trains = inspect.signature(model_class.train).parameters
    assert any(p.kind is inspect.Parameter.VAR_KEYWORD for p in trains.values())
