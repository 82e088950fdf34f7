"""Carries one round of gossip over a transport: frames, buckets, deadlines, order.

The mixers are pure; everything that touches the network in a round is here. Packets are absorbed
bucket by bucket in the order of the neighbours' ranks, whatever order they arrive in, so that a run
has the same bits on every transport.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar, Literal

import numpy as np

from pydec.comm.frames import HEADER_BYTES, Kind, Template
from pydec.comm.transport import Background, Pending, Transport
from pydec.compress import draw_key
from pydec.compress.base import Bytes
from pydec.errors import FrameError, PeerLost, PeerTimeout
from pydec.gossip.base import Mixer
from pydec.gossip.edges import EdgeMixer
from pydec.gossip.inbox import Inbox
from pydec.gossip.memory import align, aligned_bytes
from pydec.gossip.neighbourhood import absent, elsewhere, neighbourhood
from pydec.gossip.packets import Packet, lay_out, malformed, packet_tag, packets_of, refuse, too_long
from pydec.topology.base import Topology
from pydec.trace import span, traced

Late = Literal["raise", "drop"]
Lost = Literal["raise", "drop"]

_NAP_S = 200e-6  # between looks at packets on their way: 25 kB at 1 Gbit/s
_RING = 4  # buckets of outbox and inbox of an exchange that does not overlap with computation
_AHEAD = 2  # buckets encoded before the first is mixed: hides one neighbour's encoding


class Exchange:
    """Sends, receives and mixes one round at a time.

    ``begin`` encodes the models and starts to send; ``finish`` waits for the neighbours and mixes;
    between the two the models may be read and trained on. ``run`` does both. All buffers are
    allocated here, once.

    Args:
        transport: the stream to use; owned by the caller.
        topology: who hears whom, in which round, with which weight.
        mixers: one per vector; empty vectors are skipped.
        budget: model-sized buffers that mixers, outbox and inbox may use together; the inbox gets
            what the others leave, at least an eighth of a model.
        late: what to do when a neighbour does not come: "raise" PeerTimeout after the transport's deadline,
            or "drop" it for this round (its weight returns to the own model) once it is late, by ``limit_s``.
        lost: what to do when a neighbour is dead: "raise" PeerLost, or "drop" it for good, in this round and
            all that follow; see ``neighbourhood``.
        epoch: written into every frame; packets of another epoch are refused.
        seed: with rank, round and bucket, what randomised compressors draw from.
        overlap: whether rounds are begun and finished apart; otherwise only ``run`` works, and a
            few buckets' worth of outbox is used again and again, which stays in the cache.
        measure: whether ``moved`` is kept up, at the cost of reading every mixed vector once more.

    Attributes:
        moved: ||W x - x||^2 of the last finished round and this rank, over the mixers that send their
            vector itself; 0 unless ``measure``.
    """

    trailer: ClassVar[int] = 0  # bytes that ``_seal`` adds to every packet

    def __init__(
        self,
        transport: Transport,
        topology: Topology,
        mixers: Sequence[Mixer],
        *,
        budget: int = 2,
        late: Late = "raise",
        lost: Lost = "raise",
        epoch: int = 0,
        seed: int = 0,
        overlap: bool = True,
        measure: bool = False,
    ) -> None:
        self.transport = transport
        self.topology = topology
        self.mixers = [mixer for mixer in mixers if len(mixer.x)]
        self.late, self.epoch, self.seed = late, epoch, seed
        self.lost = lost if transport.tolerant else "raise"  # else the job is ending, and says why
        self.gone: set[int] = set()
        """Ranks that are dead and left out for good."""
        self.round = 0
        self.pending = False
        self.wait_s = 0.0
        self.dropped = 0
        """Packets and neighbours left out so far: duplicates of older rounds, late and dead neighbours."""
        self.measure, self._overlap = measure, overlap
        self._in_background = False
        self._work: Background | None = None
        self.moved = 0.0
        for mixer in self.mixers:
            mixer.place(transport.rank, topology)
        self._packets = packets_of(self.mixers, self.trailer)
        self._capacities = [packet.capacity for packet in self._packets]
        self._slot = max((align(HEADER_BYTES + capacity) for capacity in self._capacities), default=0)
        self._offsets, length = lay_out(self._packets, len(self._packets) if overlap else _RING)
        rank = transport.rank
        self._headers = [Template(packet.frame(Kind.GOSSIP, epoch, rank)) for packet in self._packets]
        self._lengths = [0] * len(self._packets)
        self._sends: dict[int, list[Pending]] = {}  # by offset in the outbox
        self._heard: dict[int, float] = {}
        self._listeners: list[int] = []
        self._missing: set[int] = set()
        self._plan_memory(budget, length)

    def _plan_memory(self, budget: int, outbox_bytes: int) -> None:
        """As many packets ahead as the memory budget allows, at least one of every neighbour."""
        degree = max(1, self.topology.degree)
        slot = self._slot
        model = 4 * sum(len(mixer.x) for mixer in self.mixers)
        used = outbox_bytes + sum(mixer.state_bytes for mixer in self.mixers)
        spare = max(model // 8, budget * model - used)
        most = len(self._packets) if self._overlap else min(_RING, len(self._packets))
        self._window = max(1, min(most, spare // max(1, slot * degree)))
        self._outbox, self._inbox = self._memory(outbox_bytes, (self._window, degree, slot))
        self._receives: dict[tuple[int, int], Pending] = {}

    def _memory(self, outbox_bytes: int, inbox: tuple[int, int, int]) -> tuple[Bytes, Inbox]:
        return aligned_bytes(outbox_bytes), Inbox(*inbox)

    @property
    def buffer_bytes(self) -> int:
        """Bytes held beyond the vectors: algorithm state, outbox and inbox."""
        return self._outbox.nbytes + self._inbox.nbytes + sum(mixer.state_bytes for mixer in self.mixers)

    def run(self, round: int) -> None:
        """Do a whole round: as ``begin`` and ``finish``, one after the other, with the same bits and errors.

        Buckets are encoded only a little ahead of being mixed, so that each is still in the
        cache when its neighbours' packets arrive.
        """
        self._open(round)
        for number in range(len(self._packets) + _AHEAD):
            if number < len(self._packets):
                self._send(number)
            if number >= _AHEAD:
                self._settle(number - _AHEAD)
        self.pending = False

    def move_in_background(self) -> None:
        """Let packets move beside the program between ``begin`` and ``finish``, where that can be done.

        MPI moves large messages only while somebody calls it; see ``Transport.background``.
        """
        self._in_background = True

    def _advance(self) -> bool:
        if self.pending or self._sends:  # a neighbour may still wait for what has not left
            self.transport.advance()
        return False

    def begin(self, round: int) -> None:
        """Start a round: encode every bucket and send it to those who listen, in the order of the parameters,
        so that those come first that the next forward pass needs first.
        """
        if not self._overlap:
            raise RuntimeError("this exchange was made for whole rounds; use run, or overlap=True")
        self._open(round)
        if self._in_background and self._work is None:
            self._work = self.transport.background(self._advance, most_s=_NAP_S)
        for number in range(len(self._packets)):
            self._send(number)

    def finish(self, *, mix: bool = True) -> None:
        """Wait for the neighbours' packets and mix; the round is over when this returns.

        Args:
            mix: False receives the packets and throws them away, so that a round can be begun anew.

        Raises:
            PeerTimeout: a neighbour missed the deadline and ``late`` is "raise".
            PeerLost, ProtocolError: a neighbour is gone and ``lost`` is "raise", or sent what it must not.
        """
        if not self.pending:
            raise RuntimeError("no round has begun")
        for number in range(len(self._packets)):
            self._settle(number, mix=mix)
        self.pending = False

    def _open(self, round: int) -> None:
        """Look up the round's neighbours and post the first receives."""
        if self.pending:
            raise RuntimeError(f"round {self.round} has not been finished")
        self._drain()
        self.round = round
        self.pending = True
        self._missing.clear()
        self._inbox.mend()
        if self.lost == "drop":
            self._bury(self.transport.lost())
        who = self.topology, self.transport.rank, round
        total, self._heard, self._listeners = neighbourhood(*who, self.gone)
        self.moved = 0.0
        for mixer in self.mixers:
            mixer.round = round
            mixer.open(total)
        for number in range(min(self._window, len(self._packets))):
            self._post(number)

    def _bury(self, dead: Iterable[int]) -> None:
        """Leave ranks out for good. What MPI has not finished with them is given up, with its memory."""
        for peer in set(dead) - self.gone:
            self.gone.add(peer)
            for mixer in self.mixers:
                mixer.lose(peer)
            if peer in self._listeners:
                self._listeners.remove(peer)
            if peer in self._heard:
                self._inbox.torn = True
                self._forget(list(self._heard).index(peer), peer)

    def restart(self, living: Collection[int]) -> None:
        """All survivors agree, between the same two rounds, on who lives: leave the others out."""
        self._bury(set(range(self.topology.size)) - {*living})

    def _lose(self, error: PeerLost) -> None:
        """Drop a peer if it is dead and that is the policy; a peer that has left too early is a fault."""
        if self.lost == "raise" or error.peer not in self.transport.lost():
            raise error
        self._bury([error.peer])

    def _send(self, number: int) -> None:
        """Encode one bucket and send it; without neighbours there is nothing to encode for."""
        if self._heard or self._listeners:
            packet = self._packets[number]
            offset = self._offsets[number]
            self._outlast(self._sends.pop(offset, ()))
            tag = self._tag(number)
            if isinstance(packet.mixer, EdgeMixer):
                messages = [self._encode(number, packet, peer) for peer in self._listeners]
            else:
                messages = [self._encode(number, packet)] * len(self._listeners)
            with span("send"):
                self._sends[offset] = [
                    self.transport.isend(peer, tag, message)
                    for peer, message in zip(self._listeners, messages, strict=True)
                ]

    def _settle(self, number: int, *, mix: bool = True) -> None:
        """Wait for one bucket of every neighbour and mix it."""
        if not self._heard:
            if mix:
                self._packets[number].mixer.alone(self._packets[number].bucket)
            return
        heard: list[int] = []
        bodies: list[Bytes] = []
        for place, peer in enumerate(self._heard):
            body = None if peer in self._missing else self._take(number, place, peer)
            if body is not None:
                heard.append(peer)
                bodies.append(body)
        if mix:
            with span(self._packets[number].absorbing):
                self._absorb(number, heard, bodies)
        if number + self._window < len(self._packets):
            self._post(number + self._window)

    def _absorb(self, number: int, heard: list[int], bodies: list[Bytes]) -> None:
        packet = self._packets[number]
        own = self._own(number)
        weights = [self._heard[peer] for peer in heard]
        try:
            if isinstance(packet.mixer, EdgeMixer):
                packet.mixer.absorb_from(heard, packet.bucket, bodies, weights)
            else:
                packet.mixer.absorb(packet.bucket, own, bodies, weights)
        except FrameError as error:
            raise malformed(packet, heard, bodies, f"in round {self.round}", error) from error
        if self.measure and packet.mixer.move_scale:
            first, last = packet.span
            moved = packet.mixer.compressor.sqdist(own, packet.mixer.x[first:last])
            self.moved += packet.mixer.move_scale * moved

    def _own(self, number: int) -> Bytes:
        start = self._offsets[number] + HEADER_BYTES
        return self._outbox[start : start + self._lengths[number]]

    def flush(self) -> None:
        """Wait until everything that was sent has left the outbox; what ran beside the program ends."""
        self._drain()
        self._rest()

    def _rest(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.close()

    def _drain(self) -> None:
        for sends in self._sends.values():
            self._outlast(sends)
        self._sends.clear()

    def _outlast(self, sends: Iterable[Pending]) -> None:
        """Wait until these have left, or their receivers are gone."""
        for send in sends:
            try:
                self._wait(send)
            except PeerLost as error:
                self._lose(error)

    def end(self, staying: Collection[int]) -> None:
        """The last round of this exchange is over: wait until these ranks have what was sent to them."""
        for sends in self._sends.values():
            self._outlast(send for send in sends if send.peer in staying)

    def close(self) -> None:
        """Give up what is still under way."""
        self._rest()
        for pending in (*itertools.chain(*self._sends.values()), *self._receives.values()):
            pending.cancel()
        self._sends.clear()
        self._receives.clear()
        self.pending = False

    def _tag(self, number: int) -> int:
        return packet_tag(self.round, number)

    @traced("encode")
    def _encode(self, number: int, packet: Packet, peer: int = -1) -> memoryview:
        """The message for all listeners, or for one of those of an ``EdgeMixer``."""
        mixer, offset, capacity = packet.mixer, self._offsets[number], self._capacities[number]
        if isinstance(mixer, EdgeMixer):
            offset += mixer.peers.index(peer) * align(HEADER_BYTES + capacity)
        start = offset + HEADER_BYTES
        key = draw_key(self.seed, self.transport.rank, self.round, number)
        room = self._outbox[start : start + capacity]
        if isinstance(mixer, EdgeMixer):
            length = mixer.encode_for(peer, packet.bucket, room, key)
        else:
            length = mixer.encode(packet.bucket, room, key)
        self._lengths[number] = length
        length += self._seal(number, room, length)
        self._outbox[offset:start] = self._headers[number].fill(self.transport.rank, self.round, length)
        return memoryview(self._outbox[offset : start + length])

    def _seal(self, number: int, room: Bytes, length: int) -> int:
        """Add a trailer to an encoded packet; its length."""
        return 0

    def _post(self, number: int) -> None:
        """Post the receives of one packet from every neighbour."""
        for place, peer in enumerate(self._heard):
            if peer not in self._missing:
                self._listen(number, place, peer)

    def _listen(self, number: int, place: int, peer: int) -> None:
        into = self._inbox.landing(number, place, HEADER_BYTES + self._capacities[number])
        self._receives[number, place] = self.transport.irecv(peer, self._tag(number), into)

    def _take(self, number: int, place: int, peer: int) -> Bytes | None:
        """One neighbour's packet without its header, or None if the neighbour is late and dropped."""
        while True:
            receive = self._receives.pop((number, place))
            try:
                arrived = self._wait(receive, late=self.late == "drop")
            except FrameError as error:
                raise too_long(peer, error) from error
            except PeerTimeout as error:
                receive.cancel()
                if self.late == "raise":
                    raise absent(error, self.round) from error
                self._forget(place, peer)
                return None
            except PeerLost as error:
                self._lose(error)
                return None
            seen = self._inbox.seen(number, place, arrived)
            expected = self._headers[number].fill(peer, self.round, arrived - HEADER_BYTES)
            if arrived >= HEADER_BYTES and np.array_equal(seen[:HEADER_BYTES], expected):
                return self._inbox.body(number, place, arrived)
            if elsewhere(peer, seen, self.epoch, self.round):
                self._forget(place, peer)
                return None
            refuse(self._packets[number], peer, seen, self.epoch, self.round)
            self.dropped += 1
            self._listen(number, place, peer)

    def _forget(self, place: int, peer: int) -> None:
        """Cancel what is posted for a neighbour that is left out of the rest of the round."""
        self.dropped += 1
        self._missing.add(peer)
        for key in [key for key in self._receives if key[1] == place]:
            self._receives.pop(key).cancel()

    def _wait(self, pending: Pending, *, late: bool = False) -> int:
        if pending.done():
            return pending.wait(0)
        started = self.transport.now()
        try:
            with span("wait", peer=pending.peer):
                return pending.wait(self.transport.limit_s(pending.peer, late=True) if late else None)
        finally:
            self.wait_s += self.transport.now() - started
