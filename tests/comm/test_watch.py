"""Ranks that stand still, are slow or jitter, in virtual time over many seeds; over MPI see tests/mpi."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import compress, gossip, topology
from pydec.comm.faults import Pause
from pydec.comm.living import living
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Stream
from pydec.comm.watch import Watch, grace_of
from pydec.errors import ConfigError, CutOff, LeftOut
from pydec.peer import Peer

SIZE = 5
SEEDS = pytest.mark.parametrize("seeds", [3, pytest.param(150, marks=pytest.mark.slow)])


def rounds_of(count, compute_s, *, grace_s=0.0, together=25, graph="ring", late="raise", algorithm="dpsgd"):
    """A program of rounds of gossip and, now and then, a mean over all who live.

    Returns (members at the end, who is out, model, seconds of the longest round) of every rank, or the error
    with which it left.
    """

    def program(transport):
        peer = Peer(transport, grace_s=grace_s)
        watch = peer.watch
        assert watch is not None
        draw = np.random.default_rng(1000 + transport.rank)
        x = np.full(40, float(transport.rank), np.float32)
        made = topology.make(graph, size=transport.size)
        mixers = gossip.make(algorithm).rule(x, compress.make("none"), made.degree).mixers
        link = transport.stream(Stream.GOSSIP)
        exchange = gossip.Exchange(link, made, mixers, lost="drop", late=late, overlap=False)
        longest_s = 0.0
        try:
            for round in range(count):
                began_s = transport.now()
                peer.check()
                transport.sleep(compute_s(transport.rank, round, draw))
                exchange.run(round)
                if round % together == together - 1:
                    living(transport).run(lambda group: None)
                longest_s = max(longest_s, transport.now() - began_s)
            exchange.flush()
            living(transport).run(lambda group: None)
        except (LeftOut, CutOff) as error:
            watch.bye()
            return error
        return living(transport).members, sorted(watch.silent), x, longest_s

    return program


def steady(rank, round, draw):
    return 0.1


@SEEDS
def test_a_rank_that_stands_still_is_left_out_by_all_alike_and_learns_it(seeds):
    left = 0
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        rank, at_s = int(draw.integers(SIZE)), draw.uniform(0.5, 4.0)
        for_s = draw.uniform(0.5, 4.0) if seed % 2 else draw.uniform(6.0, 15.0)
        pauses = {rank: Pause(at_s, for_s)}
        cluster = LocalCluster(SIZE, seed, delay_s=(1e-4, 5e-3), pauses=pauses, deadline_s=5.0)
        found = cluster.run(rounds_of(50, steady, grace_s=5.0))
        others = [result for other, result in enumerate(found) if other != rank]
        if isinstance(found[rank], LeftOut):
            assert all(out == [rank] and rank not in members for members, out, _, _ in others)
            assert all(longest_s < 7.0 for _, _, _, longest_s in others)  # the grace and a round
            left += 1
        else:
            assert all(out == [] and len(members) == SIZE for members, out, _, _ in found)
        assert len({members for members, _, _, _ in others}) == 1
        assert isinstance(found[rank], LeftOut) == (seed % 2 == 0)
    assert left == (seeds + 1) // 2


@SEEDS
def test_a_rank_that_wakes_while_it_is_being_left_out_splits_nobody(seeds):
    """It wakes within some milliseconds of the verdict, while the others vote on who lives."""
    both = set()
    for seed in range(4 * seeds):
        wakes_s = 5.0 + np.random.default_rng(seed).uniform(-0.2, 0.6)
        pauses = {0: Pause(3.0, wakes_s)}
        cluster = LocalCluster(SIZE, seed, delay_s=(1e-3, 6e-2), pauses=pauses, deadline_s=5.0)
        found = cluster.run(rounds_of(15, steady, grace_s=5.0, together=1))
        survivors = [result for result in found if not isinstance(result, LeftOut)]
        assert len({members for members, _, _, _ in survivors}) == 1
        assert all(set(out).isdisjoint(members) for members, out, _, _ in survivors)
        assert len(survivors) >= SIZE - 1
        both.add(len(survivors))
    assert both == {SIZE - 1, SIZE}


@SEEDS
def test_whoever_stands_still_whenever_one_group_goes_on_at_most(seeds):
    """Up to four of five, at overlapping times: those who end have the same members, and nobody else ends."""
    ended = 0
    for seed in range(2 * seeds):
        draw = np.random.default_rng(seed)
        ranks = draw.permutation(SIZE)[: draw.integers(1, SIZE)]
        pauses = {int(rank): Pause(draw.uniform(0.5, 3.0), draw.uniform(0.5, 9.0)) for rank in ranks}
        cluster = LocalCluster(SIZE, seed, delay_s=(1e-4, 2e-2), pauses=pauses, deadline_s=3.0)
        found = cluster.run(rounds_of(40, steady, grace_s=3.0, together=5))
        done = {rank: result for rank, result in enumerate(found) if isinstance(result, tuple)}
        assert len({members for members, _, _, _ in done.values()}) <= 1
        assert all(set(members) == done.keys() for members, _, _, _ in done.values())
        ended += bool(done)
    assert ended > seeds


def test_heavy_jitter_makes_nobody_look_dead():
    """Pareto pauses without a variance (1.5), up to a hundred times the median, over 2 x 600 rounds."""

    def jitter(rank, round, draw):
        return min(0.02 + 0.05 * draw.pareto(1.5), 7.0)

    evicted = 0
    for seed in range(2):
        cluster = LocalCluster(4, seed, delay_s=(1e-4, 0.05), pauses={})
        found = cluster.run(rounds_of(600, jitter))
        evicted += sum(len(out) for _, out, _, _ in found)
        assert max(longest_s for _, _, _, longest_s in found) > 2.0  # it was heavy
    assert evicted == 0


def test_a_rank_that_is_ten_times_as_slow_stays_and_the_grace_grows_with_it():
    def slow(rank, round, draw):
        return 15.0 if rank == 2 else 1.5  # longer than the least grace: the first rounds teach it

    found = LocalCluster(4, 0, pauses={}).run(rounds_of(22, slow))
    assert all(out == [] and len(members) == 4 for members, out, _, _ in found)


def test_a_row_of_neighbours_waits_for_one_and_only_that_one_is_out():
    """On a ring of eight, ranks far from the one that hangs wait for those who wait for it."""
    found = LocalCluster(8, 1, delay_s=(1e-4, 1e-3), pauses={3: Pause(1.0, 90.0)}, deadline_s=2.0).run(
        rounds_of(30, steady, grace_s=2.0)
    )
    assert isinstance(found[3], LeftOut)
    assert {tuple(out) for rank, (_, out, _, _) in enumerate(r for r in found if r is not found[3])} == {(3,)}


def test_the_smaller_part_stops_and_the_larger_goes_on():
    """Three of five stand still and wake when the two others have stopped; no two groups go on."""
    pauses = {rank: Pause(1.0, 90.0) for rank in (0, 1, 2)}
    found = LocalCluster(SIZE, 0, pauses=pauses, deadline_s=2.0).run(rounds_of(30, steady, grace_s=2.0))
    assert all(isinstance(result, CutOff) for result in found[3:])
    assert "silent" in str(found[3])
    assert not any(isinstance(result, tuple) for result in found[:3])


@pytest.mark.parametrize("hung", [0, 1])
def test_of_two_ranks_the_lower_one_goes_on(hung):
    found = LocalCluster(2, 0, pauses={hung: Pause(1.0, 60.0)}, deadline_s=2.0).run(
        rounds_of(30, steady, grace_s=2.0)
    )
    assert isinstance(found[hung], LeftOut)
    assert isinstance(found[1 - hung], tuple if hung else CutOff)


def test_where_a_round_may_do_without_a_neighbour_it_is_late_before_it_is_out():
    """A pause below the grace costs the others a lateness in each round of it, not the pause."""
    cluster = LocalCluster(4, 0, pauses={1: Pause(4.0, 6.0)})
    found = cluster.run(rounds_of(60, steady, graph="complete", late="drop", algorithm="sgp"))
    assert all(out == [] for _, out, _, _ in found)
    assert all(longest_s < 4.0 for rank, (_, _, _, longest_s) in enumerate(found) if rank != 1)


def test_who_says_that_it_is_busy_is_not_silent():
    def program(transport):
        peer = Peer(transport)
        living(transport).run(lambda group: None)
        if transport.rank == 1:
            with peer.busy(30.0):
                transport.sleep(20.0)
        living(transport).run(lambda group: None)
        return living(transport).members

    assert LocalCluster(3, pauses={}, deadline_s=8.0).run(program) == [(0, 1, 2)] * 3


def test_a_look_counts_an_eighth_of_the_grace_at_most():
    """Who was stopped itself, for an hour, blames nobody for it."""

    def program(link):
        watch = Watch(link, 8.0)
        watch.enters(1 - link.rank)
        link.sleep(3600.0)
        for _ in range(7):
            watch.waits(1 - link.rank)
            link.sleep(3600.0)
        kept = dict(watch.silent)
        watch.waits(1 - link.rank)
        watch.waits(1 - link.rank)
        return kept, watch.grace_s(1 - link.rank)

    assert LocalCluster(2, pauses={}, deadline_s=8.0).run(program) == [({}, 8.0)] * 2


@pytest.mark.parametrize("word", ["never", "0", "-1", "inf", "nan"])
def test_a_grace_is_auto_or_a_number_above_zero(word):
    with pytest.raises(ConfigError, match="--grace must be 'auto' or seconds above 0"):
        grace_of(word)
    assert (grace_of("auto"), grace_of("2.5")) == (0.0, 2.5)
