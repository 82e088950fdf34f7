"""Weighted sums with what follows them, and the 16-bit casts, for all buckets in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.kernels.cuda._module import counter, native

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


def mix(x: Sequence[Tensors], weights: Sequence[float], out: Tensors) -> None:
    """As ``kernels.mix``: ``out[b] = sum_k weights[k] * x[b][k]``.

    Args:
        x: for every bucket the same number of float32 tensors, at most 64.
        weights: one for each of them.
        out: a float32 tensor for every bucket; may be one of its x.

    Cost: reads 4 * K * n bytes, writes 4 * n bytes.
    """
    native().mix_f32(x, weights, out)


def push_sum_mix(
    x: Sequence[Tensors], weights: Sequence[float], divisor: float, out: Tensors, ratio: Tensors
) -> None:
    """As ``kernels.push_sum_mix``, for every bucket."""
    native().push_sum_f32(x, weights, divisor, out, ratio)


def tracking_mix(
    x: Sequence[Tensors], weights: Sequence[float], gradient: Tensors, previous: Tensors, out: Tensors
) -> None:
    """As ``kernels.tracking_mix``, for every bucket."""
    native().tracking_f32(x, weights, gradient, previous, out)


def momentum_mix(
    x: Sequence[Tensors],
    weights: Sequence[float],
    gradient: Tensors,
    velocity: Tensors,
    out: Tensors,
    *,
    momentum: float,
    lr: float,
) -> None:
    """As ``kernels.momentum_mix``, for every bucket."""
    native().momentum_f32(x, weights, gradient, momentum, lr, velocity, out)


def cast_encode(
    x: Tensors,
    codes: Tensors,
    half: str,
    *,
    residual: Tensors | None = None,
    bad: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.cast_encode``, for every bucket.

    Args:
        x: float32, a tensor for every bucket.
        codes: uint16 or int16, as x; overwritten.
        half: bf16 or fp16.
        residual: float32, as x; updated.
        bad: a counter to add to; a new one if None.

    Returns:
        The counter of infinite and NaN codes.
    """
    bad = counter(x[0]) if bad is None else bad
    native().cast_encode_f32(x, residual, codes, half, bad)
    return bad


def cast_decode(codes: Tensors, out: Tensors, half: str) -> None:
    """As ``kernels.cast_decode``, for every bucket."""
    native().cast_decode_f32([[item] for item in codes], out, half)


def cast_accumulate(codes: Sequence[Tensors], weights: Sequence[float], out: Tensors, half: str) -> None:
    """As ``kernels.cast_accumulate``: ``codes[b]`` are the messages of bucket b."""
    native().cast_accumulate_f32(codes, weights, out, half)


def cast_count_nonfinite(codes: torch.Tensor, half: str, bad: torch.Tensor | None = None) -> torch.Tensor:
    """As ``kernels.cast_count_nonfinite``; returns the counter."""
    bad = counter(codes) if bad is None else bad
    native().cast_count_nonfinite(codes, half, bad)
    return bad
