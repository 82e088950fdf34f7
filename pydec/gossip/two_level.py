"""A round on a hierarchical graph by leaders: node means go over the network once, not once per rank.

Within a node the ranks' vectors are sent to the leader and averaged, uncompressed; the leaders run
the algorithm's mixing with the weights of ``Hierarchical.node_row``; each hands the result out in its node.
The matrix is that of the hierarchical graph, for one packet per edge between nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pydec import compress
from pydec.comm.transport import Transport
from pydec.gossip.base import Mixer
from pydec.gossip.choco import ChocoMixer, QuantisedChocoMixer
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.exchange import Exchange, Late
from pydec.gossip.memory import aligned_floats
from pydec.gossip.switch import Switch, exchange_of
from pydec.topology.base import Topology, uniform_row
from pydec.topology.hierarchical import Hierarchical

_PLAIN = (AverageMixer, ChocoMixer, QuantisedChocoMixer)
_PIECE = 1 << 14  # elements exchanged at a time: three pieces fit in the first cache


def can_lead(topology: Topology, mixers: Sequence[Mixer], *, measure: bool) -> bool:
    """Whether ``LeaderExchange`` may stand in for ``Exchange``.

    A node may be averaged first only where mixing is linear in the vector that a mixer holds: subclasses
    that halve or stretch the weights, and those that mix something else beside, need every rank's row.
    """
    return (
        isinstance(topology, Hierarchical)
        and not measure
        and len(topology.members) < topology.size
        and all(type(mixer) in _PLAIN for mixer in mixers)
    )


class LeaderExchange:
    """``Exchange`` for hierarchical graphs; same calls, same meaning.

    Args:
        transport: the stream to use; owned by the caller.
        topology: nodes, and what runs between them.
        mixers: of vectors that ``can_lead`` admits.
        budget, late, epoch, seed, overlap: see ``Exchange``. With ``overlap`` the packets between the
            nodes travel during the computation, for one more model-sized buffer at each leader.

    Attributes:
        moved: 0; see ``Exchange``.
    """

    moved = 0.0

    def __init__(
        self,
        transport: Transport,
        topology: Hierarchical,
        mixers: Sequence[Mixer],
        *,
        budget: int = 2,
        late: Late = "raise",
        epoch: int = 0,
        seed: int = 0,
        overlap: bool = True,
    ) -> None:
        self._mixers = [mixer for mixer in mixers if mixer.x.size]
        inside, between = _Inside(topology), _Between(topology)
        plain = compress.make("none")
        copies = [AverageMixer(mixer.x, plain, inside.degree) for mixer in self._mixers]
        self._inside = Exchange(
            transport, inside, copies, budget=0, late=late, epoch=epoch, seed=seed, overlap=False
        )
        self._between = exchange_of(mixers)(
            transport, between, mixers, budget=budget, late=late, epoch=epoch, seed=seed, overlap=overlap
        )
        leads = overlap and topology.leader(transport.rank) == transport.rank
        self._piece = aligned_floats(_PIECE if leads else 0)
        self._means = [aligned_floats(mixer.x.size) for mixer in self._mixers] if leads else []

    @property
    def pending(self) -> bool:
        """Whether a round has begun and is not finished."""
        return self._between.pending

    @property
    def switch(self) -> Switch | None:
        """What decides on compression between the nodes, with compressor ``auto``."""
        return getattr(self._between, "switch", None)

    @property
    def wait_s(self) -> float:
        """Seconds spent waiting for peers so far."""
        return self._inside.wait_s + self._between.wait_s

    @property
    def dropped(self) -> int:
        """Packets and neighbours left out so far."""
        return self._inside.dropped + self._between.dropped

    @property
    def buffer_bytes(self) -> int:
        """Bytes held beyond the vectors."""
        means = sum(mean.nbytes for mean in self._means)
        return means + self._inside.buffer_bytes + self._between.buffer_bytes

    def move_in_background(self) -> None:
        """As ``Exchange.move_in_background``, of the packets between the nodes."""
        self._between.move_in_background()

    def run(self, round: int) -> None:
        """Do a whole round; see ``Exchange.run``."""
        self._inside.run(2 * round)
        self._between.run(round)
        self._inside.run(2 * round + 1)

    def begin(self, round: int) -> None:
        """Average inside the nodes and start to send the means; the vectors are left as they were."""
        for mixer, mean in zip(self._mixers, self._means, strict=False):
            np.copyto(mean, mixer.x)
        self._inside.run(2 * round)
        self._between.begin(round)
        self._swap()

    def finish(self, *, mix: bool = True) -> None:
        """Mix the means and hand them out; see ``Exchange.finish``."""
        if not mix:
            self._between.finish(mix=False)
            return
        self._swap()
        self._between.finish()
        self._inside.run(2 * self._between.round + 1)

    def _swap(self) -> None:
        """Exchange a leader's own vectors with its node's means, which wait their turn."""
        for mixer, mean in zip(self._mixers, self._means, strict=False):
            for start in range(0, mean.size, _PIECE):
                own, other = mixer.x[start : start + _PIECE], mean[start : start + _PIECE]
                held = self._piece[: own.size]
                np.copyto(held, own)
                np.copyto(own, other)
                np.copyto(other, held)

    def flush(self) -> None:
        """Wait until everything that was sent has left."""
        self._inside.flush()
        self._between.flush()

    def close(self) -> None:
        """Give up what is still under way."""
        self._inside.close()
        self._between.close()


class _Levels(Topology):
    """What the two graphs share: they only say who hears whom, and are never analysed."""

    def __init__(self, levels: Hierarchical, period: int) -> None:
        super().__init__(levels.name, levels.size, period, None)
        self._levels = levels

    @property
    def messages_per_round(self) -> float:
        """Messages of the busiest rank."""
        return float(self.degree)

    @property
    def is_symmetric(self) -> bool:
        """Not as a rule."""
        return False

    def _gap(self) -> float:
        return self._levels.spectral_gap()


class _Inside(_Levels):
    """Even rounds: each leader averages its node. Odd rounds: the node takes what the leader has."""

    def __init__(self, levels: Hierarchical) -> None:
        super().__init__(levels, 2)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        leader = self._levels.leader(rank)
        if slot == 0:
            members = self._levels.members[self._levels.node_of[rank]]
            return uniform_row(rank, members) if rank == leader else (1.0, {})
        return (1.0, {}) if rank == leader else (0.0, {leader: 1.0})

    def _listeners(self, rank: int, slot: int) -> list[int]:
        leader = self._levels.leader(rank)
        if slot == 0:
            return [] if rank == leader else [leader]
        members = self._levels.members[self._levels.node_of[rank]]
        return [other for other in members if other != rank] if rank == leader else []

    @property
    def degree(self) -> int:
        """Ranks that the leader of the largest node hears."""
        return max(map(len, self._levels.members)) - 1


class _Between(_Levels):
    """The leaders, with the weights of their nodes; all other ranks rest."""

    def __init__(self, levels: Hierarchical) -> None:
        super().__init__(levels, levels.period)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        if rank != self._levels.leader(rank):
            return 1.0, {}
        own, heard = self._levels.node_row(self._levels.node_of[rank], slot)
        return own, dict(sorted((self._levels.members[node][0], weight) for node, weight in heard.items()))

    def _listeners(self, rank: int, slot: int) -> list[int]:
        if rank != self._levels.leader(rank):
            return []
        nodes = self._levels.between.listeners(self._levels.node_of[rank], slot)
        return sorted(self._levels.members[node][0] for node in nodes)

    @property
    def degree(self) -> int:
        """Nodes that one node hears."""
        return self._levels.between.degree
