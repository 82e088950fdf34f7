"""Robust gossip of models on a GPU (the emulator): what the CPU does, and no neighbour ends a run."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from pydec import compress, gossip, topology
from pydec.aggregate import Counts
from pydec.comm.frames import HEADER_BYTES, Frame, Kind, pack_into
from pydec.comm.local import LocalCluster, LocalTransport
from pydec.compress.mirror import Mirror
from pydec.gossip.exchange import Exchange
from pydec.gossip.gpu import GpuExchange
from pydec.gossip.robust.exchange import tolerant
from pydec.kernels.cuda import _module
from pydec.optim.places import compressor_at
from tests.emulated import Emulated, EmulatedPlace, load_emulated

N = 700
RULES = [
    "cs-plus:f=1", "spectral-filter:f=1", "gts:f=1", "nna:f=1", "ios:f=1", "clipped-gossip:f=1",
    "balance:gamma=2", "bridge:f=1", "rpel:f=1", "nnm+trimmed-mean:f=1", "median:f=1", "multi-krum:f=1",
]  # fmt: skip
COMPRESSORS = ["none", "bf16", "int8"]

pytestmark = pytest.mark.timeout(120, func_only=True)  # the first test waits for the compiler


@pytest.fixture
def place(monkeypatch):
    """An emulated GPU."""
    monkeypatch.setattr(_module, "_loaded", load_emulated())
    return EmulatedPlace()


def there(place, array):
    tensor = place.zeros(len(array), torch.from_numpy(array[:0]).dtype)
    tensor.copy_(torch.from_numpy(array))
    return tensor


def models(n, seed=0):
    draw = np.random.default_rng(seed)
    around = draw.standard_normal(N)
    return [(around + 0.1 * (1 + 0.1 * k) * draw.standard_normal(N)).astype(np.float32) for k in range(n)]


def encoded(compressor, x):
    return np.frombuffer(compress.make(compressor).encode(x), np.uint8).copy()


def mixed(rule, compressor, x, packets, place=None):
    """The own model after a round in which these packets came, and what was counted."""
    packer = compress.make(compressor)
    own = encoded(compressor, x)
    vector, bodies = x.copy(), packets
    if place is not None:
        packer, vector = compressor_at(place, packer), there(place, x)
        own, *bodies = [Mirror(payload[:64], there(place, payload)) for payload in (own, *packets)]
    mixer = gossip.make(rule).mixer(vector, packer, len(packets))
    for _ in range(2):  # memory is used again
        mixer.absorb(0, own, bodies, [1 / (1 + len(packets))] * len(packets))
    return np.asarray(vector), mixer


def compare(rule, compressor, x, packets, place):
    expected, here = mixed(rule, compressor, x, packets)
    got, on_gpu = mixed(rule, compressor, x, packets, place)
    if compressor == "int8":  # distances of codes round otherwise
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    else:
        np.testing.assert_array_equal(got, expected)
    assert on_gpu.counts == here.counts
    assert on_gpu.counts.taken == pytest.approx(here.counts.taken)
    assert on_gpu.state_bytes == here.state_bytes or compressor == "int8"
    return on_gpu.counts


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_rules_do_what_they_do_in_host_memory(place, rule, compressor):
    x, *others = models(7)
    others[2] += np.float32(0.5)
    assert compare(rule, compressor, x, [encoded(compressor, v) for v in others], place) == Counts()


def lies(compressor):
    """Packets that no honest rank sends, and what each of them is counted as."""
    good, huge = encoded(compressor, models(1)[0]), np.full(N, 1e30, np.float32)
    head, body = good.copy(), good.copy()
    head[0] = 99
    body[16:] = 0xFF
    yield encoded(compressor, huge), "over_norm"
    yield np.zeros(0, np.uint8), "malformed"
    yield good[:40], "malformed"
    yield head, "malformed"
    yield np.full_like(good, 0xFF), "malformed"
    yield body, "nonfinite" if compressor == "none" else "malformed"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_lies_are_counted_as_in_host_memory_and_change_nothing_else(place, rule, compressor):
    x, *others = models(8, seed=1)
    honest = [encoded(compressor, v) for v in others]
    for lie, kind in lies(compressor):
        found = compare(rule, compressor, x, [*honest[:3], lie, *honest[3:]], place)
        assert found == Counts(**{kind: 2}), kind


def test_a_round_of_nothing_but_lies_keeps_the_own_model(place):
    x = models(1)[0]
    got, mixer = mixed("cs-plus:f=1", "int8", x, [np.full(60, 7, np.uint8)] * 4, place)
    np.testing.assert_array_equal(got, x)
    assert mixer.counts == Counts(malformed=8, kept_own=2)


def test_a_mixer_waits_for_the_gpu_once_in_a_round(place, monkeypatch):
    x, *others = models(6)
    waits = []

    def fetch(tensor):
        waits.append(len(tensor))
        return torch.Tensor.cpu(tensor)

    monkeypatch.setattr(Emulated, "cpu", fetch)
    mixed("gts:f=1", "int8", x, [encoded("int8", v) for v in others], place)
    assert waits == [10, 10]  # two rounds: five distances, and how many faults each packet has


def framed(payload, sender, **changes):
    fields = {
        "kind": Kind.GOSSIP, "epoch": 0, "bucket": 0, "buckets": 1, "offset": 0, "sender": sender, "round": 0,
        "count": N, "wire_id": int(payload[0]) if len(payload) else 0, "length": len(payload),
    }  # fmt: skip
    found = np.zeros(HEADER_BYTES + len(payload), np.uint8)
    pack_into(found, Frame(**fields | changes))
    found[HEADER_BYTES:] = payload
    return found


def messages(compressor):
    """What the liar sends; the last is longer than any packet."""
    good = encoded(compressor, models(1)[0])
    wire_id = int(good[0])
    yield framed(good, 4, count=N - 1)
    yield framed(good, 3)
    yield np.zeros(0, np.uint8)
    yield np.full(HEADER_BYTES, 0xFF, np.uint8)
    yield framed(np.zeros(0, np.uint8), 4, wire_id=wire_id)
    yield framed(np.full_like(good, 0xFF), 4, wire_id=wire_id)
    yield framed(good[:-5], 4)
    yield np.zeros(HEADER_BYTES + len(good) + 4096, np.uint8)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_no_message_of_a_neighbour_ends_a_round(place, monkeypatch, direct, compressor):
    start = models(5, seed=2)
    graph = topology.make("complete", size=5)

    def program(transport, message, *, on_gpu):
        if transport.rank == 4:
            for peer in range(4):
                transport.isend(peer, 0, memoryview(message))
            return None
        packer, home = compress.make(compressor), EmulatedPlace()
        x = there(home, start[transport.rank]) if on_gpu else start[transport.rank].copy()
        mixer = gossip.make("gts:f=1").mixer(x, compressor_at(home, packer) if on_gpu else packer, 4)
        kind = tolerant(GpuExchange if on_gpu else Exchange, [mixer])
        more = {"place": home, "direct": direct} if on_gpu else {}
        exchange = kind(transport, graph, [mixer], budget=9, **more)
        exchange.run(0)
        exchange.close()
        return np.asarray(x).copy(), mixer.counts

    monkeypatch.setattr(LocalTransport, "takes_gpu_memory", direct)
    for message in messages(compressor):
        ours, theirs = (
            LocalCluster(5).run(partial(program, message=message, on_gpu=on_gpu)) for on_gpu in (True, False)
        )
        for (x, counts), (expected, known) in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_allclose(x, expected, rtol=0, atol=1e-5 if compressor == "int8" else 0)
            assert counts == known == Counts(malformed=1)
