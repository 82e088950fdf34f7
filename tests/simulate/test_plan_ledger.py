from __future__ import annotations

import pytest

from pydec.consensus.light import EpochStep, encode_step
from pydec.consensus.messages import Transaction, encode
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import CHAIN_ID, World
from pydec.simulate.committee import CommitteeWorld, epochs
from pydec.simulate.plan_ledger import ledger_cost
from pydec.topology import make


class Counted(World):
    n_bytes = 0

    def inject(self, place, target, data):
        self.n_bytes += len(data)
        super().inject(place, target, data)


@pytest.mark.parametrize("size", [1, 4, 13])
def test_a_block_costs_what_replicas_send_for_one(size):
    world = Counted([1] * size)
    world.start()
    world.run(5.0)
    for number in (0, 1):  # the first block has no certificate of a parent
        world.n_bytes = 0
        replica = world.places[0].replica
        assert replica is not None
        leader = replica.state.leader
        assert world.submit(leader, note(number))
        world.run(world.now + 10.0)
    told = (size - 1) * len(encode(Transaction(note(1)), CHAIN_ID))
    cost = ledger_cost(size, [note(1)])
    assert (world.n_bytes - told) / size == pytest.approx(cost.validator_sent)
    record = world.places[0].storage.record(2)
    assert cost.block == pytest.approx(len(record), abs=64 * (size - (2 * size // 3 + 1)))


def test_a_light_client_fetches_what_the_plan_says():
    world = CommitteeWorld([1] * 30, 10, make("exponential", size=30))
    epochs(world, 2)
    step = world.steps()[-1]
    assert isinstance(step, EpochStep)
    # Addresses are empty in the simulation, and the block holds a redraw of 9 bytes, which a step leaves out.
    assert len(encode_step(step)) == pytest.approx(ledger_cost(10).epoch_step, abs=10 * 6 + 6 * 64)
