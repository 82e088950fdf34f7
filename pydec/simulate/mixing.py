"""Plain gossip of vectors on sparse schedules, all peers of a round at once, a hundred thousand of them.

The numbers are those of ``dpsgd`` with compressor ``none``, bit for bit: the same weighted sums, in the same
order, each rounded where ``kernels.mix`` rounds. Two matrices hold all vectors, before and after a round.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.comm.frames import HEADER_BYTES
from pydec.compress.wire import HEADER_BYTES as PAYLOAD_HEADER
from pydec.gossip.memory import aligned_floats
from pydec.simulate.network import Link
from pydec.simulate.observer import Row
from pydec.simulate.paces import Paces
from pydec.simulate.vectors import fill
from pydec.topology.base import Topology
from pydec.topology.schedule import sparse_round

Matrix = NDArray[np.float32]
_LONG_RUN = 8  # rows above which one call of a kernel beats gathering rows
_ROWS = 256  # gathered at a time: 1 MB of 1,024 floats, which stays in the cache
_KEPT = 64  # rounds whose runs are remembered


@dataclass(frozen=True)
class Run:
    """Rows that one call of a kernel mixes: the same weights, and neighbours that follow one another, too.

    Args:
        first, last: which rows.
        starts: where each neighbour of the first row is.
        weights: the own one, then theirs.
    """

    first: int
    last: int
    starts: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Rows:
    """Who hears whom in one round; peers with fewer neighbours than others fill up with themselves.

    Attributes:
        own: shape (n,), what is left of 1 besides the neighbours' weights.
        heard: shape (n, k), increasing in every row as far as they count.
        weights: shape (n, k), 0 where there is nobody.
        counts: shape (n,), how many neighbours count.
    """

    own: NDArray[np.float64]
    heard: NDArray[np.int64]
    weights: NDArray[np.float64]
    counts: NDArray[np.int64]

    def runs(self) -> list[Run]:
        """As few as there can be, in order."""
        same = (np.diff(self.heard, axis=0) == 1) & (np.diff(self.weights, axis=0) == 0)
        new = ~(same.all(axis=1) & (np.diff(self.counts) == 0))
        cuts = [0, *(np.flatnonzero(new) + 1).tolist(), len(self.heard)]
        found = []
        for first, last in itertools.pairwise(cuts):
            count = int(self.counts[first])
            weights = float(self.own[first]), *self.weights[first, :count].tolist()
            found.append(Run(first, last, tuple(self.heard[first, :count].tolist()), weights))
        return found


def rows_of(topology: Topology, round: int) -> Rows:
    """The rows of one round as arrays."""
    found = sparse_round(topology, round)
    counts = np.diff(found.starts)
    width = int(counts.max(initial=0))
    heard = np.repeat(np.arange(topology.size)[:, None], width, axis=1)
    weights = np.zeros((topology.size, width))
    there = np.arange(width) < counts[:, None]
    heard[there], weights[there] = found.ranks, found.values
    total = np.zeros(topology.size)
    for k in range(width):
        total += weights[:, k]  # one by one, as the mixer adds them
    return Rows(1.0 - total, heard, weights, counts)


class Mixing:
    """All vectors, and the rounds that mix them.

    Args:
        topology: who hears whom.
        length: numbers of a vector.
        seed: what they are drawn from.
        link: of every peer.
        paces: what a peer computes in every round.
        x: the vectors, shape (n, length), which are then not drawn; this memory and as much again is mixed
            to and fro.

    Attributes:
        rounds: mixed so far.
        bytes_sent: by all.
        ready_s: when every peer has finished the last round, on the virtual clock, shape (n,).
    """

    def __init__(
        self,
        topology: Topology,
        length: int,
        seed: int,
        link: Link,
        paces: Paces,
        x: Matrix | None = None,
    ) -> None:
        size = topology.size
        self.topology, self.length = topology, length
        self.rounds = self.bytes_sent = 0
        self.ready_s = np.zeros(size)
        self._link, self._paces = link, paces
        self._x = aligned_floats(size * length).reshape(size, length) if x is None else x
        self._next = aligned_floats(size * length).reshape(size, length)
        if x is None:
            fill(self._x, seed)
        self._runs: dict[
            int, list[Run] | None
        ] = {}  # of the rounds of a period; None where they are too many
        self._messages: dict[int, int] = {}
        self._timed = link != Link() or paces.vary
        self._threads = kernels.num_threads()
        self._up_free_s, self._down_free_s = np.zeros(size), np.zeros(size)
        self._draw = np.random.default_rng([seed, 11])

    @property
    def x(self) -> Matrix:
        """All vectors, shape (n, length)."""
        return self._x

    def run(self, rounds: int) -> None:
        """Compute and mix so many rounds."""
        for _ in range(rounds):
            self.ready_s = self.ready_s + self._paces.seconds(self.rounds)
            self.mix()

    def mix(self, sent_s: NDArray[np.float64] | None = None) -> None:
        """One round.

        Args:
            sent_s: when every peer begins to send, shape (n,); when it is ready if None.
        """
        slot, rows = self._look()
        known = self._runs[slot]
        if rows is None and (known is None or self._timed):
            rows = rows_of(self.topology, self.rounds)
        if self._timed:
            assert rows is not None
            self._clock(rows, self.ready_s if sent_s is None else sent_s)
        if known is None:
            assert rows is not None
            self._gather(rows)
        else:
            self._mix(known)
        self._x, self._next = self._next, self._x
        self.bytes_sent += self._messages[slot] * self.message_bytes
        self.rounds += 1

    def _look(self) -> tuple[int, Rows | None]:
        """The number of the coming round among those that are remembered; its rows, if it is new there."""
        slot = self.rounds % self.topology.period if self.topology.period else self.rounds
        if slot in self._runs:
            return slot, None
        if len(self._runs) >= _KEPT:
            self._runs.clear()
        rows = rows_of(self.topology, self.rounds)
        runs = rows.runs()
        self._runs[slot] = runs if len(runs) * _LONG_RUN < len(self._x) else None
        self._messages[slot] = int(rows.counts.sum())
        return slot, rows

    def coming_bytes(self) -> int:
        """What all will send in the coming round."""
        return self._messages[self._look()[0]] * self.message_bytes

    @property
    def message_bytes(self) -> int:
        """What one peer sends another: the vector behind its two headers."""
        return HEADER_BYTES + PAYLOAD_HEADER + 4 * self.length

    def _mix(self, runs: list[Run]) -> None:
        for run in runs:
            long = run.last - run.first
            parts = [self._x[start : start + long].reshape(-1) for start in (run.first, *run.starts)]
            kernels.mix(parts, run.weights, out=self._next[run.first : run.last].reshape(-1))

    def _gather(self, rows: Rows) -> None:
        """Row by row where neighbours do not follow one another."""
        own, weights = rows.own.astype(np.float32)[:, None], rows.weights.astype(np.float32)
        ragged = len({*rows.counts.tolist()}) > 1
        pieces = [slice(start, start + _ROWS) for start in range(0, len(self._x), _ROWS)]

        def work(mine: list[slice]) -> None:
            room = np.empty((_ROWS, self.length), np.float32)
            for piece in mine:
                out = self._next[piece]
                np.multiply(self._x[piece], own[piece], out=out)
                for k in range(rows.heard.shape[1]):
                    term = room[: len(out)]
                    np.take(self._x, rows.heard[piece, k], axis=0, out=term, mode="clip")
                    term *= weights[piece, k, None]
                    if ragged:
                        np.add(out, term, out=out, where=weights[piece, k, None] != 0)
                    else:
                        out += term

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(work, (pieces[i :: self._threads] for i in range(self._threads))))

    def _clock(self, rows: Rows, sent_s: NDArray[np.float64]) -> None:
        """When the round is over for every peer: send, and wait for all neighbours."""
        link, n_bytes = self._link, self.message_bytes
        hears, k = np.nonzero(rows.weights > 0)
        if not len(hears):
            return
        sender = rows.heard[hears, k]
        order = np.lexsort((hears, sender))  # a sender serves its listeners in increasing order
        hears, sender = hears[order], sender[order]
        turn = np.arange(len(sender)) - np.searchsorted(sender, sender)
        up_s, down_s = n_bytes / link.up_bytes_per_s, n_bytes / link.down_bytes_per_s
        begin_s = np.maximum(sent_s, self._up_free_s)
        start_s = begin_s[sender] + turn * up_s
        sent = np.bincount(sender, minlength=len(begin_s))
        self._up_free_s = np.where(sent > 0, begin_s + sent * up_s, self._up_free_s)
        late_s = link.latency_s + link.jitter_s * self._draw.random(len(sender))
        head_s, tail_s = start_s + late_s, start_s + up_s + late_s
        self.ready_s = self.ready_s.copy()
        for now in _turns(hears, head_s):
            who = hears[now]
            done = np.maximum(tail_s[now], np.maximum(head_s[now], self._down_free_s[who]) + down_s)
            self._down_free_s[who] = done
            self.ready_s[who] = np.maximum(self.ready_s[who], done)

    def mean(self) -> NDArray[np.float32]:
        """Of all vectors, shape (length,)."""
        total = np.zeros(self.length)
        for part in _parts(self._x):
            total += part.sum(axis=0, dtype=np.float64)
        found: NDArray[np.float32] = (total / len(self._x)).astype(np.float32)
        return found

    def distance(self) -> float:
        """Root mean square distance of the vectors to their mean."""
        mean, squares = self.mean(), 0.0
        for part in _parts(self._x):
            apart = part - mean
            squares += float(np.einsum("ij,ij->", apart, apart, dtype=np.float64))
        return math.sqrt(squares / len(self._x))


def _parts(x: Matrix) -> Iterator[Matrix]:
    for start in range(0, len(x), _ROWS):
        yield x[start : start + _ROWS]


def _turns(who: NDArray[np.int64], when: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Everybody's first message, everybody's second, and so on, in the order in which they come."""
    order = np.lexsort((when, who))
    place = np.arange(len(who)) - np.searchsorted(who[order], who[order])
    for turn in range(int(place.max()) + 1):
        yield order[place == turn]


def mixed(mixing: Mixing, rounds: int, every: int, show: Callable[[Row], None]) -> list[Row]:
    """Mix, and look now and then.

    Args:
        mixing: begun or not.
        rounds: in all.
        every: rounds between rows.
        show: called with every row.
    """
    rows: list[Row] = []
    while mixing.rounds < rounds:
        mixing.run(min(every, rounds - mixing.rounds))
        row: Row = {
            "step": mixing.rounds,
            "time_s": float(mixing.ready_s.max()),
            "peers": mixing.topology.size,
            "consensus_distance": mixing.distance(),
            "bytes_sent": mixing.bytes_sent,
        }
        rows.append(row)
        show(row)
    return rows
