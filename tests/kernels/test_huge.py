"""More than 2^31 elements: indices and counts are 64-bit. Needs 14 GiB of memory: pytest -m slow -k huge."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pydec import compress, kernels

N = 2**31 + 300  # a ragged block at the end
FREE_GIB = 14
VALUES = {0: 1.5, 2**31 - 1: -2.0, 2**31: 3.0, N - 1: -127.0}


def available_gib() -> float:
    """Memory that programs can have, in GiB; 0 where the system does not say."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    except OSError:
        return 0.0
    return int(found[1]) / (1 << 20) if found else 0.0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        available_gib() < FREE_GIB,
        reason=f"needs {FREE_GIB} GiB of free memory",
    ),
]


@pytest.fixture
def x():
    """Zeros, but for a few elements on both sides of 2^31."""
    x = np.zeros(N, np.float32)
    for place, value in VALUES.items():
        x[place] = value
    return x


def places(values: np.ndarray) -> dict[int, float]:
    """The elements that are not 0, looked for piece by piece."""
    step = 1 << 26
    found = [start + np.flatnonzero(values[start : start + step]) for start in range(0, len(values), step)]
    return {int(place): float(values[place]) for place in np.concatenate(found)}


def test_sums_and_counts(x):
    assert kernels.sqnorm(x) == sum(value**2 for value in VALUES.values())
    x[N - 2] = np.nan
    assert kernels.count_nonfinite(x) == 1


def test_a_weighted_sum_in_place(x):
    kernels.mix([x], [2.0], x)
    assert places(x) == {place: 2 * value for place, value in VALUES.items()}


def test_int8_there_and_back(x):
    codes, scales = np.zeros(N, np.int8).view(np.uint8), np.zeros(-(-N // 256), np.float32)
    assert kernels.quant_encode(x, codes, scales, "int8", 256) == 0
    assert kernels.quant_check(codes, scales, N, "int8", 256) == 0
    assert kernels.quant_sqdist(codes, scales, x, "int8", 256) <= 1e-9
    kernels.quant_decode(codes, scales, x, "int8", 256)
    assert places(x) == pytest.approx(VALUES, rel=1e-6)


def test_the_largest_entries(x):
    compressor = compress.make("topk:k=3")
    payload = compressor.encode(x)
    x[:] = 0
    assert places(compressor.decode(payload, x)) == {k: v for k, v in VALUES.items() if abs(v) > 1.5}


def test_packed_gaps_of_the_largest_entries(x):
    compressor = compress.make("topk-int8:k=3")
    payload = compressor.encode(x)
    x[:] = 0
    sent = places(compressor.decode(payload, x))
    assert sorted(sent) == [2**31 - 1, 2**31, N - 1]
    assert sent[N - 1] == -127.0
