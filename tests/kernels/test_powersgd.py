"""Low-rank factors: a projection, the same bits on every instruction set, and sums that round as stated."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SHAPES = [(1, 1), (15, 4), (16, 16), (17, 16), (255, 16), (257, 19), (5000, 71), (5000, 5000), (100_003, 336)]
MASK = (1 << 64) - 1


def matrix(a, columns):
    rows = -(-a.size // columns)
    padded = np.zeros(rows * columns, np.float64)
    padded[: a.size] = a
    return padded.reshape(rows, columns)


def factors(x, residual, columns, rank, seed=5):
    left = np.full(rank * -(-x.size // columns), np.nan, np.float32)
    right = kernels.powersgd_start(x, residual, seed, np.full(rank * columns, np.nan, np.float32))
    assert kernels.powersgd_iterate(x, residual, columns, left, right) == 0
    return left, right


def decoded(left, right, columns, n):
    rank = right.size // columns
    p, q = left.reshape(rank, -1), right.reshape(rank, columns)
    out = np.zeros((p.shape[1], columns), np.float32)
    for j in range(rank):
        out = p[j][:, None] * q[j] if j == 0 else out + p[j][:, None] * q[j]
    return out.reshape(-1)[:n]


@pytest.mark.parametrize(("n", "columns"), SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 4, 5, 8])
def test_factors_are_the_projection_onto_what_the_directions_become(target, n, columns, rank):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    start = kernels.powersgd_start(x, None, 5, np.empty(rank * columns, np.float32)).reshape(rank, columns)
    a = matrix(x, columns)
    dimension = min(rank, *a.shape)
    left, right = (f.reshape(rank, -1).astype(np.float64) for f in factors(x, None, columns, rank))
    gram = left @ left.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-6)
    assert np.allclose(np.diag(gram)[:dimension], 1, atol=1e-6)
    np.testing.assert_allclose(right, left @ a, atol=1e-6 * np.linalg.norm(a))
    basis, _ = np.linalg.qr(a @ start.T.astype(np.float64))
    size = np.linalg.norm(a)
    np.testing.assert_allclose(left.T @ right, basis @ (basis.T @ a), atol=1e-4 * size)
    assert np.linalg.norm(a - left.T @ right) <= size * (1 + 1e-6)


@pytest.mark.parametrize(("n", "columns"), SHAPES)
@pytest.mark.parametrize("rank", [1, 4, 7])
def test_every_instruction_set_gives_the_same_bits(n, columns, rank, unaligned):
    x, before = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    found = set()
    for name in kernels.targets():
        kernels.set_target(name)
        residual = before.copy()
        with_feedback = factors(x, residual, columns, rank)
        assert residual.tobytes() == (x + before).tobytes()
        moved = unaligned(before)
        again = factors(unaligned(x), moved, columns, rank)
        alone = factors(x + before, None, columns, rank)
        found |= {tuple(f.tobytes() for f in pair) for pair in (with_feedback, again, alone)}
        right = unaligned(np.full(rank * columns, 1, np.float32))
        left = unaligned(np.empty(rank * -(-n // columns), np.float32))
        assert kernels.powersgd_iterate(x, None, columns, left, right) == 0
    assert len(found) == 1


@pytest.mark.parametrize("rank", [2, 4, 8])
def test_missing_rank_is_zero_and_what_is_there_is_kept(target, rank):
    rng = np.random.default_rng(0)
    thin = rng.standard_normal((300, 1)) @ rng.standard_normal((1, 200))
    x = thin.astype(np.float32).reshape(-1)
    left, right = factors(x, None, 200, rank)
    assert not left.reshape(rank, -1)[1:].any()
    assert not right.reshape(rank, -1)[1:].any()
    np.testing.assert_allclose(decoded(left, right, 200, x.size), x, atol=1e-5)
    left, right = factors(np.zeros(1000, np.float32), None, 30, rank)
    assert not left.any()
    assert not right.any()


@pytest.mark.parametrize("decay", [1e-1, 1e-2, 1e-3])
def test_nearly_parallel_directions_lose_no_accuracy(target, decay):
    rng = np.random.default_rng(1)
    u, _ = np.linalg.qr(rng.standard_normal((400, 5)))
    v, _ = np.linalg.qr(rng.standard_normal((300, 5)))
    a = (u * decay ** np.arange(5)) @ v.T
    x = a.astype(np.float32).reshape(-1)
    right = kernels.powersgd_start(x, None, 5, np.empty(4 * 300, np.float32))
    left, exact = np.empty(4 * 400, np.float32), right.reshape(4, 300).astype(np.float64)
    for _ in range(3):
        assert kernels.powersgd_iterate(x, None, 300, left, right) == 0
        p, q = left.reshape(4, -1).astype(np.float64), right.reshape(4, -1).astype(np.float64)
        np.testing.assert_allclose(q, p @ a, atol=3e-7)
        basis, _ = np.linalg.qr(a @ exact.T)
        exact = basis.T @ a
        # In float64; what is below 2^-18 of the whole counts as missing rank.
        assert np.linalg.norm(a - p.T @ q) <= 1.01 * np.linalg.norm(a - basis @ exact) + 4e-6


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_magnitudes_do_not_matter(target, size):
    x = np.random.default_rng(2).standard_normal(3000).astype(np.float32)
    left, right = factors(x, None, 50, 3)
    for _ in range(2):
        kernels.powersgd_iterate(x, None, 50, left, right)
    scaled = np.float32(2.0 ** np.round(np.log2(size)))
    other = factors(x, None, 50, 3)
    for _ in range(2):
        kernels.powersgd_iterate(x * scaled, None, 50, *other)
    assert other[0].tobytes() == left.tobytes()
    np.testing.assert_array_equal(other[1], right * scaled)


@pytest.mark.parametrize(("n", "columns"), SHAPES)
@pytest.mark.parametrize("m", [0, 1, 3])
def test_products_are_added_in_order(target, n, columns, m, unaligned):
    rng = np.random.default_rng(n)
    expected = rng.standard_normal(n).astype(np.float32)
    out, pairs, weights = unaligned(expected), [], [0.3, -0.7, 1.1][:m]
    for k, weight in enumerate(weights):
        pair = factors(rng.standard_normal(n).astype(np.float32), None, columns, (4, 1, 7)[k])
        dense = decoded(*pair, columns, n)
        pairs.append([unaligned(side) for side in pair])
        got = kernels.powersgd_decode(*pairs[-1], columns, unaligned(np.full(n, np.nan, np.float32)))
        np.testing.assert_array_equal(got, dense)
        expected = expected + np.float32(weight) * dense
    left, right = [p for p, _ in pairs], [q for _, q in pairs]
    assert kernels.powersgd_accumulate(left, right, weights, columns, out) is out
    np.testing.assert_array_equal(out, expected)


def mixed(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def reference_start(a, seed, count):
    lanes = np.arange(16, dtype=np.uint32)
    lines = -(-a.size // 16)
    for line in range(0, lines, max(1, lines // 1024)):
        bits = a[line * 16 : line * 16 + 16].view(np.uint32)
        h = (lanes[: bits.size] ^ bits) * np.uint32(0x9E3779B1)
        lanes[: bits.size] = h ^ (h >> np.uint32(15))
    key = mixed((seed + 0x9E3779B97F4A7C15) & MASK) ^ a.size
    for lane in lanes:
        key = mixed((key + int(lane)) & MASK)
    draws = [mixed((key + (i + 1) * 0x9E3779B97F4A7C15) & MASK) >> 40 for i in range(count)]
    return np.array([(2 * draw + 1 - (1 << 24)) / (1 << 24) for draw in draws], np.float32)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 16_384, 100_003])
def test_directions_follow_seed_and_vector(target, n):
    x, residual = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    before = residual.copy()
    got = kernels.powersgd_start(x, residual, 9, np.empty(50, np.float32))
    np.testing.assert_array_equal(got, reference_start(x + residual, 9, 50))
    np.testing.assert_array_equal(residual, before)
    assert not np.array_equal(got, kernels.powersgd_start(x, residual, 10, np.empty(50, np.float32)))
    if n:
        x[0] += 1
        assert not np.array_equal(got, kernels.powersgd_start(x, residual, 9, np.empty(50, np.float32)))


def test_directions_are_balanced(target):
    start = kernels.powersgd_start(np.zeros(1, np.float32), None, 0, np.empty(100_000, np.float32))
    assert abs(float(start.mean(dtype=np.float64))) < 4 * 3**-0.5 / 100_000**0.5
    assert abs(float(np.mean(start.astype(np.float64) ** 2)) - 1 / 3) < 0.005
    assert np.abs(start).max() < 1
    assert start.all()


def test_not_finite_entries_are_counted(target):
    x = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    x[[5, 6, 700, 2999]] = np.nan, np.inf, -np.inf, np.nan
    for residual in (None, np.zeros(3000, np.float32)):
        left, right = (
            np.empty(2 * 75, np.float32),
            np.zeros(2 * 40, np.float32),
        )  # zeros multiply infinity too
        assert kernels.powersgd_iterate(x, residual, 40, left, right) == 4
    huge = np.full(3000, 3e38, np.float32)
    right = np.ones(80, np.float32)
    assert kernels.powersgd_iterate(huge, None, 40, left, right) == 0
    assert not np.isfinite(left).all()


def test_wrong_arguments_are_named():
    x, left, right = np.zeros(100, np.float32), np.zeros(20, np.float32), np.zeros(20, np.float32)
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        kernels.powersgd_iterate(x, None, 0, left, right)
    with pytest.raises(ValueError, match=r"right must have 1\.\.8 times columns=10 elements, got 15"):
        kernels.powersgd_iterate(x, None, 10, left, np.zeros(15, np.float32))
    with pytest.raises(ValueError, match=r"right must have 1\.\.8 times columns=10 elements, got 90"):
        kernels.powersgd_decode(left, np.zeros(90, np.float32), 10, x)
    with pytest.raises(ValueError, match=r"left must have 20 elements .*, got 19"):
        kernels.powersgd_iterate(x, None, 10, left[:19], right)
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.powersgd_iterate(x, x, 10, left, right)
    residual = np.zeros(100, np.float32)
    with pytest.raises(ValueError, match="residual and left overlap"):
        kernels.powersgd_iterate(x, residual, 10, residual[:20], right)
    with pytest.raises(ValueError, match=r"left\[0\] and out overlap"):
        kernels.powersgd_accumulate([x[:20]], [right], [1.0], 10, x)
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.powersgd_accumulate([left], [right], [np.nan], 10, x)
    with pytest.raises(ValueError, match="equally many"):
        kernels.powersgd_accumulate([left], [], [1.0], 10, x)
    with pytest.raises(TypeError, match="right must be a float32 array, got float64"):
        kernels.powersgd_iterate(x, None, 10, left, np.zeros(20))
    with pytest.raises(ValueError, match="x and start overlap"):
        kernels.powersgd_start(x, None, 0, x[:20])
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.powersgd_decode(left, right, 10, x)
    with pytest.raises(ValueError, match="residual is read-only"):
        kernels.powersgd_iterate(np.ones(100, np.float32), x, 10, left, right)
