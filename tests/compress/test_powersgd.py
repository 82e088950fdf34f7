"""Payloads of powersgd, what a projection promises, and starting warm."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pydec import compress
from pydec.compress import ErrorFeedback, WarmStart
from pydec.compress.powersgd import PowerSGD
from pydec.errors import ConfigError, FrameError


def decoded(compressor, x):
    return compressor.decode(compressor.encode(x), np.empty_like(x))


def vector(n, seed=0):
    return np.random.default_rng([n, seed]).standard_normal(n).astype(np.float32)


def energy(x):
    return float(np.sum(np.asarray(x, np.float64) ** 2))


def header(n, rank=4, iterations=1, columns=1, key=0):
    return struct.pack("<BBBBIQQQ", 14, 1, 1, 0, rank | iterations << 8, n, columns, key)


def test_payload_is_pinned():
    x = np.outer([3, 0, -4, 0], [1, 2]).astype(np.float32).reshape(-1)[:7]
    payload = PowerSGD(rank=1, columns=2, draw_key=9).encode(x)
    assert payload[:32] == header(7, rank=1, columns=2, key=9)
    factors = np.frombuffer(payload[32:], "<f4")
    sign = np.sign(factors[0])
    np.testing.assert_allclose(factors * sign, [0.6, 0, -0.8, 0, 5, 10], rtol=1e-6)
    assert payload.hex() == (
        "0e010100010100000700000000000000"
        "0200000000000000"
        "0900000000000000"
        "9a99193f00000000cdcc4cbf000000000000a04000002041"
    )


@pytest.mark.parametrize(
    ("n", "shape"),
    [(0, (0, 1)), (1, (1, 1)), (16, (1, 16)), (17, (2, 16)), (257, (6, 48)), (1 << 24, (4081, 4112))],
)
def test_matrices_are_nearly_square(n, shape):
    compressor = PowerSGD()
    assert compressor.shape(n) == shape
    assert compressor.max_bytes(n) == 32 + 4 * min(4, *shape) * sum(shape)
    assert PowerSGD(columns=768).shape(10_000) == (14, 768)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 128, 1000, 100_003])
@pytest.mark.parametrize("rank", [1, 4, 8])
@pytest.mark.parametrize("iterations", [1, 2])
def test_is_a_projection_for_every_key(n, rank, iterations):
    compressor = PowerSGD(rank=rank, iterations=iterations)
    for key in range(5):
        x = vector(n, key)
        y = decoded(compressor.keyed(key), x)
        assert energy(x - y) <= energy(x) * (1 + 1e-6)
        assert energy(y) <= energy(x) * (1 + 1e-6)
        if compressor.delta(n) == 1:
            assert energy(x - y) <= 1e-11 * energy(x)


@pytest.mark.parametrize("rank", [1, 4])
def test_contraction_is_tight_for_a_matrix_without_structure(rank):
    identity = np.eye(48, dtype=np.float32).reshape(-1)
    compressor = PowerSGD(rank=rank, columns=48)
    assert compressor.delta(48 * 48) == rank / 48
    for key in range(20):
        error = energy(identity - decoded(compressor.keyed(key), identity)) / 48
        assert error == pytest.approx(1 - rank / 48, abs=1e-5)


@pytest.mark.parametrize("n", [300, 1000, 5000])
@pytest.mark.parametrize("rank", [1, 4])
def test_is_a_contraction_on_average(n, rank):
    compressor = PowerSGD(rank=rank)
    rows, columns = compressor.shape(n)
    lonely = np.zeros(n, np.float32)
    lonely[::columns] = 1  # rows that are all the same
    diagonal = np.zeros(n, np.float32)
    diagonal[: rows * (columns + 1) : columns + 1] = np.arange(
        1, len(diagonal[: rows * (columns + 1) : columns + 1]) + 1
    )
    for x in (vector(n), lonely, diagonal):
        errors = np.array([energy(x - decoded(compressor.keyed(key), x)) for key in range(300)]) / energy(x)
        assert errors.mean() <= 1 - compressor.delta(n) + 4 * errors.std() / 300**0.5 + 1e-6


def test_directions_follow_the_vector_and_the_key():
    x = vector(1000)
    compressor = PowerSGD()
    assert compressor.encode(x) == compressor.encode(x.copy())
    assert compressor.encode(x)[32:] != compressor.keyed(1).encode(x)[32:]
    assert not np.allclose(decoded(compressor, x), decoded(compressor.keyed(1), x), atol=0.1)


def test_low_rank_arrives_whole():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((90, 3)) @ rng.standard_normal((3, 64))).astype(np.float32).reshape(-1)[:-7]
    x[-57:] = 0  # the last row, cut short, may not spoil the rank
    y = decoded(PowerSGD(rank=3, columns=64), x)
    np.testing.assert_allclose(y, x, atol=2e-5)
    more = energy(x - decoded(PowerSGD(rank=2, columns=64, iterations=4), x))
    assert more < energy(x - decoded(PowerSGD(rank=2, columns=64), x))


def test_error_feedback_sends_everything_in_the_end():
    feedback = ErrorFeedback(compress.make("powersgd:rank=4"))
    x = vector(2000)
    feedback.encode("w", x)
    for _ in range(150):
        feedback.encode("w", np.zeros_like(x))
    residual = feedback.residual("w")
    assert residual is not None
    assert energy(residual) < 1e-6 * energy(x)


def test_a_warm_start_follows_the_leading_directions():
    rng = np.random.default_rng(0)
    leading = rng.standard_normal((100, 2)) @ rng.standard_normal((2, 100))
    warm, cold = WarmStart(PowerSGD(rank=2, columns=100)), ErrorFeedback(PowerSGD(rank=2, columns=100))
    errors = []
    for _ in range(12):
        x = (leading + 0.5 * rng.standard_normal((100, 100))).astype(np.float32).reshape(-1)
        for feedback in (warm, cold):
            feedback.reset() if feedback is cold else feedback._residuals.clear()
        errors.append([energy(x - decode_of(f, x)) for f in (warm, cold)])
    best = energy(x) - float(np.sum(np.linalg.svd(x.reshape(100, 100).astype(np.float64))[1][:2] ** 2))
    assert errors[-1][0] < 1.01 * best < 1.1 * best < errors[-1][1]


def decode_of(feedback, x):
    return feedback.compressor.decode(feedback.encode("w", x), np.empty_like(x))


def test_nothing_is_lost_with_a_warm_start():
    warm = WarmStart(PowerSGD(rank=3))
    x = np.random.default_rng(5).standard_normal((30, 500)).astype(np.float32)
    x[10:20] *= 1e-20  # directions that vanish come back
    sent = sum(decode_of(warm, row) for row in x)
    np.testing.assert_allclose(sent + warm.residual("w"), x.sum(axis=0), atol=2e-4)


def test_warm_state_survives_saving_and_loading():
    x = np.random.default_rng(6).standard_normal((6, 50)).astype(np.float32)
    straight, first = WarmStart(PowerSGD(rank=2)), WarmStart(PowerSGD(rank=2))
    expected = [straight.encode("w", row) for row in x]
    for row in x[:3]:
        first.encode("w", row)
    state = first.state_dict()
    assert set(state) == {"residual:w", "start:w"}
    first.encode("w", x[5])  # what was saved is a copy
    second = WarmStart(first.compressor)
    second.load_state_dict(state)
    assert [second.encode("w", row) for row in x[3:]] == expected[3:]
    with pytest.raises(ConfigError, match="'start:w' has NaN or infinite entries"):
        second.load_state_dict({"start:w": np.array([np.nan], np.float32)})
    with pytest.raises(ConfigError, match="'w' is neither residual:NAME nor start:NAME"):
        second.load_state_dict({"w": np.zeros(3, np.float32)})
    assert set(second.state_dict()) == set(state)
    second.reset()
    assert second.state_dict() == {}


def test_a_refused_vector_changes_neither_residual_nor_directions():
    x, residual, compressor = vector(200), vector(200, 1), PowerSGD(rank=2)
    start = np.zeros(32, np.float32)
    out = np.empty(compressor.max_bytes(200), np.uint8)
    compressor.encode_warm_into(x, None, start, out)
    known, before = start.copy(), residual.copy()
    x[3] = np.inf
    with pytest.raises(ValueError, match="cannot encode 1 NaN or infinite of 200 elements"):
        compressor.encode_warm_into(x, residual, start, out)
    np.testing.assert_array_equal(start, known)
    before[3] = 0
    np.testing.assert_allclose(residual, before, atol=1e-6)
    with pytest.raises(ValueError, match="cannot encode 200 elements whose products overflow float32"):
        compressor.encode(np.full(200, 3e38, np.float32))
    with pytest.raises(ValueError, match="start must have 32 elements, got 31"):
        compressor.encode_warm_into(vector(200), None, start[:31].copy(), out)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (header(6, rank=0, columns=2) + bytes(20), "rank 0 and 1 iterations"),
        (header(6, rank=9, columns=2) + bytes(40), "rank 9 and 1 iterations"),
        (header(6, rank=1, iterations=0, columns=2) + bytes(20), "rank 1 and 0 iterations"),
        (header(6, rank=1, iterations=17, columns=2) + bytes(20), "rank 1 and 17 iterations"),
        (header(6, rank=1, columns=0) + bytes(20), "0 columns for n=6"),
        (header(6, rank=1, columns=7) + bytes(32), "7 columns for n=6"),
        (header(6, rank=1, columns=2**63) + bytes(32), "columns for n=6"),
        (header(6, rank=1, columns=2) + bytes(16), "has 48 bytes, its header says 52"),
        (header(6, rank=1, columns=2) + bytes(24), "has 56 bytes, its header says 52"),
        (header(7, rank=1, columns=2) + bytes(24), "n=7 elements, expected n=6"),
        (header(6, rank=1, columns=2) + struct.pack("<5f", 1, 1, 1, 1, np.nan), "NaN or infinite factors"),
        (header(6, rank=1, columns=2) + struct.pack("<5f", 1, -np.inf, 1, 0, 0), "NaN or infinite factors"),
        (header(6, rank=1, columns=2) + struct.pack("<5f", 1, 1e20, 1, 1e20, 0), "product may be infinite"),
        (header(6)[:20], "is shorter than its header of 32"),
    ],
)
def test_bad_payloads_are_refused(payload, message):
    out = np.full(6, 7.0, np.float32)
    with pytest.raises(FrameError, match=message):
        compress.make("powersgd").decode(payload, out)
    assert np.all(out == 7.0)


def test_any_bytes_decode_or_are_refused():
    rng = np.random.default_rng(0)
    compressor = PowerSGD(rank=2, columns=7)
    good = np.frombuffer(compressor.encode(vector(60)), np.uint8)
    for _ in range(2000):
        bad = good.copy()
        for _ in range(rng.integers(1, 4)):
            bad[rng.integers(bad.size)] = rng.integers(256)
        bad = bad[: rng.integers(bad.size + 1)] if rng.random() < 0.2 else bad
        out = np.full(60, np.nan, np.float32)
        try:
            compressor.decode(bad, out)
        except FrameError:
            assert np.isnan(out).all()
        else:
            assert np.isfinite(out).all()


def test_payloads_of_different_shapes_accumulate_together():
    x = np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)
    specs = ["powersgd:rank=1", "powersgd:rank=8", "powersgd:columns=7", "powersgd:rank=2"]
    payloads = [compress.make(spec).encode(row) for spec, row in zip(specs, x, strict=True)]
    weights = [1.0, 0.5, 2.0, -1.0]
    out = np.zeros(1000, np.float32)
    compress.make("powersgd").accumulate(payloads, weights, out)
    expected = np.zeros(1000, np.float32)
    for payload, weight in zip(payloads, weights, strict=True):
        dense = compress.from_wire(payload).decode(payload, np.empty(1000, np.float32))
        expected = expected + np.float32(weight) * dense
    np.testing.assert_array_equal(out, expected)
