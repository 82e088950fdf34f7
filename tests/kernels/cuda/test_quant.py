"""Quantisers and the CHOCO step on the GPU have the bits of the CPU kernels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pydec import kernels
from pydec.kernels import cuda

SIZES = [0, 1, 3, 127, 128, 129, 255, 256, 257, 1025, 6001]
CODECS = ["int8", "int4", "int2", "sign", "e4m3", "e5m2"]
INTEGERS = CODECS[:3]
BLOCKS = [128, 256, 384, 1024, 1152]


def difficult(sample, n, block):
    """A vector whose blocks have tiny scales, zero scales, scales that overflow, NaN, and infinity."""
    x = sample(n)
    for index, first in enumerate(range(0, n, block)):
        part = x[first : first + block]
        match index % 9:
            case 1:
                part *= np.float32(1e-38)
            case 3:
                part[:] = np.sign(part) * np.float32(1e-45)
            case 5:
                part[:] = -0.0
            case 6:
                part[-1] = np.float32(3.4e38)
            case 7:
                part[len(part) // 2] = np.nan
            case 8:
                part[0] = -np.inf
    return x


def room_for(gpu, n, codec, block, shift=0):
    return gpu.room(kernels.quant_bytes(codec, n), np.uint8, shift), gpu.room(-(-n // block))


def host_room(n, codec, block):
    return np.empty(kernels.quant_bytes(codec, n), np.uint8), np.empty(-(-n // block), np.float32)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("codec", CODECS)
def test_encode(gpu, same, sample, codec, block, feedback, shift):
    x = [difficult(sample, n, block) for n in SIZES]
    residual = [np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in SIZES]
    rooms = [room_for(gpu, n, codec, block, shift) for n in SIZES]
    left = [gpu.tensor(v, shift) for v in residual] if feedback else None
    codes, scales = zip(*rooms, strict=True)
    bad = cuda.quant_encode([gpu.tensor(v) for v in x], codes, scales, codec, block, residual=left)
    expected_bad = 0
    for k, v in enumerate(x):
        expected, rest = host_room(v.size, codec, block), residual[k] if feedback else None
        expected_bad += kernels.quant_encode(v, expected[0], expected[1], codec, block, residual=rest)
        same(codes[k], expected[0])
        same(scales[k], expected[1])
        if feedback:
            same(left[k], rest)
    assert int(bad) == expected_bad


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("block", [128, 1024, 1280])
@pytest.mark.parametrize("codec", INTEGERS)
def test_encode_at_random(gpu, same, sample, codec, block, feedback):
    firsts = [16 * n for n in SIZES]
    x = [difficult(sample, n, block) for n in SIZES]
    residual = [np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in SIZES]
    codes, scales = zip(*[room_for(gpu, n, codec, block) for n in SIZES], strict=True)
    left = [gpu.tensor(v) for v in residual] if feedback else None
    key = 0xFEDC_BA98_7654_3210
    on_gpu = [gpu.tensor(v) for v in x]
    bad = cuda.quant_encode(on_gpu, codes, scales, codec, block, residual=left, key=key, first=firsts)
    expected_bad = 0
    for k, v in enumerate(x):
        expected, rest = host_room(v.size, codec, block), residual[k] if feedback else None
        expected_bad += kernels.quant_encode(
            v, expected[0], expected[1], codec, block, residual=rest, key=key, first=firsts[k]
        )
        same(codes[k], expected[0])
        same(scales[k], expected[1])
        if feedback:
            same(left[k], rest)
    assert int(bad) == expected_bad


@pytest.mark.parametrize("key", [None, 5])
@pytest.mark.parametrize("block", [128, 1280])
@pytest.mark.parametrize("codec", CODECS)
def test_encode_difference(gpu, same, sample, codec, block, key):
    key = key if codec in INTEGERS else None
    x, y = [difficult(sample, n, block) for n in SIZES], [sample(n, 7) for n in SIZES]
    codes, scales = zip(*[room_for(gpu, n, codec, block) for n in SIZES], strict=True)
    on_gpu = [[gpu.tensor(v, n % 2) for n, v in enumerate(part)] for part in (x, y)]
    bad = cuda.quant_encode_difference(on_gpu[0], on_gpu[1], codes, scales, codec, block, key=key)
    expected_bad = 0
    for k, v in enumerate(x):
        expected = host_room(v.size, codec, block)
        expected_bad += kernels.quant_encode_difference(
            v, y[k], expected[0], expected[1], codec, block, key=key
        )
        same(codes[k], expected[0])
        same(scales[k], expected[1])
    assert int(bad) == expected_bad


@pytest.mark.parametrize("block", [16, 48, 272])
def test_blocks_that_are_not_whole_strips(gpu, same, sample, block):
    for codec, n in itertools.product(("int8", "e5m2"), SIZES):
        x = difficult(sample, n, block)
        expected, (codes, scales) = host_room(n, codec, block), room_for(gpu, n, codec, block)
        expected_bad = kernels.quant_encode(x, *expected, codec, block)
        assert int(cuda.quant_encode([gpu.tensor(x)], [codes], [scales], codec, block)) == expected_bad
        same(codes, expected[0])
        same(scales, expected[1])


def messages_of(sample, n, m, codec, block):
    made = []
    for k in range(m):
        codes, scales = host_room(n, codec, block)
        kernels.quant_encode(np.float32(k + 1) * sample(n, k).clip(-1e3, 1e3), codes, scales, codec, block)
        made.append((codes, scales))
    return made


@pytest.mark.parametrize("m", [1, 2, 3, 18])
@pytest.mark.parametrize("block", [256, 384])
@pytest.mark.parametrize("codec", CODECS)
def test_decode_and_accumulate(gpu, same, sample, codec, block, m):
    weights = np.random.default_rng(m).standard_normal(m)
    made = [messages_of(sample, n, m, codec, block) for n in SIZES]
    codes = [[gpu.tensor(c, k % 2) for k, (c, _) in enumerate(bucket)] for bucket in made]
    scales = [[gpu.tensor(s) for _, s in bucket] for bucket in made]
    start = [sample(n, 99) for n in SIZES]
    out = [gpu.tensor(v, m % 2) for v in start]
    cuda.quant_accumulate(codes, scales, weights, out, codec, block)
    for bucket, ours, v in zip(made, out, start, strict=True):
        theirs = [c for c, _ in bucket], [s for _, s in bucket]
        same(ours, kernels.quant_accumulate(*theirs, weights, v.copy(), codec, block))
    cuda.quant_decode([c[0] for c in codes], [s[0] for s in scales], out, codec, block)
    for bucket, ours in zip(made, out, strict=True):
        expected = np.empty(ours.numel(), np.float32)
        same(ours, kernels.quant_decode(*bucket[0], expected, codec, block))


@pytest.mark.parametrize("codec", CODECS)
def test_squared_distance(gpu, same, sample, codec):
    for n in (0, 1, 17, 257, 65_536, 70_003):
        ((codes, scales),) = messages_of(sample, n, 1, codec, 256)
        x = sample(n, 5).clip(-1e3, 1e3)
        ours = cuda.quant_sqdist(gpu.tensor(codes), gpu.tensor(scales), gpu.tensor(x), codec, 256)
        same(ours, np.array([kernels.quant_sqdist(codes, scales, x, codec, 256)]))


@pytest.mark.parametrize("codec", CODECS)
def test_check_finds_what_the_cpu_finds(gpu, sample, codec):
    rng = np.random.default_rng(1)
    for n in (1, 127, 128, 129, 1000):
        ((codes, scales),) = messages_of(sample, n, 1, codec, 128)
        wrong_scales = [scales, scales.copy(), scales.copy(), scales.copy(), scales.copy()]
        for spoilt, value in zip(wrong_scales[1:], (np.nan, np.inf, -0.0, 3e38), strict=True):
            spoilt[rng.integers(spoilt.size)] = value
        spoilt = rng.integers(0, 256, codes.size).astype(np.uint8)
        cases = [(codes, s) for s in wrong_scales] + [(spoilt, scales), (codes | np.uint8(128), scales)]
        for c, s in cases:
            ours = cuda.quant_check(gpu.tensor(c, 1), gpu.tensor(s), n, codec, 128)
            assert int(ours) == kernels.quant_check(c, s, n, codec, 128)


@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize(
    ("codec", "key"), [*((codec, None) for codec in CODECS), *((codec, 9) for codec in INTEGERS)]
)
@pytest.mark.parametrize("block", [256, 2048])
def test_choco_step(gpu, same, sample, codec, key, block, step):
    sizes = SIZES[1:]
    shift = block % 3
    vectors = [[sample(n, k).clip(-1e3, 1e3) for k in range(4)] for n in sizes]
    vectors[-1][0][block // 2] = np.nan
    vectors[-1][0][block : 2 * block] = vectors[-1][1][block : 2 * block] = 0.0
    on_gpu = [[gpu.tensor(v, shift) for v in bucket] for bucket in vectors]
    codes, scales = zip(*[room_for(gpu, n, codec, block) for n in sizes], strict=True)
    x, estimate, mixed, gradient = (list(part) for part in zip(*on_gpu, strict=True))
    numbers = {"gamma": 0.3, "own_weight": 0.4, "lr": 0.05, "codec": codec, "block": block}
    gradients = gradient if step else None
    bad = cuda.choco_step(x, estimate, mixed, codes, scales, gradient=gradients, key=key, **numbers)
    expected_bad = 0
    for k, (mine, n) in enumerate(zip(vectors, sizes, strict=True)):
        expected, choco = host_room(n, codec, block), kernels.ChocoStep(**numbers)
        expected_bad += choco.run(
            mine[0], mine[1], mine[2], expected[0], expected[1], mine[3] if step else None, key=key
        )
        same(codes[k], expected[0])
        same(scales[k], expected[1])
        for ours, theirs in zip((x[k], estimate[k], mixed[k]), mine[:3], strict=True):
            same(ours, theirs)
    assert int(bad) == expected_bad == 1


@pytest.mark.parametrize("m", [1, 3, 8, 9, 27])
@pytest.mark.parametrize("codec", CODECS)
def test_choco_absorb(gpu, same, sample, codec, m):
    weights = np.random.default_rng(m).standard_normal(m)
    made = [messages_of(sample, n, m, codec, 256) for n in SIZES]
    codes = [[gpu.tensor(c, k % 2) for k, (c, _) in enumerate(bucket)] for bucket in made]
    scales = [[gpu.tensor(s) for _, s in bucket] for bucket in made]
    vectors = [[sample(n, k).clip(-1e3, 1e3) for k in range(3)] for n in SIZES]
    on_gpu = [[gpu.tensor(v, m % 2) for v in bucket] for bucket in vectors]
    x, estimate, mixed = (list(part) for part in zip(*on_gpu, strict=True))
    cuda.choco_absorb(x, estimate, mixed, codes, scales, weights, gamma=0.7, codec=codec)
    for bucket, ours, mine in zip(made, on_gpu, vectors, strict=True):
        theirs = [c for c, _ in bucket], [s for _, s in bucket]
        kernels.choco_absorb(*mine, 0.7, *theirs, weights, codec, 256)
        for got, expected in zip(ours, mine, strict=True):
            same(got, expected)


def test_bad_arguments_are_named(gpu):
    x, codes, scales = [gpu.room(256)], [gpu.room(256, np.uint8)], [gpu.room(1)]
    with pytest.raises(ValueError, match="codec must be int8, int4"):
        cuda.quant_encode(x, codes, scales, "int3", 256)
    with pytest.raises(ValueError, match="multiple of 128 elements, got 64"):
        cuda.quant_encode(x, codes, scales, "sign", 64)
    with pytest.raises(ValueError, match="e4m3 has no stochastic rounding"):
        cuda.quant_encode(x, codes, scales, "e4m3", 256, key=1)
    with pytest.raises(ValueError, match=r"first must be a multiple of 16, got 8"):
        cuda.quant_encode(x, codes, scales, "int8", 256, key=1, first=[8])
    with pytest.raises(ValueError, match="elements"):
        cuda.quant_encode(x, codes, scales, "int4", 256)
    with pytest.raises(ValueError, match="overlap"):
        cuda.quant_encode(x, codes, [x[0][:1]], "int8", 256)
