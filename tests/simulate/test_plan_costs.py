from __future__ import annotations

import math

import numpy as np
import pytest

from pydec import compress, gossip
from pydec.errors import ConfigError
from pydec.simulate.plan_costs import (
    FRAMING,
    Link,
    allreduce_s,
    codec,
    packet_bytes,
    vectors_of,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1gbit", Link(1e9, 1e9)),
        ("100mbit,20ms", Link(1e8, 1e8, 0.02)),
        ("2.5gbit,50us", Link(2.5e9, 2.5e9, 5e-5)),
        ("20mbit/100mbit,1s", Link(2e7, 1e8, 1.0)),
        ("64kbit", Link(64e3, 64e3)),
    ],
)
def test_links(text, expected):
    found = Link.parse(text)
    assert (found.up, found.down) == (expected.up, expected.down)
    assert found.latency_s == pytest.approx(expected.latency_s)


@pytest.mark.parametrize(
    "text",
    ["", "fast", "1", "0gbit", "-1gbit", "1gbit,", "1gbit,20", "1gbit,-2ms", "1..2gbit", "1gbit,1ms,1ms"],
)
def test_words_that_are_no_link(text):
    with pytest.raises(ConfigError, match="a link is a rate and perhaps a latency"):
        Link.parse(text)


def test_a_round_is_three_latencies_and_the_slower_way():
    link = Link(1e6, 4e6, 0.01)
    assert link.round_s(1000, 1000) == pytest.approx(0.03 + 8e-3 * FRAMING)
    assert link.round_s(1000, 8000) == pytest.approx(0.03 + 16e-3 * FRAMING)


def test_all_reduce_sends_the_least_there_is_and_takes_the_fewer_messages():
    link = Link(1e9, 1e9, 0.001)
    assert allreduce_s(1e6, 1, link) == 0.0
    for peers, messages in ((2, 2), (3, 4), (4, 4), (8, 6), (1000, 20)):
        carried = 8 * FRAMING * 2 * (peers - 1) / peers * 1e6 / 1e9
        assert allreduce_s(1e6, peers, link) == pytest.approx(3e-3 * messages + carried)


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
