"""Blockwise quantisers and the CHOCO step, for all buckets in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.kernels.cuda._module import counter, empty, native

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


def quant_encode(
    x: Tensors,
    codes: Tensors,
    scales: Tensors,
    codec: str,
    block: int,
    *,
    residual: Tensors | None = None,
    key: int | None = None,
    first: Sequence[int] | None = None,
    bad: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.quant_encode``, for every bucket.

    Args:
        x: float32, a tensor for every bucket.
        codes: uint8 or int8, ``quant_bytes(codec, n)`` each; overwritten.
        scales: float32, ``ceil(n / block)`` each; overwritten.
        codec: as for ``kernels.quant_encode``.
        block: elements that share a scale. Up to 1024, a block is read once; longer ones twice.
        residual: float32, as x; updated.
        key: 64 bits from which random numbers are drawn; None to round to nearest.
        first: place of each bucket in the vector that the key belongs to, multiples of 16; all 0 if None.
        bad: a counter to add to; a new one if None.

    Returns:
        The counter of blocks that got scale NaN.

    Cost: as on the CPU.
    """
    bad = counter(x[0]) if bad is None else bad
    places = [0] * len(x) if first is None else first
    native().quant_encode_f32(x, residual, codes, scales, codec, block, key, places, bad)
    return bad


def quant_encode_difference(
    x: Tensors,
    y: Tensors,
    codes: Tensors,
    scales: Tensors,
    codec: str,
    block: int,
    *,
    key: int | None = None,
    first: Sequence[int] | None = None,
    bad: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.quant_encode_difference``, for every bucket; parameters as for ``quant_encode``."""
    bad = counter(x[0]) if bad is None else bad
    places = [0] * len(x) if first is None else first
    native().quant_encode_difference_f32(x, y, codes, scales, codec, block, key, places, bad)
    return bad


def quant_decode(codes: Tensors, scales: Tensors, out: Tensors, codec: str, block: int) -> None:
    """As ``kernels.quant_decode``, for every bucket."""
    native().quant_decode_f32([[item] for item in codes], [[item] for item in scales], out, codec, block)


def quant_accumulate(
    codes: Sequence[Tensors],
    scales: Sequence[Tensors],
    weights: Sequence[float],
    out: Tensors,
    codec: str,
    block: int,
) -> None:
    """As ``kernels.quant_accumulate``: ``codes[b]`` and ``scales[b]`` are the messages of bucket b.

    16 messages in one pass over ``out``, more in several.
    """
    native().quant_accumulate_f32(codes, scales, weights, out, codec, block)


def quant_sqdist(
    codes: torch.Tensor, scales: torch.Tensor, x: torch.Tensor, codec: str, block: int
) -> torch.Tensor:
    """As ``kernels.quant_sqdist``; returns a float64 of one element."""
    module = native()
    out = empty(x, 1, "float64")
    module.quant_sqdist_f32(codes, scales, x, codec, block, out, empty(x, module.sum_work(len(x)), "float64"))
    return out


def quant_check(
    codes: torch.Tensor,
    scales: torch.Tensor,
    n: int,
    codec: str,
    block: int,
    faults: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.quant_check``; returns the faults in an int32 of one element, beside what it had."""
    if faults is None:
        faults = empty(codes, 1, "int32").zero_()
    native().quant_check(codes, scales, n, codec, block, faults)
    return faults


def choco_step(
    x: Tensors,
    estimate: Tensors,
    mixed: Tensors,
    codes: Tensors,
    scales: Tensors,
    *,
    gamma: float,
    own_weight: float,
    lr: float = 0.0,
    codec: str = "int8",
    block: int = 256,
    gradient: Tensors | None = None,
    key: int | None = None,
    first: Sequence[int] | None = None,
    bad: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.ChocoStep.run``, for every bucket; returns the counter of blocks that got scale NaN."""
    bad = counter(x[0]) if bad is None else bad
    places = [0] * len(x) if first is None else first
    native().choco_step_f32(
        x, estimate, mixed, gradient, gamma, own_weight, lr, codes, scales, codec, block, key, places, bad
    )
    return bad


def choco_absorb(
    x: Tensors,
    estimate: Tensors,
    mixed: Tensors,
    codes: Sequence[Tensors],
    scales: Sequence[Tensors],
    weights: Sequence[float],
    *,
    gamma: float,
    codec: str = "int8",
    block: int = 256,
) -> None:
    """As ``kernels.choco_absorb``: ``codes[b]`` and ``scales[b]`` are bucket b's messages, the own one first.

    8 messages in one pass over the vectors; more are accumulated before.
    """
    native().choco_absorb_f32(x, estimate, mixed, gamma, codes, scales, weights, codec, block)
