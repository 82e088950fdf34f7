"""The kernels on a GPU: tensors in, the bits of the CPU kernels out, nothing waits.

``pydec.kernels`` calls these for tensors on a GPU; call them directly for what only they can: one launch for
all buckets of a model. Where the CPU kernel takes one vector, these take a list with one for each bucket
(functions over several vectors, such as ``gram``, take them as the CPU does).

Everything is queued on torch's current stream of the tensors' device and may be captured in a CUDA graph.
So nothing returns a number: counts and sums are tensors of one element on the device, and ``int(result)``
waits for them. Tensors are one-dimensional and contiguous; integer codes of either sign are taken. Results of
arithmetic on NaN are NaN, with the processor's own payload.

Raises:
    SetupError: at the first call, if the CUDA module is not built or cannot be loaded.
    TypeError, ValueError: as the CPU kernels; also for tensors on different devices, unaligned ones, and more
        than 64 vectors in one sum.
    RuntimeError: a launch failed, with what CUDA says.
"""

from __future__ import annotations

from pydec.kernels.cuda._module import native
from pydec.kernels.cuda.demo import demo_accumulate, demo_check, demo_decode, demo_encode
from pydec.kernels.cuda.mixing import (
    cast_accumulate,
    cast_count_nonfinite,
    cast_decode,
    cast_encode,
    mix,
    momentum_mix,
    push_sum_mix,
    tracking_mix,
)
from pydec.kernels.cuda.powersgd import (
    powersgd_accumulate,
    powersgd_decode,
    powersgd_iterate,
    powersgd_start,
)
from pydec.kernels.cuda.quant import (
    choco_absorb,
    choco_step,
    quant_accumulate,
    quant_check,
    quant_decode,
    quant_encode,
    quant_encode_difference,
    quant_sqdist,
)
from pydec.kernels.cuda.randk import randk_accumulate, randk_gather, randk_key, randk_scatter
from pydec.kernels.cuda.reduce import (
    checked_sqnorm,
    clip_accumulate,
    clip_factors,
    count_nonfinite,
    gram,
    mean_around_median,
    median,
    sqdists,
    sqnorm,
    trimmed_mean,
)
from pydec.kernels.cuda.select import (
    block_topk_accumulate,
    block_topk_check,
    block_topk_decode,
    block_topk_select,
    sparse_accumulate,
    sparse_check,
    sparse_decode,
    threshold_select,
    topk_select,
)
from pydec.kernels.cuda.topk_int8 import (
    gaps_pack,
    gaps_unpack,
    topk_int8_accumulate,
    topk_int8_decode,
    topk_int8_encode,
)

__all__ = [
    "block_topk_accumulate",
    "block_topk_check",
    "block_topk_decode",
    "block_topk_select",
    "cast_accumulate",
    "cast_count_nonfinite",
    "cast_decode",
    "cast_encode",
    "checked_sqnorm",
    "choco_absorb",
    "choco_step",
    "clip_accumulate",
    "clip_factors",
    "count_nonfinite",
    "demo_accumulate",
    "demo_check",
    "demo_decode",
    "demo_encode",
    "gaps_pack",
    "gaps_unpack",
    "gram",
    "mean_around_median",
    "median",
    "mix",
    "momentum_mix",
    "native",
    "powersgd_accumulate",
    "powersgd_decode",
    "powersgd_iterate",
    "powersgd_start",
    "push_sum_mix",
    "quant_accumulate",
    "quant_check",
    "quant_decode",
    "quant_encode",
    "quant_encode_difference",
    "quant_sqdist",
    "randk_accumulate",
    "randk_gather",
    "randk_key",
    "randk_scatter",
    "sparse_accumulate",
    "sparse_check",
    "sparse_decode",
    "sqdists",
    "sqnorm",
    "threshold_select",
    "topk_int8_accumulate",
    "topk_int8_decode",
    "topk_int8_encode",
    "topk_select",
    "tracking_mix",
    "trimmed_mean",
]
