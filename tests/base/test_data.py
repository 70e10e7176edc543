from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import scvi
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sczoo.base._data import BatchSampler, ZooDataSplitter

BATCH = 12


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n_obs", range(2, 3 * BATCH + 1))
def test_every_cell_once_and_no_batch_too_small(n_obs, shuffle):
    sampler = BatchSampler(n_obs, BATCH, shuffle=shuffle, seed=0)
    for _ in range(3):
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(chain.from_iterable(batches)) == list(range(n_obs))
        assert min(map(len, batches)) >= min(n_obs, max(2, BATCH // 4))
        assert max(map(len, batches)) < BATCH + max(2, BATCH // 4)


@given(n_obs=st.integers(2, 400), batch_size=st.integers(2, 70), smallest=st.integers(2, 10))
def test_the_smallest_batch_can_be_chosen(n_obs, batch_size, smallest):
    sampler = BatchSampler(
        n_obs, batch_size, shuffle=True, seed=1, min_batch_size=min(smallest, batch_size)
    )
    sizes = [len(batch) for batch in sampler]
    assert sum(sizes) == n_obs
    assert len(sizes) == len(sampler)
    assert min(sizes) >= min(n_obs, smallest, batch_size)


def test_the_order_is_new_in_each_epoch_and_depends_on_the_seed_alone():
    def epochs(seed):
        sampler = BatchSampler(100, 10, shuffle=True, seed=seed)
        return [list(sampler), list(sampler)]

    first = epochs(0)
    assert first[0] != first[1]
    torch.manual_seed(99)
    assert epochs(0) == first
    assert epochs(1) != first
    state = torch.get_rng_state()
    epochs(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_shuffling_the_cells_come_in_order():
    sampler = BatchSampler(25, 10, shuffle=False, seed=0, min_batch_size=2)
    assert list(chain.from_iterable(sampler)) == list(range(25))


def splitter(toy_class, counts, **kwargs):
    toy_class.setup_anndata(counts)
    manager = toy_class._get_most_recent_anndata_manager(counts)
    made = ZooDataSplitter(manager, batch_size=32, **kwargs)
    made.setup()
    return made


@hypothesis_settings(deadline=None, max_examples=20)
@given(st.sampled_from([(None, None), (0.8, None), (0.5, 0.25), (None, 0.2)]))
def test_the_split_covers_what_it_should(sizes):
    # fixtures are not reset between examples, so the data are made here
    from anndata import AnnData
    from scvi.data import AnnDataManager
    from scvi.data.fields import LayerField

    manager = AnnDataManager([LayerField("X", None)], setup_method_args={})
    manager.register_fields(AnnData(np.ones((150, 4), dtype=np.float32)))
    made = ZooDataSplitter(manager, train_size=sizes[0], validation_size=sizes[1], seed=5)
    made.setup()
    parts = [made.train_idx, made.val_idx, made.test_idx]
    together = np.concatenate(parts)
    train = sizes[0] if sizes[0] is not None else 1 - (sizes[1] or 0)
    assert abs(len(parts[0]) - train * 150) <= 1
    assert sorted(together) == list(range(150))


def test_batches_hold_the_right_rows(toy_class, counts):
    made = splitter(toy_class, counts)
    matrix = counts.X.toarray()
    seen = np.concatenate([batch["X"].numpy() for batch in made.train_dataloader()])
    expected = matrix[np.lexsort(matrix.T)]
    np.testing.assert_array_equal(seen[np.lexsort(seen.T)], expected)


def test_all_cells_are_trained_on_unless_told_otherwise(toy_class, counts):
    made = splitter(toy_class, counts)
    assert len(made.train_idx) == counts.n_obs
    assert list(made.val_dataloader()) == []


def test_the_split_depends_on_the_seed_given(toy_class, counts):
    def train_cells(**kwargs):
        return set(splitter(toy_class, counts, train_size=0.5, **kwargs).train_idx.tolist())

    scvi.settings.seed = None
    assert train_cells(seed=3) == train_cells(seed=3)
    assert train_cells(seed=3) != train_cells(seed=4)
    scvi.settings.seed = 3
    assert train_cells() == train_cells(seed=3)
