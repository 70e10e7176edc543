"""What is decided and released before the first private step of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sczoo.base._provenance import isolated_random_state
from sczoo.base._reading import iter_row_blocks
from sczoo.errors import InputError, PrivacyError
from sczoo.model.dpdcan._checks import check_donors
from sczoo.model.dpdcan._data import PrivateDataSplitter, donor_codes
from sczoo.model.dpdcan._paper import standardise
from sczoo.model.dpdcan._public import learn_from_public, shared_cells
from sczoo.model.dpdcan._repeatable import repeatable_source
from sczoo.model.dpdcan._run import (
    PROFILE,
    PROJECTION,
    PrivateRun,
    check_delta,
    default_delta,
    plan_run,
)
from sczoo.privacy._accounting import PrivacyLedger
from sczoo.privacy._noise import NoiseSource
from sczoo.privacy._projection import fit_projection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anndata import AnnData
    from scvi.data import AnnDataManager

__all__ = ["PrivatePlanMixin"]

_BATCH = 1024
# a few large minibatches: noise per step falls faster than the number of steps
_STEPS = {"projected": 24, "published": 200}
_PUBLISHED_STEPS = 842
# two cells with few counts can agree by chance
_MOST_SHARED = 0.01


class PrivatePlanMixin:
    """Choose units, steps and noise of a run, and make the releases that come before its steps."""

    module: Any
    adata_manager: AnnDataManager
    privacy_: dict[str, Any]
    _mode: str
    _architecture: str
    _setup_arguments: dict[str, Any]
    _seed: Any
    _noise_source: NoiseSource | None
    _noise_multiplier: float | None
    _target_delta: float | None
    _max_grad_norm: float
    _cells_per_donor: int

    @property
    def _unit(self) -> str:
        return "cell" if self._setup_arguments.get("donor_key") is None else "donor"

    @property
    def _claims(self) -> bool:
        """Whether a guarantee is meant to be given."""
        return self._mode != "paper" and self._noise_multiplier != 0

    @property
    def _ledger(self) -> PrivacyLedger:
        return PrivacyLedger.from_dicts(self.privacy_["releases"])

    # --- the plan -----------------------------------------------------------------------------

    def _source(self, noise_seed: Any) -> NoiseSource:
        if noise_seed is not None:
            NoiseSource(noise_seed)  # raises, with the reason
        if self._noise_source is not None:
            return self._noise_source
        return NoiseSource() if self._noise_multiplier != 0 else repeatable_source(self._seed())

    def _training_rows(
        self, arguments: Mapping[str, Any], splitter: Mapping[str, Any]
    ) -> np.ndarray:
        """Rows that are trained on, in ascending order."""
        names = ("train_size", "validation_size", "shuffle_set_split")
        split = PrivateDataSplitter(
            self.adata_manager,
            seed=self._seed(),
            **{name: arguments[name] for name in names},
            **splitter,
        )
        split.setup()
        return np.sort(np.asarray(split.train_idx))

    def _units(self, rows: np.ndarray) -> tuple[np.ndarray | None, int]:
        if self._unit == "cell":
            return None, len(rows)
        codes, n_donors = donor_codes(self.adata_manager, rows)
        if self._claims:
            check_donors(n_donors)
        return codes, n_donors

    def _schedule(
        self, n_units: int, batch_size: int | None, max_epochs: int | None
    ) -> tuple[int, int, int]:
        """Return expected units in a minibatch, steps in all, and epochs, which divide them."""
        if self._mode == "paper":
            batch_size = batch_size or max(2, n_units // 10)
            per_epoch = max(1, math.ceil(n_units / batch_size))
            max_epochs = max_epochs or math.ceil(_PUBLISHED_STEPS / per_epoch)
            return batch_size, per_epoch * max_epochs, max_epochs
        if batch_size is None:
            few = max(2, n_units // 4)
            batch_size = min(_BATCH, n_units) if self._unit == "cell" else few
        if self._unit == "donor" and self._claims and batch_size > n_units:
            raise PrivacyError(
                f"batch_size={batch_size} donors, but there are {n_units}: sampling hides a donor "
                "among those that take part, and with fewer donors than a minibatch needs there "
                f"is nothing to hide among. Choose a batch_size of at most {max(2, n_units // 2)}."
            )
        per_epoch = max(1, round(n_units / batch_size))
        steps = _STEPS[self._architecture]
        max_epochs = max_epochs or max(1, math.ceil(steps / per_epoch))
        return batch_size, per_epoch * max_epochs, max_epochs

    def _plan(
        self,
        target: float | None,
        n_units: int,
        batch_size: int,
        n_steps: int,
        source: NoiseSource,
        has_public: bool,
    ) -> PrivateRun:
        delta = default_delta(n_units) if self._target_delta is None else self._target_delta
        check_delta(delta, n_units, self._unit)
        delta = max(delta, self.privacy_.get("delta") or 0.0)
        donors = self._unit == "donor"
        projected = self._architecture == "projected"
        run = plan_run(
            mode=self._mode,
            unit=self._unit,
            n_units=n_units,
            rate=min(1.0, batch_size / n_units),
            n_steps=n_steps,
            rows_per_unit=self._cells_per_donor if donors and self._mode != "paper" else 1,
            target_epsilon=target,
            delta=delta,
            noise_multiplier=self._noise_multiplier,
            max_grad_norm=self._max_grad_norm,
            needs_projection=projected and not has_public and not bool(self.module.encoder.fitted),
            n_clusters=0 if self.module.centres is None or self._mode == "paper" else 1,
            ledger=self._ledger,
            source=source,
        )
        run.on_spend = self._store
        return run

    def _begin(
        self,
        run: PrivateRun,
        blocks: Callable[[], Iterator[Any]],
        weights: np.ndarray,
        public_adata: AnnData | None,
        n_units: int,
    ) -> None:
        """Bring the network to where the private steps begin."""
        module: Any = self.module
        if self._mode == "paper":
            standardise(module, blocks)
        elif public_adata is not None:
            with isolated_random_state(self._seed()):
                learn_from_public(module, self._public_blocks(public_adata), self._seed())
            self.privacy_["public_cells"] = int(public_adata.n_obs)
        elif PROJECTION in run.noise:
            if run.private:
                run.spend(PROFILE)
                run.spend(PROJECTION)
            found = fit_projection(
                blocks,
                weights,
                n_units,
                module.n_latent,
                profile_noise=run.noise[PROFILE],
                moment_noise=run.noise[PROJECTION],
                source=run.source,
            )
            module.encoder.set_projection(found.profile, found.components)
        module.decoder.requires_grad_(self._mode != "frozen-decoder")

    def _check_public(self, public_adata: AnnData | None) -> None:
        """Refuse private cells among the public ones: nothing would protect them."""
        if public_adata is not None and self._mode == "paper":
            raise InputError(
                "public_adata: the published scheme (mode='paper') has no use for it."
            )
        if public_adata is None or not self._claims:
            return
        model: Any = self
        private = iter_row_blocks(model._expression(model.adata), model._layer)
        shared, n_public = shared_cells(
            (block for _, block in private), self._public_blocks(public_adata)
        )
        if shared > _MOST_SHARED * n_public:
            raise PrivacyError(
                f"public_adata: {shared} of its {n_public} cells are cells of the private data. "
                "What is learned from public cells gets no noise, so private ones must not be "
                "among them. Pass cells that everybody may see."
            )

    def _public_blocks(self, public_adata: AnnData) -> list[np.ndarray]:
        model: Any = self
        return [
            batch["X"].cpu().numpy() for batch in model._iter_batches(public_adata, None, 2048)
        ]

    def _store(self, run: PrivateRun) -> None:
        """Write down what was spent: at once, so that a copy in mid-run does not claim less."""
        self.privacy_.update(
            unit=run.unit,
            n_units=run.n_units,
            delta=run.delta,
            budget=run.budget,
            max_grad_norm=self._max_grad_norm,
            releases=run.ledger.as_dicts(),
        )
