"""Payloads of demo and what its coefficients keep."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pydec import compress
from pydec.compress import ErrorFeedback
from pydec.compress.demo import DeMo
from pydec.errors import FrameError


def vector(n, seed=0):
    return np.random.default_rng([n, seed]).standard_normal(n).astype(np.float32)


def decoded(compressor, x):
    return compressor.decode(compressor.encode(x), np.empty_like(x))


def energy(x):
    return float(np.sum(np.asarray(x, np.float64) ** 2))


def header(n, k=2, log_tile=4, kind=0):
    return struct.pack("<BBBBIQ", 15, 1, 1, 0, k | log_tile << 16 | kind << 24, n)


def test_payloads_are_pinned():
    x = np.full(256, 2.0, np.float32)  # all in coefficient 0: 2 * 16, and two roundings of sqrt(1/2)
    payload = DeMo(k=2, tile=16).encode(x)
    assert payload == header(256) + struct.pack("<ff", 32 - 2.0**-19, 0) + bytes([0, 1])
    rows = np.repeat(np.cos((2 * np.arange(32) + 1) * 3 * np.pi / 64), 32).astype(np.float32)
    payload = DeMo(k=1, tile=32, values="bf16").encode(rows)  # u = 3, v = 0
    assert payload == header(1024, 1, 5, 1) + bytes([0xB5, 0x41]) + struct.pack("<H", 3)
    columns = np.tile(np.cos((2 * np.arange(64) + 1) * 5 * np.pi / 128), 64).astype(np.float32)
    payload = DeMo(k=1, tile=64, values="int8").encode(-columns)  # u = 0, v = 5
    assert payload[:17] == header(4096, 1, 6, 2) + bytes([0x81])
    assert struct.unpack("<f", payload[17:21])[0] == pytest.approx(64 * 0.5**0.5 / 127, rel=1e-6)
    assert payload[21:] == struct.pack("<H", 5 * 64)


@pytest.mark.parametrize(("values", "bits"), [("float32", 44 / 128), ("bf16", 28 / 128), ("int8", 21 / 128)])
def test_sizes_depend_on_nothing_but_n(values, bits):
    compressor = DeMo(values=values)
    for x in (np.zeros(1 << 14), vector(1 << 14), np.ones(1 << 14)):
        assert len(compressor.encode(x.astype(np.float32))) == compressor.max_bytes(1 << 14)
    assert compressor.max_bytes(1 << 20) == 16 + bits * (1 << 17)
    assert compressor.max_bytes(1) == compressor.max_bytes(4096)
    assert compressor.max_bytes(0) == 16


@pytest.mark.parametrize("values", ["float32", "bf16", "int8"])
@pytest.mark.parametrize(("tile", "k"), [(16, 1), (16, 100), (32, 64), (64, 32)])
@pytest.mark.parametrize("n", [1, 100, 4096, 10_000])
def test_contraction_holds_for_the_worst_spectrum(values, tile, k, n):
    compressor = DeMo(k=k, tile=tile, values=values)
    spike = np.zeros(n, np.float32)
    spike[:: tile**2] = 1.0  # its spectrum is as flat as any
    for x in (spike, vector(n), np.ones(n, np.float32)):
        error = energy(x - decoded(compressor, x))
        assert error <= (1 - compressor.delta(n)) * energy(x) * (1 + 1e-6)
    assert compressor.delta(0) == 1.0


def test_contraction_is_nearly_reached():
    """All coefficients of equal magnitude: 1 or -1 by a Hadamard matrix's cells would do as well."""
    side, i = 16, np.arange(16)
    cosines = np.cos((2 * i + 1) * i[:, None] * np.pi / 32) * np.sqrt(2 / side)
    cosines[0] /= np.sqrt(2)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (side, side))
    x = (cosines.T @ signs @ cosines).astype(np.float32).reshape(-1)
    compressor = DeMo(k=64, tile=16)
    assert energy(x - decoded(compressor, x)) / energy(x) == pytest.approx(
        1 - compressor.delta(256), rel=1e-5
    )


def test_smooth_vectors_arrive_nearly_whole():
    t = np.linspace(0, 1, 64)
    x = (np.sin(3 * t)[:, None] + np.cos(2 * t) ** 2).astype(np.float32).reshape(-1)
    assert energy(x - decoded(DeMo(k=32), x)) < 1e-5 * energy(x)


