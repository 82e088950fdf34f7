"""The start-up and evaluation helpers against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.comm.collect import broadcast, exact_mean, ring_mean
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Stream, Transport


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9])
@pytest.mark.parametrize("root", [0, -1])
def test_broadcast_gives_everyone_the_roots_bytes(size: int, root: int) -> None:
    root %= size

    def program(transport: Transport) -> bytes:
        data = np.full(1000, transport.rank, np.uint8)
        broadcast(transport, data, root)
        return data.tobytes()

    assert LocalCluster(size).run(program) == [bytes([root]) * 1000] * size


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [0, 1, 4, 1001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ring_mean_is_the_mean_with_the_same_bits_everywhere(size: int, n: int, dtype: type) -> None:
    x = np.random.default_rng(n).standard_normal((size, n)).astype(dtype)

    def program(transport: Transport) -> np.ndarray:
        mine = x[transport.rank].copy()
        ring_mean(transport, mine)
        return mine

    results = LocalCluster(size).run(program)
    np.testing.assert_allclose(results[0], x.mean(0), rtol=1e-5, atol=1e-6)
    assert all(np.array_equal(results[0], other) for other in results)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 8, 11])
@pytest.mark.parametrize("n", [0, 1, 1001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_mean_is_the_mean_in_few_rounds(size: int, n: int, dtype: type) -> None:
    x = np.random.default_rng(n).standard_normal((size, n)).astype(dtype)

    def program(transport: Transport) -> tuple[np.ndarray, int]:
        mine = x[transport.rank].copy()
        exact_mean(transport, mine)
        return mine, transport.stream(Stream.COLLECT).bytes_sent

    for mine, sent in LocalCluster(size).run(program):
        np.testing.assert_allclose(mine, x.mean(0), rtol=1e-5, atol=1e-6 if dtype is np.float32 else 1e-14)
        assert sent == (size - 1).bit_length() * x[0].nbytes


def test_broadcasts_and_means_in_a_row_do_not_meet() -> None:
    def program(transport: Transport) -> float:
        total = 0.0
        for step in range(5):
            data = np.full(3, transport.rank + step, np.uint8)
            broadcast(transport, data, step % transport.size)
            x = np.full(2, float(data[0]) + transport.rank)
            (exact_mean if step % 2 else ring_mean)(transport, x)
            total += x[1]
        return total

    results = LocalCluster(4).run(program)
    assert results == [results[0]] * 4  # small integers: exact in every order
