"""What happens to gradients before a step: checked for NaN, or averaged for the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from pydec import kernels
from pydec.comm.collect import ring_mean
from pydec.comm.transport import Transport
from pydec.compress.base import Vector
from pydec.errors import ConfigError, NonFiniteError
from pydec.gossip.place import Place
from pydec.optim.arena import Span, in_host_memory, is_dense

Named = tuple[str, torch.Tensor]


def count_nonfinite(gradient: torch.Tensor) -> int | torch.Tensor:
    """How many elements are NaN or infinite; of one on a GPU as a tensor there, so that nothing waits."""
    if not in_host_memory(gradient):
        return gradient.numel() - torch.isfinite(gradient).sum()
    if gradient.dtype is torch.float32 and gradient.is_contiguous():
        return int(kernels.count_nonfinite(gradient.detach().numpy().reshape(-1)))
    return int(gradient.numel() - torch.isfinite(gradient).sum())


def first_nonfinite(parameters: Iterable[Named]) -> tuple[str, int] | None:
    """(name, count) of the first parameter whose gradient holds NaN or infinity, or None.

    Gradients in host memory are looked at first; those on each GPU are waited for once.

    Raises:
        ConfigError: a gradient is sparse.
    """
    counted: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
    for name, parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.layout is not torch.strided:
            raise ConfigError(
                f"the gradient of {name} is sparse; build its layer (an nn.Embedding?) with sparse=False"
            )
        bad = count_nonfinite(gradient)
        if isinstance(bad, torch.Tensor):
            counted.setdefault(bad.device, []).append((name, bad))
        elif bad:
            return name, bad
    for counts in counted.values():
        found = torch.stack([bad for _, bad in counts]).tolist()
        for (name, _), number in zip(counts, found, strict=True):
            if number:
                return name, number
    return None


class FlatGradients:
    """The gradients of an arena's tensors, as parts of a vector in the arena's order.

    A float32 gradient that lies where the vector does, as its parameter does, is used where it is; another
    one is copied to a buffer of the largest such tensor. A missing gradient counts as zero.

    Args:
        spans: the tensors, in order.
        start: where the vector begins, in elements of the arena.
        place: the vector's device, as of the arena; None for host memory.
    """

    def __init__(self, spans: Sequence[Span], start: int, place: Place | None = None) -> None:
        self._spans = [(span, span.start - start) for span in spans if span.tensor.numel()]
        self._place = place
        self._buffer = self._room(0)

    def _room(self, n: int) -> torch.Tensor:
        return torch.empty(n) if self._place is None else self._place.zeros(n, torch.float32)

    def _seen(self, flat: torch.Tensor) -> Vector:
        return flat.numpy() if self._place is None else cast(Vector, self._place.seen(flat))

    def pieces(self, start: int, stop: int, *, write: bool = False) -> Iterator[tuple[int, int, Vector]]:
        """See ``pydec.gossip.Gradients``."""
        for span, first in self._spans:
            last = first + span.tensor.numel()
            if last <= start or first >= stop:
                continue
            vector, staged = self._vector(span.tensor)
            low, high = max(first, start), min(last, stop)
            yield low, high, vector[low - first : high - first]
            if write and staged is not None:
                if span.tensor.grad is None:
                    span.tensor.grad = torch.empty_like(span.tensor)
                span.tensor.grad.copy_(staged)

    def _vector(self, parameter: torch.Tensor) -> tuple[Vector, torch.Tensor | None]:
        """All elements in the parameter's order in memory; and the staging they are in, if any."""
        gradient, n = parameter.grad, parameter.numel()
        strides = parameter.stride()  # the arena has made them dense
        if (
            gradient is not None
            and gradient.dtype is torch.float32
            and (self._place is not None or in_host_memory(gradient))
            and gradient.stride() == strides
            and is_dense(gradient)
        ):
            return self._seen(gradient.detach().as_strided((n,), (1,))), None
        if self._buffer.numel() < n:
            self._buffer = self._room(n)
        flat = self._buffer[:n]
        staged = flat.as_strided(parameter.shape, strides)
        if gradient is None:
            flat.zero_()
        else:
            staged.copy_(gradient)
        return self._seen(flat), staged


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
                    p.grad = home.to(p.device, p.dtype, copy=True)
                else:
                    p.grad.copy_(home)
                start += p.numel()


def look_at(
    parameters: Sequence[Named],
    policy: str,
    scale: torch.Tensor | None,
    overflow: torch.Tensor | float | None,
    where: str,
) -> tuple[bool, NonFiniteError | None]:
    """Whether the gradients may be used, and what to raise if they hold NaN and that is the policy.

    Args:
        parameters: (name, parameter) pairs.
        policy: "raise", "skip" or "continue".
        scale: ``GradScaler``'s, which the gradients are divided by; None without one.
        overflow: what it found, a tensor of one number; None without one.
        where: in words, for the error.
    """
    if overflow is not None and float(overflow):
        return False, None
    if scale is not None:
        for _, parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(scale.to(parameter.grad.dtype))
    bad = first_nonfinite(parameters)
    if bad is None or policy == "continue":
        return True, None
    if policy == "skip":
        return False, None
    name, count = bad
    return False, NonFiniteError(
        f"the gradient of {name} holds {count} NaN or infinite values {where}; lower the learning rate, clip "
        "gradients, or choose nan_policy='skip'"
    )
