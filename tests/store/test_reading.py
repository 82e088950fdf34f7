"""Samples are read by verified pieces first, by whole chunks where these pay; damage is found either way."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pydec.errors import ChunkError
from pydec.store.adding import add
from pydec.store.inputs import open_input
from pydec.store.reading import Samples
from pydec.store.shard import PIECE_BYTES, Index
from pydec.store.store import Store
from tests.store.cases import write

SIZE = 9000


class Counted:
    """The objects of a store, and what was asked of them."""

    def __init__(self, store: Store) -> None:
        self.objects, self.whole, self.bytes_peeked = store.objects, 0, 0

    def get(self, digest: bytes) -> bytes:
        self.whole += 1
        return self.objects.get(digest)

    def peek(self, digest: bytes, offset: int, n_bytes: int) -> bytes | None:
        self.bytes_peeked += n_bytes
        return self.objects.peek(digest, offset, n_bytes)


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (900, SIZE), np.uint8)


@pytest.fixture
def manifest(store, rows, tmp_path):
    np.save(tmp_path / "x.npy", rows)
    return add(store, open_input(str(tmp_path / "x.npy")), "d")


def test_a_first_batch_reads_pieces_and_what_comes_back_is_read_whole(store, rows, manifest):
    reader = Counted(store)
    samples = Samples(manifest, reader)
    wanted = np.array(random.Random(1).sample(range(900), 6))
    assert (samples.rows(wanted) == rows[wanted]).all()
    assert reader.whole == 1  # the index
    assert reader.bytes_peeked <= 6 * 2 * PIECE_BYTES
    everything = np.arange(900)
    for _ in range(2):
        for at in range(0, 900, 9):
            here = everything[at : at + 9]
            assert (samples.rows(here) == rows[here]).all()
    assert reader.whole == 1 + manifest.shards[0].chunks
    assert all(bytes(samples.raw(n)[0]) == rows[n].tobytes() for n in range(0, 900, 7))


def test_what_the_cache_would_not_have_held_is_read_by_pieces_for_ever(store, rows, manifest):
    reader = Counted(store)
    samples = Samples(manifest, reader, cache_bytes=2 << 20)
    per_chunk = (1 << 20) // SIZE
    for turn in range(5):
        for chunk in range(manifest.shards[0].chunks):
            number = min(899, chunk * per_chunk + turn)
            assert bytes(samples.raw(number)[0]) == rows[number].tobytes()
    assert reader.whole == 1


@pytest.mark.parametrize("at", [0, 70_000, 1_000_000])
def test_a_damaged_piece_is_found_and_one_elsewhere_is_not_asked_for(store, rows, manifest, at):
    index = store.layout(manifest, 0).index
    path = store.objects.path(index.names[0])
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    samples = Samples(manifest, store.objects)
    victim = at // SIZE
    with pytest.raises(ChunkError, match="damaged"):
        samples.raw(victim)
    assert bytes(Samples(manifest, store.objects).raw(899)[0]) == rows[899].tobytes()


def test_a_sample_in_an_undamaged_piece_is_right_whatever_else_is_damaged(store, rows, manifest):
    path = store.objects.path(store.layout(manifest, 0).index.names[0])
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    assert bytes(Samples(manifest, store.objects).raw(0)[0]) == rows[0].tobytes()


def test_an_index_of_pieces_has_one_encoding_and_small_chunks_have_none(store, manifest, tmp_path):
    data = store.objects.get(manifest.shards[0].index)
    index = Index.decode(data)
    assert index.encode() == data
    assert index.pieces is not None
    assert len(index.pieces) == sum(-(-n // PIECE_BYTES) for n in index.chunk_lengths if n > PIECE_BYTES)
    small = add(store, open_input(str(write(tmp_path / "in", {b"a": b"1"}))), "small")
    assert store.layout(small, 0).index.pieces is None
