"""Compiled loops over float32 vectors: same bits on every CPU, no allocation, the GIL released.

Vectors are one-dimensional contiguous NumPy arrays or torch tensors on the CPU, mixed as one likes, and
may be unaligned views into received bytes. Nothing is converted silently: a wrong type, device, shape, or
overlap raises an error that says what to do. A tensor is taken as raw memory, so one that requires grad may
be read and written, as under ``torch.no_grad()``: autograd does not see it (``pydec/kernels/_arrays.py``).
"""

from __future__ import annotations

from pydec.kernels._compiled import attach_all
from pydec.kernels._library import cuda_status, set_target, target, targets
from pydec.kernels.block_topk import (
    block_topk_accumulate,
    block_topk_check,
    block_topk_count,
    block_topk_decode,
    block_topk_select,
)
from pydec.kernels.buckets import mix_many, quant_accumulate_many, quant_encode_many
from pydec.kernels.cast import cast_accumulate, cast_count_nonfinite, cast_decode, cast_encode
from pydec.kernels.choco import ChocoStep, choco_absorb
from pydec.kernels.copy import stream_copy
from pydec.kernels.demo import demo_accumulate, demo_bytes, demo_check, demo_decode, demo_encode
from pydec.kernels.distance import (
    MOST_PAIRED,
    clip_accumulate,
    gram,
    quant_pair_sqdists,
    squared_distances,
)
from pydec.kernels.gaps import (
    GAPS_BAD_INDEX,
    GAPS_BAD_LENGTH,
    GAPS_BAD_WIDTH,
    gaps_bound,
    gaps_pack,
    gaps_unpack,
)
from pydec.kernels.mix import mix
from pydec.kernels.powersgd import (
    powersgd_accumulate,
    powersgd_decode,
    powersgd_iterate,
    powersgd_start,
)
from pydec.kernels.quant import (
    BAD_CODE,
    BAD_PADDING,
    BAD_SCALE,
    INTEGER_CODECS,
    TOP_LEVEL,
    quant_accumulate,
    quant_blocks,
    quant_bytes,
    quant_check,
    quant_decode,
    quant_encode,
    quant_encode_difference,
    quant_group,
    quant_sqdist,
    quant_sqdists,
)
from pydec.kernels.randk import randk_accumulate, randk_count, randk_gather, randk_key, randk_scatter
from pydec.kernels.reduce import checked_sqnorm, count_nonfinite, sqdist, sqdists, sqnorm
from pydec.kernels.robust import mean_around_median, median, trimmed_mean
from pydec.kernels.sparse import sparse_accumulate, sparse_check, sparse_decode
from pydec.kernels.threads import num_threads, set_num_threads
from pydec.kernels.threshold import threshold_select
from pydec.kernels.topk import scatter_accumulate, topk_feedback, topk_select
from pydec.kernels.topk_int8 import (
    TOPK_BAD_CODE,
    TOPK_BAD_SCALE,
    topk_int8_accumulate,
    topk_int8_bound,
    topk_int8_decode,
    topk_int8_encode,
)
from pydec.kernels.update import momentum_mix, push_sum_mix, tracking_mix

__all__ = [
    "BAD_CODE",
    "BAD_PADDING",
    "BAD_SCALE",
    "GAPS_BAD_INDEX",
    "GAPS_BAD_LENGTH",
    "GAPS_BAD_WIDTH",
    "INTEGER_CODECS",
    "MOST_PAIRED",
    "TOPK_BAD_CODE",
    "TOPK_BAD_SCALE",
    "TOP_LEVEL",
    "ChocoStep",
    "block_topk_accumulate",
    "block_topk_check",
    "block_topk_count",
    "block_topk_decode",
    "block_topk_select",
    "cast_accumulate",
    "cast_count_nonfinite",
    "cast_decode",
    "cast_encode",
    "checked_sqnorm",
    "choco_absorb",
    "clip_accumulate",
    "count_nonfinite",
    "cuda_status",
    "demo_accumulate",
    "demo_bytes",
    "demo_check",
    "demo_decode",
    "demo_encode",
    "gaps_bound",
    "gaps_pack",
    "gaps_unpack",
    "gram",
    "mean_around_median",
    "median",
    "mix",
    "mix_many",
    "momentum_mix",
    "num_threads",
    "powersgd_accumulate",
    "powersgd_decode",
    "powersgd_iterate",
    "powersgd_start",
    "push_sum_mix",
    "quant_accumulate",
    "quant_accumulate_many",
    "quant_blocks",
    "quant_bytes",
    "quant_check",
    "quant_decode",
    "quant_encode",
    "quant_encode_difference",
    "quant_encode_many",
    "quant_group",
    "quant_pair_sqdists",
    "quant_sqdist",
    "quant_sqdists",
    "randk_accumulate",
    "randk_count",
    "randk_gather",
    "randk_key",
    "randk_scatter",
    "scatter_accumulate",
    "set_num_threads",
    "set_target",
    "sparse_accumulate",
    "sparse_check",
    "sparse_decode",
    "sqdist",
    "sqdists",
    "sqnorm",
    "squared_distances",
    "stream_copy",
    "target",
    "targets",
    "threshold_select",
    "topk_feedback",
    "topk_int8_accumulate",
    "topk_int8_bound",
    "topk_int8_decode",
    "topk_int8_encode",
    "topk_select",
    "tracking_mix",
    "trimmed_mean",
]

attach_all(globals())
