"""The streamed copy copies, whatever the addresses are."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 255, 256, 257, 70_003])
@pytest.mark.parametrize("shift", [0, 1, 15])
def test_copies(target, n, shift):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    room = np.zeros(n + shift + 1, np.float32)
    out = room[shift : shift + n]
    assert kernels.stream_copy(x, out) is out
    assert out.tobytes() == x.tobytes()
    assert not room[:shift].any()
    assert not room[shift + n :].any()


def test_addresses_may_be_odd(target, unaligned):
    x = np.arange(1001, dtype=np.float32)
    assert kernels.stream_copy(unaligned(x), unaligned(np.zeros_like(x))).tobytes() == x.tobytes()


def test_wrong_arguments_are_named():
    x = np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="x and out overlap"):
        kernels.stream_copy(x, x)
    with pytest.raises(ValueError, match="out must have 8 elements"):
        kernels.stream_copy(x, np.zeros(7, np.float32))
