"""``auto`` over MPI: where compression costs time it is turned off, where it saves time it is kept."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pydec import topology
from pydec.compress.auto import Auto
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.switch import SwitchedExchange

pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.timeout(60)]


class SleepyMixer(AverageMixer):
    """Encoding one of the two ways takes 30 ms more than the other."""

    slow = "packed"

    def encode(self, bucket, out, key=0):
        if self.compressor.send == self.slow:
            time.sleep(0.03)
        return super().encode(bucket, out, key)


@pytest.mark.parametrize("slow", ["packed", "plain"])
def test_the_slower_way_is_given_up(mpi_transport, slow):
    x = np.random.default_rng(mpi_transport.rank).standard_normal(10_000).astype(np.float32)
    graph = topology.make("ring", size=mpi_transport.size)
    mixer = SleepyMixer(x, Auto(), graph.degree)
    mixer.slow = slow
    exchange = SwitchedExchange(mpi_transport, graph, [mixer])
    for t in range(10):
        exchange.run(t)
    exchange.flush()
    assert exchange.switch.packed == (slow == "plain")
