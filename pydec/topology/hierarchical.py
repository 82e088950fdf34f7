"""Two levels: exact averaging inside a node, gossip between nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pydec.errors import ConfigError
from pydec.topology.base import Matrix, Topology, check_size, topologies


def node_members(size: int, nodes: Sequence[int] | None, m: int | None) -> list[list[int]]:
    """Ranks of every node, nodes in the order of their lowest rank.

    Args:
        size: number of ranks.
        nodes: for each rank, any number that names its node; used if ``m`` is None.
        m: ranks per node, in consecutive blocks; the last node may have fewer.

    Raises:
        ConfigError: neither is given, or they do not fit the size.
    """
    check_size(size)
    if m is not None:
        if m < 1:
            raise ConfigError(f"a node needs at least 1 rank, got m={m}")
        nodes = [rank // m for rank in range(size)]
    if nodes is None:
        raise ConfigError(
            "which ranks share a node is not known here; say how many do, as in m=4, or pass nodes=[...], "
            "the node of every rank (a job under MPI finds them itself)"
        )
    if len(nodes) != size:
        raise ConfigError(f"nodes must name the node of each of {size} ranks, got {len(nodes)} entries")
    members: dict[int, list[int]] = {}
    for rank, node in enumerate(nodes):
        members.setdefault(node, []).append(rank)
    return list(members.values())


class Hierarchical(Topology):
    """Every round: all ranks of a node average exactly, and nodes mix as ``between`` says.

    For nodes of m ranks each the matrix is the Kronecker product of ``between``'s with the averaging matrix
    of m ranks, so the spectral gap and the exact rounds are those of ``between``. Nodes of different
    sizes m_g and m_h exchange with min(m_g, m_h) / m_g of the weight, which keeps rows and columns at 1;
    that takes symmetric rounds, and exactness is lost.

    ``row`` and ``messages_per_round`` say who must know whose model. ``pydec.gossip.two_level`` sends far
    less: the node means go from leader to leader along ``between``, with the weights of ``node_row``, one
    message per edge, and the result is handed out inside the node.

    Args:
        members: ranks of every node.
        between: topology of the nodes, as many as ``members``.
        name: specification that makes it.
    """

    members: tuple[tuple[int, ...], ...]
    """Ranks of every node; the first is its leader."""
    between: Topology
    """Topology of the nodes."""

    def __init__(self, members: Sequence[Sequence[int]], between: Topology, name: str) -> None:
        self.members = tuple(tuple(ranks) for ranks in members)
        self.between = between
        size = sum(map(len, self.members))
        self._equal = len({len(ranks) for ranks in self.members}) == 1
        if not self._equal and not (between.is_symmetric and between.period):
            sizes = sorted({len(ranks) for ranks in self.members})
            raise ConfigError(
                f"nodes of {sizes[0]} to {sizes[-1]} ranks need a symmetric schedule that repeats between "
                f"them, such as between=base-k or between=ring; {between.name} is not"
            )
        self.node_of = [0] * size
        for node, ranks in enumerate(self.members):
            for rank in ranks:
                self.node_of[rank] = node
        exact = between.finite_time if self._equal or len(self.members) == 1 else None
        super().__init__(name, size, between.period, None if exact is None else max(1, exact))

    def leader(self, rank: int) -> int:
        """The lowest rank of the node that ``rank`` is on: the one that talks to other nodes."""
        return self.members[self.node_of[rank]][0]

    def node_row(self, node: int, round: int) -> tuple[float, dict[int, float]]:
        """(own weight, {node heard: weight}) for the means of the nodes in one round."""
        own, heard = self.between.row(node, round)
        if self._equal:
            return own, heard
        mine = len(self.members[node])
        heard = {h: w * min(mine, len(self.members[h])) / mine for h, w in heard.items()}
        return 1.0 - math.fsum(heard.values()), heard

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        node = self.node_of[rank]
        mine = len(self.members[node])
        own, heard = self.between.row(node, slot)
        row: dict[int, float] = {}
        for other, weight in heard.items():
            theirs = len(self.members[other])
            # The smaller node counts: w min(a, b) / a per node, shared by its b ranks. One rounding for the
            # product, so that both directions have the same bits.
            row |= dict.fromkeys(self.members[other], weight / max(mine, theirs))
        share = own / mine if self._equal else (1.0 - math.fsum(row.values())) / mine
        row |= dict.fromkeys(self.members[node], share)
        del row[rank]
        return share, dict(sorted(row.items()))

    def _listeners(self, rank: int, slot: int) -> list[int]:
        node = self.node_of[rank]
        nodes = {node, *self.between.listeners(node, slot)}
        return sorted(other for g in nodes for other in self.members[g] if other != rank)

    @cached_property
    def _counts(self) -> list[int]:
        """Ranks that a rank hears, for every node and round of a period of unequal nodes."""
        sizes = [len(ranks) for ranks in self.members]
        return [
            sizes[node] - 1 + sum(sizes[h] for h in self.between.neighbors(node, slot))
            for slot in range(self.period)
            for node in range(len(sizes))
        ]

    @property
    def degree(self) -> int:
        """Largest number of ranks whose models make up a rank's result in any round."""
        if not self._equal:
            return max(self._counts)
        return len(self.members[0]) * (1 + self.between.degree) - 1

    @property
    def messages_per_round(self) -> float:
        """Models that a rank's result is made of besides its own, mean over the ranks and rounds."""
        if not self._equal:
            sizes = [len(ranks) for ranks in self.members] * self.period
            total = sum(count * ranks for count, ranks in zip(self._counts, sizes, strict=True))
            return total / (self.size * self.period)
        return len(self.members[0]) * (1 + self.between.messages_per_round) - 1

    @property
    def node_messages_per_round(self) -> float:
        """Messages that one node sends to others in one round if leaders exchange node means."""
        return self.between.messages_per_round

    @property
    def is_symmetric(self) -> bool:
        """Whether ``between`` is."""
        return self.between.is_symmetric

    @property
    def is_doubly_stochastic(self) -> bool:
        """Whether ``between`` is."""
        return self.between.is_doubly_stochastic

    @property
    def identity(self) -> str:
        """The layout of the nodes, and what identifies ``between``."""
        return f"nodes {self.node_of} {self.between.identity}".strip()

    def _node_matrix(self, slot: int) -> Matrix:
        """Node weights, scaled to be symmetric with the mean at sqrt(ranks of the node)."""
        roots = np.sqrt([len(ranks) for ranks in self.members])
        matrix = np.zeros((len(roots), len(roots)))
        for node in range(len(roots)):
            own, heard = self.node_row(node, slot)
            matrix[node, list(heard)] = list(heard.values())
            matrix[node, node] = own
        return matrix * roots[:, None] / roots

    def _gap(self) -> float:
        if self._equal:
            return self.between.spectral_gap()
        mean = np.sqrt([len(ranks) / self.size for ranks in self.members])
        product: Matrix = np.eye(len(mean))
        for slot in range(self.period):
            product = self._node_matrix(slot) @ product
        return 1.0 - math.pow(np.linalg.norm(product - np.outer(mean, mean), 2), 1.0 / self.period)

    def _smallest(self) -> float:
        inside = 0.0 if len(self.members) < self.size else 1.0  # differences inside a node vanish
        if self._equal:
            between = self.between.smallest_eigenvalue()
            return inside if between is None else min(inside, between)
        return min(inside, float(np.linalg.eigvalsh(self._node_matrix(0))[0]))


