"""Telling pickles and archives from safetensors by their first bytes."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

from sczoo.testing._privacy import is_pickle_or_archive


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_and_archives_are_recognised(protocol):
    assert is_pickle_or_archive(pickle.dumps({"a": np.arange(3)}, protocol=protocol))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", "x")
    assert is_pickle_or_archive(buffer.getvalue())


def test_a_safetensors_header_of_any_length_is_none():
    lengths = set()
    for size in range(1, 1500):
        content = save({"x" * size: np.zeros(1, dtype=np.float32)})
        lengths.add(content[:2])
        assert not is_pickle_or_archive(content)
    assert b"\x80\x05" in lengths
