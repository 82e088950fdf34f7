from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pydec import compress, topology
from pydec.comm.local import LocalCluster
from pydec.consensus.committee import log_unsafe_ever
from pydec.errors import ConfigError
from pydec.gossip.base import bucket_bounds
from pydec.simulate.network import link
from pydec.simulate.plan import ENOUGH, Job, busiest, committee_of, plan
from pydec.simulate.plan_costs import BUFFER, FRAMING

JOB = Job(25_000_000, 16, link("1gbit"), 0.5, codec_gbps=10.0)
GIVEN = replace(JOB, algorithm="dpsgd:order=cta", compressor="none", local_steps=1)


def test_a_step_of_given_parts_is_the_stated_formula():
    answer = plan(GIVEN)
    packet = compress.make("none").max_bytes(25_000_000) + 2 * 64 + 16  # two buckets, a header each
    round_s = 8 * (FRAMING * packet + 2 * 2 * BUFFER) / 1e9
    codec_s = 2 * 1e8 / 10e9  # encode, and mix what one neighbour sent
    assert answer.costs.packet == answer.costs.sent == pytest.approx(packet)
    assert answer.costs.round_s == pytest.approx(round_s)
    assert answer.costs.codec_s == pytest.approx(codec_s)
    assert answer.costs.step_s == pytest.approx(max(0.5, round_s) + codec_s)
    assert not answer.costs.hidden
    whole = 8 * FRAMING * 2 * 15 / 16 * 1e8 / 1e9
    consents = 8 * 8 * 2 * BUFFER / 1e9  # halving and doubling in 4 messages each
    assert answer.allreduce_s == pytest.approx(0.5 / 3 + whole + consents)
    assert answer.allreduce16_s == pytest.approx(0.5 / 3 + whole / 2 + consents)
    assert answer.speedup == pytest.approx(answer.allreduce_s / answer.costs.step_s)
    assert answer.chosen == "as asked"
    assert answer.costs.memory == 4 * 25_000_000 * (2 + 2 + 2)


def test_local_steps_and_orders():
    job = replace(GIVEN, local_steps=4)
    costs = plan(job).costs
    assert costs.step_s == pytest.approx((3 * 0.5 + max(0.5, costs.round_s) + costs.codec_s) / 4)
    assert costs.sent == pytest.approx(costs.packet / 4)
    costs = plan(replace(job, algorithm="dpsgd:order=atc")).costs
    assert costs.step_s == pytest.approx(0.5 + (costs.round_s + costs.codec_s) / 4)
    assert not costs.hidden
    tracked = plan(replace(job, algorithm="gradient-tracking", local_steps=1)).costs
    assert tracked.packet == pytest.approx(2 * costs.packet)
    exact = plan(replace(GIVEN, algorithm="diloco", local_steps=8)).costs
    assert exact.round_s == pytest.approx(4 * plan(GIVEN).costs.round_s)  # log2 16 rounds in a row


def test_the_distance_is_what_d_psgd_settles_at():
    n, d, steps = 8, 50, 3
    graph = topology.make("one-peer-exponential", size=n)
    draw = np.random.default_rng(1)
    for order, seen in (("cta", []), ("atc", [])):
        x = np.zeros((n, d))
        for number in range(1200):
            moved = sum(draw.standard_normal((n, d)) for _ in range(steps)) / math.sqrt(d)
            w = graph.weights(number)
            x = w @ x + moved if order == "cta" else w @ (x + moved)
            if number > 100:
                seen.append(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1)))
        job = replace(GIVEN, peers=n, local_steps=steps, algorithm=f"dpsgd:order={order}")
        assert plan(job).costs.distance == pytest.approx(math.sqrt(np.mean(seen)), rel=0.03)


def test_rounding_bounds_what_quantised_packets_add():
    n, d = 8, 2048
    graph = topology.make("one-peer-exponential", size=n)

    def program(transport):
        from pydec import gossip
        from pydec.gossip.exchange import Exchange

        x = np.random.default_rng(7).standard_normal(d).astype(np.float32)  # the same everywhere
        x += 1e-2 * np.random.default_rng(transport.rank).standard_normal(d).astype(np.float32)
        mixer = gossip.make("dpsgd").mixer(x, compress.make("int8"), graph.degree)
        exchange = Exchange(transport, graph, [mixer])
        for round in range(40):
            exchange.run(round)
        exchange.flush()
        return x

    x = np.stack(LocalCluster(n).run(program))
    apart = math.sqrt(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1)) / np.sum(x.mean(axis=0) ** 2))
    costs = plan(replace(GIVEN, peers=n, compressor="int8")).costs
    assert 0 < apart <= costs.rounding


