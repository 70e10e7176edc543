"""A model class together with the data and arguments that it is checked with."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.base._reading import matrix_of, read_rows
from sczoo.errors import InputError
from sczoo.testing._cells import example_cells, plant_names
from sczoo.testing._expect import CheckSkippedError
from sczoo.testing._quiet import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anndata import AnnData

    from sczoo.base import ZooModelClass
    from sczoo.testing._process import FreshProcess
    from sczoo.testing._report import CheckResult

N_QUERY = 64
SEED = 11
_TRAIN = {"max_epochs": 2, "batch_size": 32, "accelerator": "cpu", "devices": 1}
_KEYS = {"batch_key": "batch", "labels_key": "cell_type"}


class ModelCase:
    """A model class, small data and the arguments to set it up, build it and train it.

    Trained models are kept and shared by the checks, so one case serves a whole battery. Use it
    as a context manager, or call :meth:`close`, to remove its temporary folder.

    Parameters
    ----------
    model_class
        The class to check.
    adata
        Data to check with, some hundred cells; :func:`~sczoo.testing.example_cells` by default.
        Barcodes and the categories used in the set-up are renamed in a copy.
    setup_kwargs
        Arguments of ``setup_anndata``; ``batch_key`` and ``labels_key`` by default where the
        method has them.
    model_kwargs
        Arguments of the constructor.
    train_kwargs
        Arguments of ``train``; two epochs on the CPU by default.
    skip
        Checks that do not apply, each with the reason.
    """

    def __init__(
        self,
        model_class: type[ZooModelClass],
        *,
        adata: AnnData | None = None,
        setup_kwargs: Mapping[str, Any] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        train_kwargs: Mapping[str, Any] | None = None,
        skip: Mapping[str, str] | None = None,
    ) -> None:
        from sczoo.base import ZooModelClass
        from sczoo.testing._battery import check_names

        if not (isinstance(model_class, type) and issubclass(model_class, ZooModelClass)):
            raise InputError(
                f"check_model checks subclasses of sczoo.base.ZooModelClass, got {model_class!r}."
            )
        self.model_class = model_class
        self.skip = check_names(skip or {}, need_reasons=True)
        scale = model_class._input_scale
        base = example_cells(scale=scale) if adata is None else adata
        self.setup_kwargs = self._default_setup(base) | dict(setup_kwargs or {})
        self.model_kwargs = dict(model_kwargs or {})
        self.train_kwargs = self._default_training() | dict(train_kwargs or {})
        self._given = adata is not None
        if adata is not None:
            meaningful = {v for v in self.setup_kwargs.values() if isinstance(v, str)}
            base = plant_names(adata, self._category_columns(adata), meaningful)
        self._base = base
        self._kept: dict[Any, Any] = {}
        self._temporary = tempfile.TemporaryDirectory(prefix="sczoo-check-")

    def __enter__(self) -> ModelCase:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the trained models and remove the temporary folder."""
        self._kept.clear()
        self._temporary.cleanup()

    def run(self, name: str) -> CheckResult:
        """Run one check; it never raises for a fault of the model, the result tells."""
        from sczoo.testing._battery import run_check

        return run_check(self, name)

    # --- arguments ----------------------------------------------------------------------------

    def _default_setup(self, adata: AnnData) -> dict[str, Any]:
        parameters = inspect.signature(self.model_class.setup_anndata).parameters
        return {
            key: column
            for key, column in _KEYS.items()
            if key in parameters and column in adata.obs
        }

    def _default_training(self) -> dict[str, Any]:
        parameters = inspect.signature(self.model_class.train).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return _TRAIN | {"enable_progress_bar": False}
        return {key: value for key, value in _TRAIN.items() if key in parameters}

    def _category_columns(self, adata: AnnData) -> list[str]:
        return [
            column
            for key, column in self.setup_kwargs.items()
            if key.endswith("_key") and isinstance(column, str) and column in adata.obs
        ]

    @property
    def category_columns(self) -> list[str]:
        """Columns of ``obs`` that the set-up uses as categories."""
        return self._category_columns(self._base)

    def need_categories(self) -> list[str]:
        """Return the columns that the set-up uses as categories, or skip the check."""
        if not self.category_columns:
            raise CheckSkippedError("the set-up uses no categorical column")
        return self.category_columns

    def need_setup_argument(self, name: str) -> None:
        """Skip the check if ``setup_anndata`` has no argument `name`."""
        if name not in inspect.signature(self.model_class.setup_anndata).parameters:
            raise CheckSkippedError(f"setup_anndata has no argument {name!r}")

    # --- data ---------------------------------------------------------------------------------

    @property
    def layer(self) -> str | None:
        """The layer that the model reads."""
        return self.setup_kwargs.get("layer")

    @property
    def folder(self) -> Path:
        """A temporary folder of this case."""
        return Path(self._temporary.name)

    def cells(self) -> AnnData:
        """Return a fresh copy of the training cells."""
        return self._base.copy()

    def query(self, n_cells: int = N_QUERY, *, bare: bool = False) -> AnnData:
        """Return a new patient's cells, with the training genes in their order.

        Parameters
        ----------
        n_cells
            Number of cells.
        bare
            Leave out all of ``obs``, as the cells of a stranger would come.
        """
        if self._given:
            rows = np.random.default_rng(1).integers(self._base.n_obs, size=n_cells)
            cells = self._base[np.sort(rows)].copy()
        else:
            cells = example_cells(n_cells, seed=1, scale=self.model_class._input_scale)
        cells.obs_names = [f"NEWPATIENT-{number:06d}" for number in range(cells.n_obs)]
        if bare:
            cells.obs = cells.obs[[]]
        return cells

    def matrix(self, adata: AnnData) -> Any:
        """Return the matrix that the model reads, in memory: CSR or dense."""
        return read_rows(matrix_of(adata, self.layer), np.arange(adata.n_obs))

    def put_matrix(self, adata: AnnData, matrix: Any) -> AnnData:
        """Replace the matrix that the model reads, and return `adata`."""
        if self.layer is None:
            adata.X = matrix
        else:
            adata.layers[self.layer] = matrix
        return adata

    def dense(self, adata: AnnData) -> np.ndarray:
        """Return the matrix that the model reads as a dense array."""
        matrix = self.matrix(adata)
        return matrix.toarray() if hasattr(matrix, "toarray") else np.array(matrix)

    # --- models -------------------------------------------------------------------------------

    def set_up(self, adata: AnnData, **overrides: Any) -> AnnData:
        """Call ``setup_anndata`` and return `adata`."""
        self.model_class.setup_anndata(adata, **(self.setup_kwargs | overrides))
        return adata

    def build(self, adata: AnnData, *, seed: int = SEED, **overrides: Any) -> ZooModelClass:
        """Set `adata` up and construct a model; `overrides` are for the set-up."""
        with seeded(seed):
            self.set_up(adata, **overrides)
            return self.model_class(adata, **self.model_kwargs)

    def train(self, model: ZooModelClass, *, seed: int = SEED, **overrides: Any) -> ZooModelClass:
        """Train `model` and return it."""
        with seeded(seed):
            model.train(**(self.train_kwargs | overrides))
        return model

    def fit(
        self,
        adata: AnnData | None = None,
        *,
        seed: int = SEED,
        setup: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
    ) -> ZooModelClass:
        """Set up, construct and train on `adata`, by default on the training cells."""
        data = self.cells() if adata is None else adata
        model = self.build(data, seed=seed, **dict(setup or {}))
        return self.train(model, seed=seed, **dict(train or {}))

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` gave for `key` the first time; checks must not change it."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @property
    def model(self) -> Any:
        """The reference model, trained on the training cells."""
        return self.keep("model", self.fit)

    @property
    def latent(self) -> np.ndarray:
        """The reference model's representation of the bare query."""
        return self.keep("latent", lambda: self.embed(self.model, self.query(bare=True)))

    @property
    def saved(self) -> Path:
        """Folder with the reference model saved in it."""

        def save() -> Path:
            self.model.save(self.folder / "reference")
            return self.folder / "reference"

        return self.keep("saved", save)

    @property
    def fresh(self) -> FreshProcess:
        """What a fresh Python process made of the saved model and of the training cells."""
        from sczoo.testing._process import FreshProcess

        return self.keep("fresh", lambda: FreshProcess(self))

    def embed(self, model: Any, adata: AnnData | None = None, **kwargs: Any) -> np.ndarray:
        """Return the representation of `adata`."""
        return np.asarray(model._main_result(adata, **kwargs))


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """Copy the weights of `model`."""
    return {
        name: tensor.detach().cpu().numpy().copy()
        for name, tensor in model.module.state_dict().items()
    }
