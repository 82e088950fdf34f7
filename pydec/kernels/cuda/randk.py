"""Entries at places that a key decides; the key may be on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.kernels.cuda._module import counter, empty, native

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]


def randk_key(x: torch.Tensor, residual: torch.Tensor | None, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``kernels.randk_key``: the key, as 64 bits of an int64, and the counter of NaN and infinite entries.

    Every 2^16 elements are hashed by 128 chains of dependent steps; then their digests by one.
    """
    module = native()
    key, bad = counter(x), counter(x)
    module.randk_key_f32(x, residual, seed, key, bad, empty(x, module.randk_work(len(x)), "int64"))
    return key, bad


def randk_gather(
    x: torch.Tensor, chunk: int, k: int, key: int | torch.Tensor, scaled: bool, values: torch.Tensor
) -> None:
    """As ``kernels.randk_gather``. With a key on the device, ``values`` has k * chunk elements.

    Those that the last chunk lacks, if it is among the chosen, are left alone.
    """
    native().randk_gather_f32(x, chunk, k, key, scaled, values)


def randk_scatter(
    values: torch.Tensor, chunk: int, k: int, key: int | torch.Tensor, weight: float, out: torch.Tensor
) -> None:
    """As ``kernels.randk_scatter``, with values as ``randk_gather`` leaves them."""
    native().randk_scatter_f32(values, chunk, k, key, weight, out)


def randk_accumulate(
    values: Tensors,
    chunks: Sequence[int],
    counts: Sequence[int],
    keys: Sequence[int | torch.Tensor],
    weights: Sequence[float],
    out: torch.Tensor,
) -> None:
    """As ``kernels.randk_accumulate``, with values as ``randk_gather`` leaves them.

    A launch for each message: a message touches few lines of ``out``.
    """
    native().randk_accumulate_f32(values, chunks, counts, keys, weights, out)
