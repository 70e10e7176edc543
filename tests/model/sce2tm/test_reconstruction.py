"""The loss that computes its gradient in place agrees with autograd in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sczoo.model.sce2tm._reconstruction import cross_entropy, decoded_cross_entropy


def rows_of(target):
    return lambda rows: target[rows].clone()


def plain(logits, target):
    return -(target * torch.log_softmax(logits, dim=1)).sum(1)


@settings(max_examples=30, deadline=None)
@given(
    n_cells=st.sampled_from([1, 2, 63, 64, 65, 130]),
    n_genes=st.integers(1, 40),
    spread=st.sampled_from([0.1, 3.0, 80.0]),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients(n_cells, n_genes, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(n_cells, n_genes, generator=generator, dtype=torch.float64)
    target = torch.rand(n_cells, n_genes, generator=generator, dtype=torch.float64)
    target = torch.where(target < 0.6, 0.0, target)
    weight = torch.rand(n_cells, generator=generator, dtype=torch.float64)
    expected_of, found_of = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected, found = plain(expected_of, target), cross_entropy(found_of, rows_of(target))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    torch.testing.assert_close(found_of.grad, expected_of.grad, rtol=1e-10, atol=1e-10)


def test_without_gradient_nothing_is_overwritten():
    logits, target = torch.randn(70, 5), torch.rand(70, 5)
    before = logits.clone()
    with torch.no_grad():
        found = cross_entropy(logits.requires_grad_(), rows_of(target))
    torch.testing.assert_close(found, plain(logits, target))
    assert torch.equal(logits, before)


def test_parameters_are_never_overwritten():
    logits, target = torch.randn(40, 5, requires_grad=True), torch.rand(40, 5)
    before = logits.detach().clone()
    cross_entropy(logits, rows_of(target)).sum().backward()
    assert torch.equal(logits, before)


def test_whoever_still_needs_the_logits_is_told():
    logits = torch.randn(4, 5, requires_grad=True) * 1.0
    other = logits.square().sum()
    loss = cross_entropy(logits, rows_of(torch.rand(4, 5))).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss + other).backward()


def test_a_cell_without_expression_costs_nothing():
    logits = torch.randn(2, 4, requires_grad=True)
    loss = cross_entropy(logits, rows_of(torch.zeros(2, 4)))
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.zeros(2))
    torch.testing.assert_close(logits.grad, torch.zeros(2, 4))


def test_the_gradient_is_given_once():
    logits = torch.randn(2, 4, requires_grad=True)
    loss = cross_entropy(logits, rows_of(torch.rand(2, 4))).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="already taken"):
        loss.backward()


@settings(max_examples=20, deadline=None)
@given(
    n_cells=st.sampled_from([1, 2, 127, 128, 129, 300]),
    n_genes=st.integers(1, 30),
    spread=st.sampled_from([0.1, 3.0, 80.0]),
    seed=st.integers(0, 1000),
)
def test_decoding_in_the_loss(n_cells, n_genes, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.rand(n_cells, 4, generator=generator, dtype=torch.float64)
    programs = spread * torch.randn(4, n_genes, generator=generator, dtype=torch.float64)
    target = torch.rand(n_cells, n_genes, generator=generator, dtype=torch.float64)
    leaves = [[x.clone().requires_grad_() for x in (theta, programs)] for _ in range(2)]
    expected = plain(leaves[0][0] @ leaves[0][1], target)
    mean, each = decoded_cross_entropy(*leaves[1], rows_of(target))
    torch.testing.assert_close(each, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mean, expected.mean(), rtol=1e-10, atol=1e-10)
    (3.0 * expected.mean()).backward()
    (3.0 * mean).backward()
    for found, of_plain in zip(leaves[1], leaves[0], strict=True):
        torch.testing.assert_close(found.grad, of_plain.grad, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        again, _ = decoded_cross_entropy(theta, programs, rows_of(target))
    torch.testing.assert_close(again, mean.detach(), rtol=1e-10, atol=1e-10)


def test_single_losses_carry_no_gradient():
    theta, programs = torch.rand(3, 2, requires_grad=True), torch.randn(2, 5, requires_grad=True)
    mean, each = decoded_cross_entropy(theta, programs, rows_of(torch.rand(3, 5)))
    assert mean.requires_grad
    assert not each.requires_grad
