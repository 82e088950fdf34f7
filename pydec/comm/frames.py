"""The 64-byte header in front of every gossip payload.

Little-endian, canonical (one encoding per value) and bounded: ``unpack`` given any bytes returns a
``Frame`` or raises ``FrameError``.

====== ====  ==================================================
offset size  field
====== ====  ==================================================
0      4     magic, ``b"pydc"``
4      1     version, 1
5      1     kind, see ``Kind``
6      1     wire_id of the compressor that wrote the payload
7      1     stream, see ``Stream``
8      2     flags, free for the kind to use
10     2     reserved, zero
12     4     sender's rank
16     4     epoch
20     4     bucket
24     4     buckets of this packet, above bucket
28     4     reserved, zero
32     8     round
40     8     offset of the first element in the arena
48     8     count of elements
56     8     payload bytes, exactly what follows the header
====== ====  ==================================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pydec.comm.transport import Stream
from pydec.errors import FrameError

Bytes: TypeAlias = memoryview | bytes | bytearray | NDArray[np.uint8]

HEADER_BYTES = 64
MAGIC = b"pydc"
VERSION = 1

_LAYOUT = struct.Struct("<4sBBBBHHIIIIIQQQQ")
_SENDER, _LONG = struct.Struct("<I"), struct.Struct("<q")
_SENDER_AT, _ROUND_AT, _LENGTH_AT = 12, 32, 56
_BITS = {
    "wire_id": 8,
    "flags": 16,
    "sender": 32,
    "epoch": 32,
    "bucket": 32,
    "buckets": 32,
    "round": 64,
    "offset": 63,
    "count": 63,
    "length": 63,
}


class Kind(IntEnum):
    """What the payload is."""

    GOSSIP = 1  # one bucket of one round; the wire_id says how it is encoded, the flags by which algorithm
    LATEST = 2  # one bucket of the sender's newest model; the round counts its versions, flags as before
    PAIR = 3  # one bucket of an average of two; see gossip/pairwise.py
    ENDED = 4  # which ranks have ended, one bit each; flags 1: the sender's last message


@dataclass(frozen=True)
class Frame:
    """The header's fields; impossible values raise FrameError.

    Args:
        kind: what the payload is.
        sender: rank of the sender.
        round: gossip round, from 0.
        bucket, buckets: which part of the packet this is, 0 <= bucket < buckets.
        offset, count: elements of the arena that the payload covers.
        length: bytes of the payload.
        wire_id: the compressor's wire_id; 0 for none.
        epoch: membership epoch that the sender is in.
        stream: stream that the frame travels on.
        flags: 16 bits that the kind gives a meaning to.
    """

    kind: Kind
    sender: int
    round: int
    bucket: int
    buckets: int
    offset: int
    count: int
    length: int
    wire_id: int = 0
    epoch: int = 0
    stream: Stream = Stream.GOSSIP
    flags: int = 0

    def __post_init__(self) -> None:
        for name, bits in _BITS.items():
            if not 0 <= getattr(self, name) < 1 << bits:
                raise FrameError(f"frame field {name} must be in [0, 2**{bits}), got {getattr(self, name)}")
        if self.bucket >= self.buckets:
            raise FrameError(f"frame has bucket {self.bucket} of {self.buckets}; buckets count from 0")
        if self.offset + self.count >= 1 << 63:
            raise FrameError(f"frame ends at element {self.offset + self.count}, beyond 2**63")


def pack_into(buffer: Bytes, frame: Frame) -> None:
    """Write ``frame`` into the first ``HEADER_BYTES`` bytes of ``buffer``.

    Raises:
        FrameError: the buffer is shorter than the header.
    """
    if memoryview(buffer).nbytes < HEADER_BYTES:
        raise FrameError(f"a frame header takes {HEADER_BYTES} bytes, got {memoryview(buffer).nbytes}")
    _LAYOUT.pack_into(
        buffer,
        0,
        MAGIC,
        VERSION,
        frame.kind,
        frame.wire_id,
        frame.stream,
        frame.flags,
        0,
        frame.sender,
        frame.epoch,
        frame.bucket,
        frame.buckets,
        0,
        frame.round,
        frame.offset,
        frame.count,
        frame.length,
    )


class Template:
    """A header that is written again and again, with another sender, round and length each time.

    Args:
        frame: the fields that stay.
    """

    def __init__(self, frame: Frame) -> None:
        self._bytes = np.empty(HEADER_BYTES, np.uint8)
        pack_into(self._bytes, frame)

    def fill(self, sender: int, round: int, length: int) -> NDArray[np.uint8]:
        """The 64 bytes with these fields, valid until the next call."""
        _SENDER.pack_into(self._bytes, _SENDER_AT, sender)
        _LONG.pack_into(self._bytes, _ROUND_AT, round)
        _LONG.pack_into(self._bytes, _LENGTH_AT, length)
        return self._bytes


def unpack(buffer: Bytes) -> Frame:
    """Read the header of one whole message, header and payload.

    Args:
        buffer: the message's bytes, exactly as many as were received.

    Raises:
        FrameError: whatever is wrong with it: too short, another magic or version, an unknown kind
            or stream, nonzero reserved bytes, impossible fields, a payload of another length.
    """
    view = memoryview(buffer)
    if view.nbytes < HEADER_BYTES:
        raise FrameError(f"a frame has at least {HEADER_BYTES} bytes, got {view.nbytes}")
    magic, version, kind, wire_id, stream, flags, zero, sender, *rest = _LAYOUT.unpack_from(view)
    epoch, bucket, buckets, more_zero, round_, offset, count, length = rest
    if magic != MAGIC:
        raise FrameError(f"no frame: starts with {magic.hex()}, not {MAGIC.hex()}")
    if version != VERSION:
        raise FrameError(f"frame version {version} is not {VERSION}; all ranks must run the same pydec")
    if zero or more_zero:
        raise FrameError("reserved bytes of a frame are not zero")
    if length != view.nbytes - HEADER_BYTES:
        raise FrameError(f"frame announces {length} payload bytes, {view.nbytes - HEADER_BYTES} follow")
    try:
        known_kind, known_stream = Kind(kind), Stream(stream)
    except ValueError as error:
        raise FrameError(f"frame: {error}") from None
    return Frame(
        known_kind,
        sender,
        round_,
        bucket,
        buckets,
        offset,
        count,
        length,
        wire_id,
        epoch,
        known_stream,
        flags,
    )
