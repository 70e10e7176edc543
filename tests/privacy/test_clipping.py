"""Clipped sums equal a loop over single units, for every layer, and nothing exceeds the bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sczoo.errors import PrivacyError
from sczoo.privacy import Centres, Offset, UnitGradients


class Network(nn.Module):
    """Every kind of layer that is known, one of them called twice."""

    def __init__(self, n_input=11, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Linear(n_input, 7), nn.LayerNorm(7), nn.Tanh())
            self.shared = nn.Linear(7, 7, bias=False)
            self.decoder = nn.Linear(7, n_input)
            self.offset = Offset(n_input, 0.3)
            self.centres = Centres(3, 7)

    def forward(self, x):
        h = self.encoder(x)
        h = self.shared(torch.tanh(self.shared(h)))
        out = self.offset(self.decoder(h))
        q = torch.log_softmax(-self.centres(h), -1)
        per_row = (out - x).square().mean(-1) + q[..., 0].square()
        return per_row if x.ndim == 2 else per_row.mean(1)


def cells(shape, seed=0, scale=1.0):
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return torch.tensor(values, dtype=torch.float32)


def one_by_one(network, x, groups):
    """Gradients per unit by a loop over minibatches of one, in float64."""
    network = network.double()
    result = []
    for row in x.double():
        network.zero_grad()
        network(row[None]).sum().backward()
        result.append({name: p.grad.clone() for name, p in network.named_parameters()})
    norms = {
        group: torch.stack(
            [
                sum(
                    g.square().sum()
                    for name, g in unit.items()
                    if any(not p or name.startswith(p) for p in prefixes)
                ).sqrt()
                for unit in result
            ]
        )
        for group, prefixes in groups.items()
    }
    network.float()
    return result, norms


@pytest.mark.parametrize("shape", [(9, 11), (6, 3, 11), (5, 40, 11), (1, 11)])
@pytest.mark.parametrize("bound", [0.05, 0.7, float("inf")])
def test_clipped_sums_equal_a_loop_over_units(shape, bound):
    groups = {"all": ("",)}
    network, x = Network(), cells(shape)
    units, expected = one_by_one(network, x, groups)
    engine = UnitGradients(network)
    with engine.record():
        loss = network(x)
    sums, norms = engine.clipped_sums(loss, bound)
    np.testing.assert_allclose(norms["all"], expected["all"], rtol=2e-5)
    factors = (bound / expected["all"]).clamp(max=1)
    for name in sums:
        total = sum(f * unit[name] for f, unit in zip(factors, units, strict=True))
        scale = float(total.abs().max())
        assert float((sums[name] - total).abs().max()) <= 1e-5 * scale, name
    assert set(sums) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("exponent", [30, 36, 37, 37.5, 38])
def test_a_gradient_too_long_to_be_scaled_down_counts_as_nothing(exponent):
    """The factor would be a number with few digits, and rounded up leave the unit too long."""
    rng = np.random.default_rng(0)
    layer = nn.Linear(4, 3, bias=False)
    for _ in range(50):
        # norms of 1e38 to 1e45, each number in the range of 32 bits
        x = torch.tensor(rng.standard_normal((1, 4)) * 10 ** rng.uniform(0, 7.5))
        towards = torch.tensor(rng.standard_normal((1, 3)) * 10.0**exponent)
        engine = UnitGradients(layer)
        with engine.record():
            loss = (layer(x.float()) * towards.float()).sum(1)
        sums, norms = engine.clipped_sums(loss, 0.5)
        length = float(sums["weight"].double().norm())
        assert length <= 0.5 * (1 + 1e-6), float(norms["all"])


def test_groups_are_clipped_apart():
    groups = {"encoder": ("encoder", "shared", "centres"), "decoder": ("decoder", "offset")}
    network, x = Network(), cells((8, 2, 11))
    units, expected = one_by_one(network, x, groups)
    engine = UnitGradients(network, groups)
    with engine.record():
        loss = network(x)
    bounds = {"encoder": 0.3, "decoder": 0.02}
    sums, norms = engine.clipped_sums(loss, bounds)
    for group, prefixes in groups.items():
        np.testing.assert_allclose(norms[group], expected[group], rtol=2e-5)
        factors = (bounds[group] / expected[group]).clamp(max=1)
        for name in sums:
            if name.startswith(prefixes):
                total = sum(f * unit[name] for f, unit in zip(factors, units, strict=True))
                assert float((sums[name] - total).abs().max()) <= 1e-5 * float(total.abs().max())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    exponent=st.floats(-3, 4),
    n_views=st.integers(1, 6),
    bound=st.floats(1e-3, 10),
)
def test_no_unit_exceeds_the_bound(seed, exponent, n_views, bound):
    network = Network(seed=seed)
    x = cells((4, n_views, 11), seed, 10.0**exponent)
    engine = UnitGradients(network)
    for unit in x:
        with engine.record():
            loss = network(unit[None])
        sums, _ = engine.clipped_sums(loss, bound)
        norm = sum(value.double().square().sum() for value in sums.values()).sqrt()
        assert norm <= bound * (1 + 1e-6)


def test_no_donor_exceeds_the_bound_whatever_its_cells():
    # cells of a donor are views: their common gradient is clipped once, not cell by cell
    network = Network()
    x = cells((1, 64, 11)).abs() * 50
    engine = UnitGradients(network)
    with engine.record():
        loss = network(x)
    sums, norms = engine.clipped_sums(loss, 0.1)
    norm = sum(value.double().square().sum() for value in sums.values()).sqrt()
    assert norms["all"].item() > 1
    assert norm == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 3e38])
def test_a_unit_without_a_finite_gradient_is_left_out_and_the_others_stay(value):
    # else the sum would be no number if and only if that unit took part
    network, x = Network(), cells((6, 3, 11))
    without = x[torch.arange(6) != 2]
    engine = UnitGradients(network)
    with engine.record():
        loss = network(without)
    expected, _ = engine.clipped_sums(loss, 0.3)
    x[2, 1, 4] = value
    x[2, 1, 5] = value
    with engine.record():
        loss = network(x)
    assert not bool(loss[2].isfinite())
    sums, norms = engine.clipped_sums(loss, 0.3)
    assert norms["all"][2] == 0
    for name, found in sums.items():
        np.testing.assert_allclose(found, expected[name], atol=1e-6, err_msg=name)


def test_a_unit_without_a_finite_gradient_is_not_taken_for_coupling():
    network, x = Network(), cells((6, 3, 11))
    x[3] = float("inf")
    x.requires_grad_()
    engine = UnitGradients(network)
    with engine.record():
        loss = network(x)
    engine.verify(loss, x)


def test_opacus_hooks_and_ghost_give_the_same():
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping

    def network():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(11, 7), nn.LayerNorm(7), nn.Tanh(), nn.Linear(7, 11))

    def loss_of(net, x):
        return (net(x) - x).square().mean(-1).reshape(len(x), -1).mean(1)

    x, bound = cells((9, 3, 11)), 0.4
    ours = network()
    engine = UnitGradients(ours)
    with engine.record():
        loss = loss_of(ours, x)
    sums, norms = engine.clipped_sums(loss, bound)

    hooks = GradSampleModule(network(), loss_reduction="sum")
    loss_of(hooks, x).sum().backward()
    samples = {
        name.removeprefix("_module."): p.grad_sample for name, p in hooks.named_parameters()
    }
    norm = sum(s.flatten(1).square().sum(1) for s in samples.values()).sqrt()
    np.testing.assert_allclose(norms["all"], norm.detach(), rtol=1e-5)
    factor = (bound / norm).clamp(max=1)
    for name, sample in samples.items():
        expected = torch.einsum("u,u...->...", factor, sample)
        torch.testing.assert_close(sums[name], expected, rtol=1e-4, atol=1e-6)

    ghost = GradSampleModuleFastGradientClipping(
        network(), loss_reduction="sum", max_grad_norm=bound, use_ghost_clipping=True
    )
    loss_of(ghost, x).sum().backward(retain_graph=True)
    np.testing.assert_allclose(norms["all"], ghost.get_norm_sample().detach(), rtol=1e-5)


def test_frozen_layers_take_no_part():
    network, x = Network(), cells((5, 11))
    network.decoder.requires_grad_(False)
    network.offset.requires_grad_(False)
    engine = UnitGradients(network)
    with engine.record():
        loss = network(x)
    sums, _ = engine.clipped_sums(loss, 1.0)
    assert not any(name.startswith(("decoder", "offset")) for name in sums)


def test_an_empty_minibatch_gives_zeros():
    network = Network()
    engine = UnitGradients(network)
    with engine.record():
        loss = network(cells((0, 11)))
    sums, norms = engine.clipped_sums(loss, 1.0)
    assert norms["all"].shape == (0,)
    for name, parameter in network.named_parameters():
        assert sums[name].shape == parameter.shape
        assert not sums[name].any()


def test_layers_that_were_not_called_have_zero_gradients():
    network = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    engine = UnitGradients(network)
    with engine.record():
        loss = network["used"](cells((4, 3))).sum(1)
    sums, _ = engine.clipped_sums(loss, 1.0)
    assert sums["used.weight"].any()
    assert not sums["unused.weight"].any()


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.InstanceNorm1d(4)]
)
def test_layers_that_couple_cells_are_refused(layer):
    with pytest.raises(PrivacyError, match="mixes the cells"):
        UnitGradients(nn.Sequential(nn.Linear(4, 4), layer))


def test_unknown_trainable_layers_are_refused_not_ignored():
    with pytest.raises(PrivacyError, match="no gradient per unit is known"):
        UnitGradients(nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 2)))
    holder = nn.Module()
    holder.loose = nn.Parameter(torch.zeros(3))
    with pytest.raises(PrivacyError, match="loose"):
        UnitGradients(holder)


def test_tied_weights_are_refused():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    with pytest.raises(PrivacyError, match="same parameter"):
        UnitGradients(network)


def test_a_layer_outside_all_groups_is_refused():
    with pytest.raises(PrivacyError, match="belongs to no group"):
        UnitGradients(Network(), {"encoder": ("encoder",)})


def test_rows_of_a_unit_on_the_batch_axis_are_refused():
    network = nn.Linear(4, 2)
    engine = UnitGradients(network)
    with engine.record():
        loss = network(cells((6, 4))).sum(1).reshape(3, 2).sum(1)
    with pytest.raises(PrivacyError, match="clipped several times"):
        engine.clipped_sums(loss, 1.0)


def test_verify_finds_losses_that_couple_cells():
    network, x = Network(), cells((6, 11)).requires_grad_()
    engine = UnitGradients(network)
    with engine.record():
        loss = network(x)
    engine.verify(loss, x)
    with engine.record():
        # the published contrastive loss: one cosine per dimension across the minibatch
        z = network.encoder(x)
        loss = network(x) - torch.cosine_similarity(z, torch.tanh(z), dim=0).mean()
    with pytest.raises(PrivacyError, match="depends on the data of another"):
        engine.verify(loss, x)


def test_verify_finds_parameters_used_outside_their_layer():
    network, x = nn.Sequential(nn.Linear(5, 5)), cells((6, 5)).requires_grad_()
    engine = UnitGradients(network)
    with engine.record():
        loss = network(x).square().sum(1) + (x @ network[0].weight.T).square().sum(1)
    with pytest.raises(PrivacyError, match="outside the forward"):
        engine.verify(loss, x)
