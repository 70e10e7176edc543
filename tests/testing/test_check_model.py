"""The battery passes on a sound model, and finds the fault in each faulty one."""

from __future__ import annotations

import random

import faults_in_inputs
import faults_in_queries
import faults_in_saving
import faults_in_training
import numpy as np
import pytest
import torch
from faults import FAULTS
from zoo_toys import ToyLinear

import sczoo
from sczoo.errors import InputError
from sczoo.testing import CheckFailedError, ModelCase, check_model, example_cells, list_checks

assert all((faults_in_inputs, faults_in_queries, faults_in_saving, faults_in_training))

SLOW = set(list_checks(slow=True))


def one_test_per_check():
    return [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in list_checks()
    ]


def install(monkeypatch, model_class):
    """Put a class on the allow-list of methods for the time of a test."""
    place = f"{model_class.__module__}:{model_class.__name__}"
    monkeypatch.setattr("sczoo.model.list_methods", lambda: {model_class._method: place})


# --- a sound model ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound():
    with ModelCase(ToyLinear) as case:
        yield case


@pytest.mark.parametrize("name", one_test_per_check())
def test_a_sound_model_passes(sound, name, monkeypatch):
    install(monkeypatch, ToyLinear)
    result = sound.run(name)
    assert result.outcome == "passed", f"{result.outcome}: {result.message}"


def with_other_names():
    """Return cells as a user brings them: a layer, columns of other names, an unused obsm."""
    adata = example_cells(n_cells=179, seed=7)
    adata.obs = adata.obs.rename(columns={"batch": "sequencing_run", "cell_type": "annotation"})
    adata.layers["raw"] = adata.X.copy()
    adata.X = adata.X.copy() * 0.5
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(179, 5))
    return adata


def test_a_sound_model_passes_on_data_of_ones_own(monkeypatch):
    install(monkeypatch, ToyLinear)
    adata = with_other_names()
    names = adata.obs_names.copy()
    setup = {"layer": "raw", "batch_key": "sequencing_run", "labels_key": "annotation"}
    report = check_model(
        ToyLinear,
        adata=adata,
        setup_kwargs=setup,
        model_kwargs={"n_latent": 3},
        train_kwargs={"max_epochs": 1},
        only=list_checks(slow=False),
    )
    assert report.ok, str(report)
    assert report.skipped == []
    assert adata.obs_names.equals(names)


def test_a_model_without_mudata_or_categories_skips_with_a_reason():
    class Plain(ToyLinear):
        """A toy of expression alone."""

        setup_mudata = None

        @classmethod
        def setup_anndata(cls, adata, *, layer=None, **kwargs):
            """Register the expression."""
            from scvi.data.fields import LayerField

            setup_locals = locals()
            cls._check_setup(adata, layer=layer)
            cls._register(
                adata, [LayerField("X", layer, is_count_data=False)], setup_locals, **kwargs
            )

    report = check_model(Plain, only=list_checks(slow=False))
    assert report.ok, str(report)
    assert {"mudata_trains", "refuses_missing_categories_at_setup"} <= set(report.skipped)
    assert all(report[name].message for name in report.skipped)


# --- faulty models ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        pytest.param(
            fault, check, marks=[pytest.mark.slow] if check in SLOW else [], id=f"{fault}-{check}"
        )
        for fault, (_, checks, _) in FAULTS.items()
        for check in checks
    ],
)
def test_a_fault_is_found(fault, check, monkeypatch):
    faulty, _, arguments = FAULTS[fault]
    if check != "class_name_is_unique":
        install(monkeypatch, faulty)
    report = check_model(faulty, only=[check], **arguments)
    assert report.failed == [check], str(report)
    assert len(report[check].message) > 20
    with pytest.raises(CheckFailedError, match=check):
        report.raise_if_failed()


def test_every_check_finds_some_fault():
    found = {check for _, checks, _ in FAULTS.values() for check in checks}
    assert found == set(list_checks())


