"""One virtual peer's part in rounds of gossip: what ``gossip.Exchange`` does, without anything that waits.

Packets are encoded by the same mixers, under the same keys, and absorbed in the same order as over MPI, so a
peer has the same bits. Who calls decides when a packet has arrived, and gives up those that do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from pydec.comm.frames import HEADER_BYTES
from pydec.compress.base import Bytes
from pydec.compress.keys import draw_begin, draw_more
from pydec.gossip.base import Mixer
from pydec.gossip.edges import EdgeMixer
from pydec.gossip.memory import ALIGNMENT
from pydec.gossip.neighbourhood import neighbourhood
from pydec.topology.base import Topology

Bodies = Sequence[Bytes]
"""What a peer sends another in one round: the packets of all buckets of all mixers, in order."""


class PeerRounds:
    """The rounds of one peer on one graph.

    Args:
        rank: of the peer.
        topology: who hears whom.
        mixers: one per vector, in the order of ``Exchange``; empty vectors are skipped.
        seed: with rank, round and packet, what randomised compressors draw from.

    Attributes:
        round: under way, or the last.
        pending: whether it is under way.
        listeners: who is to get this round's packets.
        missing: who has not been heard yet, and is still waited for.
    """

    def __init__(self, rank: int, topology: Topology, mixers: Sequence[Mixer], seed: int) -> None:
        self.rank, self.topology = rank, topology
        self._keys = draw_begin(4, seed, rank)
        self.mixers = [mixer for mixer in mixers if len(mixer.x)]
        for mixer in self.mixers:
            mixer.place(rank, topology)
        self._packets = [(mixer, bucket) for mixer in self.mixers for bucket in range(len(mixer.buckets))]
        self.round = 0
        self.pending = False
        self.listeners: list[int] = []
        self.missing: set[int] = set()
        self._heard: dict[int, float] = {}
        self._arrived: dict[int, Bodies] = {}
        self._own: list[Bytes] = []
        self._buried: set[int] = set()

    def open(self, round: int, gone: AbstractSet[int], early: Mapping[int, Bodies]) -> None:
        """Begin a round.

        Args:
            round: its number.
            gone: who is known to be dead; only ever grows.
            early: packets of this round that have arrived already, by sender.

        Raises:
            PeerLost: the algorithm cannot go on without somebody who is gone.
        """
        if len(gone) != len(self._buried):
            self._bury(gone)
        self.round, self.pending = round, True
        total, self._heard, self.listeners = neighbourhood(self.topology, self.rank, round, self._buried)
        for mixer in self.mixers:
            mixer.round = round
            mixer.open(total)
        self._arrived = {peer: bodies for peer, bodies in early.items() if peer in self._heard}
        self.missing = self._heard.keys() - self._arrived.keys()

    def _bury(self, dead: AbstractSet[int]) -> None:
        for peer in sorted(dead - self._buried):
            self._buried.add(peer)
            for mixer in self.mixers:
                mixer.lose(peer)

    def encode(self) -> dict[int, Bodies]:
        """This round's packets, by listener."""
        self._own = []
        if not self._heard and not self.listeners:
            return {}
        by_listener: dict[int, list[Bytes]] = {peer: [] for peer in self.listeners}
        for number, (mixer, bucket) in enumerate(self._packets):
            key = draw_more(self._keys, self.round, number)
            room = mixer.capacity(bucket)
            if isinstance(mixer, EdgeMixer):
                self._own.append(_memory(0))
                for peer, bodies in by_listener.items():
                    out = _memory(room)
                    bodies.append(out[: mixer.encode_for(peer, bucket, out, key)])
                continue
            out = _memory(room)
            body = out[: mixer.encode(bucket, out, key)]
            self._own.append(body)
            for bodies in by_listener.values():
                bodies.append(body)
        return dict(by_listener)

    def take(self, sender: int, bodies: Bodies) -> bool:
        """Packets of this round have arrived; whether they were waited for."""
        if sender not in self.missing:
            return False
        self.missing.discard(sender)
        self._arrived[sender] = bodies
        return True

    def give_up(self, peer: int, *, dead: bool) -> bool:
        """Do not wait for somebody any longer; whether that was so before.

        Args:
            peer: who.
            dead: for good, and not only in this round.

        Raises:
            PeerLost: the algorithm cannot go on without it.
        """
        if peer not in self.missing:
            return False  # what it has sent counts; the next round leaves it out
        self.missing.discard(peer)
        if dead:
            self._bury({peer})
        return True

    def finish(self) -> None:
        """End the round: mix what has arrived, in the order of the senders."""
        if not self.pending:
            raise RuntimeError("no round has begun")
        heard = [peer for peer in self._heard if peer in self._arrived]
        weights = [self._heard[peer] for peer in heard]
        for number, (mixer, bucket) in enumerate(self._packets):
            bodies = [self._arrived[peer][number] for peer in heard]
            if not self._heard:
                mixer.alone(bucket)
            elif isinstance(mixer, EdgeMixer):
                mixer.absorb_from(heard, bucket, bodies, weights)
            else:
                mixer.absorb(bucket, self._own[number], bodies, weights)
        self._arrived, self._own = {}, []
        self.pending = False

    @staticmethod
    def wire_bytes(bodies: Bodies) -> int:
        """Bytes of packets with their headers."""
        return sum(HEADER_BYTES + body.size for body in bodies)

    @property
    def state_bytes(self) -> int:
        """What the mixers hold beyond their vectors."""
        return sum(mixer.state_bytes for mixer in self.mixers)

    @property
    def packet_bytes(self) -> int:
        """The most that one listener is sent in a round, headers included."""
        return sum(HEADER_BYTES + mixer.capacity(bucket) for mixer, bucket in self._packets)


def _memory(n_bytes: int) -> Bytes:
    """Bytes on a cache line, as the exchange's: kernels look at payloads where they lie."""
    raw = np.empty(n_bytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + n_bytes]
