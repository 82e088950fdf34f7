"""Neighbours that die: what each algorithm does, and what is conserved among the survivors."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import compress, gossip, topology
from pydec.comm.faults import Death
from pydec.comm.living import agree_who_lives
from pydec.comm.local import LocalCluster
from pydec.errors import PeerLost
from pydec.gossip.exchange import Exchange
from pydec.gossip.two_level import LeaderExchange

SIZE, N = 5, 9_000


def vector(rank):
    return np.random.default_rng(rank).standard_normal(N).astype(np.float32)


def rounds_after_a_death(algorithm, graph, packer="none", overlap=False, rounds=30, lost="drop"):
    """A program: rounds without local steps; the vectors (ratios) before the last ten, and after."""

    def program(transport):
        schedule = topology.make(graph, size=transport.size)
        rule = gossip.make(algorithm).rule(vector(transport.rank), compress.make(packer), schedule.degree)
        exchange = Exchange(transport, schedule, rule.mixers, lost=lost, overlap=overlap)
        between = None
        for t in range(rounds):
            if t == rounds - 12:
                heal(transport, exchange, rule, gossip.make(algorithm).after_death)
            if t == rounds - 10:
                between = rule.x.copy()
            play(transport, exchange, t, overlap)
        exchange.flush()
        return between, rule.x, sorted(exchange.gone), rule

    return program


def play(transport, exchange, round, overlap):
    """A round and a pause of a millisecond, in the middle of the round if it overlaps."""
    if overlap:
        exchange.begin(round)
        transport.sleep(1e-3)
        exchange.finish()
    else:
        exchange.run(round)
        transport.sleep(1e-3)


def heal(transport, exchange, rule, after_death):
    """What ``DecentralizedOptimizer.heal`` does."""
    exchange.restart(agree_who_lives(transport))
    if after_death == "restart":
        rule.restart()


def survivors(program, seed, dying=(2,), **options):
    deaths = {rank: Death((0.002, 0.015), noticed_s=(0.0, 0.002)) for rank in dying}
    results = LocalCluster(SIZE, seed, delay_s=(1e-5, 5e-4), deaths=deaths, **options).run(program)
    assert [rank for rank in range(SIZE) if results[rank] is None] == sorted(dying)
    return [result for result in results if result is not None]


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(
    ("algorithm", "graph", "packer"),
    [
        ("dpsgd", "ring", "none"),
        ("dpsgd", "complete", "int8"),
        ("dpsgd", "base-k:k=1", "none"),
        ("sgp", "ring", "none"),
        ("choco", "ring", "int8"),
        ("choco-peers", "random-matching", "int8"),
        ("powergossip", "complete", "none"),
        ("exact-diffusion", "complete", "none"),
    ],
)
def test_the_mean_of_the_survivors_is_kept_once_a_neighbour_is_gone(
    algorithm, graph, packer, overlap, monkeypatch
):
    monkeypatch.setattr("pydec.gossip.base._MIN_BUCKET_ELEMENTS", 1 << 10)
    for seed in range(2):
        results = survivors(rounds_after_a_death(algorithm, graph, packer, overlap), seed)
        before, after = (np.mean([result[i] for result in results], axis=0) for i in (0, 1))
        np.testing.assert_allclose(before, after, atol=1e-5)
        if graph in ("ring", "complete"):
            apart = np.std([result[1] for result in results], axis=0).mean()
            assert apart < 0.2, (seed, apart)


def test_several_die_and_rank_0_among_them():
    for seed in range(6):
        program = rounds_after_a_death("dpsgd", "complete", "none", rounds=40)
        results = survivors(program, seed, dying=(0, 1, 3))
        assert all(result[2] == [0, 1, 3] for result in results)
        np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-5)


def test_push_sum_keeps_the_mass_of_the_survivors_on_a_directed_graph():
    for seed in range(2):
        results = survivors(rounds_after_a_death("sgp", "exponential", rounds=60), seed)
        masses = [result[3].mixers[0].weights for result in results]
        numerators = [result[3].mixers[0].numerator for result in results]
        total = np.sum(masses, axis=0)
        assert np.all(total > 0.5), total  # what the dead held and was sent is gone, and no more
        assert np.all(total < SIZE + 0.5)
        ratio = np.sum(numerators, axis=0)[: N // 4] / total[0]
        for result in results:
            np.testing.assert_allclose(result[1][: N // 4], ratio, atol=1e-4)


def test_whoever_is_to_raise_raises_and_names_the_dead():
    with pytest.raises(PeerLost, match="rank 2 is gone"):
        survivors(rounds_after_a_death("dpsgd", "complete", lost="raise"), 0)


def test_one_way_pairs_of_choco_peers_cannot_lose_one():
    with pytest.raises(PeerLost, match="use topology base-k:k=1"):
        survivors(rounds_after_a_death("choco-peers", "one-peer-exponential", "int8"), 0)


@pytest.mark.parametrize("algorithm", [
    "exact-diffusion", "d2", "gradient-tracking", "momentum-tracking", "k-gt", "damsgrad", "choco", "beer",
    "choco-diloco",
])  # fmt: skip
def test_a_recursion_that_restarts_is_what_it_was_at_the_start(algorithm):
    """Sums over the survivors hold again: what a rule keeps of others is what a new rule keeps."""
    made = gossip.make(algorithm)
    assert made.after_death == "restart"
    rule = made.rule(vector(0), compress.make("none"), 2)
    random = np.random.default_rng(1)
    for part in rule.state().values():
        part[...] = random.standard_normal(part.size).astype(np.float32)
    rule.restart()
    state = rule.state()
    for name in ("correction", "estimate", "mixed", "tracker.estimate", "tracker.mixed"):
        assert not np.any(state.get(name, 0.0)), name
    for name, twin in (("tracker", "previous"), ("shared", "largest")):
        if name in state:
            np.testing.assert_array_equal(state[name], state[twin])


def test_algorithms_that_need_every_rank_say_so():
    stop = {name for name in gossip.algorithms if gossip.make(name).after_death == "stop"}
    assert stop == {"allreduce", "sparseloco"}


NODES = [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("dying", [(3,), (4,), (3, 4, 5), (0, 8)])
@pytest.mark.parametrize("overlap", [False, True])
def test_the_next_rank_of_a_node_leads_after_the_survivors_have_agreed(dying, overlap):
    def program(transport):
        schedule = topology.make("hierarchical:between=complete", size=9, nodes=NODES)
        x = vector(transport.rank)
        mixer = gossip.make("dpsgd").mixer(x, compress.make("none"), schedule.degree)
        exchange = LeaderExchange(transport, schedule, [mixer], lost="drop", overlap=overlap)
        for t in range(20):
            if t == 12:
                transport.sleep(0.02)
                exchange.restart(agree_who_lives(transport))
            play(transport, exchange, t, overlap)
        exchange.flush()
        return x

    for seed in range(2):
        deaths = {rank: Death((0.0, 0.008), noticed_s=(0.0, 0.002)) for rank in dying}
        cluster = LocalCluster(9, seed, delay_s=(1e-5, 5e-4), deaths=deaths)
        results = [x for x in cluster.run(program) if x is not None]
        assert len(results) == 9 - len(dying)
        np.testing.assert_allclose(results, [results[0]] * len(results), atol=2e-3)