# --- the battery itself -----------------------------------------------------------------------


def test_the_battery_leaves_the_caller_as_it_was():
    import os
    import warnings

    import scvi

    scvi.settings.seed = 42
    flags = os.environ.get("XLA_FLAGS")
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    filters = list(warnings.filters)
    check_model(ToyLinear, only=["global_random_state_is_ignored", "refuses_nan", "history"])
    assert random.getstate() == expected[0]
    np.testing.assert_array_equal(np.random.get_state()[1], expected[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), expected[2])
    assert scvi.settings.seed == 42
    assert os.environ.get("XLA_FLAGS") == flags
    assert warnings.filters == filters


def test_the_report_is_a_table_and_a_text():
    faulty = FAULTS["ChecksNothing"][0]
    report = check_model(
        faulty,
        only=["refuses_nan", "history", "refuses_one_cell"],
        skip={"history": "there is none"},
    )
    assert report.failed == ["refuses_nan"]
    assert report.passed == ["refuses_one_cell"]
    assert report.skipped == ["history"]
    assert not report.ok
    assert report["history"].message == "there is none"
    frame = report.to_frame().set_index("name")
    assert list(frame.loc[["refuses_nan", "refuses_one_cell", "history"], "outcome"]) == [
        "failed",
        "passed",
        "skipped",
    ]
    assert frame.loc["refuses_nan", "group"] == "values"
    assert frame["about"].str.len().min() > 10
    text = str(report)
    assert len(text.splitlines()) == 4
    assert "1 passed, 1 failed, 1 skipped" in text
    assert "there is none" in text
    with pytest.raises(CheckFailedError, match="fails 1 of 3"):
        report.raise_if_failed()
    with pytest.raises(KeyError):
        report["no_such_check"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"skip": {"no_such_check": "because"}},
        {"only": ["no_such_check"]},
        {"skip": {"history": ""}},
        {"skip": {"history": "  "}},
        {"skip": {"history": None}},
    ],
    ids=str,
)
def test_unknown_names_and_skips_without_a_reason_are_errors(arguments):
    with pytest.raises(InputError):
        check_model(ToyLinear, **arguments)


def test_only_models_of_the_zoo_can_be_checked():
    import scvi

    with pytest.raises(InputError, match="ZooModelClass"):
        check_model(scvi.model.SCVI)
    with pytest.raises(InputError, match="ZooModelClass"):
        check_model("ToyLinear")


def test_checks_are_listed_once_and_say_what_they_ask():
    names = list_checks()
    assert len(names) == len(set(names)) > 80
    assert set(list_checks(slow=True)) | set(list_checks(slow=False)) == set(names)
    assert not set(list_checks(slow=True)) & set(list_checks(slow=False))


def test_a_fault_of_the_model_is_never_raised_but_ctrl_c_is():
    class Broken(ToyLinear):
        def train(self, *args, **kwargs):
            raise ZeroDivisionError("on purpose")

    class Interrupted(ToyLinear):
        def train(self, *args, **kwargs):
            raise KeyboardInterrupt

    report = check_model(Broken, only=["history"])
    assert report["history"].message.startswith("ZeroDivisionError: on purpose (in train of ")
    with pytest.raises(KeyboardInterrupt):
        check_model(Interrupted, only=["history"])


def test_the_temporary_folder_is_removed():
    with ModelCase(ToyLinear) as case:
        folder = case.folder
        assert case.saved.exists()
    assert not folder.exists()


def test_a_class_that_no_fresh_process_can_import_is_skipped():
    class Hidden(ToyLinear):
        pass

    report = check_model(Hidden, only=list_checks(slow=True))
    assert set(report.skipped) == SLOW
    assert "fresh process cannot import" in report[report.skipped[0]].message


def test_the_battery_is_part_of_the_public_face():
    assert sczoo.testing.check_model is check_model
