"""Every kernel gives the same bits on any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from pydec import kernels

# Calls are shared out from 1 MiB on, which kernels that touch many bytes an element reach first; a block that
# divides no power of two is among them.
SHAPES = [(65_537, 48), (300_003, 2048), (1_100_003, 48)]

Result = list[Any]
CASES: dict[str, Callable[[int, int], Result]] = {}


def case(run: Callable[[int, int], Result]) -> Callable[[int, int], Result]:
    CASES[run.__name__] = run
    return run


@cache
def drawn(index: int, n: int) -> np.ndarray:
    return np.random.default_rng((index, n)).standard_normal(n, dtype=np.float32)


def normal(count: int, n: int) -> list[np.ndarray]:
    return [drawn(index, n).copy() for index in range(count)]


def zeros(n: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(n, dtype)


def sixteen(n: int) -> np.ndarray:
    return np.arange(n).astype(np.uint16)


def bits(results: Result) -> list[bytes]:
    return [np.asarray(result).tobytes() for result in results]


@case
def push_sum_mix(n: int, block: int) -> Result:
    out, ratio = zeros(n), zeros(n)
    kernels.push_sum_mix(normal(3, n), [0.5, 0.2, 0.3], 0.7, out, ratio)
    return [out, ratio]


@case
def tracking_mix(n: int, block: int) -> Result:
    *x, gradient, previous = normal(5, n)
    out = zeros(n)
    kernels.tracking_mix(x, [0.5, 0.2, 0.3], gradient, previous, out)
    return [out, previous]


@case
def momentum_mix(n: int, block: int) -> Result:
    *x, gradient, velocity = normal(5, n)
    kernels.momentum_mix(x, [0.5, 0.2, 0.3], gradient, velocity, x[0], momentum=0.9, lr=0.1)
    return [x[0], velocity]


def quant_messages(n: int, block: int, feedback: bool) -> Iterator[tuple[Any, int, Result]]:
    for codec in kernels.TOP_LEVEL:
        size = block - block % -kernels.quant_group(codec) if block >= 128 else kernels.quant_group(codec) * 3
        for key in (None, 77):
            if key is not None and not codec.startswith("int"):
                continue
            x, residual = normal(2, n)
            codes = zeros(kernels.quant_bytes(codec, n), np.uint8)
            scales = zeros(-(-n // size))
            x[n // 3] = np.inf
            left = residual if feedback else None
            bad = kernels.quant_encode(x, codes, scales, codec, size, residual=left, key=key, first=32)
            yield codec, size, [codes, scales, residual, bad]


@case
def quant_encode_difference(n: int, block: int) -> Result:
    results: Result = []
    for codec, size, (codes, scales, *_) in quant_messages(n, block, False):
        x, y = normal(2, n)
        results += [kernels.quant_encode_difference(x, y, codes, scales, codec, size), codes, scales]
    return results


@case
def ChocoStep(n: int, block: int) -> Result:
    results: Result = []
    for codec, size, (codes, scales, *_) in quant_messages(n, block, False):
        x, estimate, mixed, gradient = normal(4, n)
        x[n // 2] = np.inf
        key = 5 if codec.startswith("int") else None
        step = kernels.ChocoStep(0.5, 0.3, 0.1, codec, size)
        bad = step.run(x, estimate, mixed, codes, scales, gradient if codec != "int4" else None, key=key)
        assert bad == 1
        results += [x, estimate, mixed, codes, scales]
    return results


@case
def choco_absorb(n: int, block: int) -> Result:
    results: Result = []
    for codec, size, (codes, scales, *_) in quant_messages(n, block, False):
        x, estimate, mixed = normal(3, n)
        kernels.choco_absorb(x, estimate, mixed, 0.4, [codes] * 3, [scales] * 3, [0.1, 0.2, 0.3], codec, size)
        results += [x, estimate, mixed]
    return results


@case
def quant_sqdist(n: int, block: int) -> Result:
    results: Result = []
    for codec, size, parts in quant_messages(n, block, False):
        parts[1][~np.isfinite(parts[1])] = 1
        results.append(kernels.quant_sqdist(parts[0], parts[1], normal(3, n)[0], codec, size))
    return results


@case
def quant_check(n: int, block: int) -> Result:
    results: Result = []
    for codec, size, parts in quant_messages(n, block, False):
        results.append(kernels.quant_check(parts[0], parts[1], n, codec, size))
        parts[0][-1] |= 0x80
        parts[1][~np.isfinite(parts[1])] = 1
        results.append(kernels.quant_check(parts[0], parts[1], n, codec, size))
    return results


@case
def cast_encode(n: int, block: int) -> Result:
    results: Result = []
    for half in ("bf16", "fp16"):
        for feedback in (False, True):
            x, residual = normal(2, n)
            x[::1000] = np.inf
            codes = zeros(n, np.uint16)
            bad = kernels.cast_encode(x, codes, half, residual=residual if feedback else None)
            results += [codes, residual, bad]
    return results


@case
def cast_accumulate(n: int, block: int) -> Result:
    codes = np.arange(n).astype(np.uint16) & np.uint16(0x3FFF)
    return [
        kernels.cast_accumulate([codes] * 5, [0.1] * 5, normal(1, n)[0], half) for half in ("bf16", "fp16")
    ]


@case
def checked_sqnorm(n: int, block: int) -> Result:
    x = normal(1, n)[0]
    good = kernels.checked_sqnorm(x)
    x[::100] = np.nan
    return [*good, kernels.checked_sqnorm(x)[1]]


@case
def count_nonfinite(n: int, block: int) -> Result:
    x = normal(1, n)[0]
    x[::7] = np.inf
    return [kernels.count_nonfinite(x)]


@case
def clip_accumulate(n: int, block: int) -> Result:
    *x, centre = normal(6, n)
    out = centre.copy()
    kept = kernels.clip_accumulate(x, [0.2] * 5, [1, 2, np.inf, 4, 5], [2.0] * 5, centre, out)
    return [out, kept]


@case
def randk_key(n: int, block: int) -> Result:
    x, residual = normal(2, n)
    x[5::1000] = np.inf
    key, bad = kernels.randk_key(x, residual, 7)
    return [np.uint64(key), bad, residual, np.uint64(kernels.randk_key(x, None, 7)[0])]


@case
def randk_gather(n: int, block: int) -> Result:
    results: Result = []
    for chunk in (1, 16):
        k = -(-n // chunk) // 2
        values = zeros(kernels.randk_count(n, chunk, k, 9))
        results.append(kernels.randk_gather(normal(1, n)[0], chunk, k, 9, True, values))
    return results


@case
def randk_scatter(n: int, block: int) -> Result:
    results: Result = []
    for chunk in (1, 16):
        k = -(-n // chunk) // 2
        values = normal(1, kernels.randk_count(n, chunk, k, 9))[0]
        results.append(kernels.randk_scatter(values, chunk, k, 9, 0.3, normal(2, n)[0]))
    return results


def selection(k: int) -> tuple[np.ndarray, np.ndarray]:
    return zeros(k, np.uint32), zeros(k)


def with_ties(n: int) -> np.ndarray:
    """The k-th magnitude is one that many elements have."""
    x = np.round(normal(1, n)[0] * 2) / 2
    x[n // 2], x[n - 1] = np.inf, np.nan
    return x


@case
def topk_select(n: int, block: int) -> Result:
    results: Result = []
    for x in (normal(1, n)[0], with_ties(n), zeros(n)):
        for k in (0, 1, n // 1000, n // 100, n // 3, n):
            indices, values = selection(k)
            results += [kernels.topk_select(x, k, indices, values), indices, values]
    return results


@case
def topk_feedback(n: int, block: int) -> Result:
    results: Result = []
    for x in (normal(1, n)[0], with_ties(n)):
        for k in (1, n // 1000, n // 100, n // 3):
            residual = normal(2, n)[1]
            indices, values = selection(k)
            results += [kernels.topk_feedback(x, residual, k, indices, values), indices, values, residual]
    return results


@case
def threshold_select(n: int, block: int) -> Result:
    results: Result = []
    for x in (normal(1, n)[0], with_ties(n), zeros(n)):
        for k in (1, n // 1000, n // 100, n // 3):
            for feedback in (False, True):
                residual = normal(2, n)[1]
                entries = zeros(8 * min(n, 2 * k), np.uint8)
                left = residual if feedback else None
                results += [kernels.threshold_select(x, left, k, max(1, k // 2), entries), entries, residual]
    return results


@case
def topk_int8_encode(n: int, block: int) -> Result:
    k, residual, out = n // 10, normal(2, n)[1], normal(3, n)[2]
    body = zeros(kernels.topk_int8_bound(n, k, 64), np.uint8)
    used, *faults = kernels.topk_int8_encode(normal(1, n)[0], residual, k, 64, body)
    added = kernels.topk_int8_accumulate([body[:used]] * 3, [k] * 3, [64] * 3, [0.1, 0.2, 0.3], out)
    return [body, used, *faults, residual, kernels.topk_int8_decode(body[:used], k, 64, zeros(n)), added, out]


@cache
def places(n: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((n, seed)).integers(0, n, count).astype(np.uint32)


@case
def scatter_accumulate(n: int, block: int) -> Result:
    indices = places(n, n // 4)  # in any order, and more than once
    out, rising = normal(1, n)[0], np.unique(indices)
    kernels.scatter_accumulate(indices, normal(1, indices.size)[0], 0.3, out)
    return [kernels.scatter_accumulate(rising, normal(1, rising.size)[0], 0.3, out)]


def sparse_message(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    indices = np.unique(places(n, n // 6, seed))
    return indices, normal(1, indices.size)[0]


@case
def sparse_check(n: int, block: int) -> Result:
    indices, values = sparse_message(n, 0)
    results: Result = list(kernels.sparse_check(indices, values))
    values[7::1000] = np.nan
    indices[-1] = indices[-2]
    return [*results, *kernels.sparse_check(indices, values)]


@case
def sparse_accumulate(n: int, block: int) -> Result:
    messages = [sparse_message(n, seed) for seed in range(5)]
    indices, values = [m[0] for m in messages], [m[1] for m in messages]
    return [kernels.sparse_accumulate(indices, values, [0.1, 0.2, 0.3, 0.4, 0.5], normal(1, n)[0])]


def block_message(n: int, block: int) -> tuple[int, np.ndarray, np.ndarray, Result]:
    k = max(1, block // 40)
    count = kernels.block_topk_count(n, block, k)
    indices, values = zeros(count, np.uint16), zeros(count)
    residual = normal(2, n)[1]
    bad = kernels.block_topk_select(with_ties(n), residual, block, k, indices, values)
    return k, indices, values, [residual, bad]


@case
def block_topk_select(n: int, block: int) -> Result:
    k, indices, values, rest = block_message(n, block)
    again, others = np.zeros_like(indices), np.zeros_like(values)
    bad = kernels.block_topk_select(normal(1, n)[0], None, block, k, again, others)
    return [indices, values, *rest, again, others, bad]


@case
def block_topk_check(n: int, block: int) -> Result:
    k, indices, *_ = block_message(n, block)
    results: Result = [kernels.block_topk_check(indices, n, block, k)]
    for place in (indices.size - 1, indices.size // 2, 0):
        indices[place] = block
        results.append(kernels.block_topk_check(indices, n, block, k))
    return results


@case
def block_topk_decode(n: int, block: int) -> Result:
    k, indices, values, _ = block_message(n, block)
    return [kernels.block_topk_decode(indices, values, block, k, zeros(n) + 1)]


@case
def block_topk_accumulate(n: int, block: int) -> Result:
    k, indices, values, _ = block_message(n, block)
    out = normal(1, n)[0]
    return [kernels.block_topk_accumulate([indices] * 3, [values] * 3, [0.1, 0.2, 0.3], block, k, out)]


CASES |= {
    "cast_decode": lambda n, block: [kernels.cast_decode(sixteen(n), zeros(n), h) for h in ("bf16", "fp16")],
    "cast_count_nonfinite": lambda n, block: [
        kernels.cast_count_nonfinite(sixteen(n), h) for h in ("bf16", "fp16")
    ],
    "gram": lambda n, block: [kernels.gram(normal(5, n), centre) for centre in (None, normal(3, n)[2])],
    "sqdists": lambda n, block: [kernels.sqdists(normal(5, n), normal(6, n)[5])],
    "mix": lambda n, block: [kernels.mix(normal(m, n), [0.3] * m) for m in (1, 3, 6)],
    "stream_copy": lambda n, block: [kernels.stream_copy(normal(1, n)[0], zeros(n))],
    "quant_encode": lambda n, block: [
        part
        for feedback in (False, True)
        for *_, parts in quant_messages(n, block, feedback)
        for part in parts
    ],
    "quant_decode": lambda n, block: [
        kernels.quant_decode(parts[0], parts[1], zeros(n), codec, size)
        for codec, size, parts in quant_messages(n, block, False)
    ],
    "quant_accumulate": lambda n, block: [
        kernels.quant_accumulate([parts[0]] * 2, [parts[1]] * 2, [0.5, 0.25], normal(3, n)[0], codec, size)
        for codec, size, parts in quant_messages(n, block, False)
    ],
    "sqnorm": lambda n, block: [kernels.sqnorm(normal(1, n)[0])],
    "sqdist": lambda n, block: [kernels.sqdist(*normal(2, n))],
    "median": lambda n, block: [kernels.median(normal(m, n)) for m in (4, 5, 19)],
    "trimmed_mean": lambda n, block: [kernels.trimmed_mean(normal(m, n), 2) for m in (5, 19)],
    "mean_around_median": lambda n, block: [kernels.mean_around_median(normal(m, n), 2) for m in (5, 19)],
    "sparse_decode": lambda n, block: [kernels.sparse_decode(*sparse_message(n, 0), zeros(n) + 1)],
}


def test_every_kernel_gives_the_same_bits_on_any_number_of_threads(call, fresh, leaves, long_vectors):
    def run() -> list[bytes]:
        made = fresh(call)
        result = made.function(*made.args, **made.kwargs)
        return bits(leaves([result, made.args, list(made.kwargs.values())]))

    kernels.set_num_threads(1)
    expected = run()
    for threads in (2, 3, 7):
        kernels.set_num_threads(threads)
        assert run() == expected, f"{threads} threads"


@pytest.mark.parametrize(("n", "block"), SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_any_number_of_threads_gives_the_same_bits(name, n, block):
    kernels.set_num_threads(1)
    expected = bits(CASES[name](n, block))
    for threads in (2, 3, 7):
        kernels.set_num_threads(threads)
        assert bits(CASES[name](n, block)) == expected, f"{threads} threads"


@pytest.mark.parametrize("name", CASES)
def test_every_instruction_set_gives_the_same_bits_on_three_threads(name):
    kernels.set_num_threads(3)
    found = set()
    for target in kernels.targets():
        kernels.set_target(target)
        found.add(b"".join(bits(CASES[name](300_003, 48))))
    assert len(found) == 1
