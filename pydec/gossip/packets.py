"""Packets: the buckets of all mixers of an exchange, numbered, with the headers that they travel under."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydec.comm.frames import HEADER_BYTES, Frame, Kind, unpack
from pydec.compress.base import Bytes
from pydec.errors import FrameError, ProtocolError
from pydec.gossip.base import Algorithm, Mixer, algorithms, robust_rules
from pydec.gossip.edges import EdgeMixer
from pydec.gossip.memory import align

BUCKET_TAG_BITS = 13
_ROUND_TAGS = 1 << 9  # a quarter million tags and more are left to gossip/asynchronous.py
WINDOW = 1 << 30
"""How far a number may be above the newest that was heard; a billion steps take days."""


@dataclass(frozen=True)
class Packet:
    """One bucket of one mixer.

    Args:
        mixer: what encodes and absorbs it.
        bucket: which of the mixer's buckets.
        number: which of all packets, from 0.
        total: how many packets there are.
        trailer: bytes that follow what the mixer writes.
    """

    mixer: Mixer
    bucket: int
    number: int
    total: int
    trailer: int = 0

    @property
    def span(self) -> tuple[int, int]:
        """(start, stop) in the mixer's vector."""
        return self.mixer.buckets[self.bucket]

    @property
    def absorbing(self) -> str:
        """In a trace: where packets are compressed, one pass over memory decodes and mixes them."""
        return "mix" if self.mixer.compressor.lossless else "decode+mix"

    @property
    def capacity(self) -> int:
        """Largest payload, in bytes."""
        return self.mixer.capacity(self.bucket) + self.trailer

    def frame(self, kind: Kind, epoch: int, sender: int) -> Frame:
        """The header, of round 0 and without a payload; its flags say which algorithm's it is."""
        first, last = self.span
        return Frame(
            kind=kind,
            epoch=epoch,
            sender=sender,
            round=0,
            bucket=self.number,
            buckets=self.total,
            offset=first,
            count=last - first,
            length=0,
            wire_id=self.mixer.compressor.wire_id,
            flags=algorithm_id(self.mixer.algorithm),
        )

    def check(self, frame: Frame, peer: int, round: int, epoch: int, kind: Kind) -> None:
        """Raise ProtocolError, naming the field, unless a received header is that of this packet.

        The flags of averages of two, which one algorithm has, are for their exchange to check.

        Args:
            frame: what was received.
            peer: from whom.
            round, epoch, kind: what it must say.
        """
        expected = replace(self.frame(kind, epoch, peer), round=round)
        if kind is not Kind.PAIR and frame.kind is kind and frame.flags != expected.flags:
            mine, theirs = self.mixer.algorithm or "no named algorithm", _named(frame.flags)
            raise ProtocolError(
                peer, f"sent a packet of {theirs}, expected {mine}, in round {round}; "
                "start all ranks with the same algorithm"
            )  # fmt: skip
        words = {"wire_id": "compressor's wire id", "buckets": "number of buckets"}
        for name in ("kind", "sender", "epoch", "round", "bucket", "buckets", "offset", "count", "wire_id"):
            got, wanted = getattr(frame, name), getattr(expected, name)
            if got != wanted:
                what = f"whose {words.get(name, name)} is {got}, expected {wanted}"
                raise ProtocolError(peer, f"sent a packet {what} in round {round}")


def name_of(algorithm: Algorithm) -> str:
    """An algorithm's registered name, or that of its class."""
    made = type(getattr(algorithm, "honest", algorithm))  # liars do not say that they are
    found = (name for known in (algorithms, robust_rules) for name in known if known.get(name) is made)
    return next(found, made.__name__)


def algorithm_id(name: str) -> int:
    """What stands for an algorithm in a header, 16 bits; 0 for no name."""
    return 1 + zlib.crc32(name.encode()) % 0xFFFF if name else 0


def _named(number: int) -> str:
    found = (name for name in (*algorithms, *robust_rules) if algorithm_id(name) == number)
    return next(found, f"an unknown algorithm ({number})" if number else "no named algorithm")


