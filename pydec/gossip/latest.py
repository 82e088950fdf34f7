"""Asynchronous gossip with the latest copies: every rank mixes what it last heard from each neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec.comm.frames import HEADER_BYTES, Frame, Kind, Template
from pydec.comm.transport import Transport
from pydec.compress import draw_key
from pydec.errors import FrameError, ProtocolError
from pydec.gossip.asynchronous import Asynchronous
from pydec.gossip.base import Mixer
from pydec.gossip.ending import Ending
from pydec.gossip.packets import check_window, malformed, packets_of
from pydec.topology.base import Topology
from pydec.trace import span

PATIENCE = 8
"""So many older copies in a row, each newer than the one before, are those of a sender that counts anew."""


@dataclass
class _Copy:
    """One encoded bucket of one model."""

    slot: int
    length: int  # with its header
    version: int  # 0 while it is being written


class LatestExchange(Asynchronous):
    """Keeps the newest copy of every neighbour's model, bucket by bucket, and mixes it when asked.

    A bucket of version v replaces one of a lower version and is dropped otherwise, so that losses, delays,
    doubles and changes of order do no more than make a copy older. Versions count the sender's calls of
    ``begin``. One more than ``WINDOW`` above the newest of that neighbour is refused: no run counts so fast.
    A neighbour that counts anew in the same epoch, or whose newest version was a wrong one, is followed
    from its ``PATIENCE``-th copy of a bucket in a row that is older than what is there and newer than the
    one before: delays and doubles do not look like that, as one message is under way on a link. A neighbour
    that has not been heard from, or is gone, is left out, and its weight returns to the own model.

    To each neighbour buckets travel one after the other, in turn, each in the version that is the newest
    when its turn comes. What is kept is encoded: of the own model one packet of every bucket and one
    for every neighbour that an older one is still travelling to; of each neighbour's model one of every
    bucket and one that is being received.

    Args:
        transport: the stream to use; owned by the caller.
        topology: who hears whom, with which weight, the same in every round.
        mixers: one per vector; empty vectors are skipped. Their packets must hold the vector itself.
        epoch: written into every frame.
        seed: with rank, version and bucket, what randomised compressors draw from.

    Attributes:
        versions: by neighbour and bucket, the version of the copy that is there; 0 if none is.
    """

    kind: ClassVar[Kind] = Kind.LATEST

    def __init__(
        self,
        transport: Transport,
        topology: Topology,
        mixers: Sequence[Mixer],
        *,
        epoch: int = 0,
        seed: int = 0,
    ) -> None:
        self._packets = packets_of([mixer for mixer in mixers if mixer.x.size])
        buckets = len(self._packets)
        rank = transport.rank
        heard, listeners = len(topology.row(rank, 0)[1]), len(topology.listeners(rank, 0))
        longest = max((packet.capacity for packet in self._packets), default=0)
        message_bytes = HEADER_BYTES + max(longest, Ending.note_bytes(transport.size))
        super().__init__(transport, topology, message_bytes, buckets * (1 + heard) + listeners, epoch=epoch)
        self.seed = seed
        self.version = 0
        self.versions = {peer: [0] * buckets for peer in self.weights}
        self._newest = dict.fromkeys(self.weights, 0)  # ``versions`` are forgotten where ranks meet
        self._older = {
            peer: [(0, 0)] * buckets for peer in self.weights
        }  # the last one and how many in a row
        self._headers = [Template(packet.frame(self.kind, epoch, rank)) for packet in self._packets]
        self._own = [_Copy(self.slots.free.pop(), 0, 0) for _ in self._packets]
        self._travelling = [0] * (len(self.slots.free) + buckets + heard)  # sends, by slot
        self._sent_versions = {peer: [0] * buckets for peer in self.listeners}
        self._turn = dict.fromkeys(self.listeners, 0)
        self._heard: dict[int, list[_Copy | None]] = {peer: [None] * buckets for peer in self.weights}

    def publish(self) -> None:
        """Encode every bucket; a version that nobody has begun to take is overwritten."""
        self.version += 1
        if not self.weights and not self.listeners:
            return
        for packet, own, header in zip(self._packets, self._own, self._headers, strict=True):
            with self.lock:
                own.version = 0
                if self._travelling[own.slot]:
                    own.slot = self.slots.free.pop()  # the old one is free when the last send is done
            slot = self.slots[own.slot]
            key = draw_key(self.seed, self.transport.rank, self.version, packet.number)
            body = slot[HEADER_BYTES : HEADER_BYTES + packet.capacity]
            with span("encode"):
                length = packet.mixer.encode(packet.bucket, body, key)
            slot[:HEADER_BYTES] = header.fill(self.transport.rank, self.version, length)
            with self.lock:
                own.length, own.version = HEADER_BYTES + length, self.version

    def mix(self) -> None:
        """Mix the copies that are there with the own model as it was published."""
        for packet, own in zip(self._packets, self._own, strict=True):
            with self.lock:  # a copy must not be replaced while it is read
                copies = {
                    peer: copy
                    for peer in self.weights
                    if peer not in self.gone and (copy := self._heard[peer][packet.number]) is not None
                }
                bodies = [self._body(copy) for copy in copies.values()]
                weights = [self.weights[peer] for peer in copies]
                try:
                    with span(packet.absorbing):
                        packet.mixer.absorb(packet.bucket, self._body(own), bodies, weights)
                except FrameError as error:
                    when = f"in one of the versions {[copy.version for copy in copies.values()]}"
                    raise malformed(packet, list(copies), bodies, when, error) from error

    def outgoing(self, peer: int) -> tuple[NDArray[np.uint8], int | None] | None:
        """The next bucket, in turn, of which the neighbour was not sent the newest version."""
        if self.all_ended:
            return None
        buckets = len(self._packets)
        sent = self._sent_versions[peer]
        for step in range(buckets):
            number = (self._turn[peer] + step) % buckets
            own = self._own[number]
            if own.version > sent[number]:
                sent[number] = own.version
                self._turn[peer] = number + 1
                self._travelling[own.slot] += 1
                return self.slots[own.slot][: own.length], own.slot
        return None

    def delivered(self, peer: int, content: int) -> None:
        """Free a slot that holds an older version and travels to nobody any more."""
        self._travelling[content] -= 1
        if not self._travelling[content] and all(own.slot != content for own in self._own):
            self.slots.free.append(content)

    def arrived(self, peer: int, frame: Frame, slot: int) -> int:
        """Keep a newer copy, drop an older one."""
        if frame.kind is not self.kind or frame.bucket >= len(self._packets):
            raise ProtocolError(
                peer, f"sent a {frame.kind.name} packet with bucket {frame.bucket} of {frame.buckets}; "
                f"expected {self.kind.name} and {len(self._packets)} buckets"
            )  # fmt: skip
        packet = self._packets[frame.bucket]
        packet.check(frame, peer, frame.round, self.epoch, self.kind)
        check_window(peer, "version", frame.round, self._newest[peer])
        if frame.round <= self.versions[peer][frame.bucket] and not self._counts_anew(peer, frame):
            self.dropped += 1
            return slot
        self._newest[peer] = max(self._newest[peer], frame.round)
        self._older[peer][frame.bucket] = (0, 0)
        self.versions[peer][frame.bucket] = frame.round
        before = self._heard[peer][frame.bucket]
        self._heard[peer][frame.bucket] = _Copy(slot, HEADER_BYTES + frame.length, frame.round)
        return before.slot if before is not None else self.slots.free.pop()

    def _counts_anew(self, peer: int, frame: Frame) -> bool:
        last, row = self._older[peer][frame.bucket]
        row = row + 1 if frame.round > last else 1
        self._older[peer][frame.bucket] = (frame.round, row)
        if row < PATIENCE:
            return False
        self._newest[peer] = frame.round
        return True

    def lost(self, peer: int) -> None:
        """Forget the copies of a neighbour that is gone."""
        if peer in self._heard:
            self._forget(peer)

    def met(self) -> None:
        """The models may be replaced now: old copies must neither be mixed into what comes nor sent on."""
        for own in self._own:
            own.version = 0
        for peer in self._heard:
            self._forget(peer)

    def _forget(self, peer: int) -> None:
        copies = self._heard[peer]
        self.slots.free += [copy.slot for copy in copies if copy is not None]
        self._heard[peer] = [None] * len(copies)
        self.versions[peer] = [0] * len(copies)
        self._older[peer] = [(0, 0)] * len(copies)

    def _body(self, copy: _Copy) -> NDArray[np.uint8]:
        return self.slots[copy.slot][HEADER_BYTES : copy.length]
