"""Loads the CUDA module, and makes the counters and workspaces that its calls want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydec.errors import SetupError
from pydec.kernels._library import cuda_status

if TYPE_CHECKING:
    import torch

_loaded: Any = None


def native() -> Any:
    """The compiled module.

    Raises:
        SetupError: it is not built, or does not load.
    """
    global _loaded
    if _loaded is None:
        try:
            from pydec import _native_cuda
        except ImportError as error:
            raise SetupError(
                f"tensors on a GPU need pydec's CUDA kernels: {cuda_status()}; or move them with .cpu()"
            ) from error
        _loaded = _native_cuda
    return _loaded


def counter(like: torch.Tensor, value: int = 0) -> torch.Tensor:
    """A counter of one int64 on the device of ``like``."""
    import torch

    return like.new_full((1,), value, dtype=torch.int64)


def empty(like: torch.Tensor, n: int, dtype: str) -> torch.Tensor:
    """Uninitialised memory for n elements on the device of ``like``, from torch's own pool."""
    import torch

    return like.new_empty(n, dtype=getattr(torch, dtype))
