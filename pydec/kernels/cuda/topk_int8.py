"""The largest entries with 8-bit values and packed gaps. Lengths and faults stay on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.kernels.cuda._module import counter, empty, native

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


def gaps_pack(indices: torch.Tensor, n: int, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``kernels.gaps_pack``.

    Args:
        indices: uint32 or int32, ascending, below n.
        n: at most 2^32.
        out: uint8, at least ``kernels.gaps_bound(n, len(indices))`` long.

    Returns:
        The number of bytes written, and the number of indices that are not below n or not above the one
        before: where it is not 0, nothing is packed and the first number means nothing. Each is an int64.
    """
    module = native()
    results = empty(indices, 3, "int64")
    module.gaps_pack(indices, n, out, results, empty(indices, module.gaps_work(len(indices)), "uint8"))
    return results[:1], results[1:2]


def gaps_unpack(data: torch.Tensor, n: int, indices: torch.Tensor) -> torch.Tensor:
    """As ``kernels.gaps_unpack``; returns the faults in an int64. Faults leave ``indices`` unchanged."""
    module = native()
    faults = counter(data)
    module.gaps_unpack(data, n, indices, faults, empty(data, module.gaps_work(len(indices)), "uint8"))
    return faults


def topk_int8_encode(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    k: int,
    block: int,
    body: torch.Tensor,
    work: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As ``kernels.topk_int8_encode``, whose three numbers are int64 on the device.

    Args:
        x: float32, n < 2^32.
        residual: float32, as x, updated; or None.
        k: entries to select.
        block: entries that share a scale, a positive multiple of 16.
        body: uint8, at least ``kernels.topk_int8_bound(n, k, block)`` long, at a multiple of 4 bytes.
        work: uint8, ``native().topk_int8_work(n, k)`` bytes; taken from torch's pool if None.

    Cost: as ``topk_select``, and about 20 bytes for each entry, mostly in the L2 cache.
    """
    module = native()
    work = empty(x, module.topk_int8_work(len(x), max(0, k)), "uint8") if work is None else work
    results = empty(x, 3, "int64")
    module.topk_int8_encode_f32(x, residual, k, block, body, results, work)
    return results[:1], results[1:2], results[2:]


def topk_int8_decode(body: torch.Tensor, k: int, block: int, out: torch.Tensor) -> torch.Tensor:
    """As ``kernels.topk_int8_decode``; returns the faults in an int64. Faults leave ``out`` unchanged."""
    faults = counter(out)
    native().topk_int8_decode_f32(body, k, block, out, faults, _work_of(body, k))
    return faults


def topk_int8_accumulate(
    bodies: Tensors,
    counts: Sequence[int],
    blocks: Sequence[int],
    weights: Sequence[float],
    out: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``kernels.topk_int8_accumulate``.

    Returns:
        The first message with faults, or their number, and the faults, each an int64. One fault in any
        message leaves ``out`` unchanged.
    """
    faults = empty(out, len(weights), "int64").zero_()
    verdict = empty(out, 2, "int64")
    work = [_work_of(body, k) for body, k in zip(bodies, counts, strict=True)]
    native().topk_int8_accumulate_f32(bodies, counts, blocks, weights, out, faults, verdict, work)
    return verdict[:1], verdict[1:]


def _work_of(body: torch.Tensor, k: int) -> torch.Tensor:
    """Room for the entries of a message, which the module checks to be as many as it says."""
    return empty(body, native().gaps_work(max(0, k)), "uint8")
