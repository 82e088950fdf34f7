"""When ``auto`` compresses: on virtual links of every speed, with compressors that cost virtual time."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster, LocalTransport
from pydec.compress.auto import Auto
from pydec.compress.base import Bytes
from pydec.errors import ConfigError
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.switch import Switch, SwitchedExchange

SIZE, N = 4, 20_000
PACKING_S = 1e-3  # what encoding takes on the virtual clock
BYTES_PER_S = {"fast": 1e9, "slow": 1e7}  # 80 kB take 0.08 ms or 8 ms


class PricedMixer(AverageMixer):
    """Compression takes virtual time; sending does by the cluster's links."""

    transport: LocalTransport

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """As always, and the clock moves on."""
        assert isinstance(self.compressor, Auto)
        if self.compressor.send == "packed":
            self.transport.sleep(PACKING_S)
        return super().encode(bucket, out, key)


def train(
    transport: LocalTransport, rounds: int, compressor: str, computing_s: float = 0.0, overlap: bool = False
) -> tuple[float, list[bool], NDArray[np.float32]]:
    """Virtual seconds, what was decided, and the vector after ``rounds`` rounds."""
    x = np.random.default_rng(transport.rank).standard_normal(N).astype(np.float32)
    graph = topology.make("one-peer-exponential", size=transport.size)
    mixer = PricedMixer(x, compress.make(compressor), graph.degree)
    mixer.transport = transport
    exchange = SwitchedExchange(transport, graph, [mixer], overlap=overlap)
    decided = []
    for t in range(rounds):
        if overlap:
            exchange.begin(t)
            transport.sleep(computing_s)
            exchange.finish()
        else:
            exchange.run(t)
            transport.sleep(computing_s)
        decided.append(exchange.switch.packed)
    exchange.flush()
    return transport.now(), decided, x


def packs(link: str, rounds: int = 20, **options: Any) -> list[bool]:
    program = partial(train, rounds=rounds, compressor="auto", **options)
    results = LocalCluster(SIZE, bytes_per_s=BYTES_PER_S[link]).run(program)
    return [decided[-1] for _, decided, _ in results]


def test_slow_links_compress_and_fast_ones_do_not() -> None:
    assert packs("slow") == [True] * SIZE
    assert packs("fast") == [False] * SIZE


def test_a_transfer_hidden_behind_the_gradient_is_not_worth_compressing() -> None:
    assert packs("slow", computing_s=0.02, overlap=True) == [False] * SIZE
    assert packs("slow", computing_s=0.002, overlap=True) == [True] * SIZE


