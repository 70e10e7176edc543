"""What is claimed is what was spent; what would break the claim is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sczoo.errors import InputError, PrivacyBudgetError, PrivacyError, TooFewCellsError
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


# --- what is refused --------------------------------------------------------------------------


def _built(cells, donor_key=None, **arguments):
    DPDCAN.setup_anndata(cells, donor_key=donor_key)
    return DPDCAN(cells, **({"n_latent": 5} | arguments))


@pytest.mark.parametrize("target", [0, -1.0, math.nan, True, "four"])
def test_impossible_epsilon(cells, target):
    with pytest.raises(PrivacyError, match="must be positive"):
        _built(cells, target_epsilon=target)


@pytest.mark.parametrize("delta", [1 / 240, 0.1])
def test_delta_of_one_in_n_is_refused_with_the_reason(cells, delta):
    with pytest.raises(PrivacyError, match="publishing one cell whole"):
        _built(cells, target_delta=delta).train(**QUIET)


@pytest.mark.parametrize("delta", [0.0, -1e-5, 1.5])
def test_impossible_delta(cells, delta):
    with pytest.raises(PrivacyError, match="target_delta"):
        _built(cells, target_delta=delta).train(**QUIET)


def test_genes_chosen_on_the_cells_are_refused_unless_acknowledged(cells):
    cells.var["highly_variable"] = True
    with pytest.raises(PrivacyError, match="chosen on these cells"):
        _built(cells.copy())
    model = _built(cells.copy(), acknowledge=["gene_list"])
    model.train(**QUIET, max_epochs=1, batch_size=40)
    assert any(
        "chosen on these cells" in line for line in model.get_privacy_report()["not_covered"]
    )
    cells.var["highly_variable"] = np.arange(cells.n_vars) < 10  # not what was kept
    _built(cells.copy())


def test_only_known_leaks_can_be_acknowledged(cells):
    with pytest.raises(InputError, match="gene_list"):
        _built(cells, acknowledge=["everything"])
    with pytest.raises(InputError, match="pass a list"):
        _built(cells, acknowledge="gene_list")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"noise_seed": 0}, "subtract it"),
        ({"early_stopping": True}, "moment to stop"),
        ({"devices": 2}, "one device"),
        ({"strategy": "ddp"}, "one device"),
        ({"datamodule": object()}, "coin for each unit"),
    ],
)
def test_leaks_in_training_are_refused_with_the_reason(cells, arguments, words):
    model = _built(cells)
    with pytest.raises(PrivacyError, match=words):
        model.train(**(QUIET | arguments))
    assert model.privacy_["releases"] == []


def test_few_donors_are_refused(cells):
    cells.obs["donor"] = "one"
    with pytest.raises(PrivacyError, match="one donor"):
        _built(cells.copy(), donor_key="donor").train(**QUIET)
    cells.obs["donor"] = [f"person-{i % 3}" for i in range(240)]
    with pytest.raises(PrivacyError, match="3 donors"):
        _built(cells.copy(), donor_key="donor").train(**QUIET)


def test_fewer_donors_than_a_minibatch_needs(cells):
    with pytest.raises(PrivacyError, match="batch_size=64 donors, but there are 24"):
        _built(cells, donor_key="donor").train(**QUIET, batch_size=64)


def test_one_cell(cells):
    with pytest.raises(TooFewCellsError, match="1 cell"):
        _built(cells[:1].copy()).train(**QUIET)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "magic"},
        {"architecture": "transformer"},
        {"mode": "paper", "architecture": "projected"},
        {"max_grad_norm": 0},
        {"noise_multiplier": -1},
        {"n_latent": 1.5},
        {"mask_rate": 2},
        {"n_clusters": 1},
        {"cluster_weights": (1, 2)},
    ],
)
def test_senseless_arguments(cells, wrong):
    with pytest.raises(InputError):
        _built(cells, **wrong)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 10**7))
def test_default_delta_is_always_allowed(n):
    from sczoo.model.dpdcan._run import check_delta, default_delta

    check_delta(default_delta(n), n, "cell")
    assert default_delta(n) <= 0.1 / n
