"""Which peers hold which object: weighted rendezvous hashing, then as many different nodes as there are.

Each peer draws a number for each object, which depends on the two alone, and the peers with the best numbers
hold it. So everybody computes the same places from the view, nobody keeps a table, and a peer that comes or
goes moves only what it gets or had. A peer of twice the weight holds twice as much.

Source: Thaler, Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on
Networking 6(1), 1998; with weights: Mosko, Resch, "Weighted distributed hash tables", 2014: the least
-log(u) / weight wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pydec.store.integers import Words, minus_log2, mix

MOST_WEIGHT = 1 << 24
_SCALE = np.uint64(24)  # bits: -log2 has 38, so that a quotient by a weight keeps 24 more
_BLOCK = 1 << 20  # numbers drawn at once


@dataclass(frozen=True)
class Holder:
    """A peer that holds objects.

    Args:
        peer: its identity, such as a public key: any bytes, different for each.
        node: the machine it is on; replicas go to different ones.
        weight: how much it offers, in any unit, 1 to ``MOST_WEIGHT``; 0: it holds nothing.
        rack: of the machine; replicas go to different ones first, where they are named.

    Raises:
        ValueError: a weight out of its range.
    """

    peer: bytes
    node: str
    weight: int = 1
    rack: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= MOST_WEIGHT:
            raise ValueError(f"a holder's weight must be in [0, {MOST_WEIGHT}], got {self.weight}")


class Placement:
    """Where objects belong.

    Args:
        holders: the peers of the view, in any order.
        replicas: copies of each object; fewer where there are fewer peers.

    Raises:
        ValueError: no replicas, or two holders of one identity.
    """

    def __init__(self, holders: Sequence[Holder], replicas: int) -> None:
        if replicas < 1:
            raise ValueError(f"replicas must be at least 1, got {replicas}")
        if len({holder.peer for holder in holders}) != len(holders):
            raise ValueError("two holders have one identity")
        self.holders = sorted((holder for holder in holders if holder.weight), key=lambda holder: holder.peer)
        self.replicas = replicas
        seeds = [int.from_bytes(blake3(holder.peer).digest()[:8], "little") for holder in self.holders]
        self._seeds = np.array(seeds, np.uint64)
        self._weights = np.array([holder.weight for holder in self.holders], np.uint64)
        self._alone = len({holder.node for holder in self.holders}) == len(self.holders) and not any(
            holder.rack for holder in self.holders
        )

    def of(self, name: bytes) -> list[Holder]:
        """The holders of one object, the best first."""
        return self.of_all([name])[0]

    def of_all(self, names: Sequence[bytes]) -> list[list[Holder]]:
        """The holders of each object, the best first.

        Args:
            names: of the objects, 32 bytes each.
        """
        found: list[list[Holder]] = []
        if not self.holders:
            return [[] for _ in names]
        step = max(1, _BLOCK // len(self.holders))
        for first in range(0, len(names), step):
            ranked = self._ranked(names[first : first + step])
            found += [self._chosen(row) for row in ranked.tolist()]
        return found

    def spread(self, names: Sequence[bytes]) -> list[Holder]:
        """Who holds each fragment of a chunk.

        Fragment by fragment the best of those who share least: no two on one node while there are others,
        then on one rack, then on one peer. So a peer that goes moves its own fragments, and now and then one
        more.

        Args:
            names: of the fragments, 32 bytes each.

        Returns:
            A holder for each; nothing where there are no holders.
        """
        if not self.holders:
            return []
        nodes, racks, peers = Counter[str](), Counter[str](), Counter[bytes]()
        chosen = []
        for row in self._ranked(names).tolist():
            best, least = self.holders[row[0]], (len(names),) * 3
            for number in row:
                holder = self.holders[number]
                shared = nodes[holder.node], racks[holder.rack] if holder.rack else 0, peers[holder.peer]
                if shared < least:
                    best, least = holder, shared
                if shared == (0, 0, 0):
                    break
            chosen.append(best)
            nodes[best.node] += 1
            racks[best.rack] += 1
            peers[best.peer] += 1
        return chosen

    def owed(self, peer: bytes, names: Sequence[bytes]) -> list[bytes]:
        """Those of some objects that a peer has to hold."""
        places = self.of_all(names)
        return [name for name, held in zip(names, places, strict=True) if any(h.peer == peer for h in held)]

    def _ranked(self, names: Sequence[bytes]) -> NDArray[np.intp]:
        """For each object the holders, the best first, shape (objects, holders)."""
        starts: Words = np.frombuffer(b"".join(name[:8] for name in names), "<u8").astype(np.uint64)
        drawn = mix(mix(starts[:, None] + self._seeds[None, :]) ^ self._seeds[None, :])
        cost = (minus_log2(drawn) << _SCALE) // self._weights[None, :]
        return np.argsort(cost, axis=1, kind="stable")

    def _chosen(self, row: list[int]) -> list[Holder]:
        """The first holders of a row on different racks, then different nodes, then any."""
        if self._alone:
            return [self.holders[number] for number in row[: self.replicas]]
        chosen: list[int] = []
        racks: set[str] = set()
        nodes: set[str] = set()
        for by_rack, by_node in ((True, True), (False, True), (False, False)):
            for number in row:
                if len(chosen) == self.replicas:
                    break
                holder = self.holders[number]
                if number in chosen or (by_node and holder.node in nodes):
                    continue
                if by_rack and holder.rack and holder.rack in racks:
                    continue
                chosen.append(number)
                racks.add(holder.rack)
                nodes.add(holder.node)
        return [self.holders[number] for number in chosen]
