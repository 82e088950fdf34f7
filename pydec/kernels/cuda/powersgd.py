"""Low-rank approximation of a vector that is read as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.kernels.cuda._module import counter, empty, native

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


def powersgd_start(x: torch.Tensor, residual: torch.Tensor | None, seed: int, start: torch.Tensor) -> None:
    """As ``kernels.powersgd_start``."""
    native().powersgd_start_f32(x, residual, seed, start, empty(x, 1, "int64"))


def powersgd_iterate(
    x: torch.Tensor,
    residual: torch.Tensor | None,
    columns: int,
    left: torch.Tensor,
    right: torch.Tensor,
    bad: torch.Tensor | None = None,
) -> torch.Tensor:
    """As ``kernels.powersgd_iterate``; returns the counter of NaN and infinite entries.

    If it is not 0 the factors mean nothing.

    Cost: reads the vector (and the residual, and writes it), then reads it once more for the product with P.
    The CPU's orders are chains: of as many additions as there are rows in A^T P, a chain for each column and
    direction, and of a sixteenth of them in each inner product of Gram-Schmidt, by one block of threads.
    """
    module = native()
    bad = counter(x) if bad is None else bad
    rank = len(right) // max(1, columns)
    work = empty(x, module.powersgd_work(len(x), columns, rank) if 0 < rank <= 8 else 0, "float64")
    module.powersgd_iterate_f32(x, residual, columns, left, right, bad, work)
    return bad


def powersgd_decode(left: torch.Tensor, right: torch.Tensor, columns: int, out: torch.Tensor) -> None:
    """As ``kernels.powersgd_decode``."""
    native().powersgd_decode_f32(left, right, columns, out)


def powersgd_accumulate(
    left: Tensors, right: Tensors, weights: Sequence[float], columns: int, out: torch.Tensor
) -> None:
    """As ``kernels.powersgd_accumulate``: 64 messages in one pass over ``out``."""
    native().powersgd_accumulate_f32(left, right, weights, columns, out)