def test_error_feedback_sends_everything_in_the_end():
    feedback = ErrorFeedback(compress.make("demo:tile=16,k=32,values=int8"))
    x = vector(1000)
    sent = feedback.compressor.decode(feedback.encode("w", x), np.empty_like(x))
    for _ in range(40):
        sent += feedback.compressor.decode(feedback.encode("w", np.zeros_like(x)), np.empty_like(x))
    residual = feedback.residual("w")
    assert residual is not None
    np.testing.assert_allclose(sent + residual, x, atol=1e-5)
    assert energy(residual) < 1e-6 * energy(x)


def test_too_large_coefficients_are_refused_and_the_residual_kept():
    x, residual = vector(9000), vector(9000, 1)
    before = residual.copy()
    x[4096:4100] = 3e38
    compressor = DeMo()
    with pytest.raises(ValueError, match=r"cannot encode 1 of 3 tiles, whose coefficients reach 2\^116"):
        compressor.encode_feedback_into(x, residual, np.empty(compressor.max_bytes(9000), np.uint8))
    ordinary = np.delete(np.arange(9000), range(4096, 4100))
    np.testing.assert_allclose(residual[ordinary], before[ordinary], atol=2e-6)
    assert np.isfinite(residual).all()


GOOD = header(256) + struct.pack("<ff", 32, 1) + bytes([0, 1])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (header(256, k=0) + bytes(10), "tile 2.4, k=0"),
        (header(256, k=257) + bytes(1285), "k=257"),
        (header(256, log_tile=3) + bytes(10), "tile 2.3"),
        (header(256, log_tile=7) + bytes(12), "tile 2.7"),
        (header(256, log_tile=255) + bytes(12), "tile 2.255"),
        (header(256, kind=3) + bytes(10), "kind 3"),
        (GOOD[:-1], "has 25 bytes, its header says 26"),
        (GOOD + b"\0", "has 27 bytes, its header says 26"),
        (header(257) + GOOD[16:], "n=257 elements, expected n=256"),
        (GOOD[:24] + bytes([1, 1]), "places in tile 0 that do not increase"),
        (GOOD[:24] + bytes([2, 1]), "places in tile 0 that do not increase"),
        (GOOD[:16] + struct.pack("<ff", np.nan, 1) + GOOD[24:], "values that are not finite"),
        (GOOD[:16] + struct.pack("<ff", 1e37, 1) + GOOD[24:], "values that are not finite or too large"),
    ],
)
def test_bad_payloads_are_refused(payload, message):
    out = np.full(256, 7.0, np.float32)
    with pytest.raises(FrameError, match=message):
        compress.make("demo").decode(payload, out)
    assert np.all(out == 7.0)
    compress.make("demo").decode(GOOD, out)


@pytest.mark.parametrize(
    "spec", ["demo:tile=16,k=9", "demo:tile=16,k=9,values=int8", "demo:tile=32,k=5,values=bf16"]
)
def test_any_bytes_decode_or_are_refused(spec):
    rng = np.random.default_rng(0)
    compressor = compress.make(spec)
    good = np.frombuffer(compressor.encode(vector(600)), np.uint8)
    for _ in range(1500):
        bad = good.copy()
        for _ in range(rng.integers(1, 4)):
            bad[rng.integers(bad.size)] = rng.integers(256)
        bad = bad[: rng.integers(bad.size + 1)] if rng.random() < 0.2 else bad
        out = np.full(600, np.nan, np.float32)
        try:
            compressor.decode(bad, out)
        except FrameError:
            assert np.isnan(out).all()
        else:
            assert np.isfinite(out).all()


def test_payloads_of_different_shapes_accumulate_together():
    x = np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)
    specs = ["demo", "demo:k=5", "demo:tile=16,values=int8", "demo"]
    payloads = [compress.make(spec).encode(row) for spec, row in zip(specs, x, strict=True)]
    weights = [1.0, 0.5, 2.0, -1.0]
    out = np.zeros(1000, np.float32)
    compress.make("demo").accumulate(payloads, weights, out)
    expected = np.zeros(1000, np.float32)
    for payload, weight in zip(payloads, weights, strict=True):
        dense = compress.from_wire(payload).decode(payload, np.empty(1000, np.float32))
        expected = expected + np.float32(weight) * dense
    np.testing.assert_array_equal(out, expected)
