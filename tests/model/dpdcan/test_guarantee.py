"""What is claimed is what was spent."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sczoo.errors import PrivacyBudgetError
from sczoo.model import DPDCAN
from sczoo.privacy import PrivacyLedger

QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
SOUND = [
    {"mode": "dp"},
    {"mode": "dp", "n_clusters": 3},
    {"mode": "dp", "architecture": "published"},
    {"mode": "frozen-decoder"},
    {"mode": "split"},
]


@pytest.mark.parametrize("arguments", SOUND, ids=lambda a: " ".join(map(str, a.values())))
def test_the_target_is_reached_and_not_passed(fit, arguments):
    model = fit(target_epsilon=2.0, **arguments)
    assert 1.9 < model.epsilon <= 2.0
    assert model.delta == pytest.approx(1e-5)
    gradients = [r for r in model._ledger.releases if r.what == "gradients"]
    assert sum(r.count for r in gradients) == 18  # 3 epochs of 240 / 40 steps
    report = model.get_privacy_report()
    assert report["accountants"]["pld"] == model.epsilon
    assert "ONE cell" in report["guarantee"]
    assert any("m times epsilon" in line for line in report["not_covered"])


def test_every_step_is_accounted_empty_ones_too(fit):
    model = fit(noise_multiplier=2.0, train={"batch_size": 2, "max_epochs": 1})
    gradients = [r for r in model._ledger.releases if r.what == "gradients"]
    # 120 steps with 2 expected cells: about 16 of them are empty
    assert sum(r.count for r in gradients) == 120
    assert gradients[0].sampling_rate == pytest.approx(2 / 240)
    assert model.history["steps"].iloc[-1, 0] == 120


def test_the_epsilon_is_that_of_the_listed_releases(fit):
    model = fit(target_epsilon=3.0)
    ledger = PrivacyLedger.from_dicts(model.get_privacy_report()["releases"])
    assert ledger.epsilon(model.delta) == model.epsilon
    assert {r.what for r in ledger.releases} == {"mean profile", "second moments", "gradients"}
    assert model.history["epsilon"].iloc[-1, 0] == pytest.approx(model.epsilon, rel=1e-4)
    assert model.history["epsilon_budget"].iloc[-1, 0] == 3.0


def test_history_holds_nothing_of_the_cells(fit):
    assert set(fit().history) == {"steps", "epsilon", "delta", "epsilon_budget"}


def test_unequal_noise_is_accounted_as_one_mechanism(fit):
    from sczoo.model.dpdcan import _trainingplan
    from sczoo.privacy import combined_noise

    seen = []
    original = _trainingplan.DPDCANTrainingPlan.on_train_start

    def spy(self):
        seen.append(self.run)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_trainingplan.DPDCANTrainingPlan, "on_train_start", spy)
        fit(mode="split", max_grad_norm=1.0)
    (run,) = seen
    assert run.group_noise["encoder"] != run.group_noise["decoder"]
    assert combined_noise(*run.group_noise.values()) == pytest.approx(run.noise["gradients"])
    # together the groups are at most as long as one clipped gradient
    assert sum(c**2 for c in run.max_grad_norm.values()) == pytest.approx(1.0)


# --- no claim where there is none -------------------------------------------------------------


def test_the_published_scheme_claims_nothing(fit):
    with pytest.warns(UserWarning, match="no differential-"):
        model = fit(mode="paper", n_clusters=3, n_latent=8)
    assert model.epsilon is None
    assert model.delta is None
    report = model.get_privacy_report()
    assert report["guarantee"] == "No differential-privacy guarantee."
    assert "decoder without noise" in report["why_not"]
    assert report["nominal_epsilon"] > 0
    assert "epsilon" not in model.history


def test_training_without_noise_claims_nothing(fit):
    model = fit(target_epsilon=math.inf)
    assert model.epsilon is None
    assert "without noise" in model.get_privacy_report()["why_not"]


# --- going on ---------------------------------------------------------------------------------


def test_a_spent_budget_stops_training(fit):
    model = fit(target_epsilon=2.0)
    spent = model.epsilon
    with pytest.raises(PrivacyBudgetError, match=r"train\(target_epsilon"):
        model.train(**QUIET, max_epochs=1, batch_size=40)
    assert model.epsilon == spent
    model.train(**QUIET, max_epochs=1, batch_size=40, target_epsilon=3.0)
    assert 2.9 < model.epsilon <= 3.0


def test_a_resume_adds_up_and_never_uses_noise_again(fit, tmp_path, cells):
    from sczoo.privacy import NoiseSource

    drawn = []
    original = NoiseSource.normal

    def spy(self, shape, dtype=np.float32):
        values = original(self, shape, dtype)
        drawn.append(np.asarray(values).ravel()[:8].copy())
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NoiseSource, "normal", spy)
        model = fit(noise_multiplier=2.0)
        first = model.epsilon
        model.save(tmp_path / "half")
        resumed = DPDCAN.load(tmp_path / "half", adata=cells.copy(), accelerator="cpu")
        assert resumed.epsilon == first
        resumed.train(**QUIET, max_epochs=3, batch_size=40)
    assert resumed.epsilon > first
    assert sum(r.count for r in resumed._ledger.releases if r.what == "gradients") == 36
    # the projection was released once
    assert sum(r.count for r in resumed._ledger.releases if r.what == "second moments") == 1
    firsts = [tuple(values) for values in drawn if len(values) > 2]
    assert len(set(firsts)) == len(firsts)


def test_two_runs_with_one_public_seed_differ(fit):
    one, other = fit(), fit()
    assert one.provenance_["seed"] == other.provenance_["seed"]
    assert not np.allclose(
        one.module.encoder.projection.numpy(), other.module.encoder.projection.numpy()
    )


def test_an_interrupted_run_reports_what_it_spent(fit, cells):
    from lightning.pytorch.callbacks import Callback

    class Stop(Callback):
        def on_train_batch_end(self, trainer, plan, *args):
            if plan.n_passes == 4:
                raise KeyboardInterrupt

    DPDCAN.setup_anndata(cells)
    model = DPDCAN(cells, target_epsilon=4.0, n_latent=5)
    with pytest.raises(KeyboardInterrupt):
        model.train(**QUIET, max_epochs=5, batch_size=40, callbacks=[Stop()])
    assert sum(r.count for r in model._ledger.releases if r.what == "gradients") == 4
    assert 0 < model.epsilon < 4.0


def test_a_copy_that_is_saved_in_mid_run_claims_what_was_spent_until_then(fit, tmp_path):
    from lightning.pytorch.callbacks import Callback

    model = fit(target_epsilon=2.0)
    steps = sum(r.count for r in model._ledger.releases if r.what == "gradients")

    class Keep(Callback):
        def on_train_epoch_end(self, trainer, plan):
            model.save(tmp_path / "half", overwrite=True)

    before = model.epsilon
    model.train(**QUIET, max_epochs=2, batch_size=40, target_epsilon=4.0, callbacks=[Keep()])
    kept = DPDCAN.load(tmp_path / "half", accelerator="cpu")
    gradients = [r for r in kept._ledger.releases if r.what == "gradients"]
    assert sum(r.count for r in gradients) == steps + 12
    assert before < kept.epsilon <= model.epsilon <= 4.0
    assert kept.provenance_["privacy"]["epsilon"] >= kept.epsilon


# --- donors -----------------------------------------------------------------------------------


def test_donors_are_the_unit(fit):
    model = fit(donor_key="donor", target_epsilon=8.0, train={"batch_size": 6})
    report = model.get_privacy_report()
    assert report["unit"] == "donor"
    assert "ONE donor" in report["guarantee"]
    assert not any("m times epsilon" in line for line in report["not_covered"])
    gradients = [r for r in model._ledger.releases if r.what == "gradients"]
    assert gradients[0].sampling_rate == pytest.approx(6 / 24)


def test_held_out_donors_are_held_out_whole(fit):
    model = fit(
        donor_key="donor", noise_multiplier=1.0, train={"train_size": 0.5, "batch_size": 4}
    )
    donors = model.adata.obs["donor"].to_numpy()
    inside = set(donors[model.train_indices])
    outside = set(donors[np.setdiff1d(np.arange(240), model.train_indices)])
    assert len(inside) == 12
    assert not inside & outside


def test_how_many_donors_are_held_out_says_nothing_of_their_cells(cells):
    """A donor with more or fewer cells moves the number of training donors by none."""
    from sczoo.model.dpdcan._data import PrivateDataSplitter

    cells.obs["donor"] = [f"person-{min(i // 10, 4)}" for i in range(240)]
    for n_cells in range(60, 241, 7):
        part = cells[:n_cells].copy()
        DPDCAN.setup_anndata(part, donor_key="donor")
        manager = DPDCAN(part).adata_manager
        for share, expected in ((0.5, 2), (0.1, 1), (0.7, 4), (0.99, 5), (1.0, 5)):
            split = PrivateDataSplitter(manager, share, by_donor=True, seed=0)
            split.setup()
            donors = part.obs["donor"].to_numpy()
            assert len(set(donors[split.train_idx])) == expected
            assert len(split.train_idx) + len(split.val_idx) + len(split.test_idx) == n_cells