class Alternating(Topology):
    """Even rounds: exact averaging inside every node. Odd rounds: ranks at the same place of their nodes mix.

    Args:
        members: ranks of every node, the same number each.
        between: topology of the nodes.
        name: specification that makes it.
    """

    def __init__(self, members: Sequence[Sequence[int]], between: Topology, name: str) -> None:
        sizes = sorted({len(ranks) for ranks in members})
        if len(sizes) > 1:
            raise ConfigError(
                f"alternating needs nodes of the same size, got nodes of {sizes[0]} to {sizes[-1]} ranks; "
                "use hierarchical, which works for any"
            )
        self.members = tuple(tuple(ranks) for ranks in members)
        self.between = between
        size = sum(map(len, self.members))
        exact = between.finite_time
        if exact is not None:
            exact = 2 * exact if len(members) > 1 else 1
        super().__init__(name, size, 2 * between.period, exact)
        self.place_of = [(0, 0)] * size
        for node, ranks in enumerate(self.members):
            for place, rank in enumerate(ranks):
                self.place_of[rank] = (node, place)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        node, place = self.place_of[rank]
        if slot % 2 == 0:
            weight = 1 / len(self.members[node])
            return weight, {other: weight for other in sorted(self.members[node]) if other != rank}
        own, heard = self.between.row(node, slot // 2)
        return own, dict(sorted((self.members[other][place], weight) for other, weight in heard.items()))

    def _listeners(self, rank: int, slot: int) -> list[int]:
        node, place = self.place_of[rank]
        if slot % 2 == 0:
            return [other for other in sorted(self.members[node]) if other != rank]
        return sorted(self.members[other][place] for other in self.between.listeners(node, slot // 2))

    @property
    def degree(self) -> int:
        """Largest number of neighbours that any rank hears in any round."""
        return max(len(self.members[0]) - 1, self.between.degree)

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round, mean over the two kinds of rounds."""
        return (len(self.members[0]) - 1 + self.between.messages_per_round) / 2

    @property
    def is_symmetric(self) -> bool:
        """Whether ``between`` is."""
        return self.between.is_symmetric

    @property
    def is_doubly_stochastic(self) -> bool:
        """Whether ``between`` is."""
        return self.between.is_doubly_stochastic

    @property
    def identity(self) -> str:
        """The layout of the nodes, and what identifies ``between``."""
        return f"places {self.place_of} {self.between.identity}".strip()

    def _gap(self) -> float:
        return 1.0 - math.sqrt(1.0 - self.between.spectral_gap())  # one mixing between nodes in two rounds


@topologies.register("hierarchical")
def hierarchical(
    size: int,
    between: str = "one-peer-exponential",
    m: int | None = None,
    seed: int = 0,
    nodes: Sequence[int] | None = None,
) -> Topology:
    """Ranks of one node average exactly in every round, and nodes gossip with one another.

    The matrix of a round is W (x) J: W between the nodes, J averaging inside. Mixes as fast as W does
    on as many ranks as there are nodes, for one message per node and edge of W between leaders.

    Source: the hierarchical neighbour averaging of Ying, Yuan, Hu, Chen, Yin, "BlueFog: Make Decentralized
    Algorithms Practical for Optimization and Deep Learning", arXiv:2111.04287, section 4.

    Args:
        size: number of ranks.
        between: specification of the topology between the nodes, with at most one option.
        m: ranks per node, consecutive ones; None takes ``nodes``.
        seed: for a random topology between the nodes.
        nodes: for each rank, a number that names its node.
    """
    members, other = _two_levels(size, between, m, seed, nodes)
    return Hierarchical(members, other, f"hierarchical:between={other.name}")


@topologies.register("alternating")
def alternating(
    size: int,
    between: str = "one-peer-exponential",
    m: int | None = None,
    seed: int = 0,
    nodes: Sequence[int] | None = None,
) -> Topology:
    """Even rounds average inside every node, odd rounds gossip between ranks at one place of their nodes.

    The two-level schedule for exchanges that know no leaders: two rounds do what one of ``hierarchical``
    does, with 1 message per rank over the network if ``between`` sends one. Nodes of equal size only.

    Args:
        size: number of ranks.
        between: specification of the topology between the nodes, with at most one option.
        m: ranks per node, consecutive ones; None takes ``nodes``.
        seed: for a random topology between the nodes.
        nodes: for each rank, a number that names its node.
    """
    members, other = _two_levels(size, between, m, seed, nodes)
    return Alternating(members, other, f"alternating:between={other.name}")


def _two_levels(
    size: int, between: str, m: int | None, seed: int, nodes: Sequence[int] | None
) -> tuple[list[list[int]], Topology]:
    members = node_members(size, nodes, m)
    return members, topologies.make(between, size=len(members), seed=seed)
