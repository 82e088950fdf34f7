"""Checks that every transport makes on what it is given: an address and a piece of memory."""

from __future__ import annotations

from pydec.comm.transport import TAG_BITS
from pydec.errors import ConfigError

_POST_BYTES = 64 * 1024  # of one posted message
POST_LIMIT = _POST_BYTES - 128  # leaves room for what sealing adds


def flat(data: memoryview, *, writable: bool) -> memoryview:
    """The bytes of ``data`` as a one-dimensional view of unsigned bytes; copies nothing.

    Args:
        data: anything with the buffer protocol, C-contiguous, of any shape and element type; a CUDA tensor is
            taken as it is, for an MPI that ``takes_gpu_memory``.
        writable: whether the memory will be written.

    Raises:
        TypeError: no buffer, not C-contiguous, or read-only although it will be written.
    """
    if hasattr(data, "__cuda_array_interface__"):
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(
            f"a message must be a buffer (bytes, memoryview, NumPy array), got {type(data).__name__}"
        ) from None
    if writable and view.readonly:
        raise TypeError("cannot receive into read-only memory; pass a bytearray or a writable array")
    if not view.c_contiguous:
        raise TypeError(
            f"a message must be C-contiguous, got strides {view.strides}; use np.ascontiguousarray"
        )
    if view.nbytes == 0:
        return memoryview(bytearray() if writable else b"")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def check_peer(peer: int, size: int) -> None:
    """Raise ConfigError unless ``peer`` is a rank of a cluster of ``size``."""
    if not 0 <= peer < size:
        raise ConfigError(f"rank {peer} does not exist: this cluster has ranks 0 to {size - 1}")


def check_tag(tag: int) -> None:
    """Raise ConfigError unless 0 <= ``tag`` < 2**TAG_BITS."""
    if not 0 <= tag < 1 << TAG_BITS:
        raise ConfigError(f"tag {tag} is outside 0 to {(1 << TAG_BITS) - 1}; reuse tags modulo 2**{TAG_BITS}")


def check_post(n_bytes: int) -> None:
    """Raise ConfigError unless a posted message of ``n_bytes`` is small enough."""
    if n_bytes > _POST_BYTES:
        raise ConfigError(
            f"a posted message holds at most {_POST_BYTES} bytes, got {n_bytes}; use isend and irecv"
        )
