"""State vectors of every type: 16 bits against float32 arithmetic, the same bits everywhere, no mixes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from pydec import kernels

HALVES = [torch.bfloat16, torch.float16]
SIZES = [0, 1, 15, 16, 17, 70_003]
LARGE = 600_011  # shared among threads whatever the type, with pieces and chunks that end raggedly
WEIGHTS = [0.5, -0.2, 0.3]
BLOCK = 384
CODECS = list(kernels.TOP_LEVEL)


@cache
def drawn(seed: int, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * n + seed)
    x = torch.randn(n, generator=generator)
    x[torch.rand(n, generator=generator) < 0.05] = -0.0
    x[torch.rand(n, generator=generator) < 0.05] *= 2.0**-20
    return x


def half_values(seed: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers that `dtype` holds, a few of them zero or below its normal ones."""
    return drawn(seed, n).to(dtype, copy=True)


def moved(x: torch.Tensor) -> torch.Tensor:
    """A copy at an odd address."""
    if x.numel() == 0:
        return x
    copy = torch.frombuffer(
        bytearray(x.numel() * x.element_size() + 1), dtype=x.dtype, count=x.numel(), offset=1
    )
    return copy.copy_(x)


def doubles(seed: int, n: int) -> torch.Tensor:
    """Numbers that float32 does not hold."""
    return drawn(seed, n).double() * 1.1


class Vectors:
    """What a case makes its vectors with, and what it wrote."""

    def __init__(self, n: int, make: Callable[[int], Any]) -> None:
        self.n = n
        self.make = make
        self.written: list[Any] = []

    def read(self, seed: int) -> Any:
        return self.make(seed)

    def write(self, seed: int) -> Any:
        self.written.append(self.make(seed))
        return self.written[-1]

    def reads(self) -> list[Any]:
        return [self.read(seed) for seed in (1, 2, 3)]

    def message(self, codec: kernels.quant.Codec, seed: int = 0) -> tuple[Any, Any]:
        """Room for one, or with a seed one that was made of float32 numbers."""
        codes = np.zeros(kernels.quant_bytes(codec, self.n), np.uint8)
        scales = np.zeros(kernels.quant_blocks(self.n, BLOCK), np.float32)
        if seed:
            x = half_values(seed, self.n, torch.float32)
            assert kernels.quant_encode(x, codes, scales, codec, BLOCK) == 0
        else:
            self.written += [codes, scales]
        return codes, scales


CASES: dict[str, Callable[[Vectors], Any]] = {}
"""Calls of every kernel of state vectors: outputs go to ``written``, and numbers are returned."""


def case(run: Callable[[Vectors], Any]) -> Callable[[Vectors], Any]:
    CASES[run.__name__] = run
    return run


@case
def mix(v: Vectors) -> Any:
    kernels.mix(v.reads(), WEIGHTS, v.write(4))
    own = v.write(2)
    kernels.mix([*v.reads(), own, v.read(5)], [*WEIGHTS, 1.5, 2.0], own)  # in place, more than four


@case
def mix_many(v: Vectors) -> Any:
    x = [v.reads(), v.reads()]
    kernels.mix_many(x, WEIGHTS[:2], [v.write(4), v.write(5), v.write(6)])


@case
def push_sum_mix(v: Vectors) -> Any:
    kernels.push_sum_mix(v.reads(), WEIGHTS, 0.7, v.write(4), v.write(5))


@case
def tracking_mix(v: Vectors) -> Any:
    kernels.tracking_mix(v.reads(), WEIGHTS, v.read(4), v.write(5), v.write(6))


@case
def momentum_mix(v: Vectors) -> Any:
    out = v.write(1)
    kernels.momentum_mix([out, v.read(2)], WEIGHTS[:2], v.read(4), v.write(5), out, momentum=0.9, lr=0.1)


@case
def reductions(v: Vectors) -> Any:
    x, y = v.read(1), v.read(2)
    sums = kernels.sqdists(v.reads(), y)
    np.testing.assert_array_equal(sums, [kernels.sqdist(other, y) for other in v.reads()])
    return [kernels.sqnorm(x), kernels.checked_sqnorm(x), kernels.count_nonfinite(x), *map(float, sums)]


