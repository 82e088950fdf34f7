"""Rounds by leaders: the hierarchical graph's matrix, for one packet per edge between nodes."""

from __future__ import annotations

import numpy as np
import pytest

import pydec
from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.gossip.exchange import Exchange
from pydec.gossip.two_level import LeaderExchange, can_lead
from pydec.peer import Peer

N = 5000
EQUAL = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
UNEQUAL = [0, 1, 1, 2, 0, 2, 2, 1, 2]


def levels(nodes, between):
    return topology.make(f"hierarchical:between={between}", size=len(nodes), nodes=nodes)


def vector(rank):
    return np.random.default_rng(rank).standard_normal(N).astype(np.float32)


def make(transport, x, schedule, algorithm="dpsgd", compressor="none", overlap=False):
    mixer = gossip.make(algorithm).mixer(x, compress.make(compressor), schedule.degree)
    assert can_lead(schedule, [mixer], measure=False)
    return LeaderExchange(transport, schedule, [mixer], overlap=overlap)


def run(schedule, rounds, **options):
    def program(transport):
        x = vector(transport.rank)
        exchange = make(transport, x, schedule, **options)
        for t in range(rounds):
            if options.get("overlap"):
                before = x.copy()
                exchange.begin(t)
                np.testing.assert_array_equal(x, before)  # the gradient is that of the own model
                assert exchange.pending
                exchange.finish()
            else:
                exchange.run(t)
        exchange.flush()
        return x

    return np.stack(LocalCluster(schedule.size).run(program))


@pytest.mark.parametrize("between", ["ring", "one-peer-exponential", "base-k"])
@pytest.mark.parametrize("nodes", [EQUAL, UNEQUAL, [0, 0, 0], [0, 0, 1, 1, 1]])
def test_a_round_applies_the_matrix_of_the_graph(between, nodes):
    if nodes != EQUAL and between == "one-peer-exponential":
        between = "complete"  # unequal nodes ask for a symmetric one
    schedule = levels(nodes, between)
    expected = np.stack([vector(rank) for rank in range(len(nodes))]).astype(np.float64)
    for t in range(4):
        expected = schedule.weights(t) @ expected
    whole = run(schedule, 4)
    np.testing.assert_allclose(whole, expected, atol=2e-6)
    np.testing.assert_array_equal(run(schedule, 4, overlap=True), whole)
    for ranks in schedule.members:
        for rank in ranks:
            np.testing.assert_array_equal(whole[rank], whole[ranks[0]])


def test_quantised_packets_between_nodes_keep_the_mean():
    schedule = levels(EQUAL, "ring")
    start = np.stack([vector(rank) for rank in range(12)]).astype(np.float64)
    mixed = run(schedule, 10, compressor="int8", overlap=True).astype(np.float64)
    np.testing.assert_allclose(mixed.mean(0), start.mean(0), atol=2e-6)
    assert np.abs(mixed - mixed.mean(0)).max() < 0.05


def test_choco_between_leaders_reaches_the_mean():
    schedule = levels(EQUAL, "ring")
    start = np.stack([vector(rank) for rank in range(12)]).astype(np.float64)
    mixed = run(schedule, 60, algorithm="choco", compressor="int4")
    np.testing.assert_allclose(mixed, np.broadcast_to(start.mean(0), mixed.shape), atol=1e-3)


def test_nodes_exchange_one_packet_per_edge():
    schedule = levels(EQUAL, "one-peer-exponential")
    cluster = LocalCluster(12, trace=True)

    def program(transport):
        exchange = make(transport, vector(transport.rank), schedule)
        exchange.run(0)
        exchange.flush()

    cluster.run(program)
    sent = [event for event in cluster.trace if event.kind == "send"]
    across = [event for event in sent if EQUAL[event.sender] != EQUAL[event.receiver]]
    assert {event.sender for event in across} == {0, 3, 6, 9}
    models = sum(event.n_bytes for event in across) / (4 * N)
    assert 4 < models < 4.05  # one mean from each node, and headers
    assert {event.sender for event in sent} == set(range(12))


def test_a_round_that_was_given_up_begins_anew_with_the_same_bits():
    schedule = levels(EQUAL, "ring")

    def program(transport):
        x = vector(transport.rank)
        exchange = make(transport, x, schedule, overlap=True)
        exchange.begin(0)
        exchange.finish(mix=False)
        exchange.flush()
        exchange.begin(0)
        exchange.finish()
        exchange.flush()
        return x

    np.testing.assert_array_equal(np.stack(LocalCluster(12).run(program)), run(schedule, 1))


def test_only_mixing_that_is_linear_in_its_vector_goes_by_leaders():
    graph = levels(EQUAL, "ring")
    plain = compress.make("none")

    def mixers(algorithm):
        return gossip.make(algorithm).rule(vector(0), plain, graph.degree).mixers

    assert can_lead(graph, mixers("dpsgd"), measure=False)
    assert can_lead(graph, mixers("gradient-tracking"), measure=False)
    assert not can_lead(graph, mixers("dpsgd"), measure=True)
    assert not can_lead(graph, mixers("sgp"), measure=False)
    assert not can_lead(topology.make("ring", size=12), mixers("dpsgd"), measure=False)
    alone = levels([0, 1, 2], "ring")
    assert not can_lead(alone, mixers("dpsgd"), measure=False)  # nothing to average first


@pytest.mark.parametrize(("algorithm", "kind"), [("dpsgd", LeaderExchange), ("exact-diffusion", Exchange)])
def test_the_optimiser_chooses(algorithm, kind):
    import torch

    graph = levels([0, 0, 1, 1], "complete")

    def program(transport):
        with Peer(transport, signals=False) as peer:
            parameter = torch.nn.Parameter(torch.full((3,), float(peer.rank)))
            sgd = torch.optim.SGD([parameter], lr=0.0)
            opt = pydec.DecentralizedOptimizer(
                sgd, peer, topology=graph, algorithm=algorithm, init="keep", iid=True
            )
            assert opt._rounds is not None
            assert type(opt._rounds.exchange) is kind
            for _ in range(3):
                parameter.grad = torch.zeros(3)
                opt.step()
            opt.close()
            return parameter.detach().numpy().copy()

    result = np.stack(LocalCluster(4).run(program))
    if algorithm == "dpsgd":
        np.testing.assert_array_equal(result, np.full((4, 3), 1.5, np.float32))
