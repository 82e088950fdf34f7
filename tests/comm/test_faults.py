"""Ranks that the local cluster kills: when, what of theirs still arrives, and who knows."""

from __future__ import annotations

import pytest

from pydec.comm.faults import EAGER_BYTES, Death, Killed, Pause
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Stream
from pydec.errors import ConfigError, PeerLost, PeerTimeout


def ring(transport):
    """Pass a number round until a neighbour is gone; who is known to be dead then, and when."""
    after, before = (transport.rank + 1) % transport.size, (transport.rank - 1) % transport.size
    into = bytearray(8)
    try:
        for tag in range(1000):
            receive = transport.irecv(before, tag, memoryview(into))
            transport.isend(after, tag, memoryview(bytes(8)))
            receive.wait()
            transport.sleep(0.01)
    except (PeerLost, PeerTimeout) as error:
        return error.peer, transport.lost(), transport.now()
    return None


def lost_after(transport, seconds):
    """Who is known to be dead after so long."""
    transport.sleep(seconds)
    return transport.lost()


def test_a_rank_dies_at_its_moment_and_the_others_are_told():
    cluster = LocalCluster(4, deaths={2: Death(0.505)}, deadline_s=1.0)
    with pytest.raises(PeerLost):  # rank 3 raises nothing by itself: its program returns
        LocalCluster(4, deaths={2: Death(0.505)}).run(lambda t: [t.irecv(2, 1, bytearray(1)).wait()])
    results = cluster.run(lambda t: ring(t) if t.rank in (2, 3) else lost_after(t, 2.0))
    assert results == [frozenset({2}), frozenset({2}), None, (2, frozenset({2}), 0.505)]
    assert isinstance(cluster.errors[2], Killed)


def test_the_moment_and_what_others_know_follow_from_the_seed():
    def run(seed):
        deaths = {1: Death((0.1, 0.9), noticed_s=(0.0, 0.05))}
        return LocalCluster(3, seed, deaths=deaths).run(ring)

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("n_bytes", [8, EAGER_BYTES + 1])
def test_what_nobody_had_taken_reaches_a_receiver_by_the_seed_and_long_messages_never(n_bytes):
    def program(transport):
        if transport.rank == 1:
            transport.isend(0, 5, memoryview(bytes(n_bytes)))
            transport.sleep(9.0)
        transport.sleep(2.0)
        try:
            return transport.irecv(1, 5, memoryview(bytearray(n_bytes))).wait()
        except PeerLost:
            return -1

    def outcome(seed):
        return LocalCluster(2, seed, deaths={1: Death(1.0)}).run(program)[0]

    assert {outcome(seed) for seed in range(20)} == ({-1, n_bytes} if n_bytes == 8 else {-1})


def test_a_dead_rank_sends_nothing_more_and_its_background_ends():
    ticks: list[float] = []

    def tick():
        ticks.append(0.0)
        return False

    def program(transport):
        if transport.rank == 1:
            transport.background(tick)
            try:
                transport.sleep(9.0)
            finally:
                transport.post(0, b"from beyond")
        for _ in range(20):
            transport.sleep(0.1)
            transport.post(1, b"?")
        return len(ticks), transport.stream(Stream.GOSSIP).poll()

    assert LocalCluster(2, deaths={1: Death(0.55)}).run(program)[0] == (5, None)


def test_an_ended_program_cannot_be_killed():
    cluster = LocalCluster(2, deaths={1: Death(1.0)})
    assert cluster.run(lambda t: t.rank or lost_after(t, 2.0)) == [frozenset(), 1]


def test_who_stands_still_finds_what_was_sent_to_it():
    def program(transport):
        if transport.rank == 1:
            transport.sleep(0.5)
            into = bytearray(1)
            transport.irecv(0, 7, memoryview(into)).wait()
            return transport.now(), bytes(into)
        transport.sleep(2.0)
        transport.isend(1, 7, memoryview(b"x")).wait()
        return transport.now(), b""

    found = LocalCluster(2, pauses={1: Pause(1.0, 3.0)}).run(program)
    assert found == [(2.0, b""), (4.0, b"x")]
    with pytest.raises(ConfigError, match="for_s must be finite and at least 0, got -1"):
        Pause(1.0, -1.0)
    with pytest.raises(ConfigError, match="rank 2 does not exist"):
        LocalCluster(2, pauses={2: Pause(1.0, 1.0)})


def test_impossible_deaths_are_refused():
    with pytest.raises(ConfigError, match="rank 3 does not exist"):
        LocalCluster(3, deaths={3: Death(1.0)})
    with pytest.raises(ConfigError, match="at_s must be finite"):
        Death((2.0, 1.0))