@case
def medians(v: Vectors) -> Any:
    kernels.median(v.reads(), v.write(4))
    four = [*v.reads(), v.read(5)]
    kernels.median(four, v.write(4))
    kernels.trimmed_mean(four, 1, v.write(4))
    own = v.write(1)
    kernels.mean_around_median([own, *four], 2, own)
    many = [v.read(seed) for seed in range(1, 19)]
    kernels.trimmed_mean(many, 4, v.write(4))


@case
def gram(v: Vectors) -> Any:
    matrix, centred = kernels.gram(v.reads()), kernels.gram(v.reads(), v.read(1))
    return [*np.asarray(matrix).ravel(), *np.asarray(centred).ravel()]


@case
def clip_accumulate(v: Vectors) -> Any:
    own = v.write(2)
    distances = [3.0, float("nan"), 40.0]
    added = kernels.clip_accumulate(v.reads(), WEIGHTS, distances, [4.0, 4.0, 4.0], own, own)
    return [added, kernels.clip_accumulate(v.reads(), WEIGHTS, [1.0, 2, 3], [2.0] * 3, v.read(5), v.write(6))]


@case
def quant_encode(v: Vectors) -> Any:
    bad = []
    for codec in CODECS:
        bad.append(kernels.quant_encode(v.read(1), *v.message(codec), codec, BLOCK))
        bad.append(kernels.quant_encode(v.read(1), *v.message(codec), codec, BLOCK, residual=v.write(2)))
        bad.append(kernels.quant_encode_difference(v.read(1), v.read(2), *v.message(codec), codec, BLOCK))
    for codec in CODECS[:3]:
        code = v.message(codec)
        bad.append(kernels.quant_encode(v.read(1), *code, codec, BLOCK, residual=v.write(2), key=7, first=32))
    return bad


@case
def quant_encode_many(v: Vectors) -> Any:
    a, b = v.message("int4"), v.message("int4")
    residual = [v.write(3), v.write(4)]
    bad = kernels.quant_encode_many(
        [v.read(1), v.read(2)], [a[0], b[0]], [a[1], b[1]], "int4", BLOCK, residual=residual, key=9
    )
    return [bad]


@case
def quant_decode(v: Vectors) -> Any:
    distances = []
    for codec in CODECS:
        codes, scales = v.message(codec, 5)
        kernels.quant_decode(codes, scales, v.write(1), codec, BLOCK)
        distances.append(kernels.quant_sqdist(codes, scales, v.read(1), codec, BLOCK))
    return distances


@case
def quant_accumulate(v: Vectors) -> Any:
    for codec in CODECS:
        codes, scales = zip(v.message(codec, 5), v.message(codec, 6), v.message(codec, 7), strict=True)
        kernels.quant_accumulate(codes, scales, WEIGHTS, v.write(1), codec, BLOCK)
    kernels.quant_accumulate_many(
        [[codes[0]] * 2], [[scales[0]] * 2], [0.25], [v.write(1), v.write(2)], CODECS[-1], BLOCK
    )


@case
def choco_step(v: Vectors) -> Any:
    bad = []
    for codec in ("int8", "sign"):
        step = kernels.ChocoStep(0.4, 0.3, 0.1, codec, BLOCK)
        bad.append(step.run(v.write(1), v.write(2), v.write(3), *v.message(codec)))
        bad.append(step.run(v.write(1), v.write(2), v.write(3), *v.message(codec), v.read(4)))
    return bad


@case
def choco_absorb(v: Vectors) -> Any:
    codes, scales = zip(v.message("int4", 5), v.message("int4", 6), strict=True)
    kernels.choco_absorb(v.write(1), v.write(2), v.write(3), 0.4, codes, scales, WEIGHTS[:2], "int4", BLOCK)


def outcome(name: str, n: int, make: Callable[[int], Any]) -> tuple[list[Any], Any]:
    v = Vectors(n, make)
    numbers = CASES[name](v)
    return v.written, numbers


def as_array(x: Any) -> np.ndarray:
    """The bits of a vector, NaNs of 16 bits all alike."""
    if isinstance(x, torch.Tensor) and x.element_size() == 2:
        return torch.where(x.isnan(), torch.nan, x).view(torch.int16).numpy()
    return np.asarray(x)


def assert_same(ours: tuple[list[Any], Any], theirs: tuple[list[Any], Any]) -> None:
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(as_array(a), as_array(b))
    if ours[1] is not None:
        np.testing.assert_array_equal(np.hstack(ours[1]), np.hstack(theirs[1]))


