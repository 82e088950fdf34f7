"""Mixers that keep something of every neighbour and send each a packet of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from pydec.compress.base import Bytes
from pydec.gossip.base import Mixer
from pydec.topology.base import Topology


class EdgeMixer(Mixer):
    """State of an algorithm on one vector and on every edge of this rank, in a static symmetric graph.

    The exchange names the neighbours once, then asks for one packet for each in every round and
    hands over what they sent, all of it after the last was encoded.
    """

    rank: int = 0
    """This rank."""
    peers: tuple[int, ...] = ()
    """Its neighbours, in increasing order."""

    def place(self, rank: int, topology: Topology) -> None:
        """The neighbours of all rounds are those of the first."""
        self.meet(rank, list(topology.row(rank, 0)[1]))

    def meet(self, rank: int, peers: Sequence[int]) -> None:
        """Learn who the neighbours are, before anything else; state of edges is allocated here.

        Args:
            rank: this rank.
            peers: its neighbours for the whole run, in increasing order.
        """
        self.rank, self.peers = rank, tuple(peers)

    @abstractmethod
    def encode_for(self, peer: int, bucket: int, out: Bytes, key: int = 0) -> int:
        """As ``encode``, the packet for one neighbour."""

    @abstractmethod
    def absorb_from(
        self, peers: Sequence[int], bucket: int, packets: Sequence[Bytes], weights: Sequence[float]
    ) -> None:
        """As ``absorb``, with the senders; a neighbour that is not among them is late."""

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """There is no packet for everybody."""
        raise TypeError(f"{type(self).__name__} encodes for one neighbour at a time; use encode_for")

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Packets belong to edges."""
        raise TypeError(f"{type(self).__name__} must know who sent a packet; use absorb_from")
