"""Every kernel runs on every instruction set of this CPU; helpers that the kernel tests share.

``CALLS`` has one call of every public kernel; a test with an argument ``call`` runs once for each. It is what
keeps a new kernel from being forgotten where all kernels must agree: on arrays and tensors, compiled,
and on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import kernels

N = 1003
BLOCK = 128


@dataclass(frozen=True)
class Call:
    """A kernel and arguments for it, which it may change."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def f32(seed: int, n: int | None = None) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(N if n is None else n, dtype=np.float32)


def encoded(codec: str, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    codes = np.zeros(kernels.quant_bytes(codec, N), np.uint8)
    scales = np.zeros(-(-N // BLOCK), np.float32)
    kernels.quant_encode(f32(seed), codes, scales, codec, BLOCK)
    return codes, scales


def blocks_selected(seed: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    count = kernels.block_topk_count(N, 100, 7)
    indices, values = np.zeros(count, np.uint16), np.zeros(count, np.float32)
    kernels.block_topk_select(f32(seed), None, 100, 7, indices, values)
    return indices, values


def call_of(name: str) -> Call:
    """A fresh call of the kernel ``name``, always with the same numbers."""
    kernel = getattr(kernels, name)
    x, y = f32(1), f32(2)
    xs, weights = [x, y, f32(3)], [0.5, -0.25, 0.75]
    out, residual, ratio = f32(4), f32(5), f32(6)
    codes16, codes8, scales = (
        np.zeros(N, np.uint16),
        np.zeros(N, np.uint8),
        np.zeros(-(-N // BLOCK), np.float32),
    )
    codes, quant_scales = encoded("int4", 7)
    more_codes, more_scales = encoded("int4", 8)
    indices, values = blocks_selected(9)
    more_indices, more_values = blocks_selected(10)
    chosen = np.zeros(kernels.randk_count(N, 8, 5, 11), np.float32)
    top, largest = np.zeros(20, np.uint32), np.zeros(20, np.float32)
    kernels.topk_select(x, 20, top, largest)
    left, right = f32(11)[: 3 * -(-N // 40)], f32(12)[: 3 * 40]
    records = np.zeros(kernels.demo_bytes(N, 16, 9, "bf16"), np.uint8)
    kernels.demo_encode(x, None, records, 16, 9, "bf16")
    halves = (x.astype(np.float16).view(np.uint16), y.astype(np.float16).view(np.uint16))
    packed = np.zeros(kernels.gaps_bound(N, 20), np.uint8)
    packed = packed[: kernels.gaps_pack(top, packed)]
    body = np.zeros(kernels.topk_int8_bound(N, 20, 16), np.uint8)
    body = body[: kernels.topk_int8_encode(y, None, 20, 16, body)[0]]
    arguments: dict[str, tuple[Any, ...]] = {
        "ChocoStep": (x, y, out, codes8, scales, residual),
        "block_topk_accumulate": ([indices, more_indices], [values, more_values], [0.5, 2.0], 100, 7, out),
        "block_topk_check": (indices, N, 100, 7),
        "block_topk_decode": (indices, values, 100, 7, out),
        "block_topk_select": (y, residual, 100, 7, indices, values),
        "cast_accumulate": (halves, [0.5, 0.25], out, "fp16"),
        "cast_count_nonfinite": (halves[0], "fp16"),
        "cast_decode": (halves[0], out, "fp16"),
        "cast_encode": (x, codes16, "bf16"),
        "checked_sqnorm": (x,),
        "choco_absorb": (
            x,
            residual,
            out,
            0.5,
            [codes, more_codes],
            [quant_scales, more_scales],
            [0.5, 2.0],
            "int4",
            BLOCK,
        ),
        "clip_accumulate": (xs, weights, [3.0, 40.0, 5.0], [4.0, 4.0, 4.0], y, out),
        "count_nonfinite": (x,),
        "gaps_pack": (top, np.zeros(packed.size + 999, np.uint8)),
        "gaps_unpack": (packed, N, top),
        "demo_accumulate": ([records, records], [0.5, 2.0], out, 16, 9, "bf16"),
        "demo_check": (records, N, 16, 9, "bf16"),
        "demo_decode": (records, out, 16, 9, "bf16"),
        "demo_encode": (y, residual, records, 16, 9, "bf16", 0.75),
        "gram": (xs, y),
        "mean_around_median": (xs, 1),
        "median": (xs,),
        "mix": (xs, weights),
        "mix_many": ([[x, y[:100]], [f32(3), f32(14, 100)]], [0.5, -0.25], [out, residual[:100]]),
        "momentum_mix": (xs, weights, out, residual, ratio),
        "powersgd_accumulate": ([left, left], [right, right], [0.5, 2.0], 40, out),
        "powersgd_decode": (left, right, 40, out),
        "powersgd_iterate": (x, residual, 40, left, right),
        "powersgd_start": (x, residual, 14, right),
        "push_sum_mix": (xs, weights, 0.5, out, ratio),
        "quant_accumulate": (
            [codes, more_codes],
            [quant_scales, more_scales],
            [0.5, 2.0],
            out,
            "int4",
            BLOCK,
        ),
        "quant_accumulate_many": (
            [[codes, codes[:16].copy()], [more_codes, more_codes[:16].copy()]],
            [[quant_scales, ratio[:1]], [more_scales, ratio[1:2]]],
            [0.5, 2.0],
            [out, residual[:20]],
            "int4",
            BLOCK,
        ),
        "quant_check": (codes, quant_scales, N, "int4", BLOCK),
        "quant_decode": (codes, quant_scales, out, "int4", BLOCK),
        "quant_encode": (x, codes, quant_scales, "int4", BLOCK),
        "quant_encode_many": (
            [x, ratio[:40]],
            [codes, more_codes[:32]],
            [quant_scales, more_scales[:1]],
            "int4",
            BLOCK,
        ),
        "quant_encode_difference": (x, y, codes, quant_scales, "int4", BLOCK),
        "quant_sqdist": (codes, quant_scales, x, "int4", BLOCK),
        "quant_pair_sqdists": ([codes, more_codes], [quant_scales, more_scales], N, "int4", BLOCK),
        "quant_sqdists": (
            codes,
            quant_scales,
            [more_codes, codes],
            [more_scales, more_scales],
            N,
            "int4",
            BLOCK,
        ),
        "randk_accumulate": ([chosen + np.float32(1)] * 2, [8, 8], [5, 5], [11, 11], [0.5, 2.0], out),
        "randk_gather": (x, 8, 5, 11, True, chosen),
        "randk_key": (x, residual, 12),
        "randk_scatter": (chosen + np.float32(1), 8, 5, 11, 0.5, out),
        "scatter_accumulate": (top, largest, 0.5, out),
        "sparse_accumulate": ([top, top], [largest, largest], [0.5, 2.0], out),
        "sparse_check": (top, largest),
        "sparse_decode": (top, largest, out),
        "sqdist": (x, y),
        "sqdists": (xs, y),
        "sqnorm": (x,),
        "squared_distances": (kernels.gram(xs),),
        "stream_copy": (x, out),
        "threshold_select": (x, residual, 20, 10, np.zeros(8 * 30, np.uint8)),
        "topk_feedback": (x, residual, 20, top, largest),
        "topk_int8_accumulate": ([body, body], [20, 20], [16, 16], [0.5, 2.0], out),
        "topk_int8_decode": (body, 20, 16, out),
        "topk_int8_encode": (x, residual, 20, 16, np.zeros(body.size + 300, np.uint8)),
        "topk_select": (x, 20, top, largest),
        "tracking_mix": (xs, weights, y * np.float32(2), residual, out),
        "trimmed_mean": (xs, 1),
    }
    keywords: dict[str, dict[str, Any]] = {
        "cast_encode": {"residual": residual},
        "momentum_mix": {"momentum": 0.9, "lr": 0.1},
        "quant_encode": {"residual": residual, "key": 13},
        "quant_encode_many": {"residual": [residual, out[:40]], "key": 13},
    }
    if name == "ChocoStep":
        kernel = kernels.ChocoStep(0.5, 0.25, 0.1, "int8", BLOCK).run
    return Call(kernel, arguments[name], keywords.get(name, {}))


WITHOUT_VECTORS = {
    "block_topk_count", "cuda_status", "demo_bytes", "gaps_bound", "num_threads", "quant_blocks",
    "quant_bytes", "quant_group", "randk_count", "set_num_threads", "set_target", "target", "targets",
    "topk_int8_bound",
}  # fmt: skip
CALLS = [name for name in kernels.__all__ if callable(getattr(kernels, name)) and name not in WITHOUT_VECTORS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "call" in metafunc.fixturenames:
        metafunc.parametrize("call", CALLS)


@pytest.fixture
def long_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ``fresh`` make calls that threads share."""
    monkeypatch.setitem(globals(), "N", 1_100_003)


@pytest.fixture
def fresh() -> Callable[[str], Call]:
    """Makes a fresh call of a kernel."""
    return call_of


@pytest.fixture
def leaves() -> Callable[[object], list[Any]]:
    """The arrays, tensors and numbers of nested sequences, in order."""

    def walk(tree: object) -> list[Any]:
        return [leaf for item in tree for leaf in walk(item)] if isinstance(tree, (list, tuple)) else [tree]

    return walk


@pytest.fixture(autouse=True)
def _restore_target() -> Iterator[None]:
    before = kernels.target()
    yield
    kernels.set_target(before)


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    before = kernels.num_threads()
    yield
    kernels.set_num_threads(before)


@pytest.fixture(params=kernels.targets())
def target(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each instruction set that this CPU has."""
    kernels.set_target(request.param)
    return str(request.param)


@pytest.fixture
def unaligned() -> Callable[[NDArray[np.generic]], NDArray[np.generic]]:
    """Copies an array to an odd address, as a payload's fields have after its first byte."""

    def move(array: NDArray[np.generic]) -> NDArray[np.generic]:
        room = np.zeros(array.nbytes + 1, np.uint8)
        view = room[1:].view(array.dtype)
        view[...] = array
        return view

    return move
