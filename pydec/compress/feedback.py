"""Error feedback: what was not sent is remembered and added to what is sent next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pydec.compress.base import Bytes, Compressor, Vector
from pydec.compress.wire import check_vector
from pydec.errors import ConfigError


class ErrorFeedback:
    """A compressor with a memory for each vector that goes through it.

    The sum of everything decoded, plus the residual, is the sum of everything encoded, up to
    rounding; so the bias of a compressor cannot build up. A lossless compressor has no residual.

    Source: Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018,
    arXiv:1809.07599, algorithm 1.

    Args:
        compressor: encodes; payloads are its own and are decoded by it.
    """

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor
        self._residuals: dict[str, Vector] = {}

    def encode_into(self, key: str, x: Vector, out: Bytes) -> int:
        """Encode x + residual of ``key`` into ``out``; returns the payload's length.

        Args:
            key: names the vector, whose residual starts as zeros.
            x: shape (n,), n the same in every call with this key.
            out: at least ``compressor.max_bytes(n)`` long.

        Raises:
            ValueError: n changed, or as ``Compressor.encode_feedback_into``.
        """
        if self.compressor.lossless:
            return self.compressor.encode_into(x, out)
        return self.compressor.encode_feedback_into(x, self._residual(key, x), out)

    def encode(self, key: str, x: Vector) -> bytes:
        """As ``encode_into``, into new bytes."""
        check_vector("x", x)
        out = np.empty(self.compressor.max_bytes(x.size), np.uint8)
        return out[: self.encode_into(key, x, out)].tobytes()

    def residual(self, key: str) -> Vector | None:
        """What waits to be sent under ``key``, read-only, or None if there is nothing yet."""
        residual = self._residuals.get(key)
        if residual is None:
            return None
        view = residual.view()
        view.setflags(write=False)
        return view

    def reset(self) -> None:
        """Forget all residuals, for example after the vectors were replaced."""
        self._residuals.clear()

    def state_dict(self) -> dict[str, Vector]:
        """Copies of all residuals by key."""
        return {key: residual.copy() for key, residual in self._residuals.items()}

    def load_state_dict(self, state: Mapping[str, Vector]) -> None:
        """Replace all residuals by copies of those in ``state``.

        Raises:
            ConfigError: an entry is no finite float32 vector; nothing has changed then.
        """
        self._residuals = {key: check_state(key, residual) for key, residual in state.items()}

    def _residual(self, key: str, x: Vector) -> Vector:
        check_vector("x", x)
        residual = self._residuals.get(key)
        if residual is None:
            residual = self._residuals[key] = np.zeros(x.size, np.float32)
        elif residual.size != x.size:
            raise ValueError(
                f"vector {key!r} has {x.size} elements, but its residual has {residual.size}; "
                "use another key, or reset() if the model changed"
            )
        return residual


def check_state(key: str, saved: Any) -> Vector:
    """A copy of a saved vector; ConfigError unless it is a finite float32 one."""
    array = np.asarray(saved)
    if array.dtype != np.float32 or array.ndim != 1:
        raise ConfigError(
            f"error feedback state {key!r} must be a float32 vector, got {array.dtype} of shape {array.shape}"
        )
    if not np.all(np.isfinite(array)):
        raise ConfigError(
            f"error feedback state {key!r} has NaN or infinite entries; load another, or begin without it"
        )
    return np.array(array, order="C")
