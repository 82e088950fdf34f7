"""Calls for many vectors give the bits of one call for each, and check everything before they write."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 17, 256, 1003, 5000]
BLOCK = 128


def vectors(seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n, dtype=np.float32) for n in SIZES]


def rooms(codec="int8"):
    codes = [np.zeros(kernels.quant_bytes(codec, n), np.uint8) for n in SIZES]
    return codes, [np.zeros(-(-n // BLOCK), np.float32) for n in SIZES]


def encoded(seed, codec):
    codes, scales = rooms(codec)
    kernels.quant_encode_many(vectors(seed), codes, scales, codec, BLOCK)
    return codes, scales


def equal(a, b):
    return [v.tobytes() for v in a] == [v.tobytes() for v in b]


@pytest.mark.parametrize("m", [1, 2, 5])
def test_mixing_has_the_bits_of_single_calls(target, m):
    x, weights = [vectors(k) for k in range(m)], np.linspace(-1, 1, m).tolist()
    expected = [kernels.mix([peer[b] for peer in x], weights) for b in range(len(SIZES))]
    out = [np.empty(n, np.float32) for n in SIZES]
    assert kernels.mix_many(x, weights, out) is out
    assert equal(out, expected)
    kernels.mix_many(x, weights, x[0])  # in place
    assert equal(x[0], expected)


@pytest.mark.parametrize("codec", ["int8", "int4", "sign", "e4m3"])
@pytest.mark.parametrize("feedback", [False, True])
def test_encoding_has_the_bits_of_single_calls(target, codec, feedback):
    key = 99 if codec.startswith("int") else None
    ours, theirs = rooms(codec), rooms(codec)
    x, residual, expected_residual = vectors(1), vectors(2), vectors(2)
    x[3][7] = np.nan
    place, bad = 32, 0
    for b, n in enumerate(SIZES):
        other = expected_residual[b] if feedback else None
        bad += kernels.quant_encode(
            x[b], theirs[0][b], theirs[1][b], codec, BLOCK, residual=other, key=key, first=place
        )
        place += -(-n // 16) * 16
    kept = residual if feedback else None
    found = kernels.quant_encode_many(x, ours[0], ours[1], codec, BLOCK, residual=kept, key=key, first=32)
    assert found == bad == 1
    assert equal([*ours[0], *ours[1], *residual], [*theirs[0], *theirs[1], *expected_residual])


@pytest.mark.parametrize("m", [0, 1, 3])
def test_accumulating_has_the_bits_of_single_calls(target, m):
    messages = [encoded(k, "int4") for k in range(m)]
    weights, out, expected = [0.5, -0.25, 2.0][:m], vectors(7), vectors(7)
    for b in range(len(SIZES)):
        pairs = [codes[b] for codes, _ in messages], [scales[b] for _, scales in messages]
        kernels.quant_accumulate(*pairs, weights, expected[b], "int4", BLOCK)
    codes, scales = [c for c, _ in messages], [s for _, s in messages]
    assert kernels.quant_accumulate_many(codes, scales, weights, out, "int4", BLOCK) is out
    assert equal(out, expected)


def test_no_buckets_are_nothing_to_do():
    assert kernels.mix_many([[], []], [0.5, 0.5], []) == []
    assert kernels.quant_encode_many([], [], [], "int8", BLOCK) == 0
    assert kernels.quant_accumulate_many([[]], [[]], [1.0], [], "int8", BLOCK) == []


def test_wrong_arguments_are_named_and_nothing_is_written():
    x, out = vectors(1), [np.full(n, 5, np.float32) for n in SIZES]
    with pytest.raises(ValueError, match="at least one vector"):
        kernels.mix_many([], [], out)
    with pytest.raises(ValueError, match=r"x\[1\] must have 6 vectors \(as out has\), got 5"):
        kernels.mix_many([x, x[:5]], [1.0, 1.0], out)
    with pytest.raises(TypeError, match=r"x\[0\] must be a sequence of vectors, got NoneType"):
        kernels.mix_many([None], [1.0], out)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"x\[0\]\[2\] must have 17 elements \(as its out has\), got 16"):
        kernels.mix_many([[*x[:2], x[2][:16], *x[3:]]], [1.0], out)
    with pytest.raises(TypeError, match=r"x\[0\]\[5\] must be a float32 array, got float64"):
        kernels.mix_many([[*x[:5], x[5].astype(np.float64)]], [1.0], out)
    codes, scales = rooms()
    with pytest.raises(ValueError, match=r"codes must have 6 vectors \(as x has\), got 5"):
        kernels.quant_encode_many(x, codes[:5], scales, "int8", BLOCK)
    with pytest.raises(ValueError, match=r"scales\[4\] must have 8 elements \(one for each block\), got 7"):
        kernels.quant_encode_many(x, codes, [*scales[:4], scales[4][:7], scales[5]], "int8", BLOCK)
    with pytest.raises(ValueError, match="sign has no stochastic rounding"):
        kernels.quant_encode_many(x, codes, scales, "sign", BLOCK, key=1)
    assert equal(out, [np.full(n, 5, np.float32) for n in SIZES])
    assert not any(c.any() for c in codes)


def test_overlaps_between_buckets_are_refused():
    room = np.zeros(100, np.float32)
    x = np.ones(40, np.float32)
    with pytest.raises(ValueError, match=r"out\[0\] and out\[1\] overlap"):
        kernels.mix_many([[x, x]], [1.0], [room[:40], room[39:79]])
    with pytest.raises(ValueError, match=r"x\[0\]\[0\] and out\[1\] overlap"):
        kernels.mix_many([[room[40:80], x]], [1.0], [room[:40], room[40:80]])  # out of another bucket
    with pytest.raises(ValueError, match=r"x\[0\]\[1\] and out\[0\] overlap"):
        kernels.mix_many([[x, room[39:79]]], [1.0], [room[:40], room[40:80]])
    kernels.mix_many([[room[:40], room[40:80]]], [1.0], [room[:40], room[40:80]])
    fixed = np.zeros(40, np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match=r"out\[1\] is read-only"):
        kernels.mix_many([[x, x]], [1.0], [room[:40], fixed])
    codes = [np.zeros(40, np.uint8), np.zeros(40, np.uint8)]
    scales = [np.zeros(1, np.float32), np.zeros(1, np.float32)]
    with pytest.raises(ValueError, match=r"codes\[0\] and codes\[1\] overlap"):
        kernels.quant_encode_many([x, x], [codes[0], codes[0]], scales, "int8", BLOCK)
    with pytest.raises(ValueError, match=r"x\[1\] and residual\[0\] overlap"):
        kernels.quant_encode_many(
            [x, room[:40]], codes, scales, "int8", BLOCK, residual=[room[:40], room[40:80]]
        )
    with pytest.raises(ValueError, match=r"scales\[0\]\[1\] and out\[0\] overlap"):
        kernels.quant_accumulate_many(
            [codes], [[scales[0], room[:1]]], [1.0], [room[:40], room[40:80]], "int8", BLOCK
        )
    assert not room.any()
