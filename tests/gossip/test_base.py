"""Buckets cover the vector once, start on block boundaries and shrink with the degree."""

from __future__ import annotations

import pytest

from pydec.gossip.base import BUCKET_ELEMENTS, bucket_bounds


@pytest.mark.parametrize("n", [0, 1, 255, 4096, 4097, 3 * BUCKET_ELEMENTS + 5])
@pytest.mark.parametrize("block", [1, 256])
@pytest.mark.parametrize("degree", [0, 1, 4])
def test_buckets_tile_the_vector_on_block_boundaries(n: int, block: int, degree: int) -> None:
    bounds = bucket_bounds(n, block, degree)
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds)][: len(bounds)]
    assert sum(stop - start for start, stop in bounds) == n
    assert all(start % block == 0 for start, _ in bounds)
    assert all(0 < stop - start <= BUCKET_ELEMENTS for start, stop in bounds)


def test_a_global_compressor_gets_the_whole_vector() -> None:
    assert bucket_bounds(5 * BUCKET_ELEMENTS, 0, 3) == [(0, 5 * BUCKET_ELEMENTS)]


def test_one_bucket_of_every_neighbour_fits_in_one_model() -> None:
    n = 1 << 20
    start, stop = bucket_bounds(n, 256, 8)[0]
    assert 8 * (stop - start) <= n
