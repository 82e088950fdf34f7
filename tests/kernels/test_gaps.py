"""Packed gaps are what their definition says, have one encoding, and nothing else is accepted."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

GROUP = 128


def reference(indices):
    """The bytes by the definition, bit by bit."""
    gaps = [int(b) - int(a) - 1 for a, b in zip([-1, *indices], indices, strict=False)]
    widths, groups = [], []
    for first in range(0, len(gaps), GROUP):
        group = gaps[first : first + GROUP]
        width = max(group).bit_length()
        lanes = [0] * 4
        for i, gap in enumerate(group):
            lanes[i % 4] |= gap << (i // 4 * width)
        words = -(-(-(-len(group) // 4) * width) // 32)
        widths.append(width)
        groups.append(
            np.array([[lane >> 32 * q & 0xFFFFFFFF for lane in lanes] for q in range(words)], "<u4")
        )
    return bytes(widths) + b"".join(group.tobytes() for group in groups)


def indices_of(k, width, seed=0):
    """k indices whose gaps have up to ``width`` bits, and in every group one that has them all."""
    rng = np.random.default_rng([k, width, seed])
    most = min((1 << width) - 1, ((1 << 32) - 1 - k) // max(1, k))  # the sum stays below 2^32
    gaps = rng.integers(0, most, k, endpoint=True)
    gaps[::GROUP] = most
    return (np.cumsum(gaps + 1) - 1).astype(np.uint32)


def pack(indices):
    n = int(indices[-1]) + 1 if indices.size else 0
    out = np.full(kernels.gaps_bound(n, indices.size), 0xAB, np.uint8)
    return out[: kernels.gaps_pack(indices, out)]


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5, 15, 16, 17, 127, 128, 129, 255, 256, 257, 5003])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 7, 8, 9, 10, 13, 16, 19])
def test_packs_as_defined_and_back(target, k, width):
    indices = indices_of(k, width)
    data = pack(indices)
    assert data.tobytes() == reference(indices.tolist())
    n = int(indices[-1]) + 1 if k else 0
    back = np.full(k, 7, np.uint32)
    assert kernels.gaps_unpack(data, n, back) == 0
    np.testing.assert_array_equal(back, indices)
    if k:
        assert kernels.gaps_unpack(data, n - 1, back) == kernels.GAPS_BAD_INDEX


@pytest.mark.parametrize("width", range(20, 33))
def test_wide_gaps(target, width):
    for places in (
        [(1 << width) - 1],
        [(1 << width) - 2, (1 << width) - 1],
        [0, 1, 2, (1 << width) - 1],
        [*range(130), (1 << width) - 1],
    ):
        indices = np.array(places, np.uint32)
        data = pack(indices)
        assert data.tobytes() == reference(places)
        back = np.zeros_like(indices)
        assert kernels.gaps_unpack(data, 1 << width, back) == 0
        np.testing.assert_array_equal(back, indices)


def test_addresses_may_be_odd(target, unaligned):
    indices = indices_of(300, 9)
    out = unaligned(np.zeros(kernels.gaps_bound(int(indices[-1]) + 1, 300), np.uint8))
    length = kernels.gaps_pack(unaligned(indices), out)
    assert out[:length].tobytes() == reference(indices.tolist())
    back = unaligned(np.zeros(300, np.uint32))
    assert kernels.gaps_unpack(unaligned(out[:length]), int(indices[-1]) + 1, back) == 0
    np.testing.assert_array_equal(back, indices)


@pytest.mark.parametrize(("fraction", "most"), [(0.01, 9.65), (0.001, 13.05)])
def test_bits_for_each_index(fraction, most):
    n = 1 << 24
    indices = np.flatnonzero(np.random.default_rng(0).random(n) < fraction).astype(np.uint32)
    assert 8 * pack(indices).size / indices.size < most


@pytest.mark.parametrize("k", [1, 5, 128, 129, 300])
@pytest.mark.parametrize("spare", [0, 1, 2, 3, 10, 100, 5000, 1 << 20])
def test_bound_holds_and_is_nearly_reached(k, spare):
    n = k + spare
    bound = kernels.gaps_bound(n, k)
    rng = np.random.default_rng([k, spare])
    groups = -(-k // GROUP)
    worst = 0
    for pieces in [groups, *rng.integers(1, groups + 1, 8)]:
        gaps = np.zeros(k, np.int64)
        places = np.sort(rng.choice(groups, pieces, replace=False)) * GROUP
        gaps[places] = spare // pieces
        gaps[places[: spare % pieces]] += 1
        indices = (np.cumsum(gaps + 1) - 1).astype(np.uint32)
        worst = max(worst, pack(indices).size)
    assert worst <= bound
    assert k % GROUP or groups > 1 or worst == bound  # one whole group reaches it


def test_every_other_encoding_is_refused(target):
    """Bytes that unpack are exactly those that packing gives."""
    rng = np.random.default_rng(0)
    indices = indices_of(140, 5)
    n = int(indices[-1]) + 1 + 40
    good = pack(indices)
    accepted = 0
    for _ in range(4000):
        data = good.copy()
        for place in rng.integers(0, data.size, rng.integers(1, 3)):
            data[place] ^= 1 << rng.integers(0, 8)
        back = np.full(140, 7, np.uint32)
        if kernels.gaps_unpack(data, n, back):
            assert np.all(back == 7)
            continue
        accepted += 1
        assert int(back[-1]) < n
        assert np.all(back[1:] > back[:-1])
        assert pack(back).tobytes() == data.tobytes()
    assert accepted > 0


def test_faults_are_told_apart():
    indices = np.array([3, 4, 9], np.uint32)  # gaps 3, 0, 4: three bits
    data, back = pack(indices), np.zeros(3, np.uint32)
    assert data[0] == 3
    assert kernels.gaps_unpack(data, 10, back) == 0
    assert kernels.gaps_unpack(data, 9, back) == kernels.GAPS_BAD_INDEX
    for length in range(data.size):
        assert kernels.gaps_unpack(data[:length], 10, back) == kernels.GAPS_BAD_LENGTH
    assert kernels.gaps_unpack(np.append(data, np.uint8(0)), 10, back) == kernels.GAPS_BAD_LENGTH
    for at, value, fault in (
        (0, 33, kernels.GAPS_BAD_LENGTH),
        (0, 255, kernels.GAPS_BAD_LENGTH),
        (0, 4, kernels.GAPS_BAD_WIDTH),
        (0, 2, kernels.GAPS_BAD_WIDTH),
        (13, 1, kernels.GAPS_BAD_WIDTH),  # the fourth lane, which has no gap
        (2, 1, kernels.GAPS_BAD_WIDTH),  # the first lane, after its gap
    ):
        damaged = data.copy()
        damaged[at] = value
        assert kernels.gaps_unpack(damaged, 10, back) == fault, (at, value)
    assert kernels.gaps_unpack(np.zeros(0, np.uint8), 0, back[:0]) == 0


def test_a_sum_beyond_32_bits_is_seen(target):
    """Two gaps of 2^32 - 1 would wrap around to a small index."""
    data = np.array([32, *[255] * 16], np.uint8)
    assert kernels.gaps_unpack(data, 2**32, np.zeros(2, np.uint32)) != 0
    data[9:] = 0  # lanes 2 and 3 have no gap
    assert kernels.gaps_unpack(data, 2**32, np.zeros(2, np.uint32)) == kernels.GAPS_BAD_INDEX


def test_wrong_arguments_are_named():
    indices = np.array([1, 5], np.uint32)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.3, got 4"):
        kernels.gaps_bound(3, 4)
    with pytest.raises(ValueError, match="indices must increase"):
        kernels.gaps_pack(indices[::-1].copy(), np.zeros(99, np.uint8))
    with pytest.raises(ValueError, match=r"out has 1 bytes, these indices may need \d+; see gaps_bound"):
        kernels.gaps_pack(indices, np.zeros(1, np.uint8))
    with pytest.raises(TypeError, match="indices must be a uint32 array"):
        kernels.gaps_pack(indices.astype(np.int64), np.zeros(99, np.uint8))
    with pytest.raises(ValueError, match="overlap"):
        kernels.gaps_unpack(indices.view(np.uint8), 9, indices)
