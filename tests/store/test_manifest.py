"""Manifests and indexes: one encoding each, and any other bytes are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydec.crypto.hashing import merkle_root
from pydec.errors import FrameError
from pydec.store.manifest import DTYPES, Field, Head, Kind, Manifest, Policy, Shard, Source, pack_shard
from pydec.store.shard import Index, Layout
from tests.consensus.test_decoders import Decoder, bounded, fuzz

FIELDS = (Field("path", Kind.BYTES), Field("x", Kind.ARRAY, "float32", (3, 4)), Field("note", Kind.TEXT))
SHARDS = (Shard(2, 200, 2, 90, b"i" * 32), Shard(1, 50, 1, 60, b"j" * 32))
SOURCE = Source(b"a/\xff.npy", b"head", 1, 0, 3, 160, b"d" * 32)


def manifest(**changes: object) -> Manifest:
    head = Head(
        "digits", "numpy", FIELDS, ("cat", "dög"), 3, 250, 1 << 20, (SOURCE,), Policy(owner=b"o" * 32)
    )
    return Manifest(dataclasses.replace(head, **changes), SHARDS)


def index(chunks: int = 2, samples: int = 3, columns: int = 2, most: int = 200) -> Index:
    rng = np.random.default_rng(chunks)
    return Index(
        rng.integers(0, 256, (chunks, 32), np.uint8),
        rng.integers(1, 1000, chunks),
        rng.integers(0, most, (samples, columns)),
    )


def coded() -> Index:
    plain = index()
    names = np.random.default_rng(9).integers(0, 256, (2, 3, 32), np.uint8)
    return Index(plain.chunks, plain.chunk_lengths, plain.lengths, fragments=names)


def in_pieces() -> Index:
    plain, sizes = index(), np.array([100_000, 50])
    return Index(plain.chunks, sizes, plain.lengths, pieces=np.full((2, 32), 7, np.uint8))


DECODERS = {
    "manifest": Decoder(Manifest.decode, Manifest.encode, [manifest().encode()]),
    "index": Decoder(
        Index.decode,
        Index.encode,
        [
            index().encode(),
            index(1, 4, 0).encode(),
            index(3, 2, 1, 1 << 40).encode(),
            coded().encode(),
            in_pieces().encode(),
        ],
    ),
}


@pytest.mark.parametrize("name", DECODERS)
def test_mutants_are_values_of_one_encoding_or_frame_errors(name):
    assert fuzz(DECODERS[name], 3000, seed=5) >= 0


@pytest.mark.parametrize("name", DECODERS)
def test_seeds_are_read_within_the_bounds(name):
    for seed in DECODERS[name].seeds:
        assert DECODERS[name].encode(bounded(DECODERS[name], seed)) == seed


def test_a_manifest_is_read_as_it_was_written():
    made = manifest()
    read = Manifest.decode(made.encode())
    assert read == made
    assert read.root == made.root
    assert made.root != manifest(name="other").root


def test_the_root_is_the_merkle_root_of_head_and_shards():
    data, records = manifest().encode(), [pack_shard(shard) for shard in SHARDS]
    head = data[16 : len(data) - sum(map(len, records))]
    assert manifest().root == merkle_root([head, *records])


@given(st.binary(max_size=400))
def test_any_bytes_are_a_manifest_or_a_frame_error(data):
    for start in (b"", manifest().encode()[:16], manifest().encode()[:40]):
        with pytest.raises(FrameError):
            Manifest.decode(start + data)


names = st.text("abcXYZ019._-", min_size=1, max_size=64).filter(lambda name: name[0] not in "._-")
arrays = st.builds(
    lambda name, dtype, shape: Field(name, Kind.ARRAY, dtype, tuple(shape)),
    st.text(min_size=1, max_size=20),
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(1, 9), max_size=4),
)
others = st.builds(Field, st.text(min_size=1, max_size=20), st.sampled_from([Kind.BYTES, Kind.TEXT]))


@settings(max_examples=50)
@given(names, st.lists(arrays | others, min_size=1, max_size=5, unique_by=lambda field: field.name))
def test_all_names_and_fields_survive(name, fields):
    made = manifest(name=name, fields=tuple(fields), sources=())
    assert Manifest.decode(made.encode()) == made


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a/b"}, "is no name"),
        ({"name": ""}, "is no name"),
        ({"fields": ()}, "at least"),
        ({"fields": (FIELDS[0], FIELDS[0])}, "different names"),
        ({"samples": 4, "sources": ()}, "the head says"),
        ({"sources": (dataclasses.replace(SOURCE, samples=9),)}, "that there are not"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        manifest(**changes)


def test_another_format_is_named():
    data = bytearray(manifest().encode())
    data[11] = 9
    with pytest.raises(FrameError, match="format 9, this pydec reads format 1"):
        Manifest.decode(bytes(data))


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 3), st.integers(0, 42))
def test_an_index_is_read_as_it_was_written(chunks, samples, columns, bits):
    made = index(chunks, samples, columns, 1 << bits)
    read = Index.decode(made.encode())
    assert read.names == made.names
    np.testing.assert_array_equal(read.lengths, made.lengths)
    np.testing.assert_array_equal(read.chunk_lengths, made.chunk_lengths)


def test_an_index_of_another_shard_is_refused():
    head = manifest().head
    with pytest.raises(FrameError, match="the manifest says"):
        Layout(head, SHARDS[0], index())
