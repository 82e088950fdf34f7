"""The fused CHOCO step: the bits of the separate kernels, as the gossip algorithm uses them."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import compress, kernels
from pydec.gossip.choco import ChocoMixer

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 70_003]
STEP = kernels.ChocoStep(gamma=0.8, own_weight=0.4, lr=0.05)


def vectors(count, n, seed=0):
    return list(np.random.default_rng((n, seed)).standard_normal((count, n), dtype=np.float32))


def room(n, block=256):
    return np.full(n, 99, np.int8), np.full(kernels.int8_blocks(n, block), 99, np.float32)


def separately(x, estimate, mixed, gradient, step):
    kernels.mix([x, mixed, estimate], [1.0, step.gamma, -step.gamma], out=x)
    if gradient is not None:
        kernels.mix([x, gradient], [1.0, -step.lr], out=x)
    codes, scales = room(x.size, step.block)
    bad = kernels.int8_encode(x - estimate, codes, scales, step.block)
    kernels.int8_accumulate([codes], [scales], [step.own_weight], mixed, step.block)
    kernels.int8_accumulate([codes], [scales], [1.0], estimate, step.block)
    return bad, x, estimate, mixed, codes, scales


def fused(x, estimate, mixed, gradient, step):
    codes, scales = room(x.size, step.block)
    bad = step.int8(x, estimate, mixed, codes, scales, gradient)
    return bad, x, estimate, mixed, codes, scales


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert [a.tobytes() for a in found[1:]] == [a.tobytes() for a in expected[1:]]


def copies(arrays):
    return [a.copy() for a in arrays]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("block", [16, 48, 256, 4096])
@pytest.mark.parametrize("local", [False, True])
def test_gives_the_bits_of_separate_kernels(target, local, block, n):
    x, estimate, mixed, gradient = vectors(4, n)
    step = kernels.ChocoStep(gamma=0.8, own_weight=0.4, lr=0.05, block=block)
    g = gradient if local else None
    expected = separately(*copies([x, estimate, mixed]), g, step)
    assert_same(fused(x, estimate, mixed, g, step), expected)


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-43, 1e-38, 1e-30, 1e30, 3e37])
def test_extreme_magnitudes(target, scale):
    x, estimate, mixed = (v * np.float32(scale) for v in vectors(3, 600))
    estimate[:256] = x[:256]
    step = kernels.ChocoStep(gamma=0.0, own_weight=-0.25)
    expected = separately(*copies([x, estimate, mixed]), None, step)
    assert_same(fused(x, estimate, mixed, None, step), expected)


def test_rounds_of_the_gossip_algorithm(target):
    """Two ranks that use the fused step stay bit-identical to two that run the mixer of pydec.gossip."""
    n, gamma, weight = 1000, 0.9, 0.5
    compressor = compress.make("int8")
    start = vectors(2, n)
    model = copies(start)
    mixers = [ChocoMixer(x, compressor, 1, gamma) for x in model]
    mine = copies(start)
    estimate, mixed = ([np.zeros(n, np.float32) for _ in range(2)] for _ in range(2))
    packets = [np.empty(compressor.max_bytes(n), np.uint8) for _ in range(2)]
    first = kernels.ChocoStep(gamma=0.0, own_weight=1.0 - weight, lr=0.1)
    later = kernels.ChocoStep(gamma=gamma, own_weight=1.0 - weight, lr=0.1)
    for turn in range(6):
        gradients = vectors(2, n, turn + 1)
        messages = [room(n) for _ in range(2)]
        for i in range(2):
            kernels.mix([model[i], gradients[i]], [1.0, -0.1], out=model[i])
            at = 0
            for bucket, (start_at, stop) in enumerate(mixers[i].buckets):
                assert (start_at, stop) == (0, n), "this test is about one bucket"
                at = mixers[i].encode(bucket, packets[i])
            step = later if turn else first
            assert step.int8(mine[i], estimate[i], mixed[i], *messages[i], gradients[i]) == 0
            assert mine[i].tobytes() == model[i].tobytes()
            assert packets[i][:at].tobytes().endswith(messages[i][0].tobytes())
        for i in range(2):
            mixers[i].absorb(0, packets[i], [packets[1 - i]], [weight])
            codes, scales = messages[1 - i]
            kernels.int8_accumulate([codes], [scales], [weight], mixed[i])
            assert estimate[i].tobytes() == mixers[i].estimate.tobytes()
            assert mixed[i].tobytes() == mixers[i].mixed.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_not_finite_is_counted_and_leaves_its_estimates(target, value):
    x, estimate, mixed = vectors(3, 600)
    before, clean = copies([estimate, mixed]), copies([x, estimate, mixed])
    fused(*clean, None, STEP)
    x[300] = value
    bad, _, estimate, mixed, codes, scales = fused(x, estimate, mixed, None, STEP)
    assert bad == 1
    assert np.isnan(scales[1])
    assert not codes[256:512].any()
    for after, old, good in zip([estimate, mixed], before, clean[1:], strict=True):
        np.testing.assert_array_equal(after[256:512], old[256:512])
        np.testing.assert_array_equal(after[:256], good[:256])
        np.testing.assert_array_equal(after[512:], good[512:])


def test_addresses_may_be_odd(target, unaligned):
    x, estimate, mixed, gradient = vectors(4, 1001)
    odd = [unaligned(v) for v in (x, estimate, mixed, gradient)]
    expected = separately(x, estimate, mixed, gradient, STEP)
    codes, scales = (unaligned(v) for v in room(1001))
    bad = STEP.int8(*odd[:3], codes, scales, odd[3])
    assert_same((bad, *odd[:3], codes, scales), expected)


def test_wrong_arguments_are_named():
    x, estimate, mixed = vectors(3, 300)
    codes, scales = room(300)
    with pytest.raises(ValueError, match="block must be a positive multiple of 16 elements, got 20"):
        kernels.ChocoStep(0.5, 0.5, block=20).int8(x, estimate, mixed, codes, scales)
    with pytest.raises(ValueError, match="gamma must be a finite"):
        kernels.ChocoStep(float("nan"), 0.5).int8(x, estimate, mixed, codes, scales)
    with pytest.raises(ValueError, match="x and estimate overlap"):
        STEP.int8(x, x, mixed, codes, scales)
    with pytest.raises(ValueError, match="gradient and mixed overlap"):
        STEP.int8(x, estimate, mixed, codes, scales, mixed)
    with pytest.raises(ValueError, match="codes and x overlap"):
        STEP.int8(x, estimate, mixed, x.view(np.int8)[:300], scales)
    with pytest.raises(ValueError, match="mixed must have 300 elements"):
        STEP.int8(x, estimate, mixed[1:], codes, scales)
    with pytest.raises(ValueError, match=r"scales must have 2 elements \(one for each block\)"):
        STEP.int8(x, estimate, mixed, codes, scales[:1])
    with pytest.raises(TypeError, match="codes must be a int8 array, got uint8"):
        STEP.int8(x, estimate, mixed, codes.view(np.uint8), scales)  # type: ignore[arg-type]
    estimate.flags.writeable = False
    with pytest.raises(ValueError, match="estimate is read-only"):
        STEP.int8(x, estimate, mixed, codes, scales)
