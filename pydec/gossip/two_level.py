"""A round on a hierarchical graph by leaders: node means go over the network once, not once per rank.

Within a node the ranks' vectors are sent to the leader and averaged, uncompressed; the leaders run
the algorithm's mixing with the weights of ``Hierarchical.node_row``; each hands the result out in its node.
The matrix is that of the hierarchical graph, for one packet per edge between nodes.

When a leader dies its node keeps to itself, each rank with its own model, because the other nodes cannot
know at once who speaks for it; from the next ``restart`` on, which all survivors call between the same two
rounds, the next living rank of the node leads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from pydec import compress
from pydec.comm.transport import Transport
from pydec.compress.base import Vector
from pydec.gossip.base import Mixer
from pydec.gossip.choco import ChocoMixer, QuantisedChocoMixer
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.exchange import Exchange, Late, Lost
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
        budget, late, lost, epoch, seed, overlap: see ``Exchange``. With ``overlap`` the packets between the
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
        lost: Lost = "raise",
        epoch: int = 0,
        seed: int = 0,
        overlap: bool = True,
    ) -> None:
        self._mixers = [mixer for mixer in mixers if mixer.x.size]
        self._rank = transport.rank
        self._nodes = _Nodes(topology)
        inside, between = _Inside(topology, self._nodes), _Between(topology, self._nodes)
        plain = compress.make("none")
        copies = [AverageMixer(mixer.x, plain, inside.degree) for mixer in self._mixers]
        self._inside = Exchange(
            transport, inside, copies, budget=0, late=late, lost=lost, epoch=epoch, seed=seed, overlap=False
        )
        self._between = exchange_of(mixers)(
            transport,
            between,
            mixers,
            budget=budget,
            late=late,
            lost=lost,
            epoch=epoch,
            seed=seed,
            overlap=overlap,
        )
        self._overlap = overlap
        self._piece = aligned_floats(0)
        self._means: list[Vector] = []
        self._take_office()

    def _take_office(self) -> None:
        """Room for the node's means, at the rank that leads it."""
        if self._overlap and not self._means and self._nodes.leader(self._rank) == self._rank:
            self._piece = aligned_floats(_PIECE)
            self._means = [aligned_floats(mixer.x.size) for mixer in self._mixers]

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

    def restart(self, living: Collection[int]) -> None:
        """See ``Exchange.restart``; nodes whose leader has died get another."""
        self._nodes.members = [[rank for rank in node if rank in living] for node in self._nodes.members]
        self._inside.restart(living)
        self._between.restart(living)
        self._take_office()

    def end(self, staying: Collection[int]) -> None:
        """See ``Exchange.end``."""
        self._inside.end(staying)
        self._between.end(staying)

    def flush(self) -> None:
        """Wait until everything that was sent has left."""
        self._inside.flush()
        self._between.flush()

    def close(self) -> None:
        """Give up what is still under way."""
        self._inside.close()
        self._between.close()


class _Nodes:
    """Who lives on every node, as all survivors know alike."""

    def __init__(self, levels: Hierarchical) -> None:
        self.members = [list(node) for node in levels.members]
        self._node_of = levels.node_of

    def of(self, rank: int) -> list[int]:
        """The living ranks of the node that ``rank`` is on."""
        return self.members[self._node_of[rank]]

    def leader(self, rank: int) -> int:
        """The lowest of them; a rank that is not among them leads nobody."""
        return next(iter(self.of(rank)), -1)


class _Levels(Topology):
    """What the two graphs share: they only say who hears whom, and are never analysed."""

    def __init__(self, levels: Hierarchical, nodes: _Nodes, period: int) -> None:
        super().__init__(levels.name, levels.size, period, None)
        self._levels = levels
        self._nodes = nodes

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

    def __init__(self, levels: Hierarchical, nodes: _Nodes) -> None:
        super().__init__(levels, nodes, 2)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        leader = self._nodes.leader(rank)
        if slot == 0:
            return uniform_row(rank, self._nodes.of(rank)) if rank == leader else (1.0, {})
        return (1.0, {}) if rank == leader else (0.0, {leader: 1.0})

    def _listeners(self, rank: int, slot: int) -> list[int]:
        leader = self._nodes.leader(rank)
        if slot == 0:
            return [] if rank == leader else [leader]
        return [other for other in self._nodes.of(rank) if other != rank] if rank == leader else []

    @property
    def degree(self) -> int:
        """Ranks that the leader of the largest node hears."""
        return max(map(len, self._levels.members)) - 1


class _Between(_Levels):
    """The leaders, with the weights of their nodes; all other ranks rest."""

    def __init__(self, levels: Hierarchical, nodes: _Nodes) -> None:
        super().__init__(levels, nodes, levels.period)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        if rank != self._nodes.leader(rank):
            return 1.0, {}
        own, heard = self._levels.node_row(self._levels.node_of[rank], slot)
        led = {node: members[0] for node, members in enumerate(self._nodes.members) if members}
        own += sum(weight for node, weight in heard.items() if node not in led)
        return own, dict(sorted((led[node], weight) for node, weight in heard.items() if node in led))

    def _listeners(self, rank: int, slot: int) -> list[int]:
        if rank != self._nodes.leader(rank):
            return []
        nodes = self._levels.between.listeners(self._levels.node_of[rank], slot)
        return sorted(self._nodes.members[node][0] for node in nodes if self._nodes.members[node])

    @property
    def degree(self) -> int:
        """Nodes that one node hears."""
        return self._levels.between.degree