def too_long(peer: int, error: FrameError) -> ProtocolError:
    """The error for a message that does not fit where the neighbour's packets go."""
    return ProtocolError(
        peer, f"sent a message that is too long: {error}; has it another model, compressor or pydec?"
    )


def packets_of(mixers: Sequence[Mixer], trailer: int = 0) -> list[Packet]:
    """The packets of all mixers, in order: parameters that come first travel first.

    Args:
        mixers: one per vector.
        trailer: see ``Packet``.

    Raises:
        ValueError: there are more than tags can count.
    """
    parts = [(mixer, bucket) for mixer in mixers for bucket in range(len(mixer.buckets))]
    if len(parts) >= 1 << BUCKET_TAG_BITS:
        raise ValueError(f"{len(parts)} buckets do not fit in {BUCKET_TAG_BITS} tag bits")
    return [Packet(*part, number, len(parts), trailer) for number, part in enumerate(parts)]


def read_frame(peer: int, message: Bytes) -> Frame:
    """The header of what a peer sent.

    Raises:
        ProtocolError: it has none.
    """
    try:
        return unpack(message)
    except FrameError as error:
        raise ProtocolError(peer, f"sent bytes that are no frame: {error}") from error


def packet_tag(round: int, number: int) -> int:
    """Under which tag a packet of a round travels."""
    return (round % _ROUND_TAGS) << BUCKET_TAG_BITS | number


def refuse(packet: Packet, peer: int, message: Bytes, epoch: int, round: int) -> None:
    """Name what is wrong with a header that is not the expected one; an older round is no fault.

    Args:
        packet: that was expected.
        peer: who has sent it.
        message: what arrived.
        epoch, round: of the exchange.

    Raises:
        ProtocolError: it is not of an older round.
    """
    frame = read_frame(peer, message)
    if frame.epoch <= epoch and frame.round < round:
        return
    packet.check(frame, peer, round, epoch, Kind.GOSSIP)
    raise ProtocolError(peer, f"sent a packet with flags {frame.flags} on stream {frame.stream.name}")


def malformed(
    packet: Packet, peers: Sequence[int], bodies: Sequence[Bytes], when: str, error: FrameError
) -> ProtocolError:
    """The error for packets that ``absorb`` refused: names the first peer whose packet does not decode."""
    culprit = next(
        peer
        for peer, body in zip(peers, bodies, strict=True)
        if not packet.mixer.decodes(packet.bucket, body)
    )
    return ProtocolError(culprit, f"sent a malformed packet {when}: {error}")


def lay_out(packets: Sequence[Packet], most: int) -> tuple[list[int], int]:
    """Where each packet, or those of its edges, is encoded in an outbox, and the outbox's length in bytes.

    Args:
        packets: in the order in which they are sent.
        most: how many have room at a time; later ones take the places of earlier ones.
    """
    rooms = [
        align(HEADER_BYTES + packet.capacity)
        * (max(1, len(packet.mixer.peers)) if isinstance(packet.mixer, EdgeMixer) else 1)
        for packet in packets
    ]
    if len(rooms) <= most:
        return [sum(rooms[:number]) for number in range(len(rooms))], sum(rooms)
    return [number % most * max(rooms) for number in range(len(rooms))], most * max(rooms)


def check_window(peer: int, what: str, number: int, newest: int, *, late: int | None = None) -> None:
    """Refuse a number that the peer cannot have counted to since the newest that was heard from it.

    Args:
        peer: who sent it.
        what: what is counted, for the message.
        number: as sent.
        newest: the highest one before, 0 if none.
        late: how far below the newest it may be; None for any.

    Raises:
        ProtocolError: it is more than ``WINDOW`` above, or more than ``late`` below.
    """
    if number > newest + WINDOW:
        raise ProtocolError(
            peer, f"sent {what} {number} after {newest}, more than {WINDOW} ahead: a damaged packet"
        )  # fmt: skip
    if late is not None and number < newest - late:
        raise ProtocolError(
            peer, f"sent {what} {number} after {newest}, more than {late} behind: was it restarted? "
            "Restart all ranks, or give them another epoch"
        )  # fmt: skip
