"""Aligned buffers for the training path: allocated once, never inside a step.

Vectors are NumPy arrays or, where a model is averaged on its GPU, tensors there. What mixers and rules
do to either beside calling kernels is here; arrays take the way that they always took.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec import kernels

ALIGNMENT = 64  # bytes: one cache line, and the widest vector register


def align(n_bytes: int) -> int:
    """The next multiple of 64 that is at least ``n_bytes``."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def aligned_bytes(n_bytes: int) -> NDArray[np.uint8]:
    """Zeroed uint8 array of shape (n_bytes,) whose first byte lies on a 64-byte boundary."""
    raw = np.zeros(n_bytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + n_bytes]


def aligned_floats(n: int) -> NDArray[np.float32]:
    """Zeroed float32 array of shape (n,) whose first byte lies on a 64-byte boundary."""
    return aligned_bytes(4 * n).view(np.float32)


def floats_beside(x: Any, n: int) -> Any:
    """Zeroed float32 vector of shape (n,) of the kind of x: ``aligned_floats``, or a tensor on its device."""
    return aligned_floats(n) if isinstance(x, np.ndarray) else x.new_zeros(n)


def subtract(a: Any, b: Any, out: Any) -> Any:
    """``out = a - b``, element by element; returns ``out``, which may be either. All of one kind."""
    if isinstance(out, np.ndarray):
        return np.subtract(a, b, out=out)
    import torch

    return torch.sub(a, b, out=out)


def divide(a: Any, divisor: float, out: Any) -> Any:
    """``out = a / float32(divisor)``; returns ``out``, which is not a.

    On a GPU by the kernel that push-sum uses: torch's own division by a number multiplies by its inverse
    there.
    """
    if isinstance(out, np.ndarray):
        return np.divide(a, np.float32(divisor), out=out)
    kernels.push_sum_mix([a], [1.0], divisor, a, out)
    return out


class Slots:
    """Pieces of one buffer, each large enough for any message.

    Args:
        count: how many.
        n_bytes: of the largest message.
    """

    def __init__(self, count: int, n_bytes: int) -> None:
        self.count = count
        self._step = align(n_bytes)
        self._memory = aligned_bytes(count * self._step)
        self._size = n_bytes
        self.free = list(range(count))

    def __getitem__(self, slot: int) -> NDArray[np.uint8]:
        """The slot's memory."""
        return self._memory[slot * self._step : slot * self._step + self._size]

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self._memory.nbytes
