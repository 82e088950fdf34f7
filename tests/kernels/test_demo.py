"""Tiles by their largest coefficients: transform, choice, records, and the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

CASES = [(16, 1), (16, 256), (32, 32), (64, 1), (64, 32), (64, 700)]
WIDTHS = {"float32": 4, "bf16": 2, "int8": 1}


def sizes(side):
    return [0, 1, 15, 16, 17, side**2 - 1, side**2, side**2 + 1, 3 * side**2 + 77]


def cosines(side):
    i = np.arange(side)
    matrix = np.cos((2 * i + 1) * i[:, None] * np.pi / (2 * side)) * np.sqrt(2 / side)
    matrix[0] /= np.sqrt(2)
    return matrix


def tiles_of(a, side):
    padded = np.zeros(-(-a.size // side**2) * side**2)
    padded[: a.size] = a
    return padded.reshape(-1, side, side)


def spectra(a, side):
    """Coefficients of every tile in float64, by their index v * side + u."""
    c = cosines(side)
    return (c @ tiles_of(a, side) @ c.T).transpose(0, 2, 1).reshape(-1, side**2)


def vector_of(spectrum, side, n):
    c = cosines(side)
    return (c.T @ spectrum.reshape(-1, side, side).transpose(0, 2, 1) @ c).reshape(-1)[:n]


def split(records, n, side, k, kind):
    """Values (decoded) and indices of every tile."""
    width, bits = WIDTHS[kind], 2 * (side.bit_length() - 1)
    rows = records.reshape(-(-n // side**2), kernels.demo_bytes(1, side, k, kind))
    values, at = rows[:, : k * width].copy(), k * width
    if kind == "float32":
        values = values.view("<f4")
    elif kind == "bf16":
        values = (values.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = values.view(np.int8).astype(np.float32) * rows[:, at : at + 4].copy().view("<f4")
        at += 4
    stream = np.unpackbits(rows[:, at:], axis=1, bitorder="little")
    assert not stream[:, k * bits :].any()
    places = stream[:, : k * bits].reshape(-1, k, bits) @ (1 << np.arange(bits))
    return values.reshape(-1, k), places.reshape(-1, k)


def encode(x, residual, side, k, kind="float32", beta=1.0):
    records = np.full(kernels.demo_bytes(x.size, side, k, kind), 0xAB, np.uint8)
    assert kernels.demo_encode(x, residual, records, side, k, kind, beta) == (0, 0)
    return records


@pytest.mark.parametrize(("side", "k"), CASES)
@pytest.mark.parametrize("place", range(9))
def test_sends_the_largest_coefficients_of_every_tile(target, side, k, place):
    n = sizes(side)[place]
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    records = encode(x, None, side, k)
    values, places = split(records, n, side, k, "float32")
    exact = spectra(x, side)
    error = 1e-6 * max(1.0, np.sqrt(n))
    for tile in range(values.shape[0]):
        assert np.all(np.diff(places[tile]) > 0)
        np.testing.assert_allclose(values[tile], exact[tile][places[tile]], atol=error)
        left = np.delete(np.abs(exact[tile]), places[tile])
        assert left.max(initial=0.0) <= np.abs(values[tile]).min() + error
    out = kernels.demo_decode(records, np.full(n, np.nan, np.float32), side, k, "float32")
    kept = np.zeros_like(exact)
    np.put_along_axis(kept, places, values, axis=1)
    np.testing.assert_allclose(out, vector_of(kept, side, n), atol=3e-6)
    assert kernels.demo_check(records, n, side, k, "float32") == values.shape[0]


@pytest.mark.parametrize("side", [16, 32, 64])
def test_every_frequency_is_found_and_restored(target, side):
    """One coefficient at a time: no butterfly has a wrong sign or angle."""
    rng = np.random.default_rng(side)
    indices = rng.permutation(side**2)[:256]
    spectrum = np.zeros((256, side**2))
    spectrum[np.arange(256), indices] = 3.0
    x = vector_of(spectrum, side, 256 * side**2).astype(np.float32)
    records = encode(x, None, side, 1)
    values, places = split(records, x.size, side, 1, "float32")
    np.testing.assert_array_equal(places[:, 0], indices)
    np.testing.assert_allclose(values, 3.0, rtol=1e-6)
    np.testing.assert_allclose(
        kernels.demo_decode(records, np.empty_like(x), side, 1, "float32"), x, atol=1e-6
    )


@pytest.mark.parametrize("side", [16, 64])
def test_the_transform_is_as_accurate_as_float_can_be(target, side):
    x = (np.random.default_rng(3).standard_normal(8 * side**2) + 5).astype(np.float32)
    k = side**2
    records = encode(x, None, side, k)
    back = kernels.demo_decode(records, np.empty_like(x), side, k, "float32")
    assert np.sqrt(np.mean((back - x) ** 2)) < 3e-7 * np.sqrt(np.mean(x**2))
    values, places = split(records, x.size, side, k, "float32")
    exact = np.take_along_axis(spectra(x, side), places, axis=1)
    assert np.sqrt(np.mean((values - exact) ** 2)) < 2e-7 * np.sqrt(np.mean(exact**2))


@pytest.mark.parametrize(("side", "k"), CASES)
@pytest.mark.parametrize("kind", WIDTHS)
def test_every_instruction_set_and_thread_count_gives_the_same_bits(side, k, kind, unaligned):
    n = 70 * side**2 + 5
    x, before = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    x[: side**2] *= 1e-3
    found, threads = set(), kernels.num_threads()
    for name in kernels.targets():
        for count in (1, 3):
            kernels.set_target(name)
            kernels.set_num_threads(count)
            residual, moved = before.copy(), unaligned(before)
            records = encode(x, residual, side, k, kind)
            assert encode(x + before, None, side, k, kind).tobytes() == records.tobytes()
            assert encode(unaligned(x), moved, side, k, kind).tobytes() == records.tobytes()
            out = kernels.demo_decode(unaligned(records), unaligned(np.empty_like(x)), side, k, kind)
            np.testing.assert_array_equal(residual, (x + before) - out)
            assert moved.tobytes() == residual.tobytes()
            found.add((records.tobytes(), out.tobytes()))
    kernels.set_num_threads(threads)
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("size", [1.0, 1e-36, 1e30])
def test_values_are_rounded_as_stated(target, kind, size):
    n, side, k = 5 * 1024 + 9, 32, 40
    x = (np.random.default_rng(0).standard_normal(n) * size).astype(np.float32)
    exact, places = split(encode(x, None, side, k), n, side, k, "float32")
    values, same = split(encode(x, None, side, k, kind), n, side, k, kind)
    np.testing.assert_array_equal(same, places)
    largest = np.abs(exact).max(axis=1, keepdims=True)
    bound = np.abs(exact) * 2.0**-8 if kind == "bf16" else largest / 253.9
    assert np.all(np.abs(values - exact) <= bound)


HARD = {
    "equal": lambda n, rng: np.full(n, -0.25),
    "zero": lambda n, rng: np.zeros(n),
    "one": lambda n, rng: np.eye(1, n, 4096 + 17)[0],
    "growing tiles": lambda n, rng: rng.standard_normal(n) * np.exp(np.arange(n) // 4096 * 9.0 - 60),
    "shrinking tiles": lambda n, rng: rng.standard_normal(n) * np.exp(60 - np.arange(n) // 4096 * 9.0),
    "alternating scales": lambda n, rng: (
        rng.standard_normal(n) * np.where(np.arange(n) // 4096 % 2, 1e30, 1e-30)
    ),
    "tiny": lambda n, rng: rng.integers(-99, 99, n) * 1e-44,
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("k", [1, 32, 4096])
def test_no_data_defeats_the_guess(target, name, k):
    n = 13 * 4096
    x = HARD[name](n, np.random.default_rng(5)).astype(np.float32)
    residual = np.zeros(n, np.float32)
    values, places = split(encode(x, residual, 64, k), n, 64, k, "float32")
    exact = spectra(x, 64)
    for tile in range(13):
        assert np.all(np.diff(places[tile]) > 0)
        error = 1e-5 * np.abs(exact[tile]).max() + 1e-42
        np.testing.assert_allclose(values[tile], exact[tile][places[tile]], atol=error)
        left = np.delete(np.abs(exact[tile]), places[tile])
        assert left.max(initial=0.0) <= np.abs(values[tile]).min() + error
    if name in ("zero", "equal"):
        assert places[:, -1].tolist() == [k - 1] * 13  # ties go to the lowest index
        np.testing.assert_allclose(residual, 0, atol=1e-6)


def test_momentum_decays_and_gives_up_what_is_sent(target):
    n, side, k = 3000, 32, 20
    x, momentum = np.random.default_rng(1).standard_normal((2, n)).astype(np.float32)
    a = x + np.float32(0.9) * momentum
    records = encode(x, momentum, side, k, beta=0.9)
    assert records.tobytes() == encode(a, None, side, k).tobytes()
    sent = kernels.demo_decode(records, np.empty_like(x), side, k, "float32")
    np.testing.assert_array_equal(momentum, a - sent)


@pytest.mark.parametrize("place", range(9))
@pytest.mark.parametrize("m", [0, 1, 3])
@pytest.mark.parametrize("kind", WIDTHS)
def test_accumulates_in_order_at_odd_addresses(target, place, m, kind, unaligned):
    side, k = 16, 7
    n = sizes(side)[place]
    rng = np.random.default_rng(n)
    expected = rng.standard_normal(n).astype(np.float32)
    out, messages, weights = unaligned(expected), [], [0.3 * (j - 1.5) for j in range(m)]
    for weight in weights:
        messages.append(unaligned(encode(rng.standard_normal(n).astype(np.float32), None, side, k, kind)))
        dense = kernels.demo_decode(messages[-1], np.empty(n, np.float32), side, k, kind)
        expected = expected + np.float32(weight) * dense
    assert kernels.demo_accumulate(messages, weights, out, side, k, kind) is out
    np.testing.assert_array_equal(out, expected)


def test_tiles_that_cannot_be_sent_are_counted_and_kept(target):
    n, side, k = 5 * 256, 16, 8
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    x[[5, 6]], x[300], x[600:700] = [np.nan, -np.inf], np.inf, 3e38
    residual = np.zeros(n, np.float32)
    records = np.empty(kernels.demo_bytes(n, side, k, "int8"), np.uint8)
    assert kernels.demo_encode(x, residual, records, side, k, "int8") == (3, 1)
    assert kernels.demo_check(records, n, side, k, "int8") == 5
    sent = kernels.demo_decode(records, np.empty_like(x), side, k, "int8")
    assert not sent[:768].any()
    assert sent[768:].any()
    np.testing.assert_array_equal(residual[:768], x[:768])
    np.testing.assert_array_equal(residual[768:], x[768:] - sent[768:])
    limit = np.float32(2.0**120)
    assert kernels.demo_encode(np.full(256, limit / 15), None, records[:20], side, k, "int8") == (0, 1)
    assert kernels.demo_encode(np.full(256, limit / 17), None, records[:20], side, k, "int8") == (0, 0)


def damaged(records, at, value):
    bad = records.copy()
    bad[at] = value
    return bad


def test_records_are_checked(target):
    x = np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    records = encode(x, None, 32, 3)  # 12 bytes of values, 30 bits of indices
    assert records.size == 16
    assert kernels.demo_check(records, 1024, 32, 3, "float32") == 1
    for value in (np.nan, np.inf, -np.inf, 2.0**118):
        bad = records.copy()
        bad[4:8].view("<f4")[:] = value
        assert kernels.demo_check(bad, 1024, 32, 3, "float32") == 0
    equal = np.frombuffer((7 | 7 << 10 | 9 << 20).to_bytes(4, "little"), np.uint8)
    falling = np.frombuffer((7 | 6 << 10 | 9 << 20).to_bytes(4, "little"), np.uint8)
    surplus = np.frombuffer((7 | 8 << 10 | 9 << 20 | 1 << 31).to_bytes(4, "little"), np.uint8)
    for places in (equal, falling, surplus):
        assert kernels.demo_check(np.concatenate([records[:12], places]), 1024, 32, 3, "float32") == 0
    codes = encode(x, None, 32, 3, "int8")
    assert kernels.demo_check(codes, 1024, 32, 3, "int8") == 1
    assert kernels.demo_check(damaged(codes, 1, 0x80), 1024, 32, 3, "int8") == 0
    for scale in (np.nan, -1.0, 1e38):
        bad = codes.copy()
        bad[3:7].view("<f4")[:] = scale
        assert kernels.demo_check(bad, 1024, 32, 3, "int8") == 0
    rng = np.random.default_rng(1)
    for kind in WIDTHS:  # whatever the bytes, nothing outside is touched
        noise = rng.integers(0, 256, kernels.demo_bytes(5000, 64, 50, kind)).astype(np.uint8)
        kernels.demo_check(noise, 5000, 64, 50, kind)
        kernels.demo_decode(noise, np.empty(5000, np.float32), 64, 50, kind)


def test_wrong_arguments_are_named():
    x, records = np.zeros(100, np.float32), np.zeros(kernels.demo_bytes(100, 16, 2, "bf16"), np.uint8)
    with pytest.raises(ValueError, match="side must be 16, 32 or 64, got 8"):
        kernels.demo_encode(x, None, records, 8, 2, "bf16")
    with pytest.raises(ValueError, match=r"k must be in 1\.\.256, got 257"):
        kernels.demo_encode(x, None, records, 16, 257, "bf16")
    with pytest.raises(ValueError, match="values must be float32, bf16 or int8, got 'fp4'"):
        kernels.demo_bytes(100, 16, 2, "fp4")
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        kernels.demo_bytes(-1, 16, 2, "bf16")
    with pytest.raises(ValueError, match=r"records must have 6 elements \(one record for each tile\), got 5"):
        kernels.demo_decode(records[:5], x, 16, 2, "bf16")
    with pytest.raises(ValueError, match=r"records\[0\] must have 6 elements"):
        kernels.demo_accumulate([records[:5]], [1.0], x, 16, 2, "bf16")
    with pytest.raises(ValueError, match="equally many, got 1 and 2"):
        kernels.demo_accumulate([records], [1.0, 2.0], x, 16, 2, "bf16")
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.demo_accumulate([records], [np.inf], x, 16, 2, "bf16")
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.demo_encode(x, x, records, 16, 2, "bf16")
    with pytest.raises(ValueError, match="x and records overlap"):
        kernels.demo_encode(x, None, x.view(np.uint8)[:6], 16, 2, "bf16")
    with pytest.raises(ValueError, match="beta must be a finite"):
        kernels.demo_encode(x, None, records, 16, 2, "bf16", np.nan)
    with pytest.raises(TypeError, match="records must be a uint8 array, got int8"):
        kernels.demo_check(records.view(np.int8), 100, 16, 2, "bf16")
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.demo_decode(records, x, 16, 2, "bf16")
