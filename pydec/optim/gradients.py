"""What happens to gradients before a step: checked for NaN, or averaged for the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pydec import kernels
from pydec.comm.collect import ring_mean
from pydec.comm.transport import Transport
from pydec.errors import ConfigError

Named = tuple[str, torch.Tensor]


def count_nonfinite(gradient: torch.Tensor) -> int:
    """How many elements are NaN or infinite."""
    if gradient.dtype is torch.float32 and gradient.is_contiguous():
        return int(kernels.count_nonfinite(gradient.detach().numpy().reshape(-1)))
    return int(gradient.numel() - torch.isfinite(gradient).sum())


def first_nonfinite(parameters: Iterable[Named]) -> tuple[str, int] | None:
    """(name, count) of the first parameter whose gradient holds NaN or infinity, or None.

    Raises:
        ConfigError: a gradient is sparse.
    """
    for name, parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.layout is not torch.strided:
            raise ConfigError(
                f"the gradient of {name} is sparse; build its layer (an nn.Embedding?) with sparse=False"
            )
        if bad := count_nonfinite(gradient):
            return name, bad
    return None


class GradientAverager:
    """Averages all gradients over all ranks through one flat buffer per dtype.

    Args:
        transport: any stream of the cluster.
        parameters: (name, parameter) pairs; a missing gradient counts as zero.
    """

    def __init__(self, transport: Transport, parameters: Sequence[Named]) -> None:
        self._transport = transport
        self._groups: list[
            tuple[list[torch.Tensor], torch.Tensor, NDArray[np.generic], NDArray[np.generic]]
        ] = []
        for dtype in dict.fromkeys(p.dtype for _, p in parameters):
            group = [p for _, p in parameters if p.dtype is dtype]
            # The sum over ranks of 16-bit gradients is taken in float32.
            flat = torch.zeros(sum(p.numel() for p in group), dtype=torch.promote_types(dtype, torch.float32))
            scratch = np.empty(-(-flat.numel() // transport.size), flat.numpy().dtype)
            self._groups.append((group, flat, flat.numpy(), scratch))

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(array.nbytes + scratch.nbytes for _, _, array, scratch in self._groups)

    def average(self) -> None:
        """Replace every gradient by its mean over the ranks; all ranks call this together."""
        for group, flat, array, scratch in self._groups:
            start = 0
            for p in group:
                home = flat[start : start + p.numel()].view(p.shape)
                home.zero_() if p.grad is None else home.copy_(p.grad)
                start += p.numel()
            ring_mean(self._transport, array, scratch)
            start = 0
            for p in group:
                home = flat[start : start + p.numel()].view(p.shape)
                if p.grad is None:
                    p.grad = home.to(p.dtype, copy=True)
                else:
                    p.grad.copy_(home)
                start += p.numel()
