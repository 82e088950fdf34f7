"""A decoder given any bytes returns or raises FrameError, and reads and allocates nothing beyond them."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydec import compress
from pydec.compress import compressors
from pydec.errors import FrameError

QUANTISERS = ["fp8", "int2", "int4", "int8", "sign"]
HUGE = [2**16, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1]


def vector(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal(n).astype(np.float32)


def try_decode(compressor: compress.Compressor, payload: bytes, n: int) -> bool:
    """Whether the bytes are accepted; nothing but FrameError may come out."""
    out = np.full(n, 7.0, np.float32)
    try:
        compressor.decode(payload, out)
    except FrameError:
        assert np.all(out == 7.0)
        return False
    plain = compressor.views([payload], n) is not None  # as always of none, and of auto switched off
    assert np.all(np.isfinite(out)) or plain
    return True


@pytest.mark.parametrize("name", compressors)
@pytest.mark.parametrize("n", [0, 1, 17, 300])
def test_every_truncation_and_extension_is_refused(name, n):
    compressor = compress.make(name)
    payload = compressor.encode(vector(n))
    assert try_decode(compressor, payload, n)
    assert not any(try_decode(compressor, payload[:length], n) for length in range(len(payload)))
    assert not any(try_decode(compressor, payload + bytes(extra), n) for extra in range(1, 40))
    assert not any(try_decode(compressor, payload, wrong) for wrong in (n + 1, n + 256, 2 * n + 1))


@pytest.mark.parametrize("name", compressors)
@pytest.mark.parametrize("n", [1, 17, 300])
def test_every_flipped_bit_of_the_header_is_refused(name, n):
    compressor = compress.make(name)
    payload = compressor.encode(vector(n))
    for bit in range(8 * (32 if name == "topk" else 16)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        accepted = try_decode(compressor, bytes(damaged), n)
        # Another block with as many scales is a payload of its own; what guards it is the frame's digest.
        block = struct.unpack_from("<I", damaged, 4)[0] & 0xFFFFFF  # fp8 has its format above
        other = name in QUANTISERS and block and -(-n // block) == -(-n // 256)
        # So is another block with as many entries, another chunk or scaling of values at random places,
        # another rank that the matrix does not have, or number of iterations.
        other = other or (name in ("block-topk", "powersgd", "randk", "topk-int8") and 32 <= bit < 64)
        assert not accepted or other, bit


@pytest.mark.parametrize("name", compressors)
def test_flipped_bits_anywhere_give_a_value_or_a_frame_error(name):
    compressor = compress.make(name)
    payload = compressor.encode(vector(300))
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        try_decode(compressor, bytes(damaged), 300)


@pytest.mark.parametrize("name", compressors)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_mutations_give_a_value_or_a_frame_error(name, data):
    compressor = compress.make(name)
    n = data.draw(st.sampled_from([0, 1, 16, 40, 300]))
    damaged = bytearray(compressor.encode(vector(n)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        piece = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(HUGE).map(pack_u64)))
        damaged[at : at + len(piece)] = piece
    try_decode(compressor, bytes(damaged), n)
    try:
        compress.from_wire(bytes(damaged))
    except FrameError:
        pass


@settings(max_examples=200, deadline=None, derandomize=True)
@given(payload=st.binary(max_size=120), n=st.integers(0, 64))
def test_arbitrary_bytes_give_a_value_or_a_frame_error(payload, n):
    for name in compressors:
        try_decode(compress.make(name), payload, n)


@pytest.mark.parametrize("name", compressors)
@pytest.mark.parametrize("count", HUGE)
def test_huge_counts_are_refused_without_allocating(name, count):
    compressor = compress.make(name)
    payload = compressor.encode(vector(64))
    out = np.zeros(64, np.float32)
    for at in (8, 16):  # n; then k of topk, or the first values of the others
        damaged = bytearray(payload)
        damaged[at : at + 8] = pack_u64(count)
        tracemalloc.start()
        try:
            compressor.decode(bytes(damaged), out)
        except FrameError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 100_000


@pytest.mark.parametrize("name", compressors)
def test_decoding_allocates_nothing_that_grows_with_the_vector(name):
    compressor = compress.make(name)
    n = 1 << 21
    payload = np.frombuffer(compressor.encode(vector(n)), np.uint8)
    out, residual = np.zeros(n, np.float32), np.zeros(n, np.float32)
    room = np.empty(compressor.max_bytes(n), np.uint8)
    x = vector(n)
    tracemalloc.start()
    compressor.decode(payload, out)
    compressor.accumulate([payload, payload], [0.5, 0.5], out)
    compressor.encode_into(x, room)
    compressor.encode_feedback_into(x, residual, room)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def pack_u64(value: int) -> bytes:
    return struct.pack("<Q", value)
