"""The largest coefficients of a cosine transform, tile by tile; a block of threads for each tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.kernels.cuda._module import counter, empty, native

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


def demo_encode(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    records: torch.Tensor,
    side: int,
    k: int,
    values: str = "float32",
    beta: float = 1.0,
    bad: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.demo_encode``.

    Returns:
        ``bad``, to whose two int64 the NaN and infinite entries and the tiles that are too large are added;
        new ones if None.
    """
    bad = empty(x, 2, "int64").zero_() if bad is None else bad
    native().demo_encode_f32(x, residual, records, side, k, values, beta, bad)
    return bad


def _tiles(n: int, side: int) -> int:
    return -(-n // max(1, side * side))


def demo_check(records: torch.Tensor, n: int, side: int, k: int, values: str) -> torch.Tensor:
    """As ``kernels.demo_check``; returns an int64 of one element."""
    first = counter(records, _tiles(n, side))
    native().demo_check(records, n, side, k, values, first)
    return first


def demo_decode(records: torch.Tensor, out: torch.Tensor, side: int, k: int, values: str) -> torch.Tensor:
    """As ``kernels.demo_decode``; returns what ``demo_check`` does.

    A record at fault leaves ``out`` unchanged.
    """
    first = counter(out, _tiles(len(out), side))
    native().demo_decode_f32(records, out, side, k, values, first)
    return first


def demo_accumulate(
    records: Tensors, weights: Sequence[float], out: torch.Tensor, side: int, k: int, values: str
) -> torch.Tensor:
    """As ``kernels.demo_accumulate``; returns the first tile at fault in any message, or the number of tiles.

    A record at fault leaves ``out`` unchanged. 64 messages in one sweep over ``out``.
    """
    first = counter(out, _tiles(len(out), side))
    native().demo_accumulate_f32(records, weights, out, side, k, values, first)
    return first
