# Types of the optional CUDA module. Tensors are on a GPU; lists have an item for each bucket. Counters and
# workspaces are tensors that the caller has made.
from collections.abc import Sequence
from typing import Any

Tensor = Any  # torch.Tensor; this stub imports no torch
Tensors = Sequence[Any]

toolkit: str
max_mix: int

def device_count() -> int: ...
def mix_f32(x: Sequence[Tensors], weights: Sequence[float], out: Tensors) -> None: ...
def push_sum_f32(
    x: Sequence[Tensors], weights: Sequence[float], divisor: float, out: Tensors, ratio: Tensors
) -> None: ...
def tracking_f32(
    x: Sequence[Tensors], weights: Sequence[float], gradient: Tensors, previous: Tensors, out: Tensors
) -> None: ...
def momentum_f32(
    x: Sequence[Tensors],
    weights: Sequence[float],
    gradient: Tensors,
    momentum: float,
    rate: float,
    velocity: Tensors,
    out: Tensors,
) -> None: ...
def cast_encode_f32(
    x: Tensors, residual: Tensors | None, codes: Tensors, half: str, bad: Tensor | None
) -> None: ...
def cast_decode_f32(codes: Sequence[Tensors], out: Tensors, half: str) -> None: ...
def cast_accumulate_f32(
    codes: Sequence[Tensors], weights: Sequence[float], out: Tensors, half: str
) -> None: ...
def cast_count_nonfinite(codes: Tensor, half: str, bad: Tensor) -> None: ...
def quant_encode_f32(
    x: Tensors,
    residual: Tensors | None,
    codes: Tensors,
    scales: Tensors,
    codec: str,
    block: int,
    key: int | None,
    first: Sequence[int],
    bad: Tensor | None,
) -> None: ...
def quant_decode_f32(
    codes: Sequence[Tensors], scales: Sequence[Tensors], out: Tensors, codec: str, block: int
) -> None: ...
def quant_accumulate_f32(
    codes: Sequence[Tensors],
    scales: Sequence[Tensors],
    weights: Sequence[float],
    out: Tensors,
    codec: str,
    block: int,
) -> None: ...
def quant_sqdist_f32(
    codes: Tensor, scales: Tensor, x: Tensor, codec: str, block: int, out: Tensor, work: Tensor
) -> None: ...
def quant_check(codes: Tensor, scales: Tensor, n: int, codec: str, block: int, faults: Tensor) -> None: ...
def quant_encode_difference_f32(
    x: Tensors,
    y: Tensors,
    codes: Tensors,
    scales: Tensors,
    codec: str,
    block: int,
    key: int | None,
    first: Sequence[int],
    bad: Tensor | None,
) -> None: ...
def choco_step_f32(
    x: Tensors,
    estimate: Tensors,
    mixed: Tensors,
    gradient: Tensors | None,
    gamma: float,
    own_weight: float,
    lr: float,
    codes: Tensors,
    scales: Tensors,
    codec: str,
    block: int,
    key: int | None,
    first: Sequence[int],
    bad: Tensor | None,
) -> None: ...
def choco_absorb_f32(
    x: Tensors,
    estimate: Tensors,
    mixed: Tensors,
    gamma: float,
    codes: Sequence[Tensors],
    scales: Sequence[Tensors],
    weights: Sequence[float],
    codec: str,
    block: int,
) -> None: ...
def sum_work(n: int) -> int: ...
def sqnorm_f32(x: Tensor, out: Tensor, bad: Tensor | None, work: Tensor) -> None: ...
def sqdists_f32(x: Tensors, y: Tensor, out: Tensor, work: Tensor) -> None: ...
def count_nonfinite_f32(x: Tensor, bad: Tensor) -> None: ...
def gram_work(n: int, d: int) -> int: ...
def gram_f32(x: Tensors, centre: Tensor | None, gram: Tensor, work: Tensor) -> None: ...
def clip_factors(
    squared: Tensor, weights: Sequence[float], radii: Sequence[float], factors: Tensor
) -> None: ...
def add_differences_f32(x: Tensors, factors: Tensor, centre: Tensor, out: Tensor) -> None: ...
def median_f32(x: Tensors, out: Tensor) -> None: ...
def trimmed_mean_f32(x: Tensors, f: int, out: Tensor) -> None: ...
def mean_around_median_f32(x: Tensors, f: int, out: Tensor) -> None: ...
def topk_work(n: int, k: int) -> int: ...
def topk_select_f32(
    x: Tensor,
    residual: Tensor | None,
    k: int,
    indices: Tensor,
    values: Tensor,
    bad: Tensor | None,
    work: Tensor,
) -> None: ...
def threshold_work(n: int, k: int, least: int, most: int) -> int: ...
def threshold_select_f32(
    x: Tensor,
    residual: Tensor | None,
    k: int,
    least: int,
    indices: Tensor,
    values: Tensor,
    found: Tensor,
    bad: Tensor | None,
    work: Tensor,
) -> None: ...
def sparse_check(indices: Tensor, n: int, faults: Tensor) -> None: ...
def sparse_decode_f32(indices: Tensor, values: Tensor, out: Tensor, faults: Tensor) -> None: ...
def sparse_accumulate_f32(
    indices: Tensors, values: Tensors, weights: Sequence[float], out: Tensor, faults: Tensor
) -> None: ...
def block_topk_select_f32(
    x: Tensor,
    residual: Tensor | None,
    block: int,
    k: int,
    indices: Tensor,
    values: Tensor,
    bad: Tensor | None,
) -> None: ...
def block_topk_check(indices: Tensor, n: int, block: int, k: int, first: Tensor) -> None: ...
def block_topk_decode_f32(
    indices: Tensor, values: Tensor, block: int, k: int, out: Tensor, first: Tensor
) -> None: ...
def block_topk_accumulate_f32(
    indices: Tensors,
    values: Tensors,
    weights: Sequence[float],
    block: int,
    k: int,
    out: Tensor,
    first: Tensor,
) -> None: ...
def randk_work(n: int) -> int: ...
def randk_key_f32(
    x: Tensor, residual: Tensor | None, seed: int, key: Tensor, bad: Tensor | None, work: Tensor
) -> None: ...
def randk_gather_f32(
    x: Tensor, chunk: int, k: int, key: int | Tensor, scaled: bool, values: Tensor
) -> None: ...
def randk_scatter_f32(
    values: Tensor, chunk: int, k: int, key: int | Tensor, weight: float, out: Tensor
) -> None: ...
def randk_accumulate_f32(
    values: Tensors,
    chunks: Sequence[int],
    counts: Sequence[int],
    keys: Sequence[int | Tensor],
    weights: Sequence[float],
    out: Tensor,
) -> None: ...
def gaps_work(k: int) -> int: ...
def gaps_pack(indices: Tensor, n: int, out: Tensor, results: Tensor, work: Tensor) -> None: ...
def gaps_unpack(data: Tensor, n: int, indices: Tensor, faults: Tensor, work: Tensor) -> None: ...
def topk_int8_work(n: int, k: int) -> int: ...
def topk_int8_encode_f32(
    x: Tensor, residual: Tensor | None, k: int, block: int, body: Tensor, results: Tensor, work: Tensor
) -> None: ...
def topk_int8_decode_f32(
    body: Tensor, k: int, block: int, out: Tensor, faults: Tensor, work: Tensor
) -> None: ...
def topk_int8_accumulate_f32(
    bodies: Tensors,
    counts: Sequence[int],
    blocks: Sequence[int],
    weights: Sequence[float],
    out: Tensor,
    faults: Tensor,
    verdict: Tensor,
    work: Tensors,
) -> None: ...
def powersgd_start_f32(x: Tensor, residual: Tensor | None, seed: int, start: Tensor, key: Tensor) -> None: ...
def powersgd_work(n: int, columns: int, rank: int) -> int: ...
def powersgd_iterate_f32(
    x: Tensor,
    residual: Tensor | None,
    columns: int,
    left: Tensor,
    right: Tensor,
    bad: Tensor | None,
    work: Tensor,
) -> None: ...
def powersgd_decode_f32(left: Tensor, right: Tensor, columns: int, out: Tensor) -> None: ...
def powersgd_accumulate_f32(
    left: Tensors, right: Tensors, weights: Sequence[float], columns: int, out: Tensor
) -> None: ...
def demo_encode_f32(
    x: Tensor,
    residual: Tensor | None,
    records: Tensor,
    side: int,
    k: int,
    values: str,
    beta: float,
    bad: Tensor,
) -> None: ...
def demo_check(records: Tensor, n: int, side: int, k: int, values: str, first: Tensor) -> None: ...
def demo_decode_f32(records: Tensor, out: Tensor, side: int, k: int, values: str, first: Tensor) -> None: ...
def demo_accumulate_f32(
    records: Tensors,
    weights: Sequence[float],
    out: Tensor,
    side: int,
    k: int,
    values: str,
    first: Tensor,
) -> None: ...
