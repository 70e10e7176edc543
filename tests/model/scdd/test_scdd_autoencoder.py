"""The likelihood against scvi-tools' own, the decoder against a minibatch's company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scvi.distributions import NegativeBinomial

from sczoo.model.scdd._autoencoder import Decoder, negative_binomial_nll


@pytest.mark.parametrize("library", ["torch", "scvi-tools"])
@given(seed=st.integers(0, 10_000), share_of_zeros=st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_likelihood_and_gradient_are_those_of_other_libraries(library, seed, share_of_zeros):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 8.0, (6, 9))) * (rng.random((6, 9)) >= share_of_zeros)
    counts = torch.as_tensor(counts, dtype=torch.float64)
    normal = np.random.default_rng(seed + 1).normal(0, 2, (6, 9))
    # scvi-tools adds 1e-8 inside its logarithms, which shows where the mean is next to nothing
    normal = np.clip(normal, -4.0, None) if library == "scvi-tools" else normal
    grads = []
    for form in ("sparse", library):
        log_mean = torch.as_tensor(normal.copy())
        log_theta = torch.as_tensor(np.random.default_rng(seed + 2).normal(0, 1.5, 9))
        log_mean.requires_grad_(True)
        log_theta.requires_grad_(True)
        if form == "sparse":
            nll = negative_binomial_nll(counts, log_mean, log_theta)
        elif form == "torch":
            oracle = torch.distributions.NegativeBinomial(
                total_count=log_theta.exp(), logits=log_mean - log_theta
            )
            nll = -oracle.log_prob(counts).sum(dim=1)
        else:
            theirs = NegativeBinomial(mu=log_mean.exp(), theta=log_theta.exp())
            nll = -theirs.log_prob(counts).sum(dim=1)
        nll.sum().backward()
        grads.append((nll.detach(), log_mean.grad, log_theta.grad))
    exact = {"torch": 1e-9, "scvi-tools": 1e-5}[library]
    for ours, theirs in zip(*grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=exact, atol=exact)


def test_gamma_function_is_asked_of_the_counts_alone(monkeypatch):
    asked = []
    real = torch.lgamma

    def lgamma(values):
        asked.append(values.numel())
        return real(values)

    monkeypatch.setattr(torch, "lgamma", lgamma)
    counts = torch.zeros(50, 40)
    counts[3, 5], counts[7, 1] = 4.0, 1.0
    negative_binomial_nll(counts, torch.zeros(50, 40), torch.zeros(40))
    assert asked == [2, 2, 2]


def test_a_cell_is_decoded_alike_in_any_company():
    torch.manual_seed(0)
    decoder = Decoder(4, 2, 16, 10).train()
    z, batch = torch.randn(7, 4), torch.tensor([0, 1, -1, 0, 1, 5, 0])
    whole = decoder(z, batch)
    for i in range(7):
        torch.testing.assert_close(decoder(z[i : i + 1], batch[i : i + 1])[0], whole[i])
    torch.testing.assert_close(whole.exp().sum(1), torch.ones(7))
    # unknown batches stand between the known ones
    torch.testing.assert_close(decoder(z, None)[2], whole[2])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(decoder(z, 1 - batch.clamp(0, 1))[0], whole[0])
