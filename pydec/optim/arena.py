"""One flat buffer per dtype and device: parameters become views of it, so that kernels see plain spans."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from pydec.compress.base import Vector
from pydec.errors import ConfigError
from pydec.gossip.memory import ALIGNMENT, aligned_bytes, aligned_floats
from pydec.gossip.place import Place
from pydec.gossip.staging import Staging

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_CHUNK = 1 << 18  # elements converted at a time, so that float64 needs no model-sized temporary


def check_tensor(tensor: torch.Tensor, name: str) -> None:
    """Raise ConfigError if a tensor cannot live in an arena."""
    if tensor.is_complex():
        raise ConfigError(
            f"{name} is complex ({tensor.dtype}); pydec averages real numbers, "
            "hold it as torch.view_as_real(...) in a real parameter"
        )
    if tensor.layout is not torch.strided:
        raise ConfigError(f"{name} has layout {tensor.layout}; only dense tensors can be averaged")
    if tensor.device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"{name} is on {tensor.device}; models are averaged from CPU memory and CUDA devices, "
            "move the model with .cpu() or .cuda()"
        )
    if tensor.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise ConfigError(f"{name} has dtype {tensor.dtype}; can average {known}")


def in_host_memory(tensor: torch.Tensor) -> bool:
    """Whether NumPy can see the elements where they are."""
    return tensor.device.type == "cpu"


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill their span of memory without gaps or overlap, in any order."""
    strides = sorted(
        (stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1
    )
    expected = 1
    for stride, size in strides:
        if stride != expected:
            return False
        expected *= size
    return True


@dataclass(frozen=True)
class Span:
    """Where one tensor lies in its arena, in elements."""

    tensor: torch.Tensor
    name: str
    start: int

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows, columns) of the tensor as it lies in memory: the slowest of its dimensions by the others."""
        strides = self.tensor.stride()
        wide = [axis for axis, size in enumerate(self.tensor.shape) if size > 1]
        if len(wide) < 2:
            return self.tensor.numel(), 1
        rows = self.tensor.shape[max(wide, key=lambda axis: strides[axis])]
        return rows, self.tensor.numel() // rows


class Arena:
    """Tensors of one dtype and device, moved into one contiguous, 64-byte-aligned buffer.

    Each tensor keeps its shape, strides and identity; only its storage changes, so optimisers,
    hooks and modules that hold it see nothing. Gaps between tensors are zero on all ranks.

    Tensors on a GPU stay there. With a ``place``, what gossip sees is a vector there, too: the buffer itself,
    or its float32 copy; packets are encoded and mixed by the GPU, and ``load`` and ``store`` queue their
    copies and wait for nothing. Without one, for what has no CUDA kernels, it is a copy in pinned host
    memory, whatever memory the MPI takes, and ``load`` and ``store`` wait for the copy alone, by an event,
    which lies behind what the GPU was given before.

    Args:
        tensors: (name, tensor) pairs, all of one dtype and device, distinct.
        place: their device, if gossip works there; None if it works in host memory.
    """

    def __init__(self, tensors: Sequence[tuple[str, torch.Tensor]], place: Place | None = None) -> None:
        first = tensors[0][1]
        self.dtype = first.dtype
        per_line = ALIGNMENT // self.dtype.itemsize
        self.spans: list[Span] = []
        used = 0
        for name, tensor in tensors:
            self.spans.append(Span(tensor, name, used))
            used += -(-tensor.numel() // per_line) * per_line
        ends = [span.start + span.tensor.numel() for span in self.spans]
        starts = [*(span.start for span in self.spans[1:]), used]
        self._gaps = [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]
        self.place = place
        self._staging: Staging | None = None
        if place is not None:
            self.flat = torch.zeros(used, dtype=self.dtype, device=first.device)
        elif in_host_memory(first):
            self.flat = torch.from_numpy(aligned_bytes(used * self.dtype.itemsize)).view(self.dtype)
        else:
            self.flat = torch.zeros(used, dtype=self.dtype, device=first.device)
            self._staging = Staging(4 * used, Place(self.flat.device), direct=False)
        with torch.no_grad():
            for span in self.spans:
                self._adopt(span)
        self.vector: Vector
        """The same numbers in float32: the buffer itself, or a copy that load and store keep up; a tensor
        where there is a place."""
        self._copy: torch.Tensor | None = None  # of another type, where the buffer is
        if place is not None:
            if self.dtype is not torch.float32:
                self._copy = place.zeros(used, torch.float32)
            self.vector = cast(Vector, place.seen(self.flat if self._copy is None else self._copy))
        elif self._staging is not None:
            self.vector = self._staging.room(4 * used).view(torch.float32).numpy()
        elif self.dtype is torch.float32:
            self.vector = self.flat.numpy()
        else:
            self.vector = aligned_floats(used)
            self._copy = torch.from_numpy(self.vector)

    def _adopt(self, span: Span) -> None:
        tensor = span.tensor
        strides = tensor.stride() if is_dense(tensor) else tensor.contiguous().stride()
        home = self.flat.as_strided(tensor.shape, strides, span.start)
        home.copy_(tensor.detach())
        tensor.data = home

    def clear_gaps(self) -> None:
        """Put zeros between the tensors again, where liars have sent something."""
        vector = self.vector if self.place is None else (self.flat if self._copy is None else self._copy)
        for start, stop in self._gaps:
            vector[start:stop] = 0.0

    def holds(self) -> bool:
        """Whether every tensor still lies where it was put (``.data`` may have been replaced)."""
        base, width = self.flat.data_ptr(), self.dtype.itemsize
        return all(
            span.tensor.data_ptr() == base + span.start * width for span in self.spans if span.tensor.numel()
        )

    def load(self) -> None:
        """Bring ``vector`` up to date with the tensors; nothing to do for float32 where gossip works."""
        if self._staging is not None:
            self._staging.leave(self.flat.float().view(torch.uint8))
            self._staging.wait()
        elif self._copy is not None:
            self._copy.copy_(self.flat)

    def store(self) -> None:
        """Bring the tensors up to date with ``vector``, which ``load`` filled and gossip changed.

        float64 tensors receive the change, not the rounded value, so that what float32 cannot
        hold is kept.
        """
        mixed = self._copy
        if self._staging is not None:
            same = self.dtype is torch.float32
            mixed = self.flat if same else torch.empty_like(self.flat, dtype=torch.float32)
            self._staging.arrive(mixed.view(torch.uint8))
            self._staging.wait()  # before anybody writes to the vector
        if mixed is None or self.dtype is torch.float32:
            return
        if self.dtype is not torch.float64:
            self.flat.copy_(mixed)
            return
        for start in range(0, mixed.numel(), _CHUNK):
            part = self.flat[start : start + _CHUNK]
            part.add_(mixed[start : start + _CHUNK] - part.float())

    @contextmanager
    def exact(self) -> Iterator[torch.Tensor]:
        """The numbers themselves, in their dtype and in host memory; what is written to them stays."""
        here = self.flat.to("cpu", copy=self._staging is not None or self.place is not None)
        yield here
        if here is not self.flat:
            self.flat.copy_(here)

    def in_host(self) -> NDArray[np.float32]:
        """``vector`` in host memory: itself, or a copy of one on a GPU, which is waited for."""
        if self.place is None:
            return self.vector
        there = self.flat if self._copy is None else self._copy
        copied: NDArray[np.float32] = there.to("cpu", copy=True).numpy()
        return copied

    def replace(self, mean: NDArray[np.float32]) -> None:
        """Give ``vector`` the numbers of what ``in_host`` returned, if that was a copy."""
        if self.place is not None:
            (self.flat if self._copy is None else self._copy).copy_(torch.from_numpy(mean))

    @property
    def staging_bytes(self) -> int:
        """Bytes held beyond the tensors themselves."""
        return 0 if self._staging is None and self._copy is None else self.vector.nbytes


def make_arenas(tensors: Iterable[tuple[str, torch.Tensor]], place: Place | None = None) -> list[Arena]:
    """One arena per dtype and device, in the order of ``DTYPES``; a tensor named twice is kept once.

    Args:
        tensors: (name, tensor) pairs.
        place: the device of all, if gossip works there; see ``Arena``.

    Raises:
        ConfigError: a tensor that cannot be averaged, or two that share memory without being the
            same tensor.
    """
    unique: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in tensors:
        check_tensor(tensor, name)
        unique.setdefault(id(tensor), (name, tensor))
    placed = sorted(
        (t.data_ptr(), t.data_ptr() + _extent(t), name) for name, t in unique.values() if t.numel()
    )
    for (_, end, name), (start, _, other) in itertools.pairwise(placed):
        if start < end:
            raise ConfigError(
                f"{name} and {other} share memory without being one Parameter; "
                "tie weights by assigning the same Parameter object to both modules"
            )
    groups: dict[tuple[int, torch.device], list[tuple[str, torch.Tensor]]] = {}
    for pair in sorted(unique.values(), key=lambda pair: DTYPES.index(pair[1].dtype)):
        groups.setdefault((DTYPES.index(pair[1].dtype), pair[1].device), []).append(pair)
    return [Arena(group, place) for group in groups.values()]


def _extent(tensor: torch.Tensor) -> int:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()
