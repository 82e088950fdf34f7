# Types of the compiled module; the functions are described where pydec.kernels wraps them. Those of state
# vectors are named for float32, as their twins on the GPU are, and take every type.
from collections.abc import Sequence

from pydec.kernels._arrays import Bytes, Doubles, Halves, State, UInt16s, UInt32s, Vector

cuda_build: str

def targets() -> list[str]: ...
def target() -> str: ...
def set_target(name: str) -> bool: ...

max_threads: int

def num_threads() -> int: ...
def default_threads() -> int: ...
def set_num_threads(n: int) -> bool: ...
def stream_f32(x: Vector, out: Vector) -> None: ...
def mix_f32(x: Sequence[State], weights: Sequence[float], out: State) -> None: ...
def mix_many_f32(x: Sequence[Sequence[State]], weights: Sequence[float], out: Sequence[State]) -> None: ...
def quant_encode_many_f32(
    x: Sequence[State],
    residual: Sequence[State] | None,
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    codec: str,
    block: int,
    key: int | None,
    first: int,
) -> int: ...
def quant_accumulate_many_f32(
    codes: Sequence[Sequence[Bytes]],
    scales: Sequence[Sequence[Vector]],
    weights: Sequence[float],
    out: Sequence[State],
    codec: str,
    block: int,
) -> None: ...
def cast_encode_f32(x: Vector, residual: Vector | None, codes: Halves, half: str) -> int: ...
def cast_decode_f32(codes: Halves, out: Vector, half: str) -> None: ...
def cast_accumulate_f32(
    codes: Sequence[Halves], weights: Sequence[float], out: Vector, half: str
) -> None: ...
def cast_count_nonfinite(codes: Halves, half: str) -> int: ...
def quant_encode_f32(
    x: State,
    residual: State | None,
    codes: Bytes,
    scales: Vector,
    codec: str,
    block: int,
    key: int | None,
    first: int,
) -> int: ...
def quant_encode_difference_f32(
    x: State,
    y: State,
    codes: Bytes,
    scales: Vector,
    codec: str,
    block: int,
    key: int | None,
    first: int,
) -> int: ...
def quant_decode_f32(codes: Bytes, scales: Vector, out: State, codec: str, block: int) -> None: ...
def quant_accumulate_f32(
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    weights: Sequence[float],
    out: State,
    codec: str,
    block: int,
) -> None: ...
def quant_sqdist_f32(codes: Bytes, scales: Vector, x: State, codec: str, block: int) -> float: ...
def quant_sqdists(
    own_codes: Bytes,
    own_scales: Vector,
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    n: int,
    codec: str,
    block: int,
    out: Doubles,
) -> None: ...
def quant_pair_sqdists(
    codes: Sequence[Bytes], scales: Sequence[Vector], n: int, codec: str, block: int, out: Doubles
) -> None: ...
def quant_check(codes: Bytes, scales: Vector, n: int, codec: str, block: int) -> int: ...
def block_topk_select_f32(
    x: Vector,
    residual: Vector | None,
    block: int,
    k: int,
    indices: UInt16s,
    values: Vector,
) -> int: ...
def block_topk_decode_f32(
    indices: UInt16s,
    values: Vector,
    block: int,
    k: int,
    out: Vector,
) -> None: ...
def block_topk_accumulate_f32(
    indices: Sequence[UInt16s],
    values: Sequence[Vector],
    weights: Sequence[float],
    block: int,
    k: int,
    out: Vector,
) -> None: ...
def block_topk_check(indices: UInt16s, n: int, block: int, k: int) -> int: ...
def demo_bytes(n: int, side: int, k: int, values: str) -> int: ...
def demo_encode_f32(
    x: Vector, residual: Vector | None, records: Bytes, side: int, k: int, values: str, beta: float
) -> tuple[int, int]: ...
def demo_check(records: Bytes, n: int, side: int, k: int, values: str) -> int: ...
def demo_decode_f32(records: Bytes, out: Vector, side: int, k: int, values: str) -> None: ...
def demo_accumulate_f32(
    records: Sequence[Bytes], weights: Sequence[float], out: Vector, side: int, k: int, values: str
) -> None: ...
def powersgd_start_f32(x: Vector, residual: Vector | None, seed: int, start: Vector) -> None: ...
def powersgd_iterate_f32(
    x: Vector, residual: Vector | None, columns: int, left: Vector, right: Vector
) -> int: ...
def powersgd_decode_f32(left: Vector, right: Vector, columns: int, out: Vector) -> None: ...
def powersgd_accumulate_f32(
    left: Sequence[Vector], right: Sequence[Vector], weights: Sequence[float], columns: int, out: Vector
) -> None: ...
def randk_key_f32(x: Vector, residual: Vector | None, seed: int) -> tuple[int, int]: ...
def randk_count(n: int, chunk: int, k: int, key: int) -> int: ...
def randk_gather_f32(x: Vector, chunk: int, k: int, key: int, scaled: bool, values: Vector) -> None: ...
def randk_scatter_f32(values: Vector, chunk: int, k: int, key: int, weight: float, out: Vector) -> None: ...
def randk_accumulate_f32(
    values: Sequence[Vector],
    chunks: Sequence[int],
    counts: Sequence[int],
    keys: Sequence[int],
    weights: Sequence[float],
    out: Vector,
) -> None: ...
def threshold_select_f32(
    x: Vector,
    residual: Vector | None,
    k: int,
    least: int,
    entries: Bytes,
) -> tuple[int, int]: ...
def topk_select_f32(
    x: Vector,
    residual: Vector | None,
    k: int,
    indices: UInt32s,
    values: Vector,
) -> int: ...
def gaps_bound(n: int, k: int) -> int: ...
def gaps_pack(indices: UInt32s, out: Bytes) -> int: ...
def gaps_unpack(data: Bytes, n: int, indices: UInt32s) -> int: ...
def topk_int8_bound(n: int, k: int, block: int) -> int: ...
def topk_int8_encode_f32(
    x: Vector, residual: Vector | None, k: int, block: int, body: Bytes
) -> tuple[int, int, int]: ...
def topk_int8_decode_f32(body: Bytes, k: int, block: int, out: Vector) -> int: ...
def topk_int8_accumulate_f32(
    bodies: Sequence[Bytes],
    counts: Sequence[int],
    blocks: Sequence[int],
    weights: Sequence[float],
    out: Vector,
) -> tuple[int, int]: ...
def scatter_accumulate_f32(indices: UInt32s, values: Vector, weight: float, out: Vector) -> None: ...
def sparse_check(indices: UInt32s, values: Vector) -> tuple[bool, int]: ...
def sparse_decode_f32(indices: UInt32s, values: Vector, out: Vector) -> None: ...
def sparse_accumulate_f32(
    indices: Sequence[UInt32s],
    values: Sequence[Vector],
    weights: Sequence[float],
    out: Vector,
) -> None: ...
def sqnorm_f32(x: State) -> float: ...
def sqdist_f32(x: State, y: State) -> float: ...
def count_nonfinite_f32(x: State) -> int: ...
def median_f32(x: Sequence[State], out: State, largest: Doubles | None) -> None: ...
def trimmed_mean_f32(x: Sequence[State], f: int, out: State, largest: Doubles | None) -> None: ...
def mean_around_median_f32(x: Sequence[State], f: int, out: State, largest: Doubles | None) -> None: ...
def gram_f32(x: Sequence[State], centre: State | None, gram: Doubles) -> None: ...
def clip_accumulate_f32(
    x: Sequence[State],
    weights: Sequence[float],
    distances: Sequence[float],
    radii: Sequence[float],
    centre: State,
    out: State,
) -> int: ...
def sqdists_f32(x: Sequence[State], y: State, out: Doubles) -> None: ...
def checked_sqnorm_f32(x: State) -> tuple[float, int]: ...
def push_sum_f32(
    x: Sequence[State],
    weights: Sequence[float],
    divisor: float,
    out: State,
    ratio: State,
) -> None: ...
def tracking_f32(
    x: Sequence[State],
    weights: Sequence[float],
    gradient: State,
    previous: State,
    out: State,
) -> None: ...
def momentum_f32(
    x: Sequence[State],
    weights: Sequence[float],
    gradient: State,
    momentum: float,
    lr: float,
    velocity: State,
    out: State,
) -> None: ...
def choco_step_f32(
    x: State,
    estimate: State,
    mixed: State,
    gradient: State | None,
    gamma: float,
    own_weight: float,
    lr: float,
    codes: Bytes,
    scales: Vector,
    codec: str,
    block: int,
    key: int | None,
    first: int,
) -> int: ...
def choco_absorb_f32(
    x: State,
    estimate: State,
    mixed: State,
    gamma: float,
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    weights: Sequence[float],
    codec: str,
    block: int,
) -> None: ...
