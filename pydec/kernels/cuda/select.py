"""Selections and the sums that undo them. How much was found stays on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.kernels.cuda._module import counter, empty, native

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


def topk_select(
    x: torch.Tensor,
    k: int,
    indices: torch.Tensor,
    values: torch.Tensor,
    *,
    residual: torch.Tensor | None = None,
    bad: torch.Tensor | None = None,
    work: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.topk_select`` and, with a residual, ``kernels.topk_feedback``.

    Args:
        x: float32, n < 2^32.
        k: entries to select.
        indices: uint32 or int32, shape (k,), overwritten.
        values: float32, shape (k,), overwritten.
        residual: float32, as x; updated.
        bad: a counter to add to; a new one if None.
        work: uint8, ``native().topk_work(n, k)`` bytes; taken from torch's pool if None.

    Returns:
        The counter of NaN and infinite entries.

    Cost: one pass over x (and the residual); the candidates, 8 bytes each, stay in the L2 cache. Where the
    sample misleads, four more passes.
    """
    module = native()
    bad = counter(x) if bad is None else bad
    work = empty(x, module.topk_work(len(x), k), "uint8") if work is None else work
    module.topk_select_f32(x, residual, k, indices, values, bad, work)
    return bad


def threshold_select(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    k: int,
    least: int,
    indices: torch.Tensor,
    values: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``kernels.threshold_select``; indices and values have room for the most that may be selected.

    Returns:
        How many are selected, and the counter of NaN and infinite entries, each an int64 of one element.
    """
    module = native()
    found, bad = counter(x), counter(x)
    work = empty(x, module.threshold_work(len(x), k, least, len(indices)), "uint8")
    module.threshold_select_f32(x, residual, k, least, indices, values, found, bad, work)
    return found, bad


def sparse_check(indices: torch.Tensor, n: int, faults: torch.Tensor | None = None) -> torch.Tensor:
    """Counter of the indices that are not below n or not above the one before."""
    faults = counter(indices) if faults is None else faults
    native().sparse_check(indices, n, faults)
    return faults


def sparse_decode(indices: torch.Tensor, values: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """As ``kernels.sparse_decode``; returns the counter of faults, of which one leaves ``out`` unchanged."""
    faults = counter(out)
    native().sparse_decode_f32(indices, values, out, faults)
    return faults


def sparse_accumulate(
    indices: Tensors,
    values: Tensors,
    weights: Sequence[float],
    out: torch.Tensor,
    faults: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.sparse_accumulate``; returns the counter of faults.

    One fault in any message leaves ``out`` unchanged.
    """
    faults = counter(out) if faults is None else faults
    native().sparse_accumulate_f32(indices, values, weights, out, faults)
    return faults


def block_topk_select(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    block: int,
    k: int,
    indices: torch.Tensor,
    values: torch.Tensor,
    bad: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.block_topk_select``; returns the counter of NaN and infinite entries."""
    bad = counter(x) if bad is None else bad
    native().block_topk_select_f32(x, residual, block, k, indices, values, bad)
    return bad


def block_topk_check(indices: torch.Tensor, n: int, block: int, k: int) -> torch.Tensor:
    """As ``kernels.block_topk_check``; returns an int64 of one element."""
    first = counter(indices, -(-n // block))
    native().block_topk_check(indices, n, block, k, first)
    return first


def block_topk_decode(
    indices: torch.Tensor, values: torch.Tensor, block: int, k: int, out: torch.Tensor
) -> torch.Tensor:
    """As ``kernels.block_topk_decode``; returns the first block at fault, or the number of blocks.

    One at fault leaves ``out`` unchanged.
    """
    first = counter(out, -(-len(out) // block))
    native().block_topk_decode_f32(indices, values, block, k, out, first)
    return first


def block_topk_accumulate(
    indices: Tensors, values: Tensors, weights: Sequence[float], block: int, k: int, out: torch.Tensor
) -> torch.Tensor:
    """As ``kernels.block_topk_accumulate``; returns the first block at fault, or the number of blocks.

    One at fault leaves ``out`` unchanged.
    """
    first = counter(out, -(-len(out) // block))
    native().block_topk_accumulate_f32(indices, values, weights, block, k, out, first)
    return first
