"""The graph convolutions against torch-geometric, plain formulas and double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from sczoo.model.scagc._adaptive_graph import normalised_adjacency, union_graph
from sczoo.model.scagc._encoder import OneHopConv, TopologyAdaptiveConv


@pytest.fixture
def graph():
    rng = np.random.default_rng(0)
    n_cells = 40
    rows = np.stack([rng.choice(np.delete(np.arange(n_cells), i), 5, False) for i in range(40)])
    return normalised_adjacency(union_graph(rows))


def edges_of(graph):
    coo = graph.tocoo()
    index = torch.from_numpy(np.stack([coo.col, coo.row]).astype(np.int64))
    return index, torch.from_numpy(coo.data.astype(np.float64))


@pytest.mark.parametrize("n_hops", [1, 2, 3])
def test_powers_are_those_of_torch_geometric(graph, n_hops):
    from torch_geometric.nn import TAGConv

    torch.manual_seed(0)
    ours = TopologyAdaptiveConv(7, 3, n_hops).double()
    theirs = TAGConv(7, 3, K=n_hops, normalize=False).double()
    for own, other in zip(ours.lins, theirs.lins, strict=True):
        other.weight.data.copy_(own.weight.data)
    ours.bias.data.normal_()
    theirs.bias.data.copy_(ours.bias.data)
    x = torch.randn(40, 7, dtype=torch.float64)
    index, weight = edges_of(graph)
    weight.requires_grad_(True)
    torch.testing.assert_close(ours(x, index, weight), theirs(x, index, weight))
    # and so are the gradients of the edges
    gradients = []
    for layer in (ours, theirs):
        weight.grad = None
        layer(x, index, weight).square().sum().backward()
        gradients.append(weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().max() > 0


def test_known_powers_give_the_same(graph):
    conv = TopologyAdaptiveConv(6, 4, 2).double()
    x = torch.randn(40, 6, dtype=torch.float64)
    dense = torch.from_numpy(graph.toarray().astype(np.float64))
    expected = conv(x, *edges_of(graph))
    torch.testing.assert_close(conv.of_smoothed([x, dense @ x, dense @ dense @ x]), expected)


@pytest.mark.parametrize("n_hops", [1, 2, 3])
def test_a_minibatch_computes_only_what_its_seeds_need(n_hops):
    """Seeds 0-3, their neighbours 4-8, beyond 9-19; edges end in the first two."""
    from sczoo.model.scagc._sampling import Subgraph

    generator = torch.Generator().manual_seed(0)

    def drawn(low, high, n):
        return torch.randint(low, high, (n,), generator=generator)

    source = torch.cat([drawn(0, 9, 12), drawn(0, 20, 25)])
    target = torch.cat([drawn(0, 4, 12), drawn(4, 9, 25)])
    weight = torch.rand(37, generator=generator, dtype=torch.float64)
    around = Subgraph(torch.zeros(16, 7), torch.stack([source, target]), weight[12:], None, 5)
    conv = TopologyAdaptiveConv(7, 3, n_hops).double()
    x = torch.randn(20, 7, generator=generator, dtype=torch.float64)
    gradients = []
    for part in (False, True):
        seeds = x[:4].clone().requires_grad_(True)
        if part:
            arguments = (around.wanted(4, n_hops), x[4:])
            out = conv(seeds, around.edge_index, weight, *arguments)
        else:
            out = conv(torch.cat([seeds, x[4:]]), around.edge_index, weight)[:4]
        conv.zero_grad()
        out.square().sum().backward()
        gradients.append([out, seeds.grad, *(p.grad.clone() for p in conv.parameters())])
    for whole, needed in zip(*gradients, strict=True):
        torch.testing.assert_close(needed, whole)


def test_the_published_layer_sees_one_hop(graph):
    torch.manual_seed(1)
    layer = OneHopConv(9, 4).double()
    layer.bias.data.normal_()
    x = torch.randn(40, 9, dtype=torch.float64)
    a = torch.from_numpy(graph.toarray().astype(np.float64))
    w0, w1, w2, w3 = layer.kernel
    torch.testing.assert_close(layer(x, a), x @ w0 + a @ x @ (w1 + w2 + w3) + layer.bias)
    # the loop that the published code runs: it propagates x itself in every turn
    turns = torch.cat([x, a @ x, a @ x, a @ x], dim=1)
    torch.testing.assert_close(layer(x, a), turns @ layer.kernel.reshape(-1, 4) + layer.bias)
    powers = x @ w0 + a @ x @ w1 + a @ a @ x @ w2 + a @ a @ a @ x @ w3 + layer.bias
    assert (layer(x, a) - powers).abs().max() > 0.01


def test_the_published_kernels_start_as_glorot_does_on_the_stack():
    torch.manual_seed(0)
    layer = OneHopConv(50, 20)
    limit = (6 / (4 * 50 + 20)) ** 0.5
    assert layer.kernel.abs().max() <= limit
    assert layer.kernel.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert not layer.bias.any()


def test_normalisation_is_that_of_the_degrees():
    rng = np.random.default_rng(2)
    weights = rng.random((12, 12)) * (rng.random((12, 12)) < 0.4)
    weights = np.triu(weights, 1)
    weights += weights.T
    weights[5] = weights[:, 5] = 0  # a cell without edges
    found = normalised_adjacency(sparse.csr_matrix(weights)).toarray()
    degree = weights.sum(axis=1)
    root = np.divide(1, np.sqrt(degree), out=np.zeros(12), where=degree > 0)
    np.testing.assert_allclose(found, root[:, None] * weights * root, rtol=1e-6)
    assert not found[5].any()
