"""Distances between quantised vectors from their codes: the definition's bits on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

INTEGERS = ["int8", "int4", "int2"]


def vector(n, seed):
    rng = np.random.default_rng([n, seed])
    return (rng.standard_normal(n) * np.exp(rng.standard_normal(n))).astype(np.float32)


def encode(x, codec, block):
    codes = np.zeros(kernels.quant_bytes(codec, x.size), np.uint8)
    scales = np.zeros(-(-x.size // block), np.float32)
    assert kernels.quant_encode(x, codes, scales, codec, block) == 0
    return codes, scales


def levels(codes, codec, n):
    ones = np.ones(-(-n // (1 << 20)), np.float32)
    return kernels.quant_decode(codes, ones, np.zeros(n, np.float32), codec, 1 << 20).astype(np.int64)


def defined(own, other, codec, n, block):
    """As the header says, block after block, chunk after chunk."""
    a, b = levels(own[0], codec, n), levels(other[0], codec, n)
    terms = []
    for k, first in enumerate(range(0, n, block)):
        p, q = a[first : first + block], b[first : first + block]
        s, t = float(own[1][k]), float(other[1][k])
        apart, along, size = (float(v) for v in (((p - q) ** 2).sum(), (p * (p - q)).sum(), (p * p).sum()))
        off = s - t
        terms.append(max(0.0, ((t * t) * apart + ((2 * t) * off) * along) + (off * off) * size))
    total, per = 0.0, max(1, 65536 // block)
    for first in range(0, len(terms), per):
        chunk = 0.0
        for term in terms[first : first + per]:
            chunk += term
        total += chunk
    return total


@pytest.mark.parametrize("codec", INTEGERS)
@pytest.mark.parametrize("block", [128, 384, 65536])
@pytest.mark.parametrize("n", [0, 1, 17, 1023, 65537, 140_003])
def test_pairs_are_what_each_says_of_the_others_bit_for_bit(target, n, block, codec):
    codes, scales = zip(*[encode(vector(n, seed), codec, block) for seed in range(6)], strict=True)
    for m in (0, 1, 2, 6):
        found = kernels.quant_pair_sqdists(codes[:m], scales[:m], n, codec, block)
        expected = np.zeros((m, m))
        for k in range(m):
            kernels.quant_sqdists(
                codes[k],
                scales[k],
                codes[k + 1 : m],
                scales[k + 1 : m],
                n,
                codec,
                block,
                out=expected[k, k + 1 :],
            )
        assert found.tobytes() == (expected + expected.T).tobytes()


def test_pairs_have_the_same_bits_on_any_number_of_threads_and_one_bad_scale_spoils_its_own():
    n = 300_000
    codes, scales = map(list, zip(*[encode(vector(n, seed), "int8", 256) for seed in range(5)], strict=True))
    found = set()
    for threads in (1, 2, 5):
        kernels.set_num_threads(threads)
        found.add(kernels.quant_pair_sqdists(codes, scales, n, "int8", 256).tobytes())
    kernels.set_num_threads(1)
    assert len(found) == 1
    good = kernels.quant_pair_sqdists(codes, scales, n, "int8", 256)
    scales[3] = scales[3].copy()
    scales[3][7] = np.nan
    bad = kernels.quant_pair_sqdists(codes, scales, n, "int8", 256)
    others = np.delete(np.arange(5), 3)
    assert np.array_equal(bad[np.ix_(others, others)], good[np.ix_(others, others)])
    assert np.isnan(bad[3, others]).all()


def test_pairs_refuse_what_does_not_fit():
    codes, scales = encode(vector(300, 0), "int8", 256)
    with pytest.raises(ValueError, match="levels are integers"):
        kernels.quant_pair_sqdists([codes], [scales], 300, "e4m3", 256)
    with pytest.raises(ValueError, match="at most 64 messages are paired, got 65"):
        kernels.quant_pair_sqdists([codes] * 65, [scales] * 65, 300, "int8", 256)
    with pytest.raises(ValueError, match=r"shape \(2, 2\), got shape \(4,\)"):
        kernels.quant_pair_sqdists([codes] * 2, [scales] * 2, 300, "int8", 256, np.zeros(4))
    with pytest.raises(ValueError, match="scales"):
        kernels.quant_pair_sqdists([codes] * 2, [scales], 300, "int8", 256)


@pytest.mark.parametrize("codec", INTEGERS)
@pytest.mark.parametrize("block", [128, 384, 65536])
@pytest.mark.parametrize("n", [0, 1, 16, 17, 1023, 65536, 65537, 140_003])
def test_is_its_definition_bit_for_bit(target, n, block, codec):
    own, *others = [encode(vector(n, seed), codec, block) for seed in range(6)]
    codes, scales = zip(*others, strict=True)
    for m in (0, 1, 4, 5):
        found = kernels.quant_sqdists(*own, codes[:m], scales[:m], n, codec, block)
        expected = [defined(own, other, codec, n, block) for other in others[:m]]
        assert found.tobytes() == np.array(expected, np.float64).tobytes()


@pytest.mark.parametrize("codec", INTEGERS)
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_is_the_distance_of_what_is_encoded_and_does_not_cancel(target, spread, codec):
    """Against sums of extended precision, for models that lie close together beside their length."""
    n, block = 70_003, 256
    x = vector(n, 0)
    own = encode(x, codec, block)
    other = encode((x + spread * vector(n, 1)).astype(np.float32), codec, block)
    exact = [
        np.repeat(scales, block)[:n].astype(np.longdouble) * levels(codes, codec, n)
        for codes, scales in (own, other)
    ]
    expected = float(((exact[0] - exact[1]) ** 2).sum())
    assert kernels.quant_sqdists(*own, [other[0]], [other[1]], n, codec, block)[0] == pytest.approx(
        expected, rel=1e-11
    )
    assert kernels.quant_sqdists(*own, [own[0]], [own[1]], n, codec, block)[0] == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scale_that_is_not_finite_is_seen_in_its_own_number_alone(target, value):
    n = 3000
    own, good, bad = [encode(vector(n, seed), "int8", 256) for seed in range(3)]
    bad[1][5] = value
    found = kernels.quant_sqdists(*own, [good[0], bad[0]], [good[1], bad[1]], n, "int8", 256)
    assert np.isfinite(found).tolist() == [True, False]


@pytest.mark.parametrize("codec", INTEGERS)
def test_the_largest_block_of_the_largest_levels_is_exact(target, codec):
    n = 65536
    x = np.full(n, 3.0, np.float32)
    own, other = encode(x, codec, n), encode(-x, codec, n)
    scale = float(own[1][0]) * kernels.TOP_LEVEL[codec]
    assert kernels.quant_sqdists(*own, [other[0]], [other[1]], n, codec, n)[0] == pytest.approx(
        4 * n * scale**2, rel=1e-15
    )


@pytest.mark.parametrize("block", [96, 1 << 14])
def test_any_number_of_threads_gives_the_same_bits(block):
    n = 700_003
    own, *others = [encode(vector(n, seed), "int8", block) for seed in range(4)]
    codes, scales = zip(*others, strict=True)
    found = set()
    for threads in (1, 2, 3, 7):
        kernels.set_num_threads(threads)
        found.add(kernels.quant_sqdists(*own, codes, scales, n, "int8", block).tobytes())
    assert len(found) == 1


def test_addresses_may_be_odd(target, unaligned):
    own, other = encode(vector(1001, 0), "int4", 128), encode(vector(1001, 1), "int4", 128)
    expected = kernels.quant_sqdists(*own, [other[0]], [other[1]], 1001, "int4", 128)
    moved = [[unaligned(part) for part in parts] for parts in (own, other)]
    found = kernels.quant_sqdists(*moved[0], [moved[1][0]], [moved[1][1]], 1001, "int4", 128)
    assert found.tobytes() == expected.tobytes()


def test_wrong_arguments_are_named():
    codes, scales = encode(vector(300, 0), "int8", 256)
    with pytest.raises(ValueError, match=r"codec must be int8, int4 or int2.*got 'e4m3'"):
        kernels.quant_sqdists(codes, scales, [codes], [scales], 300, "e4m3", 256)
    with pytest.raises(ValueError, match="block must be at most 65536 elements, got 131072"):
        kernels.quant_sqdists(codes, scales[:1], [codes], [scales[:1]], 300, "int8", 131072)
    with pytest.raises(ValueError, match="own_codes must have 300 elements"):
        kernels.quant_sqdists(codes[:-1], scales, [codes], [scales], 300, "int8", 256)
    with pytest.raises(ValueError, match=r"scales\[0\] must have 2 elements"):
        kernels.quant_sqdists(codes, scales, [codes], [scales[:1]], 300, "int8", 256)
    with pytest.raises(ValueError, match="equally many, got 2, 1"):
        kernels.quant_sqdists(codes, scales, [codes, codes], [scales], 300, "int8", 256)
    with pytest.raises(ValueError, match="out must have 1 elements"):
        kernels.quant_sqdists(codes, scales, [codes], [scales], 300, "int8", 256, np.zeros(2))
    with pytest.raises(ValueError, match="overlap"):
        kernels.quant_sqdists(codes, scales, [codes], [scales], 300, "int8", 256, codes[:8].view(np.float64))