def narrowed(result: tuple[list[Any], Any], dtype: torch.dtype) -> tuple[list[Any], Any]:
    return [x.to(dtype) if isinstance(x, torch.Tensor) else x for x in result[0]], result[1]


cases = pytest.mark.parametrize("name", CASES)
halves = pytest.mark.parametrize("dtype", HALVES, ids=["bf16", "fp16"])


@cases
@halves
@pytest.mark.parametrize("n", SIZES)
def test_16_bits_are_float32_arithmetic_rounded_once(name, dtype, n, target):
    expected = narrowed(outcome(name, n, lambda seed: half_values(seed, n, dtype).float()), dtype)
    assert_same(outcome(name, n, lambda seed: half_values(seed, n, dtype)), expected)


@halves
def test_16_bits_against_numpy(dtype, target):
    x = [half_values(seed, 1003, dtype) for seed in (1, 2, 3)]
    a, b, c = (row.float().numpy() for row in x)
    w = np.float32(WEIGHTS)
    total = torch.from_numpy((w[0] * a + w[1] * b) + w[2] * c)
    assert kernels.mix(x, WEIGHTS).equal(total.to(dtype))
    out, ratio = torch.empty_like(x[0]), torch.empty_like(x[0])
    assert kernels.push_sum_mix(x, WEIGHTS, 0.75, out, ratio).equal((total / 0.75).to(dtype))
    assert out.equal(total.to(dtype))
    assert kernels.median(x).equal(torch.from_numpy(np.median([a, b, c], axis=0)).to(dtype))
    assert kernels.sqdist(x[0], x[1]) == pytest.approx(float(np.sum((a.astype(float) - b) ** 2)), rel=1e-12)


@cases
@halves
def test_16_bits_at_odd_addresses(name, dtype):
    expected = outcome(name, 1003, lambda seed: half_values(seed, 1003, dtype))
    assert_same(outcome(name, 1003, lambda seed: moved(half_values(seed, 1003, dtype))), expected)


def with_specials(x: torch.Tensor) -> torch.Tensor:
    """NaN, infinities and the largest number among the others, at different places for different vectors."""
    specials = torch.tensor([torch.nan, torch.inf, -torch.inf, torch.finfo(x.dtype).max, -torch.nan])
    place = int(x[1].abs().double() * 100) % 7
    x[place : place + 5] = specials.to(x.dtype)
    return x


@cases
@halves
def test_nan_infinity_and_overflow_in_16_bits(name, dtype, target):
    def make(seed):
        return with_specials(half_values(seed, 1003, dtype))

    expected = narrowed(outcome(name, 1003, lambda seed: make(seed).float()), dtype)
    assert_same(outcome(name, 1003, make), expected)


def test_a_sum_too_large_for_16_bits_is_infinite(target):
    x = torch.full((100,), 60000.0, dtype=torch.float16)
    assert kernels.mix([x, x], [1.0, 1.0]).isinf().all()
    assert kernels.mix([x, x], [0.5, 0.5]).equal(x)  # no overflow on the way
    assert kernels.sqnorm(x) == 100 * float(x[0]) ** 2


@cases
@pytest.mark.parametrize(
    "make",
    [lambda seed: half_values(seed, LARGE, torch.bfloat16), lambda seed: doubles(seed, LARGE)],
    ids=["bf16", "f64"],
)
def test_threads_and_instruction_sets_do_not_show(name, make):
    results = []
    for target, threads in [(kernels.targets()[0], 1), *[(kernels.targets()[-1], k) for k in (1, 2, 3)]]:
        kernels.set_target(target)
        kernels.set_num_threads(threads)
        results.append(outcome(name, LARGE, make))
    for result in results[1:]:
        assert_same(result, results[0])


@cases
def test_doubles_on_every_instruction_set_and_at_odd_addresses(name, target):
    ours = outcome(name, 1003, lambda seed: moved(doubles(seed, 1003)))
    kernels.set_target(kernels.targets()[0])
    assert_same(ours, outcome(name, 1003, lambda seed: doubles(seed, 1003)))


