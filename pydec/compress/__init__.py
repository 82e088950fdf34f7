"""Fewer bytes for a vector: compressors by name, their payloads, and error feedback."""

from __future__ import annotations

from pydec.compress import (
    auto,
    bf16,
    block_topk,
    demo,
    fp8,
    fp16,
    int2,
    int4,
    int8,
    none,
    powersgd,
    randk,
    sign,
    threshold,
    topk,
    topk_int8,
)
from pydec.compress.base import Bytes, Compressor, Payload, Vector, compressors
from pydec.compress.feedback import ErrorFeedback
from pydec.compress.keys import draw_key
from pydec.compress.powersgd import WarmStart
from pydec.compress.wire import as_bytes, wire_id_of
from pydec.errors import FrameError

__all__ = [
    "Bytes",
    "Compressor",
    "ErrorFeedback",
    "Payload",
    "Vector",
    "WarmStart",
    "auto",
    "bf16",
    "block_topk",
    "compressors",
    "demo",
    "draw_key",
    "fp8",
    "fp16",
    "from_wire",
    "int2",
    "int4",
    "int8",
    "make",
    "none",
    "powersgd",
    "randk",
    "sign",
    "threshold",
    "topk",
    "topk_int8",
]


def make(spec: str) -> Compressor:
    """Build a compressor by name.

    Args:
        spec: ``name`` or ``name:key=value``, for example ``"topk:fraction=0.01"``; ``compressors``
            lists the names.

    Raises:
        ConfigError: unknown name or option, or a value outside its range.
    """
    return compressors.make(spec)


def from_wire(payload: Payload) -> Compressor:
    """The compressor that decodes a payload, with the parameters that its header states.

    Raises:
        FrameError: no registered compressor has the payload's wire id, or the header is invalid.
    """
    data = as_bytes(payload)
    wire_id = wire_id_of(data)
    for name in compressors:
        part = compressors.get(name)
        if isinstance(part, type) and issubclass(part, Compressor) and part.wire_id == wire_id:
            return part.from_payload(data)
    known = ", ".join(compressors)
    raise FrameError(f"payload has wire id {wire_id}, which no compressor of this pydec has (known: {known})")
