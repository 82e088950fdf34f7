from __future__ import annotations

import pytest

from pydec import topology
from pydec.consensus.committee import draw
from pydec.consensus.simulator.network import Network
from pydec.consensus.validators import Validator
from pydec.errors import ConfigError
from pydec.simulate.committee import CommitteeWorld, epochs, redraw


def world(peers: int, seats: int, graph: str = "one-peer-exponential", **more) -> CommitteeWorld:
    return CommitteeWorld([1] * peers, seats, topology.make(graph, size=peers), **more)


def test_committees_hand_over_and_everybody_learns_of_it_by_gossip():
    cluster = world(60, 10)
    members = [{v.node_id for v in cluster.genesis.table.validators}]
    found = epochs(cluster, 3)
    state = cluster.watch.states[cluster.watch.heads[0]]
    members += [{v.node_id for v in table.validators} for table in state.tables[1:]]
    assert len({frozenset(one) for one in members}) == 4
    assert all(len(one) == 10 for one in members)
    assert state.table.epoch == 3
    assert set(cluster.heights()) == {6}  # a handover and a note in each epoch
    for epoch in found:
        assert epoch.spreading_rounds <= 2 * 6  # one-peer exponential averages 60 in ceil(log2 60) rounds
        assert epoch.peer_bytes < epoch.member_bytes


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_network_does_committees_hand_over(seed):
    network = Network(delay_s=(0.001, 0.4), loss=0.2, repeat=0.2, stable_s=10.0)
    graph = "random-matching" if seed % 2 else "one-peer-exponential"
    cluster = world(16, 5, graph, seed=seed, network=network)
    epochs(cluster, 2)
    assert cluster.watch.states[cluster.watch.heads[0]].table.epoch == 2


def test_the_next_committee_is_drawn_by_the_hash_of_the_block_before():
    cluster = world(20, 4)
    epochs(cluster, 1)
    (step,) = cluster.steps()
    people = [Validator(node, node, 1) for node in cluster.nodes]
    expected = draw(1, people, int.from_bytes(step.header.parent_hash, "big"), 4)
    assert step.table == expected
    assert step.header.next_validators_hash == expected.digest()


def test_committees_with_silent_members_below_a_third_go_on():
    cluster = world(40, 10)
    sitting = [p.number for p in cluster.places if cluster.genesis.table.index(p.node_id) is not None]
    for number in sitting[:3]:
        cluster.corrupt(number, lambda place, target, data: ())
    cluster.start()
    cluster.run(1.0)
    cluster.submit(sitting[3], redraw(0))
    cluster.train(lambda: cluster.everybody_has(1))
    assert set(cluster.heights()) == {1}


def test_a_committee_without_a_quorum_decides_nothing():
    cluster = world(40, 9)
    sitting = [p.number for p in cluster.places if cluster.genesis.table.index(p.node_id) is not None]
    for number in sitting[:3]:  # a third
        cluster.corrupt(number, lambda place, target, data: ())
    cluster.start()
    cluster.submit(sitting[3], redraw(0))
    with pytest.raises(TimeoutError, match="heights are \\[0\\]"):
        cluster.train(lambda: cluster.everybody_has(1), most=20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_peers_follow_committees_of_64():
    found = epochs(world(1000, 64), 2)
    assert all(epoch.spreading_rounds <= 2 * 10 for epoch in found)


def test_what_cannot_be_simulated():
    with pytest.raises(ConfigError, match="of 4 ranks, and there are 5"):
        CommitteeWorld([1] * 5, 3, topology.make("ring", size=4))
    with pytest.raises(ConfigError, match="at most 4096 peers"):
        CommitteeWorld([1] * 5000, 3, topology.make("ring", size=5000))
    with pytest.raises(ConfigError, match="1 to 1024 seats"):
        world(4, 0)