REFUSED: list[tuple[str, Callable[[Any, Any], Any]]] = [
    (r"x\[1\] .* as out is", lambda x, other: kernels.mix([x, other], [0.5, 0.5])),
    (
        r"x\[0\]\[1\] .* as out\[0\] is",
        lambda x, other: kernels.mix_many([[x, other]], [1.0], [x, x.clone()]),
    ),
    (r"ratio .* as out is", lambda x, other: kernels.push_sum_mix([x], [1.0], 1.0, x.clone(), other)),
    (r"previous .* as out is", lambda x, other: kernels.tracking_mix([x], [1.0], x, other, x.clone())),
    (
        r"gradient .* as out is",
        lambda x, other: kernels.momentum_mix([x], [1.0], other, x.clone(), x.clone(), momentum=0.9, lr=0.1),
    ),
    (r"y .* as x is", kernels.sqdist),
    (r"x\[1\] .* as y is", lambda x, other: kernels.sqdists([x, other], x)),
    (r"x\[1\] .* as out is", lambda x, other: kernels.median([x, other])),
    (r"x\[1\] .* as x\[0\] is", lambda x, other: kernels.gram([x, other])),
    (r"centre .* as x\[0\] is", lambda x, other: kernels.gram([x], other)),
    (
        r"centre .* as out is",
        lambda x, other: kernels.clip_accumulate([x], [1.0], [1.0], [1.0], other, x.clone()),
    ),
    (
        r"residual .* as x is",
        lambda x, other: kernels.quant_encode(x, CODES, SCALES, "int8", 16, residual=other),
    ),
    (r"y .* as x is", lambda x, other: kernels.quant_encode_difference(x, other, CODES, SCALES, "int8", 16)),
    (
        r"mixed .* as x is",
        lambda x, other: kernels.ChocoStep(0.5, 0.5).run(x, x.clone(), other, CODES, SCALES),
    ),
]
CODES, SCALES = np.zeros(16, np.uint8), np.zeros(1, np.float32)


@pytest.mark.parametrize(("message", "refused"), REFUSED)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("float32", "bfloat16"), ("bfloat16", "float16"), ("float64", "float32"), ("float16", "float64")],
)
def test_the_vectors_of_a_call_have_one_type(message, refused, ours, theirs):
    x, other = torch.ones(16, dtype=getattr(torch, ours)), torch.ones(16, dtype=getattr(torch, theirs))
    name, because = message.split(" .* ")
    with pytest.raises(
        TypeError,
        match=rf"^{name} must be a {ours} array, got torch\.{theirs}; use .*to\(torch\.{ours}\), {because}$",
    ):
        refused(x, other)
    assert x.equal(torch.ones_like(x))


def test_arrays_are_taken_and_told_how_to_become_bfloat16():
    x = np.arange(8, dtype=np.float16)
    assert kernels.mix([x], [2.0]).dtype == np.float16
    assert kernels.mix([x.astype(np.float64)], [2.0]).dtype == np.float64
    assert kernels.mix([torch.ones(3, dtype=torch.bfloat16)], [2.0]).dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"use torch\.from_numpy\(y\)\.to\(torch\.bfloat16\), as x is"):
        kernels.sqdist(torch.ones(8, dtype=torch.bfloat16), x)
    with pytest.raises(
        TypeError, match=r"x must be a float32, float64, bfloat16 or float16 array, got int32; use x\.astype"
    ):
        kernels.sqnorm(np.zeros(8, np.int32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=["bf16", "f64"])
def test_compiled_functions_take_every_type(dtype):
    def everything(x, y, codes, scales):
        mixed = kernels.mix([x, y], [0.5, 0.5])
        middle = kernels.median([x, y, mixed])
        bad = kernels.quant_encode(middle, codes, scales, "int8", 16, residual=y)
        return kernels.quant_accumulate([codes], [scales], [0.5], mixed, "int8", 16), bad, kernels.sqnorm(x)

    def arguments():
        x, y = (half_values(seed, 160, torch.bfloat16).to(dtype) for seed in (1, 2))
        return [x, y, torch.zeros(160, dtype=torch.uint8), torch.zeros(10)]

    ours, theirs = arguments(), arguments()
    result = torch.compile(everything, backend="aot_eager", fullgraph=True)(*ours)
    expected = everything(*theirs)
    torch._dynamo.reset()
    assert result[0].dtype == dtype
    assert [x.tolist() for x in result[:1]] == [x.tolist() for x in expected[:1]]
    assert [float(x) for x in result[1:]] == [float(x) for x in expected[1:]]
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))
