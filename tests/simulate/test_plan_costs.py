from __future__ import annotations

import math

import numpy as np
import pytest

from pydec import compress, gossip
from pydec.errors import ConfigError
from pydec.simulate.network import link
from pydec.simulate.plan_costs import (
    BUFFER,
    FRAMING,
    allreduce_s,
    codec,
    consent_s,
    packet_bytes,
    round_s,
    vectors_of,
)


def test_a_round_is_three_latencies_and_the_slower_way():
    way = link("1mbit/4mbit,8ms,2ms")
    assert round_s(way, 1000, 1000) == pytest.approx(0.03 + 8e-3 * FRAMING)
    assert round_s(way, 1000, 8000) == pytest.approx(0.03 + 16e-3 * FRAMING)


def test_consents_wait_behind_what_all_connections_have_buffered():
    one = consent_s(link("1mbit"), 1, 1, 1e9)
    assert one == pytest.approx(8 * 2 * BUFFER / 1e6)
    assert consent_s(link("1mbit"), 2, 1, 1e9) == pytest.approx(4 * one)
    assert consent_s(link("1mbit"), 2, 3, 1e9) == pytest.approx(12 * one)
    assert consent_s(link("1mbit"), 999, 1, 1e3) == pytest.approx(8e-3)  # never more than taking turns


def test_all_reduce_sends_the_least_there_is_and_takes_the_fewer_messages():
    way = link("1gbit,1ms")
    assert allreduce_s(1e6, 1, way) == 0.0
    for peers, messages in ((2, 2), (3, 4), (4, 4), (8, 6), (1000, 20)):
        sent = 2 * (peers - 1) / peers * 1e6
        carried = 8 * (FRAMING * sent + min(sent, messages * 2 * BUFFER)) / 1e9
        assert allreduce_s(1e6, peers, way) == pytest.approx(3e-3 * messages + carried)


@pytest.mark.parametrize("name", ["none", "bf16", "int8", "int4", "sign", "topk", "topk-int8", "randk"])
def test_a_packet_of_the_plan_is_as_long_as_that_of_a_mixer(name):
    part, n = compress.make(name), 1 << 18
    x = np.random.default_rng(3).standard_normal(n).astype(np.float32)
    mixer = gossip.make("choco").mixer(x, part, 2)
    sent = sum(
        64 + mixer.encode(bucket, np.empty(mixer.capacity(bucket), np.uint8))
        for bucket in range(len(mixer.buckets))
    )
    assert packet_bytes(part, n, 2) == pytest.approx(sent, rel=0.02)


def test_packets_of_models_that_fit_in_no_memory():
    assert packet_bytes(compress.make("int8"), 7 * 10**9, 1) == pytest.approx(7e9 * (1 + 4 / 256), rel=1e-4)
    assert packet_bytes(compress.make("none"), 10**12, 1) == pytest.approx(4e12, rel=1e-4)
    assert packet_bytes(compress.make("none"), 0, 1) == 0


def test_vectors_are_what_algorithms_say():
    none, int8 = compress.make("none"), compress.make("int8")
    assert vectors_of(gossip.make("dpsgd"), none, 1, 1).packets == 1
    assert vectors_of(gossip.make("dpsgd"), none, 1, 1).most == 2
    assert vectors_of(gossip.make("gradient-tracking"), int8, 1, 1).packets == 2
    assert vectors_of(gossip.make("choco"), int8, 2, 1).state == pytest.approx(2)
    for name in ("allreduce", "adsgd", "streaming-diloco", "powergossip"):
        with pytest.raises(ConfigError, match=r"a plan counts rounds|packs for each neighbour"):
            vectors_of(gossip.make(name), none, 1, 1)


def test_rounding_errors_are_those_of_normal_numbers():
    assert codec("none").error == 0
    assert 0.003 < codec("int8").error < 0.01
    found = codec("topk:fraction=0.01")
    assert math.sqrt(0.9) < found.error < 1
    assert min(found.encode_s, found.mix_s) > 0
