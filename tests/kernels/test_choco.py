"""The fused CHOCO step: the bits of the separate kernels, as the gossip algorithm uses them."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import compress, kernels
from pydec.errors import FrameError
from pydec.gossip.choco import ChocoMixer, QuantisedChocoMixer

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 70_003]
CODECS = ["int8", "int4", "int2", "sign", "e4m3", "e5m2"]
CASES = [*((codec, None) for codec in CODECS), *((codec, 77) for codec in CODECS[:3])]
STEP = kernels.ChocoStep(gamma=0.8, own_weight=0.4, lr=0.05)


def vectors(count, n, seed=0):
    return list(np.random.default_rng((n, seed)).standard_normal((count, n), dtype=np.float32))


def room(n, block=256, codec="int8"):
    codes = np.full(kernels.quant_bytes(codec, n), 99, np.uint8)
    return codes, np.full(kernels.quant_blocks(n, block), 99, np.float32)


def separately(x, estimate, mixed, gradient, step, key=None):
    kernels.mix([x, mixed, estimate], [1.0, step.gamma, -step.gamma], out=x)
    if gradient is not None:
        kernels.mix([x, gradient], [1.0, -step.lr], out=x)
    codes, scales = room(x.size, step.block, step.codec)
    bad = kernels.quant_encode(x - estimate, codes, scales, step.codec, step.block, key=key)
    kernels.quant_accumulate([codes], [scales], [step.own_weight], mixed, step.codec, step.block)
    kernels.quant_accumulate([codes], [scales], [1.0], estimate, step.codec, step.block)
    return bad, x, estimate, mixed, codes, scales


def fused(x, estimate, mixed, gradient, step, key=None):
    codes, scales = room(x.size, step.block, step.codec)
    bad = step.run(x, estimate, mixed, codes, scales, gradient, key=key)
    return bad, x, estimate, mixed, codes, scales


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert [a.tobytes() for a in found[1:]] == [a.tobytes() for a in expected[1:]]


def copies(arrays):
    return [a.copy() for a in arrays]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("block", [128, 384, 4096])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(("codec", "key"), CASES)
def test_gives_the_bits_of_separate_kernels(target, codec, key, local, block, n):
    x, estimate, mixed, gradient = vectors(4, n)
    step = kernels.ChocoStep(gamma=0.8, own_weight=0.4, lr=0.05, codec=codec, block=block)
    g = gradient if local else None
    expected = separately(*copies([x, estimate, mixed]), g, step, key)
    assert_same(fused(x, estimate, mixed, g, step, key), expected)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-43, 1e-38, 1e-30, 1e30, 5e35])
def test_extreme_magnitudes(target, scale, codec):
    x, estimate, mixed = (v * np.float32(scale) for v in vectors(3, 600))
    estimate[:256] = x[:256]
    step = kernels.ChocoStep(gamma=0.0, own_weight=-0.25, codec=codec)
    expected = separately(*copies([x, estimate, mixed]), None, step)
    assert_same(fused(x, estimate, mixed, None, step), expected)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("m", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("n", [0, 1, 17, 255, 1300, 70_003])
def test_absorbing_gives_the_bits_of_separate_kernels(target, unaligned, codec, m, n):
    gamma, block = 0.7, 384
    messages = [room(n, block, codec) for _ in range(m)]
    for message, v in zip(messages, vectors(m, n, 1), strict=True):
        kernels.quant_encode(v, *message, codec, block)
    codes, scales = [c for c, _ in messages], [s for _, s in messages]
    weights = np.random.default_rng(m).standard_normal(m).tolist()
    state = vectors(3, n)
    x, estimate, mixed = expected = copies(state)
    kernels.quant_accumulate(codes, scales, weights, mixed, codec, block)
    kernels.quant_accumulate(codes[:1], scales[:1], [1.0], estimate, codec, block)
    kernels.mix([x, mixed, estimate], [1.0, gamma, -gamma], out=x)
    for found in (copies(state), [unaligned(v) for v in state]):
        kernels.choco_absorb(*found, gamma, codes, scales, weights, codec, block)
        assert [v.tobytes() for v in found] == [v.tobytes() for v in expected]


@pytest.mark.parametrize(
    "spec", ["int8", "int8:rounding=stochastic", "int4", "int2:block=64", "sign", "fp8", "fp8:format=e5m2"]
)
def test_the_fused_mixer_has_the_bits_of_the_plain_one(target, spec):
    n, gamma, weights = 9001, 0.3, [0.25, 0.125]
    compressor = compress.make(spec)
    x = vectors(1, n)[0]
    plain, quick = ChocoMixer(x.copy(), compressor, 2, gamma), QuantisedChocoMixer(x, compressor, 2, gamma)
    assert plain.state_bytes > quick.state_bytes == 8 * n
    packets = [np.zeros(compressor.max_bytes(n), np.uint8) for _ in range(2)]
    for turn in range(4):
        own = [np.zeros(max(map(m.capacity, range(len(m.buckets)))), np.uint8) for m in (plain, quick)]
        for bucket, (start, stop) in enumerate(plain.buckets):
            lengths = [m.encode(bucket, out, turn) for m, out in zip((plain, quick), own, strict=True)]
            again = np.zeros_like(own[1])
            assert lengths[0] == lengths[1] == quick.encode(bucket, again, turn)
            payloads = {buffer[: lengths[0]].tobytes() for buffer in (*own, again)}
            assert len(payloads) == 1
            heard = []
            for packet, v in zip(packets, vectors(2, n, turn + 1), strict=True):
                heard.append(packet[: compressor.encode_into(v[start:stop], packet)])
            bad = [heard[0], heard[1].copy()]
            bad[1][-1:] = 0
            bad[1][16:20] = 255  # a scale that is no number
            before = [v.tobytes() for v in (quick.x, quick.estimate, quick.mixed)]
            with pytest.raises(FrameError):
                quick.absorb(bucket, own[1][: lengths[1]], bad, weights)
            assert [v.tobytes() for v in (quick.x, quick.estimate, quick.mixed)] == before
            plain.absorb(bucket, own[0][: lengths[0]], heard, weights)
            quick.absorb(bucket, own[1][: lengths[1]], heard, weights)
        for a, b in ((plain.x, quick.x), (plain.estimate, quick.estimate), (plain.mixed, quick.mixed)):
            assert a.tobytes() == b.tobytes()


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
            assert step.run(mine[i], estimate[i], mixed[i], *messages[i], gradients[i]) == 0
            assert mine[i].tobytes() == model[i].tobytes()
            assert packets[i][:at].tobytes().endswith(messages[i][0].tobytes())
        for i in range(2):
            mixers[i].absorb(0, packets[i], [packets[1 - i]], [weight])
            codes, scales = messages[1 - i]
            kernels.quant_accumulate([codes], [scales], [weight], mixed[i], "int8", 256)
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
    bad = STEP.run(*odd[:3], codes, scales, odd[3])
    assert_same((bad, *odd[:3], codes, scales), expected)


def test_wrong_arguments_are_named():
    x, estimate, mixed = vectors(3, 300)
    codes, scales = room(300)
    with pytest.raises(ValueError, match="block of int8 must be a positive multiple of 16 elements, got 20"):
        kernels.ChocoStep(0.5, 0.5, block=20).run(x, estimate, mixed, codes, scales)
    with pytest.raises(ValueError, match="gamma must be a finite"):
        kernels.ChocoStep(float("nan"), 0.5).run(x, estimate, mixed, codes, scales)
    with pytest.raises(ValueError, match="x and estimate overlap"):
        STEP.run(x, x, mixed, codes, scales)
    with pytest.raises(ValueError, match="gradient and mixed overlap"):
        STEP.run(x, estimate, mixed, codes, scales, mixed)
    with pytest.raises(ValueError, match="codes and x overlap"):
        STEP.run(x, estimate, mixed, x.view(np.uint8)[:300], scales)
    with pytest.raises(ValueError, match="mixed must have 300 elements"):
        STEP.run(x, estimate, mixed[1:], codes, scales)
    with pytest.raises(ValueError, match=r"scales must have 2 elements \(one for each block\)"):
        STEP.run(x, estimate, mixed, codes, scales[:1])
    with pytest.raises(TypeError, match="codes must be a uint8 array, got int8"):
        STEP.run(x, estimate, mixed, codes.view(np.int8), scales)  # type: ignore[arg-type]
    estimate.flags.writeable = False
    with pytest.raises(ValueError, match="estimate is read-only"):
        STEP.run(x, estimate, mixed, codes, scales)


def test_wrong_messages_are_named():
    x, estimate, mixed = vectors(3, 300)
    codes, scales = room(300)
    with pytest.raises(ValueError, match="codes must hold the own message at least"):
        kernels.choco_absorb(x, estimate, mixed, 0.5, [], [], [], "int8")
    with pytest.raises(ValueError, match="equally many, got 1, 1 and 2"):
        kernels.choco_absorb(x, estimate, mixed, 0.5, [codes], [scales], [1.0, 1.0], "int8")
    with pytest.raises(ValueError, match=r"codes\[0\] and mixed overlap"):
        kernels.choco_absorb(x, estimate, mixed, 0.5, [mixed.view(np.uint8)[:300]], [scales], [1.0], "int8")
    with pytest.raises(ValueError, match="gamma must be a finite"):
        kernels.choco_absorb(x, estimate, mixed, float("inf"), [codes], [scales], [1.0], "int8")