def test_the_mildest_method_that_is_cheap_enough_is_chosen():
    slow = plan(replace(JOB, link=link("10gbit")))
    assert slow.costs.method.compressor == "none"
    middle = plan(replace(JOB, link=link("500mbit")))
    assert middle.costs.method.algorithm == "dpsgd:order=cta"
    assert middle.costs.method.compressor == "int8"
    far = plan(replace(JOB, link=link("5mbit,50ms")))
    assert far.costs.method.algorithm == "choco-diloco"
    for answer in (slow, middle, far):
        assert answer.costs.step_s <= (1 + ENOUGH) * 0.5
    differ = plan(replace(JOB, data="differ", link=link("2gbit")))
    assert differ.costs.method.algorithm == "k-gt"
    assert differ.costs.step_s <= (1 + ENOUGH) * 0.5


def test_what_is_given_is_kept_and_where_nothing_is_cheap_the_fastest_is_taken():
    answer = plan(replace(JOB, link=link("64kbit"), compressor="int8"))
    assert answer.costs.method.compressor == "int8"
    assert answer.costs.method.local_steps == 512
    assert answer.chosen.startswith("the fastest of")
    answer = plan(replace(JOB, algorithm="choco", topology="exponential", local_steps=2))
    assert (answer.costs.method.algorithm, answer.costs.method.local_steps) == ("choco", 2)
    assert answer.costs.distance is None


def test_speedup_over_all_reduce_falls_back_to_one_on_links_that_cost_nothing():
    answer = plan(replace(GIVEN, link=link("100000gbit"), codec_gbps=1e6))
    assert answer.speedup == pytest.approx(1.0, abs=1e-3)


def test_the_busiest_rank_of_a_star_is_its_hub():
    assert busiest(topology.make("star", size=9)) == 8
    assert busiest(topology.make("one-peer-exponential", size=9)) == 1
    assert busiest(topology.make("exponential", size=9)) == 4
    star = plan(replace(GIVEN, topology="star"))
    sent = 15 * star.costs.packet  # a bucket needs 15 consents, each behind 15 buffers
    buckets = len(bucket_bounds(25_000_000, 1, 15))
    behind = min(sent, buckets * 15**2 * 2 * BUFFER)
    assert star.costs.round_s == pytest.approx(8 * (FRAMING * sent + behind) / 1e9)
    assert star.costs.sent == pytest.approx(star.costs.packet * 30 / 16)


def test_all_vote_up_to_256_peers_and_committees_are_drawn_beyond():
    assert committee_of(JOB).seats == 16
    assert committee_of(JOB).log10_unsafe == -math.inf
    many = replace(JOB, peers=10_000)
    drawn = committee_of(many)
    assert drawn.drawn
    assert drawn.log10_unsafe <= -9
    assert drawn.log10_unsafe == pytest.approx(
        log_unsafe_ever(10_000, 1000, drawn.seats, 1000) / math.log(10)
    )
    assert committee_of(replace(many, seats=64)).log10_unsafe > -3
    assert committee_of(replace(many, faulty=0.33)).log10_unsafe == 0  # not even 1024 seats promise anything


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": 0}, r"params must be an integer in \[1, 10,000,000,000,000\], got 0"),
        ({"params": 1.5}, "params must be an integer"),
        ({"peers": 1}, r"peers must be an integer in \[2, 100,000\], got 1"),
        ({"peers": 10**6}, "peers must be an integer"),
        ({"step_s": -1.0}, "step must be above 0 and finite, got -1.0"),
        ({"step_s": math.inf}, "step must be above 0 and finite"),
        ({"block_s": 0.0}, "block interval must be above 0"),
        ({"codec_gbps": -2.0}, "codec rate must be above 0"),
        ({"faulty": 0.34}, r"faulty must be in \[0, 1/3\), got 0.34"),
        ({"local_steps": 0}, "local steps must be an integer"),
        ({"seats": 2000}, "seats must be an integer"),
        ({"epochs": 0}, "epochs must be an integer"),
        ({"optimizer_vectors": -1.0}, "optimizer vectors must be in"),
        ({"data": "odd"}, "data must be iid or differ"),
    ],
)
def test_numbers_that_cannot_be(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(JOB, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topology": "mesh"}, "unknown topology 'mesh'"),
        ({"algorithm": "sgd"}, "unknown algorithm 'sgd'"),
        ({"compressor": "zip"}, "unknown compressor 'zip'"),
        ({"topology": "hypercube", "peers": 12}, "12"),
        ({"algorithm": "choco"}, "graph must not change"),
        ({"algorithm": "dpsgd", "compressor": "topk"}, "dpsgd"),
        ({"algorithm": "adsgd", "topology": "ring"}, "a plan counts rounds"),
    ],
)
def test_names_and_combinations_that_cannot_be(change, message):
    with pytest.raises(ConfigError, match=message):
        plan(replace(JOB, **change))
