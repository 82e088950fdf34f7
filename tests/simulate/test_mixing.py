"""Plain gossip of all peers at once: the bits, times and bytes of peers one by one."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import topology
from pydec.simulate import mixing
from pydec.simulate.known import Known
from pydec.simulate.mixing import Mixing, rows_of
from pydec.simulate.network import Link, link
from pydec.simulate.paces import Paces, make
from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario
from pydec.topology.members import Members
from pydec.topology.schedule import sparse_round
from pydec.train.config import TrainConfig

GRAPHS = [
    "one-peer-exponential",
    "exponential",
    "ring",
    "base-k:k=2",
    "random-matching",
    "erdos-renyi:p=0.3",
    "star",
]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("runs", [True, False])
def test_all_at_once_has_the_bits_times_and_bytes_of_one_by_one(monkeypatch, graph, runs):
    monkeypatch.setattr(mixing, "_LONG_RUN", 0 if runs else 10**9)
    train = TrainConfig("", topology=graph, steps=7, seed=2)
    world = {"vectors": 33, "link": "1mbit/2mbit,3ms", "step_s": 0.01, "stragglers": "lognormal:0.3"}
    scenario = Scenario(21, train, **world)
    assert scenario.at_once
    once = Simulation(scenario).run(keep=True)
    # A lateness that nobody reaches asks for peers one by one.
    apart = Simulation(Scenario(21, train, late_s=1e6, **world)).run(keep=True)
    for rank in range(21):
        assert np.array_equal(once.models[rank], apart.models[rank]), rank
    assert once.summary["bytes_sent"] == apart.summary["bytes_sent"]
    assert once.summary["virtual_s"] == pytest.approx(apart.summary["virtual_s"], rel=1e-9)
    assert once.summary["consensus_distance"] == pytest.approx(
        apart.summary["consensus_distance"], rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("name", topology.topologies)
def test_a_sparse_round_is_that_round(name):
    if topology.topologies.takes(name, "nodes") or name == "file":
        pytest.skip("not of a size alone")
    try:
        graph = topology.make(name, size=16)
    except Exception as error:
        pytest.skip(str(error))
    for round in range(min(3, graph.period or 3)):
        found = sparse_round(graph, round)
        for rank in range(16):
            own, heard = graph.row(rank, round)
            assert found.row(rank) == (own, heard)
            rows = rows_of(graph, round)
            assert rows.heard[rank, : len(heard)].tolist() == list(heard)


@pytest.mark.parametrize("name", ["one-peer-exponential", "base-k", "random-matching", "epidemic"])
@pytest.mark.parametrize("start", [0, 3])
def test_rows_that_are_looked_up_are_those_of_the_graph(name, start):
    members = (1, 2, 5, 6, 7, 10, 12)
    graph = Members(topology.make(name, size=len(members)), members, 13, start)
    known = Known(graph)
    for round in (start, start + 1, start + 2, start + 9, start):
        for rank in range(13):
            assert known.row(rank, round) == graph.row(rank, round)
            assert known.listeners(rank, round) == graph.listeners(rank, round)


def test_exact_in_finite_time():
    graph = topology.make("one-peer-exponential", size=64)
    found = Mixing(graph, 8, 0, Link(), Paces(make("none"), 0.0, 64, 0))
    assert found.distance() > 1.0
    found.run(6)
    assert found.distance() < 1e-6


def test_a_hundred_thousand_peers_in_two_matrices():
    size = 100_000
    graph = topology.make("one-peer-exponential", size=size)
    found = Mixing(graph, 4, 0, link("100mbit,20ms"), Paces(make("none"), 0.0, size, 0))
    before = found.distance()
    found.run(17)
    assert found.distance() < 0.01 * before
    assert found.ready_s == pytest.approx(17 * (0.02 + 8 * found.message_bytes / 1e8))
