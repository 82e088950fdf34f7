"""Thousands of rounds in which a neighbour misses the deadline: nothing grows, and the mean stays."""

from __future__ import annotations

import gc
import random
import tracemalloc

import numpy as np
import pytest

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.errors import PeerTimeout
from pydec.gossip.exchange import Exchange

SIZE, N = 4, 500
TAGS = 512  # rounds until a tag is used again, and what came too late for it is thrown away

# What pydec holds. The simulated network's books are left out: the table of messages that wait for a receive
# grows by its own steps.
OURS = [tracemalloc.Filter(True, "*/pydec/*"), tracemalloc.Filter(False, "*/pydec/comm/virtual.py")]


class Sent:
    """What a transport returns for a message that it has taken."""

    def __init__(self, peer):
        self.peer = peer

    def done(self):
        return True

    def wait(self, deadline_s=None):
        return 0

    def cancel(self):
        pass


class Missed:
    """A receive whose deadline passes at once; what it waits for comes later, for nobody."""

    def __init__(self, receive):
        self._receive = receive
        self.peer = receive.peer
        self.cancel = receive.cancel

    def done(self):
        return False

    def wait(self, deadline_s=None):
        raise PeerTimeout(self.peer, "missed the deadline")


class Slow:
    """A transport on which one edge of the ring, another in each round, is slow both ways: a round late.

    Both ends miss each other without a moment passing: a wait of one makes its other neighbours miss it.
    """

    def __init__(self, transport):
        self._transport = transport
        self._held = []
        self._edge: set[int] = set()

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def begin(self, number):
        """Before a round: what was held in the last one goes its way."""
        for peer, tag, data in self._held:
            self._transport.isend(peer, tag, memoryview(data))
        first = random.Random(number).randrange(SIZE)
        self._held, self._edge = [], {first, (first + 1) % SIZE}

    def isend(self, peer, tag, data, **options):
        if {self._transport.rank, peer} != self._edge:
            return self._transport.isend(peer, tag, data, **options)
        self._held.append((peer, tag, bytes(data)))
        return Sent(peer)

    def irecv(self, peer, tag, into):
        receive = self._transport.irecv(peer, tag, into)
        return Missed(receive) if {self._transport.rank, peer} == self._edge else receive


@pytest.mark.parametrize(("algorithm", "packer"), [("dpsgd", "int8"), ("exact-diffusion", "none")])
@pytest.mark.parametrize(
    "rounds", [TAGS + 200, pytest.param(5_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_rounds_that_a_neighbour_misses_leave_nothing_behind_and_keep_the_mean(rounds, algorithm, packer):
    settled = TAGS + 50
    held = {}

    def program(transport):
        slow = Slow(transport)
        graph = topology.make("ring", size=SIZE)
        x = np.random.default_rng(transport.rank).standard_normal(N).astype(np.float32)
        start = x.copy()
        rule = gossip.make(algorithm).rule(x, compress.make(packer), graph.degree)
        exchange = Exchange(slow, graph, rule.mixers, late="drop", overlap=False)
        for number in range(rounds):
            slow.begin(number)
            exchange.run(number)
            if transport.rank == 0 and number in (settled, rounds - 1):
                gc.collect()
                held[number] = tracemalloc.take_snapshot().filter_traces(OURS)
        exchange.flush()
        return start, rule.x, exchange.dropped

    tracemalloc.start()
    try:
        results = LocalCluster(SIZE, delay_s=1e-4).run(program)
    finally:
        tracemalloc.stop()
    more = held[rounds - 1].compare_to(held[settled], "lineno")
    assert sum(line.size_diff for line in more) < 20_000, more[
        :10
    ]  # messages on their way, however many rounds
    assert sum(result[2] for result in results) >= 2 * rounds  # both ends, each time
    before, after = (np.mean([result[i] for result in results], axis=0) for i in (0, 1))
    np.testing.assert_allclose(after, before, atol=1e-5 * rounds**0.5)
