"""A weight before every packet: 8 bytes of float64, and 8 zero bytes that keep payloads aligned."""

from __future__ import annotations

import struct

from pydec.compress.base import Bytes
from pydec.compress.mirror import head_of
from pydec.errors import FrameError

_WEIGHT = struct.Struct("<d")
PREFIX_BYTES = 16  # keeps the payload on a 16-byte boundary


def write_weight(out: Bytes, weight: float) -> None:
    """Write the first 16 bytes of a packet."""
    head = head_of(out)
    head[:PREFIX_BYTES] = 0
    _WEIGHT.pack_into(head, 0, weight)


def read_weight(packet: Bytes, least: float, most: float) -> float:
    """The weight of a packet; FrameError unless it is in [least, most]."""
    head = head_of(packet)
    if packet.size < PREFIX_BYTES or head[_WEIGHT.size : PREFIX_BYTES].any():
        raise FrameError("a weighted packet starts with a float64 weight and 8 zero bytes")
    weight = float(_WEIGHT.unpack_from(head)[0])
    if not least <= weight <= most:
        raise FrameError(f"a packet's weight must be in [{least:g}, {most:g}], got {weight}")
    return weight
