"""What would break the claim is refused, with the reason, before anything is spent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sczoo.errors import InputError, PrivacyError, TooFewCellsError
from sczoo.model import DPDCAN

QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


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
        ({"devices": "2"}, "one device"),
        ({"devices": "0,1"}, "one device"),
        ({"devices": -1}, "one device"),
        ({"devices": [0, 1]}, "one device"),
        ({"num_nodes": 2}, "one device"),
        # one minibatch in every step, which opacus and the accounting would call sampling
        ({"overfit_batches": 1}, "same minibatch"),
        # weights of a run whose spending is not counted
        ({"ckpt_path": "run.ckpt"}, "how much"),
        ({"precision": "bf16-mixed"}, "few digits"),
        ({"trainer_config": {"overfit_batches": 1}}, "would not be checked"),
    ],
)
def test_leaks_in_training_are_refused_with_the_reason(cells, arguments, words):
    model = _built(cells)
    with pytest.raises(PrivacyError, match=words):
        model.train(**(QUIET | arguments))
    assert model.privacy_["releases"] == []


def test_minibatches_that_no_coin_decided_are_refused_whatever_led_to_them(cells, monkeypatch):
    """Lightning puts another sampler in the place of ours; the step itself looks."""
    from sczoo.model.dpdcan import _model

    monkeypatch.setattr(_model, "check_training", lambda *arguments: None)
    model = _built(cells)
    with pytest.raises(PrivacyError, match="SequentialSampler, not by a coin for each cell"):
        model.train(**QUIET, batch_size=40, overfit_batches=1)
    assert not any(r.what == "gradients" for r in model._ledger.releases)


def test_sixty_four_bits_and_one_device_in_any_spelling(cells):
    for arguments in ({"precision": "64-true"}, {"devices": "1"}, {"devices": "auto"}):
        model = _built(cells.copy())
        model.train(**(QUIET | arguments), max_epochs=1, batch_size=40)
        assert model.epsilon <= 4.0


@pytest.mark.parametrize("made", [{"noise_multiplier": 0.5}, {"target_epsilon": math.inf}])
def test_a_target_beside_fixed_noise_is_refused(cells, made):
    """The card would state a budget of 1 for a model that has spent 69, or everything."""
    model = _built(cells, **made)
    with pytest.raises(PrivacyError, match="could not be kept"):
        model.train(**QUIET, target_epsilon=1.0, batch_size=40)
    assert model.privacy_["releases"] == []


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([np.r_[np.arange(240), 3]], PrivacyError, "listed twice"),
        # the last cell once more, in a spelling that scvi-tools takes for another one
        ([np.r_[np.arange(240), -1]], InputError, "between 0 and 239"),
        ([np.arange(100), np.arange(50, 240)], PrivacyError, "listed twice"),
        ([np.arange(100)], InputError, "lists 100 of 240"),
        ([np.linspace(0, 1, 240)], InputError, "whole numbers"),
        ("all", InputError, "three arrays"),
    ],
)
def test_a_cell_counts_once(cells, rows, error, words):
    with pytest.raises(error, match=words):
        _built(cells).train(**QUIET, datasplitter_kwargs={"external_indexing": rows})


def test_private_cells_are_not_public(cells):
    """As they are, or in another order, under other names, dense."""
    copy = cells[::-1].copy()
    copy.obs_names = [f"public-{i}" for i in range(240)]
    copy.X = copy.X.toarray()
    for public in (cells.copy(), copy, cells[:10].copy()):
        model = _built(cells.copy(), target_epsilon=1.0)
        with pytest.raises(PrivacyError, match="cells of the private data"):
            model.train(**QUIET, batch_size=40, public_adata=public)
        assert model.privacy_["releases"] == []


def test_the_published_scheme_has_no_use_for_public_cells(cells):
    with pytest.warns(UserWarning, match="no differential-"):
        model = _built(cells, mode="paper")
    with pytest.raises(InputError, match="public_adata"):
        model.train(**QUIET, public_adata=cells.copy())


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 1}, {"batch_size": "all"}, {"max_epochs": 0}, {"train_size": 0}]
)
def test_senseless_arguments_of_train(cells, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        _built(cells).train(**(QUIET | wrong))


@pytest.mark.parametrize(
    "plan", [{"lr": -1}, {"lr": "fast"}, {"average_share": 2}, {"lrr": 1e-3}, {"run": None}]
)
def test_senseless_settings_of_the_plan_spend_nothing(cells, plan):
    model = _built(cells)
    with pytest.raises(InputError, match=next(iter(plan))):
        model.train(**QUIET, batch_size=40, plan_kwargs=plan)
    assert model.privacy_["releases"] == []


def test_numbers_of_numpy(cells, tmp_path):
    model = _built(
        cells,
        target_epsilon=np.float32(4),
        target_delta=np.float64(1e-5),
        max_grad_norm=np.int64(1),
    )
    model.train(**QUIET, max_epochs=1, batch_size=40)
    model.save(tmp_path / "model")
    assert DPDCAN.load(tmp_path / "model", accelerator="cpu").epsilon == model.epsilon <= 4.0


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
