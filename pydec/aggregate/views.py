"""Vectors as rules take them: arrays, tensors, or tensors on a GPU; and the numbers that say what they are.

Whatever reads a whole vector on a GPU is a kernel there. What it finds, a number for each vector or pair, is
fetched to host memory, where rules work on it; that waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec import kernels

_TYPES = ("float32", "float64", "float16", "bfloat16")
_SUMMED = 64  # vectors that a CUDA kernel sums
_TILE = 1 << 14  # elements: a tile of 32 vectors stays in a second-level cache of 2 MiB
_GPU_TILE = 1 << 22  # elements: enough for a GPU to be busy, and 16 MiB a vector


def checked(vectors: Sequence[Any], own: Any = None, out: Any = None) -> list[Any]:
    """The vectors as the kernels take them: of one type and length, in one memory.

    Raises:
        TypeError, ValueError: see ``Pipeline.__call__``.
    """
    if not len(vectors):
        raise ValueError("a robust average needs at least 1 vector, got none")
    beside = {name: one for name, one in (("own", own), ("out", out)) if one is not None}
    views = views_of([*vectors, *beside.values()])
    names = [*(f"vector {k}" for k in range(len(vectors))), *beside]
    first, home = views[0], home_of(views[0])
    for name, view in zip(names, views, strict=True):
        kind = _kind(view)
        if kind not in _TYPES:
            raise TypeError(f"{name} must be of {', '.join(_TYPES)}, got {kind}")
        if home_of(view) != home:
            raise ValueError(f"{name} is on {home_of(view)} and vector 0 on {home}; move them to one device")
        if kind != _kind(first):
            raise TypeError(f"{name} is {kind} and vector 0 {_kind(first)}; convert them to one type")
        if kind != "float32" and is_on_gpu(view):
            raise TypeError(f"{name} is {kind}, and on a GPU vectors are float32; convert them with .float()")
        if view.ndim != 1 or len(view) != len(first):
            raise ValueError(
                f"{name} has shape {tuple(view.shape)}, expected one dimension and {first.shape[0]} "
                "elements, as vector 0"
            )
    return views[: len(vectors)]


def views_of(vectors: Sequence[Any]) -> list[Any]:
    """Arrays over the same memory, which are cheap to cut; tensors of bfloat16, or elsewhere, stay tensors.

    Raises:
        TypeError: something is no array and no tensor.
    """
    found = []
    for k, vector in enumerate(vectors):
        plain = detached(vector)
        if not hasattr(plain, "dtype") or not hasattr(plain, "ndim"):
            raise TypeError(f"vector {k} must be an array or a tensor, got {type(vector).__name__}")
        is_tensor = not isinstance(plain, np.ndarray)
        fits = is_tensor and plain.device.type == "cpu" and str(plain.dtype) != "torch.bfloat16"
        found.append(plain.numpy() if fits else plain)
    return found


def detached(vector: Any) -> Any:
    """The same memory, without a history of gradients."""
    return vector.detach() if hasattr(vector, "detach") else vector


def room_like(like: Any, n: int) -> Any:
    """An uninitialised vector of n elements, of the kind and type of ``like``."""
    return np.empty(n, like.dtype) if isinstance(like, np.ndarray) else like.new_empty(n)


def home_of(vector: Any) -> str:
    """The device whose memory it is in, as torch writes it."""
    if isinstance(vector, np.ndarray) or vector.device.type == "cpu":
        return "cpu"
    return f"{vector.device.type}:{vector.device.index}"


def is_on_gpu(vector: Any) -> bool:
    """Whether it is a tensor on a GPU."""
    return not isinstance(vector, np.ndarray) and bool(vector.device.type == "cuda")


def tile_of(vector: Any) -> int:
    """How many elements of vectors like it are worked on at a time, where copies of them are needed."""
    return _GPU_TILE if is_on_gpu(vector) else _TILE


def fetched(found: Sequence[Any]) -> NDArray[np.float64]:
    """What kernels found of vectors on a GPU, tensors of any length: one after the other in host memory."""
    import torch

    return np.asarray(torch.cat([part.double() for part in found]).cpu().numpy(), np.float64)


def gram_of(vectors: Sequence[Any], centre: Any) -> NDArray[np.float64]:
    """``kernels.gram`` as an array, whatever the vectors are."""
    if is_on_gpu(vectors[0]):
        return fetched([kernels.gram(vectors, centre).reshape(-1)]).reshape(len(vectors), len(vectors))
    return np.asarray(kernels.gram(vectors, centre, np.empty((len(vectors), len(vectors)))))


def squared_of(vectors: Sequence[Any], centre: Any = None) -> NDArray[np.float64]:
    """Squared distances to the centre, or to the origin if it is None, shape (m,)."""
    if not is_on_gpu(vectors[0]):
        if centre is None:
            return np.array([kernels.sqnorm(vector) for vector in vectors])
        return np.asarray(kernels.sqdists(vectors, centre, np.empty(len(vectors))))
    if centre is None:
        return fetched([kernels.sqnorm(vector) for vector in vectors])
    starts = range(0, len(vectors), _SUMMED)
    return fetched([kernels.sqdists(vectors[k : k + _SUMMED], centre) for k in starts])


def mix(vectors: Sequence[Any], weights: Sequence[float], out: Any) -> None:
    """``kernels.mix`` of any number of vectors, into ``out``, which may be one of them."""
    if not is_on_gpu(out) or len(vectors) <= _SUMMED:
        kernels.mix(vectors, weights, out)
        return
    total = room_like(out, len(out))  # as long as vectors are still to be read
    kernels.mix(vectors[:_SUMMED], weights[:_SUMMED], total)
    for k in range(_SUMMED, len(vectors), _SUMMED - 1):
        more = slice(k, k + _SUMMED - 1)
        kernels.mix([total, *vectors[more]], [1.0, *weights[more]], total)
    out[:] = total


def _kind(view: Any) -> str:
    return str(view.dtype).removeprefix("torch.")
