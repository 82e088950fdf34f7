"""Aligned buffers for the training path: allocated once, never inside a step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
