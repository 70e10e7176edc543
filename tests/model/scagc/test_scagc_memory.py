"""Minibatches on the graph: what is sampled, what is remembered, and the pass over all cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from sczoo.model.scagc._constants import variable_genes
from sczoo.model.scagc._memory import GraphMemory, GraphSettings
from sczoo.model.scagc._module import SCAGCModule
from sczoo.model.scagc._sampling import Surroundings
from sczoo.model.scagc._trainingplan import convolve_all


def memory_of(n_cells=120, adaptive=True, n_hidden=6, **kwargs):
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(3), n_cells // 3)
    components = (rng.normal(size=(n_cells, 8)) + 4 * np.eye(3, 8)[kind]).astype(np.float32)
    settings = GraphSettings(
        n_neighbors=8,
        n_candidates=20,
        similarity_scale=10.0,
        balance=0.3,
        adaptive=adaptive,
        **kwargs,
    )
    memory = GraphMemory(components, n_hidden, 4, settings)
    generator = torch.Generator().manual_seed(0)
    memory.hidden = torch.randn(n_cells, n_hidden, generator=generator)
    memory.latent = torch.from_numpy(components[:, :4].copy())
    return memory, kind


def test_a_sampled_sum_estimates_the_sum_over_all_neighbours():
    memory, _ = memory_of()
    cells = torch.arange(120)
    generator = torch.Generator().manual_seed(1)
    exact = memory.adjacency @ memory.hidden.numpy()
    found = np.zeros_like(exact)
    n_draws = 400
    for _ in range(n_draws):
        source, target, weight = memory.fan_out(cells, 4, generator)
        assert torch.bincount(target, minlength=120).max() <= 4
        np.add.at(found, target.numpy(), (weight[:, None] * memory.hidden[source]).numpy())
    # four neighbours of a value of unit variance, averaged over the draws
    assert np.abs(found / n_draws - exact).max() < 6 / np.sqrt(4 * n_draws)


def test_with_room_for_all_neighbours_the_sum_is_exact():
    memory, _ = memory_of()
    cells = torch.tensor([5, 77, 100])
    source, target, weight = memory.fan_out(cells, 200, torch.Generator().manual_seed(0))
    found = torch.zeros(120, 6)
    found.index_add_(0, target, weight[:, None] * memory.hidden[source])
    expected = memory.adjacency[cells.numpy()] @ memory.hidden.numpy()
    np.testing.assert_allclose(found[cells], expected, atol=1e-5)
    assert len(torch.unique(torch.stack([source, target]), dim=1)[0]) == len(source)


def test_a_minibatch_with_all_neighbours_equals_the_pass_over_all_cells():
    """The sampled subgraph of two hops and the layer-wise pass are the same computation."""
    torch.manual_seed(0)
    module = SCAGCModule(30, 30, n_hidden=6, n_latent=4, n_neighbors=8)
    memory, _ = memory_of(n_hidden=module.n_features)
    cells = torch.tensor([3, 50, 51, 119])
    around = Surroundings(memory, cells, (500, 500), torch.Generator().manual_seed(0)).sampled()
    module.eval()
    found = module._convolve(memory.hidden[cells], around, around.seed_weight)
    np.testing.assert_allclose(
        found.detach(), convolve_all(module, memory)[cells], rtol=1e-4, atol=1e-5
    )


def test_drawn_edges_lead_to_the_candidates_drawn():
    memory, _ = memory_of()
    cells = torch.tensor([10, 4])
    around = Surroundings(memory, cells, (5, 5), torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 3, 7], [19, 2, 5]])
    drawn = around.drawn(positions)
    nodes = torch.cat([memory.hidden[cells], drawn.features])
    sources = nodes[drawn.edge_index[0, :6]]
    expected = np.take_along_axis(memory.candidates[[10, 4]], positions.numpy(), axis=1)
    torch.testing.assert_close(sources, memory.hidden[expected.ravel()])
    assert drawn.edge_index[1, :6].tolist() == [0, 0, 0, 1, 1, 1]


def test_candidates_are_distinct_others_and_keep_the_first_neighbours():
    memory, _ = memory_of()
    for _ in range(2):
        for cell, row in enumerate(memory.candidates):
            assert cell not in row
            assert len(set(row)) == 20
            assert set(memory.near[cell]) <= set(row)
        memory.refresh_candidates()


def test_settled_rows_are_even_and_like():
    memory, kind = memory_of()
    memory.settle()
    graph = memory.graph().tocoo()
    first = memory.static_graph().tocoo()
    like = [(kind[g.row] == kind[g.col]).mean() for g in (graph, first)]
    assert like[0] >= like[1]
    spread = [np.bincount(g.row, minlength=120).std() for g in (graph, first)]
    assert spread[0] < 0.6 * spread[1]


def test_a_static_graph_stays():
    memory, _ = memory_of(adaptive=False)
    before = memory.graph().copy()
    memory.next_rows = np.roll(memory.next_rows, 1, axis=0)
    memory.end_epoch()
    memory.settle()
    memory.adopt(0.0)
    assert (memory.graph() != before).nnz == 0
    np.testing.assert_allclose(np.asarray(memory.adjacency.sum(axis=1)).ravel(), 1, rtol=1e-5)


def test_no_matrix_of_cells_by_cells_is_ever_dense():
    """Memory grows with the number of cells, not with its square."""
    sizes = []
    for n_cells in (600, 1200):
        memory, _ = memory_of(n_cells)
        held = 0
        for value in vars(memory).values():
            if isinstance(value, np.ndarray):
                held += value.nbytes
            elif isinstance(value, torch.Tensor):
                held += value.nbytes
            elif sparse.issparse(value):
                held += value.data.nbytes + value.indices.nbytes
        sizes.append(held)
    assert sizes[1] < 2.3 * sizes[0]


def test_variable_genes_are_those_of_scanpy():
    import scanpy as sc
    from anndata import AnnData

    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.6, 2.0, 400) * rng.gamma(2, 0.5, (300, 1)))
    adata = AnnData(sparse.csr_matrix(counts.astype(np.float64)))
    sc.pp.normalize_total(adata)
    values = adata.X.toarray()
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=80, flavor="seurat")
    found = variable_genes(values.mean(axis=0), values.var(axis=0, ddof=1), 80)
    expected = np.flatnonzero(adata.var["highly_variable"])
    assert len(np.intersect1d(found, expected)) >= 79
    assert isinstance(adata.var, pd.DataFrame)
    np.testing.assert_array_equal(variable_genes(np.ones(5), np.ones(5), 9), np.arange(5))


def test_input_constants_and_components_by_hand(counts):
    from sczoo.model import SCAGC

    SCAGC.setup_anndata(counts)
    module = SCAGC(counts, n_clusters=3).module
    x = counts.X.toarray().astype(np.float64)
    total = x.sum(axis=1, keepdims=True)
    logs = np.log1p(x * np.median(total) / total)
    scaled = np.clip((logs - logs.mean(0)) / logs.std(0, ddof=1), -10, 10)
    tensor = torch.from_numpy(x.astype(np.float32))
    np.testing.assert_allclose(module.scale(tensor), scaled, atol=1e-3)
    found = module.components(tensor).numpy()
    _, singular, _ = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
    spread = np.sqrt(((found - found.mean(0)) ** 2).sum(axis=0))
    np.testing.assert_allclose(spread, singular[: found.shape[1]], rtol=1e-3, atol=1e-2)
    assert pytest.approx(1, rel=1e-2) == (found[:, 0] * float(module.component_scale)).std()
