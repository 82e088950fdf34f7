"""Payloads of the narrow quantisers, their contraction and variance, and rounding at random."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

from pydec import compress, kernels
from pydec.errors import ConfigError, FrameError

RANDOM = ["int8", "int4", "int2", "int4:block=32", "int2:block=1024"]
LARGEST = np.finfo(np.float32).max


def stochastic(spec, key=0):
    return compress.make(f"{spec}{',' if ':' in spec else ':'}rounding=stochastic").keyed(key)


def decoded(compressor, x):
    return compressor.decode(compressor.encode(x), np.empty_like(x))


def vector(n, seed=0):
    return np.random.default_rng([n, seed]).standard_normal(n).astype(np.float32)


def header(wire_id, parameter, n):
    return struct.pack("<BBBBIQ", wire_id, 1, 1, 0, parameter, n)


def test_payloads_are_pinned():
    x = np.array([7.0, -3.0, 0.4, -7.0, *[0.0] * 12, 1.0, *[0.0] * 15, -14.0], np.float32)
    first = bytes([0x17, 0x0D, 0x00, 0x09, *[0] * 12])  # elements 0..15 low, 16..31 high
    assert compress.make("int4:block=32").encode(x) == (
        header(7, 32, 33) + np.array([1, 2], "<f4").tobytes() + first + bytes([0x09]) + bytes(15)
    )
    x = np.zeros(64, np.float32)
    x[[0, 16, 33, 63]] = 3.0, -3.0, 3.0, -3.0
    codes = bytes([0b1101, 0b010000, *[0] * 13, 0b11000000])
    assert compress.make("int2:block=64").encode(x) == header(8, 64, 64) + struct.pack("<f", 3) + codes
    x = np.ones(20, np.float32)
    x[[1, 17, 19]] = -1.0
    bits = bytes([0, 0b11, 0, 0b10, *[0] * 12])
    assert compress.make("sign:block=128").encode(x) == header(9, 128, 20) + struct.pack("<f", 1) + bits
    x = np.array([448.0, -1.0, 2.0**-9], np.float32)
    assert compress.make("fp8").encode(x) == header(6, 256, 3) + struct.pack("<f", 1) + bytes([0x7E, 0xB8, 1])
    x = np.array([57344.0, -1.0, 2.0**-16], np.float32)
    assert compress.make("fp8:format=e5m2").encode(x) == (
        header(6, 256 | 1 << 24, 3) + struct.pack("<f", 1) + bytes([0x7B, 0xBC, 1])
    )


@pytest.mark.parametrize(
    ("spec", "bits"), [("int8", 8.125), ("fp8", 8.125), ("int4", 4.125), ("int2", 2.125), ("sign", 1.125)]
)
def test_sizes_are_as_stated(spec, bits):
    assert compress.make(spec).max_bytes(1 << 20) == 16 + bits * (1 << 17)


@pytest.mark.parametrize("spec", ["int4", "int4:block=32", "int2", "int2:block=4096"])
@pytest.mark.parametrize("n", [1, 16, 1000])
def test_contraction_to_nearest_is_tight_for_the_worst_vector(spec, n):
    compressor = compress.make(spec)
    x = np.full(n, 0.5, np.float32)  # half a scale rounds to zero
    x[:: compressor.block] = kernels.TOP_LEVEL[compressor.codec]
    y = decoded(compressor, x)
    whole = (n // compressor.block) * compressor.block or n
    ratio = np.sum((x - y)[:whole] ** 2, dtype=np.float64) / np.sum(x[:whole] ** 2, dtype=np.float64)
    assert ratio == pytest.approx(1 - compressor.delta(n), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("n", [1, 256, 1024])
def test_contraction_of_sign_is_tight_for_a_lonely_element(n):
    x = np.zeros(n, np.float32)
    x[::256] = -5.0
    y = decoded(compress.make("sign"), x)
    ratio = np.sum((x - y) ** 2, dtype=np.float64) / np.sum(x**2, dtype=np.float64)
    assert ratio == pytest.approx(1 - compress.make("sign").delta(n), rel=1e-6, abs=1e-12)
    gauss = vector(1 << 16)
    error = np.sum((gauss - decoded(compress.make("sign"), gauss)) ** 2) / np.sum(gauss**2)
    assert error == pytest.approx(1 - 2 / np.pi, abs=0.01)


@pytest.mark.parametrize(("spec", "worst"), [("fp8", 17 / 16), ("fp8:format=e5m2", 9 / 8)])
def test_contraction_of_fp8_is_nearly_reached(spec, worst):
    compressor = compress.make(spec)
    top = kernels.TOP_LEVEL[compressor.codec]
    x = np.full(256, worst * 2.0 ** np.floor(np.log2(top)), np.float32)  # between 1 and its neighbour
    x[0] = top
    ratio = np.sum((x - decoded(compressor, x)) ** 2) / np.sum(x**2)
    assert 0.95 * (1 - compressor.delta(256)) < ratio <= 1 - compressor.delta(256)


@pytest.mark.parametrize("spec", RANDOM)
@pytest.mark.parametrize("n", [1, 33, 3000])
def test_random_rounding_keeps_its_variance_and_its_mean(spec, n):
    compressor = stochastic(spec)
    omega, m = compressor.variance(n), min(compressor.block, n) - 1
    assert compressor.delta(n) == max(0.0, 1 - omega)
    top = kernels.TOP_LEVEL[compressor.codec]
    worst = np.full(n, 1 / (1 + np.sqrt(1 + m / top**2)), np.float32)
    worst[:: compressor.block] = top
    whole = (n // compressor.block) * compressor.block or n
    for x, tight in ((vector(n), False), (worst[:whole], True)):
        errors = np.stack([decoded(stochastic(spec, key), x) - x for key in range(400)]).astype(np.float64)
        size = np.sum(x.astype(np.float64) ** 2)
        variance = np.sum(errors**2, axis=1).mean() / size
        # The largest element of a block falls one level short once in 2^14 to 2^15 times.
        assert variance <= omega * 1.1 + 0.01 / top**2
        assert not tight or variance == pytest.approx(omega, rel=0.1, abs=0.01 / top**2)
        step = np.abs(x).max() / top
        assert np.abs(errors.mean(axis=0)).max() <= 5 * step / 2 / np.sqrt(400) + 1e-6


@pytest.mark.parametrize("spec", RANDOM)
def test_keys_decide_what_is_drawn(spec):
    x = vector(5000)
    assert stochastic(spec, 7).encode(x) == stochastic(spec, 7).encode(x)
    assert stochastic(spec, 7).encode(x) != stochastic(spec, 8).encode(x)
    same = compress.make(spec)
    assert same.keyed(5) is same
    assert same.variance(10) is None
    found = compress.from_wire(stochastic(spec, 7).encode(x))
    assert found == same
    for where in (1, 2**32, 2**64 - 1):
        assert stochastic(spec, where).encode(x) != stochastic(spec, 0).encode(x)


@pytest.mark.parametrize("spec", RANDOM)
def test_feedback_works_with_random_rounding(spec):
    x, before = vector(5000), vector(5000, 1)
    compressor, residual = stochastic(spec, 3), before.copy()
    out = np.empty(compressor.max_bytes(5000), np.uint8)
    compressor.encode_feedback_into(x, residual, out)
    assert out.tobytes() == compressor.encode(x + before)
    np.testing.assert_array_equal(residual, (x + before) - compressor.decode(out, np.empty_like(x)))


def test_draw_keys_of_other_messages_are_others():
    keys = {compress.draw_key(*parts) for parts in itertools.product(range(12), repeat=4)}
    keys |= {compress.draw_key(*range(length)) for length in range(20)}
    assert len(keys) == 12**4 + 20 - 1  # range(4) is in both
    assert all(0 <= key < 1 << 64 for key in keys)
    assert compress.draw_key(0, 1, 2, 3) == 8034785127890861263


@pytest.mark.parametrize("spec", ["int4", "int2", "sign", "fp8", "fp8:format=e5m2"])
def test_what_would_decode_to_infinity_is_refused(spec):
    compressor = compress.make(spec)
    x = np.full(600, 1.0, np.float32)
    x[300:] = LARGEST
    try:
        assert np.all(np.isfinite(decoded(compressor, x)))
    except ValueError as error:
        assert "cannot encode magnitudes as large as 3.402823e+38: they would decode" in str(error)  # noqa: PT017
        residual, before = vector(600), vector(600)
        with pytest.raises(ValueError, match="cannot encode magnitudes"):
            compressor.encode_feedback_into(x, residual, np.empty(compressor.max_bytes(600), np.uint8))
        np.testing.assert_allclose(residual[:256], before[:256], atol=1e-6)


def test_padding_of_a_payload_must_be_zero():
    for spec in ("int4", "int2", "sign"):
        payload = bytearray(compress.make(spec).encode(vector(20)))
        payload[-1] = 0x10 if spec != "sign" else 2
        with pytest.raises(FrameError, match=f"{spec} payload has bits after the last element"):
            compress.make(spec).decode(bytes(payload), np.empty(20, np.float32))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("int4:block=16", "block must be a multiple of 32 in 32..65536, got 16"),
        ("int2:block=96", "block must be a multiple of 64 in 64..65536, got 96"),
        ("sign:block=64", "block must be a multiple of 128 in 128..65536, got 64"),
        ("fp8:format=e3m4", "format must be one of e4m3, e5m2, got 'e3m4'"),
        ("fp8:block=8", "block must be a multiple of 16 in 16..65536, got 8"),
        ("int4:rounding=up", "rounding must be one of nearest, stochastic, got 'up'"),
        ("int4:draw_key=-1", r"draw_key must be in 0..2\^64 - 1, got -1"),
    ],
)
def test_bad_specifications_name_the_option_and_its_range(spec, message):
    with pytest.raises(ConfigError, match=message):
        compress.make(spec)


@pytest.mark.parametrize("parameter", [0, 17, 65552, 256 | 2 << 24, 256 | 255 << 24])
def test_bad_parameters_of_fp8_are_refused(parameter):
    payload = header(6, parameter, 3) + struct.pack("<f", 1) + bytes(3)
    with pytest.raises(FrameError, match=r"fp8 payload has (block|format)"):
        compress.make("fp8").decode(payload, np.empty(3, np.float32))
    with pytest.raises(FrameError, match=r"fp8 payload has (block|format)"):
        compress.from_wire(payload)
