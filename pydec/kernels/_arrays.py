"""What the kernels take as vectors: NumPy arrays, or torch tensors on the CPU, mixed as one likes.

Both are one-dimensional, contiguous and of the dtype that the wrapper states; addresses may be odd. A tensor
is raw memory here: a kernel records nothing for autograd and does not bump a tensor's version counter, so a
Parameter or another tensor that requires grad may be read and written, as under ``torch.no_grad()``. Where a
graph that is still to run backward has saved a tensor that a kernel writes, call
``torch.autograd.graph.increment_version`` on it, so that torch notices. Read-only arrays are refused as
outputs; so are tensors on other devices, sparse ones, and those without memory (meta, fake).

Kernels of state vectors (`State`) take float32, float64, float16, and torch's bfloat16, all vectors of a call
of one type. For float64 all arithmetic is float64, where float32 is said. Vectors of 16 bits are widened, the
arithmetic is float32's, and a result is rounded to nearest even once, when it is written; a NaN stays one. On
a GPU these kernels take float32 alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# Strings: the kernels work without torch, and do not import it.
Vector: TypeAlias = "NDArray[np.float32] | torch.Tensor"
"""float32."""
Doubles: TypeAlias = "NDArray[np.float64] | torch.Tensor"
"""float64."""
Bytes: TypeAlias = "NDArray[np.uint8] | torch.Tensor"
"""uint8."""
UInt16s: TypeAlias = "NDArray[np.uint16] | torch.Tensor"
"""uint16."""
UInt32s: TypeAlias = "NDArray[np.uint32] | torch.Tensor"
"""uint32."""
Halves: TypeAlias = "NDArray[np.uint16] | NDArray[np.float16] | torch.Tensor"
"""16-bit codes: uint16, or what they stand for, float16 (and bfloat16 in torch)."""

State: TypeAlias = "NDArray[np.floating[Any]] | torch.Tensor"
"""float32, float64, float16, or torch's bfloat16; one of them in a call."""

V = TypeVar("V", bound="Vector")
"""A vector of one kind, where what comes out is of the kind that went in."""
S = TypeVar("S", bound="State")
"""The same of a state vector."""

STATES = ("float32", "float64", "float16", "bfloat16")
"""Types of state vectors."""


def room(like: object, shape: int | tuple[int, ...], dtype: str) -> Any:
    """An uninitialised array or tensor, whichever ``like`` is.

    Args:
        like: of its kind, and on its device if that is CUDA.
        shape: of the result.
        dtype: a name that NumPy and torch share.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        home = like if like.device.type == "cuda" else torch.empty(0)
        return home.new_empty(shape, dtype=getattr(torch, dtype))
    return np.empty(shape, dtype)


def out_for(x: Sequence[S], out: S | None) -> S:
    """``out``, or room for a result of the kind, type and length of x[0]."""
    if out is not None:
        return out
    like: Any = x[0] if len(x) else np.empty(0, np.float32)  # no vector at all: the kernel says so
    name = str(like.dtype).removeprefix("torch.")
    empty: S = room(like, like.shape, name if name in STATES else "float32")  # or that the type is none
    return empty
