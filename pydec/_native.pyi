# Types of the compiled module; the functions are described where pydec.kernels wraps them.
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

cuda_build: str

def targets() -> list[str]: ...
def target() -> str: ...
def set_target(name: str) -> bool: ...
def stream_f32(x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
def mix_f32(x: Sequence[NDArray[np.float32]], weights: Sequence[float], out: NDArray[np.float32]) -> None: ...
def cast_encode_f32(
    x: NDArray[np.float32], residual: NDArray[np.float32] | None, codes: NDArray[np.uint16], half: str
) -> int: ...
def cast_decode_f32(codes: NDArray[np.uint16], out: NDArray[np.float32], half: str) -> None: ...
def cast_accumulate_f32(
    codes: Sequence[NDArray[np.uint16]], weights: Sequence[float], out: NDArray[np.float32], half: str
) -> None: ...
def cast_count_nonfinite(codes: NDArray[np.uint16], half: str) -> int: ...
def int8_encode_f32(
    x: NDArray[np.float32], codes: NDArray[np.int8], scales: NDArray[np.float32], block: int
) -> int: ...
def int8_decode_f32(
    codes: NDArray[np.int8], scales: NDArray[np.float32], out: NDArray[np.float32], block: int
) -> None: ...
def int8_accumulate_f32(
    codes: Sequence[NDArray[np.int8]],
    scales: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    out: NDArray[np.float32],
    block: int,
) -> None: ...
def quant_encode_f32(
    x: NDArray[np.float32],
    residual: NDArray[np.float32] | None,
    codes: NDArray[np.uint8],
    scales: NDArray[np.float32],
    codec: str,
    block: int,
    key: int | None,
    first: int,
) -> int: ...
def quant_decode_f32(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], out: NDArray[np.float32], codec: str, block: int
) -> None: ...
def quant_accumulate_f32(
    codes: Sequence[NDArray[np.uint8]],
    scales: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    out: NDArray[np.float32],
    codec: str,
    block: int,
) -> None: ...
def quant_sqdist_f32(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], x: NDArray[np.float32], codec: str, block: int
) -> float: ...
def quant_check(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], n: int, codec: str, block: int
) -> int: ...
def block_topk_select_f32(
    x: NDArray[np.float32],
    residual: NDArray[np.float32] | None,
    block: int,
    k: int,
    indices: NDArray[np.uint16],
    values: NDArray[np.float32],
) -> int: ...
def block_topk_decode_f32(
    indices: NDArray[np.uint16],
    values: NDArray[np.float32],
    block: int,
    k: int,
    out: NDArray[np.float32],
) -> None: ...
def block_topk_accumulate_f32(
    indices: Sequence[NDArray[np.uint16]],
    values: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    block: int,
    k: int,
    out: NDArray[np.float32],
) -> None: ...
def block_topk_check(indices: NDArray[np.uint16], n: int, block: int, k: int) -> int: ...
def randk_key_f32(
    x: NDArray[np.float32], residual: NDArray[np.float32] | None, seed: int
) -> tuple[int, int]: ...
def randk_count(n: int, chunk: int, k: int, key: int) -> int: ...
def randk_gather_f32(
    x: NDArray[np.float32], chunk: int, k: int, key: int, scaled: bool, values: NDArray[np.float32]
) -> None: ...
def randk_scatter_f32(
    values: NDArray[np.float32], chunk: int, k: int, key: int, weight: float, out: NDArray[np.float32]
) -> None: ...
def threshold_select_f32(
    x: NDArray[np.float32],
    residual: NDArray[np.float32] | None,
    k: int,
    least: int,
    entries: NDArray[np.uint8],
) -> tuple[int, int]: ...
def topk_select_f32(
    x: NDArray[np.float32],
    residual: NDArray[np.float32] | None,
    k: int,
    indices: NDArray[np.uint32],
    values: NDArray[np.float32],
) -> int: ...
def scatter_accumulate_f32(
    indices: NDArray[np.uint32], values: NDArray[np.float32], weight: float, out: NDArray[np.float32]
) -> None: ...
def sparse_check(indices: NDArray[np.uint32], values: NDArray[np.float32]) -> tuple[bool, int]: ...
def sparse_decode_f32(
    indices: NDArray[np.uint32], values: NDArray[np.float32], out: NDArray[np.float32]
) -> None: ...
def sparse_accumulate_f32(
    indices: Sequence[NDArray[np.uint32]],
    values: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    out: NDArray[np.float32],
) -> None: ...
def sqnorm_f32(x: NDArray[np.float32]) -> float: ...
def sqdist_f32(x: NDArray[np.float32], y: NDArray[np.float32]) -> float: ...
def count_nonfinite_f32(x: NDArray[np.float32]) -> int: ...
def median_f32(x: Sequence[NDArray[np.float32]], out: NDArray[np.float32]) -> None: ...
def trimmed_mean_f32(x: Sequence[NDArray[np.float32]], f: int, out: NDArray[np.float32]) -> None: ...
def mean_around_median_f32(x: Sequence[NDArray[np.float32]], f: int, out: NDArray[np.float32]) -> None: ...
def gram_f32(
    x: Sequence[NDArray[np.float32]], centre: NDArray[np.float32] | None, gram: NDArray[np.float64]
) -> None: ...
def clip_accumulate_f32(
    x: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    distances: Sequence[float],
    radii: Sequence[float],
    centre: NDArray[np.float32],
    out: NDArray[np.float32],
) -> int: ...
def sqdists_f32(
    x: Sequence[NDArray[np.float32]], y: NDArray[np.float32], out: NDArray[np.float64]
) -> None: ...
def checked_sqnorm_f32(x: NDArray[np.float32]) -> tuple[float, int]: ...
def push_sum_f32(
    x: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    divisor: float,
    out: NDArray[np.float32],
    ratio: NDArray[np.float32],
) -> None: ...
def tracking_f32(
    x: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    gradient: NDArray[np.float32],
    previous: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
def momentum_f32(
    x: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    gradient: NDArray[np.float32],
    momentum: float,
    lr: float,
    velocity: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
def choco_int8_step_f32(
    x: NDArray[np.float32],
    estimate: NDArray[np.float32],
    mixed: NDArray[np.float32],
    gradient: NDArray[np.float32] | None,
    gamma: float,
    own_weight: float,
    lr: float,
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    block: int,
) -> int: ...
