"""What ``pydec.kernels`` becomes for tensors on a GPU: the compiled CPU module hands calls on by name.

The functions have the names and parameters of the CPU module's. Where those return a number, these return a
tensor of one element on the device, so that nothing waits. Where those raise IndexError for indices that
do not fit, these leave the output unchanged: ask ``cuda.sparse_check`` or ``cuda.block_topk_check``, or check
the message before it goes to the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydec.errors import ConfigError
from pydec.kernels import cuda
from pydec.kernels.cuda._module import empty

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
    Tensors = Sequence[Tensor]


def mix_f32(x: Tensors, weights: Sequence[float], out: Tensor) -> None:
    """``kernels.mix``."""
    cuda.mix([x], weights, [out])


def push_sum_f32(x: Tensors, weights: Sequence[float], divisor: float, out: Tensor, ratio: Tensor) -> None:
    """``kernels.push_sum_mix``."""
    cuda.push_sum_mix([x], weights, divisor, [out], [ratio])


def tracking_f32(
    x: Tensors, weights: Sequence[float], gradient: Tensor, previous: Tensor, out: Tensor
) -> None:
    """``kernels.tracking_mix``."""
    cuda.tracking_mix([x], weights, [gradient], [previous], [out])


def momentum_f32(
    x: Tensors,
    weights: Sequence[float],
    gradient: Tensor,
    momentum: float,
    rate: float,
    velocity: Tensor,
    out: Tensor,
) -> None:
    """``kernels.momentum_mix``."""
    cuda.momentum_mix([x], weights, [gradient], [velocity], [out], momentum=momentum, lr=rate)


def stream_f32(x: Tensor, out: Tensor) -> None:
    """``kernels.stream_copy``: torch's own copy, which is at the memory's speed."""
    out.copy_(x)


def cast_encode_f32(x: Tensor, residual: Tensor | None, codes: Tensor, half: str) -> Tensor:
    """``kernels.cast_encode``."""
    return cuda.cast_encode([x], [codes], half, residual=None if residual is None else [residual])


def cast_decode_f32(codes: Tensor, out: Tensor, half: str) -> None:
    """``kernels.cast_decode``."""
    cuda.cast_decode([codes], [out], half)


def cast_accumulate_f32(codes: Tensors, weights: Sequence[float], out: Tensor, half: str) -> None:
    """``kernels.cast_accumulate``."""
    cuda.cast_accumulate([codes], weights, [out], half)


def cast_count_nonfinite(codes: Tensor, half: str) -> Tensor:
    """``kernels.cast_count_nonfinite``."""
    return cuda.cast_count_nonfinite(codes, half)


def quant_encode_f32(
    x: Tensor,
    residual: Tensor | None,
    codes: Tensor,
    scales: Tensor,
    codec: str,
    block: int,
    key: int | None,
    first: int,
) -> Tensor:
    """``kernels.quant_encode``."""
    left = None if residual is None else [residual]
    return cuda.quant_encode([x], [codes], [scales], codec, block, residual=left, key=key, first=[first])


def quant_decode_f32(codes: Tensor, scales: Tensor, out: Tensor, codec: str, block: int) -> None:
    """``kernels.quant_decode``."""
    cuda.quant_decode([codes], [scales], [out], codec, block)


def quant_accumulate_f32(
    codes: Tensors, scales: Tensors, weights: Sequence[float], out: Tensor, codec: str, block: int
) -> None:
    """``kernels.quant_accumulate``."""
    cuda.quant_accumulate([codes], [scales], weights, [out], codec, block)


quant_sqdist_f32 = cuda.quant_sqdist
quant_check = cuda.quant_check


def quant_encode_difference_f32(
    x: Tensor, y: Tensor, codes: Tensor, scales: Tensor, codec: str, block: int, key: int | None, first: int
) -> Tensor:
    """``kernels.quant_encode_difference``."""
    return cuda.quant_encode_difference([x], [y], [codes], [scales], codec, block, key=key, first=[first])


def mix_many_f32(x: Sequence[Tensors], weights: Sequence[float], out: Tensors) -> None:
    """``kernels.mix_many``."""
    cuda.mix(list(zip(*x, strict=True)), weights, out)


def quant_encode_many_f32(
    x: Tensors,
    residual: Tensors | None,
    codes: Tensors,
    scales: Tensors,
    codec: str,
    block: int,
    key: int | None,
    first: int,
) -> Tensor:
    """``kernels.quant_encode_many``."""
    places = [first]
    for bucket in x:
        places.append(places[-1] + -(-len(bucket) // 16) * 16)
    return cuda.quant_encode(x, codes, scales, codec, block, residual=residual, key=key, first=places[:-1])


def quant_accumulate_many_f32(
    codes: Sequence[Tensors],
    scales: Sequence[Tensors],
    weights: Sequence[float],
    out: Tensors,
    codec: str,
    block: int,
) -> None:
    """``kernels.quant_accumulate_many``."""

    def by_bucket(parts: Sequence[Tensors]) -> list[Tensors]:
        return list(zip(*parts, strict=True)) if len(parts) else [()] * len(out)

    cuda.quant_accumulate(by_bucket(codes), by_bucket(scales), weights, out, codec, block)


def choco_step_f32(
    x: Tensor,
    estimate: Tensor,
    mixed: Tensor,
    gradient: Tensor | None,
    gamma: float,
    own_weight: float,
    lr: float,
    codes: Tensor,
    scales: Tensor,
    codec: str,
    block: int,
    key: int | None,
    first: int,
) -> Tensor:
    """``kernels.ChocoStep.run``."""
    return cuda.choco_step(
        [x],
        [estimate],
        [mixed],
        [codes],
        [scales],
        gamma=gamma,
        own_weight=own_weight,
        lr=lr,
        codec=codec,
        block=block,
        gradient=None if gradient is None else [gradient],
        key=key,
        first=[first],
    )


def choco_absorb_f32(
    x: Tensor,
    estimate: Tensor,
    mixed: Tensor,
    gamma: float,
    codes: Tensors,
    scales: Tensors,
    weights: Sequence[float],
    codec: str,
    block: int,
) -> None:
    """``kernels.choco_absorb``."""
    cuda.choco_absorb(
        [x], [estimate], [mixed], [codes], [scales], weights, gamma=gamma, codec=codec, block=block
    )


sqnorm_f32 = cuda.sqnorm
checked_sqnorm_f32 = cuda.checked_sqnorm


def sqdist_f32(x: Tensor, y: Tensor) -> Tensor:
    """``kernels.sqdist``."""
    return cuda.sqdists([x], y)


def sqdists_f32(x: Tensors, y: Tensor, out: Tensor) -> None:
    """``kernels.sqdists``."""
    cuda.sqdists(x, y, out)


def count_nonfinite_f32(x: Tensor) -> Tensor:
    """``kernels.count_nonfinite``."""
    return cuda.count_nonfinite(x)


def gram_f32(x: Tensors, centre: Tensor | None, gram: Tensor) -> None:
    """``kernels.gram``."""
    cuda.gram(x, centre, gram.view(len(x), len(x)))


def clip_accumulate_f32(
    x: Tensors,
    weights: Sequence[float],
    distances: Sequence[float],
    radii: Sequence[float],
    centre: Tensor,
    out: Tensor,
) -> int:
    """``kernels.clip_accumulate`` with distances that the host knows."""
    import torch

    if not len(x) == len(weights) == len(distances) == len(radii):
        raise ValueError(
            "x, weights, distances and radii must be equally many, got "
            f"{len(x)}, {len(weights)}, {len(distances)} and {len(radii)}"
        )
    known = torch.tensor([float(d) for d in distances], dtype=torch.float64)
    if bool((known < 0).any()):
        raise ValueError(f"distances must not be negative, got {known.min().item()}")
    shares = [
        w * (min(1.0, r / d) if d > r else 1.0)
        for w, d, r in zip(weights, known.tolist(), radii, strict=True)
    ]
    shares = [s if f else float("nan") for s, f in zip(shares, known.isfinite().tolist(), strict=True)]
    factors = empty(out, len(x), "float32")
    factors.copy_(torch.tensor(shares, dtype=torch.float32))
    cuda.clip_accumulate(x, factors, centre, out)
    return int(known.isfinite().sum())


def median_f32(x: Tensors, out: Tensor, largest: Tensor | None) -> None:
    """``kernels.median``."""
    _without(largest)
    cuda.median(x, out)


def trimmed_mean_f32(x: Tensors, f: int, out: Tensor, largest: Tensor | None) -> None:
    """``kernels.trimmed_mean``."""
    _without(largest)
    cuda.trimmed_mean(x, f, out)


def mean_around_median_f32(x: Tensors, f: int, out: Tensor, largest: Tensor | None) -> None:
    """``kernels.mean_around_median``."""
    _without(largest)
    cuda.mean_around_median(x, f, out)


def _without(largest: Tensor | None) -> None:
    if largest is not None:
        raise ConfigError("kernels on a GPU do not look for the largest magnitude; pass largest=None")


def topk_select_f32(x: Tensor, residual: Tensor | None, k: int, indices: Tensor, values: Tensor) -> Tensor:
    """``kernels.topk_select`` and ``kernels.topk_feedback``."""
    return cuda.topk_select(x, k, indices, values, residual=residual)


def threshold_select_f32(x: Tensor, residual: Tensor | None, k: int, least: int, entries: Tensor) -> Any:
    """``kernels.threshold_select`` writes indices and values behind one another, which needs their number."""
    raise ConfigError(
        "threshold_select packs its entries by their number, which a GPU call does not wait for; "
        "use pydec.kernels.cuda.threshold_select with indices and values apart"
    )


def scatter_accumulate_f32(indices: Tensor, values: Tensor, weight: float, out: Tensor) -> None:
    """``kernels.scatter_accumulate`` for ascending indices."""
    cuda.sparse_accumulate([indices], [values], [weight], out)


def sparse_check(indices: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """``kernels.sparse_check``."""
    return cuda.sparse_check(indices, 1 << 32) == 0, cuda.count_nonfinite(values)


def sparse_decode_f32(indices: Tensor, values: Tensor, out: Tensor) -> None:
    """``kernels.sparse_decode``."""
    cuda.sparse_decode(indices, values, out)


def sparse_accumulate_f32(indices: Tensors, values: Tensors, weights: Sequence[float], out: Tensor) -> None:
    """``kernels.sparse_accumulate``."""
    cuda.sparse_accumulate(indices, values, weights, out)


block_topk_select_f32 = cuda.block_topk_select
block_topk_check = cuda.block_topk_check


def block_topk_decode_f32(indices: Tensor, values: Tensor, block: int, k: int, out: Tensor) -> None:
    """``kernels.block_topk_decode``."""
    cuda.block_topk_decode(indices, values, block, k, out)


def block_topk_accumulate_f32(
    indices: Tensors, values: Tensors, weights: Sequence[float], block: int, k: int, out: Tensor
) -> None:
    """``kernels.block_topk_accumulate``."""
    cuda.block_topk_accumulate(indices, values, weights, block, k, out)


randk_key_f32 = cuda.randk_key
randk_gather_f32 = cuda.randk_gather
randk_scatter_f32 = cuda.randk_scatter
randk_accumulate_f32 = cuda.randk_accumulate

gaps_unpack = cuda.gaps_unpack
topk_int8_encode_f32 = cuda.topk_int8_encode
topk_int8_decode_f32 = cuda.topk_int8_decode
topk_int8_accumulate_f32 = cuda.topk_int8_accumulate

powersgd_start_f32 = cuda.powersgd_start
powersgd_iterate_f32 = cuda.powersgd_iterate
powersgd_decode_f32 = cuda.powersgd_decode
powersgd_accumulate_f32 = cuda.powersgd_accumulate

demo_check = cuda.demo_check
demo_decode_f32 = cuda.demo_decode
demo_accumulate_f32 = cuda.demo_accumulate


def demo_encode_f32(
    x: Tensor,
    residual: Tensor | None,
    records: Tensor,
    side: int,
    k: int,
    values: str,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """``kernels.demo_encode``."""
    bad = cuda.demo_encode(x, residual, records, side, k, values, beta)
    return bad[:1], bad[1:]