@pytest.mark.parametrize("link", BYTES_PER_S)
def test_auto_loses_little_to_no_compression_at_any_link_speed(link: str, monkeypatch: Any) -> None:
    def seconds(rounds: int) -> float:
        program = partial(train, rounds=rounds, compressor="auto")
        return max(time_s for time_s, _, _ in LocalCluster(SIZE, bytes_per_s=BYTES_PER_S[link]).run(program))

    rounds = Switch(2).every
    auto_s = seconds(rounds)
    monkeypatch.setattr(Switch, "choose", lambda *_: False)
    plain_s = seconds(rounds // 16) * 16
    monkeypatch.setattr(Switch, "choose", lambda *_: True)
    packed_s = seconds(rounds // 16) * 16
    if link == "slow":
        assert packed_s < 0.5 * plain_s
        assert auto_s < 1.1 * packed_s
    else:
        assert packed_s > 10 * plain_s
        assert auto_s < 1.1 * plain_s


def test_decisions_and_bits_repeat() -> None:
    run = LocalCluster(SIZE, bytes_per_s=BYTES_PER_S["slow"]).run
    first, second = (run(partial(train, rounds=30, compressor="auto")) for _ in range(2))
    for (time_a, decided_a, a), (time_b, decided_b, b) in zip(first, second, strict=True):
        assert (time_a, decided_a) == (time_b, decided_b)
        np.testing.assert_array_equal(a, b)


def test_ranks_that_decide_differently_keep_the_mean_and_come_together(monkeypatch: Any) -> None:
    starts = np.stack([np.random.default_rng(rank).standard_normal(N) for rank in range(SIZE)])

    def program(transport: LocalTransport) -> NDArray[np.float32]:
        x = starts[transport.rank].astype(np.float32)
        graph = topology.make("ring", size=SIZE)
        exchange = SwitchedExchange(transport, graph, [AverageMixer(x, Auto(), graph.degree)])
        exchange.switch.choose = lambda round: (round + transport.rank) % 3 == 0  # type: ignore[method-assign]
        for t in range(30):
            exchange.run(t)
        exchange.flush()
        return x

    got = np.stack(LocalCluster(SIZE).run(program))
    np.testing.assert_allclose(got.mean(0), starts.mean(0), atol=1e-5)
    assert np.abs(got - got.mean(0)).max() < 2 * np.abs(starts).max() / 127


@pytest.mark.parametrize("period", [0, 1, 2, 3, 8, 30])
def test_a_trial_covers_all_rounds_of_the_period_and_its_outliers_do_not_count(period: int) -> None:
    switch = Switch(period)
    rounds = switch.every * 2
    ways = [switch.choose(t) for t in range(rounds)]
    half = ways.index(True)
    assert ways == ([False] * half + [True] * half + [False] * (switch.every - 2 * half)) * 2
    assert half / switch.every <= 1 / 128
    slots = min(period, half - 1) or 1
    for t in range(half * 2):  # rounds differ in cost; compressing saves a third, but for one outlier
        cost = (1.0 + t % slots) * (2 / 3 if switch.choose(t) else 1.0)
        switch.note(t, 100.0 if t == half + 2 else cost)
    assert switch.packed


def test_compression_is_begun_for_a_clear_gain_and_kept_for_any() -> None:
    switch = Switch(1)

    def trial(number: int, packed: float) -> bool:
        for t in range(number * switch.every, number * switch.every + 20):
            switch.note(t, packed if switch.choose(t) else 1.0)
        return switch.packed

    assert [trial(0, 0.95), trial(1, 0.85), trial(2, 0.95), trial(3, 1.05)] == [False, True, True, False]


def test_a_hopeless_trial_is_given_up() -> None:
    switch = Switch(1)
    for t in range(7):  # 4 plain, 3 compressed, of which 2 are timed
        assert switch.choose(t) == (t >= 4)
        switch.note(t, 3.0 if switch.choose(t) else 1.0)
        switch.load_numbers(switch.numbers())
    assert not switch.choose(7)
    switch.note(7, 1.0)
    assert not switch.packed
    assert switch.choose(switch.every + 7)  # the next trial is a new one


def test_a_trial_cut_by_a_restart_goes_on_where_it_was() -> None:
    whole, first, second = Switch(1), Switch(1), Switch(1)
    for t in range(8):
        whole.note(t, 0.1 if whole.choose(t) else 1.0)
        if t == 5:
            second.load_numbers(first.numbers())
        part = first if t < 5 else second
        part.note(t, 0.1 if part.choose(t) else 1.0)
    assert whole.packed
    assert second.packed
    alone = Switch(1)  # knows nothing of the plain half
    for t in range(5, 8):
        alone.note(t, 0.1)
    assert not alone.packed


def test_algorithms_that_compress_take_it_and_the_others_say_why_not() -> None:
    ring = topology.make("ring", size=4)
    for name in ("dpsgd", "dsgdm", "sgp", "choco", "gossip-diloco", "gasloc"):
        gossip.make(name).check(ring, Auto())
    for name in ("d2", "exact-diffusion", "gradient-tracking", "momentum-tracking", "qg-dsgdm", "allreduce"):
        with pytest.raises(ConfigError, match="none"):
            gossip.make(name).check(topology.make("ring", size=5), Auto())
