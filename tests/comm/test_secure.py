"""Sealed transports keep the contract bit for bit, and drop, count and outlive what an attacker sends."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pydec.comm import identity
from pydec.comm.buffers import POST_LIMIT
from pydec.comm.local import Death, LocalCluster, LocalTransport
from pydec.comm.meet import seal
from pydec.comm.transport import Stream
from pydec.crypto.seal import Limits
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError, FrameError, PeerLost, PeerTimeout, ProtocolError, SetupError

KEYS = [SigningKey(bytes([n]) * 32) for n in range(8)]
PUBLIC = [key.public for key in KEYS]


class Wire:
    """A transport whose ``isend`` and ``post`` go through ``meddle``, which returns what is sent instead."""

    def __init__(self, inner, meddle):
        self.inner, self.meddle = inner, meddle
        self.armed = False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def isend(self, peer, tag, data, *, matched=False):
        sent = self.meddle(bytes(data)) if self.armed else [data]
        pendings = [self.inner.isend(peer, tag, memoryview(message), matched=matched) for message in sent]
        return pendings[sent.index(bytes(data))]

    def post(self, peer, data):
        for message in self.meddle(data) if self.armed else [data]:
            if len(message) <= POST_LIMIT:
                self.inner.post(peer, message)

    def stream(self, stream):
        return self.inner.stream(stream) if stream is not Stream.GOSSIP else self


def exchange(transport, rounds=5):
    """Ring averaging with messages below and above the eager limit; what came out."""
    size, rank = transport.size, transport.rank
    x = np.random.default_rng(rank).standard_normal(9000).astype(np.float32)
    y = np.empty_like(x)
    for tag, part in enumerate([slice(0, 10), slice(0, 0), slice(0, None)] * rounds):
        receive = transport.irecv((rank - 1) % size, tag % 4, memoryview(y[part]))
        send = transport.isend((rank + 1) % size, tag % 4, memoryview(x[part]))
        assert receive.wait() == y[part].nbytes == send.wait()
        x[part] = (x[part] + y[part]) * np.float32(0.5)
    return x


@pytest.mark.parametrize("pad", [False, True])
def test_sealed_and_plain_clusters_agree_bit_for_bit(pad):
    def program(transport):
        sealed = seal(transport, identity.fresh(), pad=pad, limits=Limits(records=4))
        return exchange(sealed), sealed.bytes_sent, sealed.bytes_received, sealed.summary()

    plain = LocalCluster(3).run(exchange)
    for mine, (theirs, sent, received, summary) in zip(plain, LocalCluster(3).run(program), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert sent == received > 5 * 36_000
        assert (summary["refused"], summary["not_let_in"], summary["padded"]) == ({}, {}, pad)


def test_no_memory_of_a_gpu_goes_past_the_seal(monkeypatch):
    monkeypatch.setattr(LocalTransport, "takes_gpu_memory", True)
    taken = LocalCluster(2).run(lambda transport: seal(transport, identity.fresh()).takes_gpu_memory)
    assert taken == [False, False]


def test_every_stream_is_sealed_and_posts_arrive():
    def program(transport):
        sealed = seal(transport, identity.shared(KEYS[0]))
        for stream in Stream:
            sealed.stream(stream).post(1 - sealed.rank, b"x" * POST_LIMIT)
        for stream in Stream:
            while (note := sealed.stream(stream).poll()) is None:
                pass
            assert note == (1 - sealed.rank, b"x" * POST_LIMIT)
        with pytest.raises(ConfigError, match=f"at most {POST_LIMIT} bytes where it is sealed"):
            sealed.post(1, bytes(POST_LIMIT + 1))
        assert sealed.stream(Stream.LEDGER) is sealed.stream(Stream.LEDGER)
        sealed.post(sealed.rank, b"to myself")
        while (note := sealed.poll()) is None:
            pass
        assert note == (sealed.rank, b"to myself")

    LocalCluster(2).run(program)


def keys_of(sealed, peer):
    """The newest secrets that this rank has for a peer."""
    ends = [end for (other, _), pair in sealed.sessions._ends.items() if other == peer for end in pair]
    return {(end._next or end._key)._secret for end in ends}


def test_peers_shake_hands_anew_while_messages_go_on():
    limits = Limits(records=3, age_s=1e9, fresh_s=1e9, generations=2)

    def program(transport):
        sealed = seal(transport, identity.shared(KEYS[0]), limits=limits)
        control, others = sealed.stream(Stream.CONTROL), [r for r in range(3) if r != sealed.rank]
        before = {peer: keys_of(sealed, peer) for peer in others}
        found = []
        for _ in range(50):  # messages of one stream, polls of another
            found.append(exchange(sealed, 2))
            assert control.poll() is None
            transport.sleep(0.5)
        after = {peer: keys_of(sealed, peer) for peer in others}
        return found, before, after, sealed.summary()

    results = LocalCluster(3).run(program)
    plain = LocalCluster(3).run(lambda transport: [exchange(transport, 2) for _ in range(50)])
    for (mine, before, after, summary), theirs in zip(results, plain, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert summary["refused"] == {}
        assert summary["renewed"] >= 4
        assert all(not before[peer] & after[peer] for peer in before)


def test_no_plaintext_is_on_the_wire():
    seen = []
    text = b"a label that nobody else may read" * 50

    def keep(data):
        seen.append(data)
        return [data]

    def program(transport):
        wire = Wire(transport, keep)
        sealed = seal(wire, identity.fresh())
        wire.armed = True
        if sealed.rank == 0:
            sealed.isend(1, 3, memoryview(text)).wait()
            sealed.post(1, text)
            return b""
        into = bytearray(len(text))
        sealed.irecv(0, 3, memoryview(into)).wait()
        return bytes(into)

    assert LocalCluster(2).run(program)[1] == text
    assert len(seen) == 2
    assert all(text[:16] not in data and PUBLIC[0] not in data for data in seen)


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


ATTACKS = {
    "forged": lambda data: [flipped(data), data],
    "replayed": lambda data: [data, data],
    "oversized": lambda data: [data + bytes(300_000), data],
    "truncated": lambda data: [data[:-1], data],
    "misplaced": lambda data: [data[:20] + data[24:28] + data[20:24] + data[28:], data],
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_what_an_attacker_sends_is_dropped_and_counted_and_the_run_goes_on(kind, caplog):
    def program(transport):
        wire = Wire(transport, ATTACKS[kind])
        sealed = seal(wire, identity.fresh())
        wire.armed = sealed.rank == 0
        x = exchange(sealed)
        sealed.post((sealed.rank + 1) % 3, b"note")
        while (note := sealed.poll()) is None:
            pass
        assert note[1] == b"note"
        return x, dict(sealed.sessions.refused)

    with caplog.at_level(logging.WARNING, "pydec.secure"):
        found = LocalCluster(3).run(program)
    for mine, (theirs, refused) in zip(LocalCluster(3).run(exchange), found, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert set(refused) <= {(0, kind), (0, "oversized")}  # replayed where a shorter one is due
    assert sum(found[1][1].values()) >= 10  # the last of each tag are not looked at
    assert f"rank 1: refused a message of rank 0 on stream GOSSIP, {kind}" in caplog.text
    assert len(caplog.records) <= 4  # the 1st and the 10th of each kind


def test_a_message_that_an_attacker_drops_is_missed_in_time():
    def program(transport):
        wire = Wire(transport, lambda data: [])
        sealed = seal(wire, identity.fresh())
        wire.armed = sealed.rank == 0
        if sealed.rank == 0:
            sealed.post(1, b"dropped")
            wire.armed = False  # a message that was dropped leaves a gap, and no more
            sealed.isend(1, 5, memoryview(b"arrives")).wait()
            return
        into = bytearray(9)
        with pytest.raises(PeerTimeout, match="rank 0 let 1 s pass"):
            (late := sealed.irecv(0, 4, memoryview(into))).wait(1.0)
        late.cancel()
        assert sealed.irecv(0, 5, memoryview(into)).wait() == 7

    LocalCluster(2).run(program)


def test_a_refused_message_lets_none_overtake():
    """Two receives of one tag: the second message must not end in the first one's memory."""

    def program(transport):
        wire = Wire(transport, lambda data: [flipped(data), data])
        sealed = seal(wire, identity.fresh())
        wire.armed = True
        if sealed.rank == 0:
            for text in (b"first", b"other"):
                sealed.isend(1, 5, memoryview(text))
            return b""
        into = [bytearray(9), bytearray(9)]
        one, two = (sealed.irecv(0, 5, memoryview(room)) for room in into)
        assert (two.wait(), one.wait()) == (5, 5)
        return bytes(into[0][:5] + into[1][:5])

    assert LocalCluster(2).run(program)[1] == b"firstother"


@pytest.mark.parametrize("pad", [False, True])
def test_a_message_that_is_too_long_costs_no_other(pad):
    """Nobody knows who sent what does not fit; where padding has room for it, it is an error as ever."""

    def program(transport):
        sealed = seal(transport, identity.fresh(), pad=pad)
        if sealed.rank == 0:
            for n in (100, 3):
                sealed.isend(1, 5, memoryview(bytes(n)))
            return
        if pad:
            with pytest.raises(
                FrameError, match="rank 0 sent a sealed message of 100 bytes where at most 99 fit"
            ):
                sealed.irecv(0, 5, memoryview(bytearray(99))).wait()
        assert sealed.irecv(0, 5, memoryview(bytearray(99))).wait() == 3
        assert dict(sealed.sessions.refused) == ({} if pad else {(0, "oversized"): 1})

    LocalCluster(2).run(program)


def refusing(*, tolerant):
    """A cluster of four in which rank 2 holds a key that is not on the list; what each rank came to."""
    deaths = {3: Death(at_s=1e6)} if tolerant else None

    def program(transport):
        mine = KEYS[7] if transport.rank == 2 else KEYS[transport.rank]
        listed = [*PUBLIC[:2], PUBLIC[7] if transport.rank == 2 else PUBLIC[2], PUBLIC[3]]
        sealed = seal(transport, identity.listed(mine, listed, "the list"))
        assert sealed.lost() == {2}
        with pytest.raises(PeerLost, match=r"rank 2 is refused: its key .* is not the .* that the list has"):
            sealed.irecv(2, 1, memoryview(bytearray(1))).wait()
        with pytest.raises(PeerLost, match="rank 2 is refused"):
            sealed.isend(2, 1, memoryview(b"x")).done()
        sealed.post(2, b"dropped")
        others = [rank for rank in (0, 1, 3) if rank != sealed.rank]
        sends = [sealed.isend(peer, 1, memoryview(bytes([sealed.rank]))) for peer in others]
        into = bytearray(1)
        return sum(sealed.irecv(peer, 1, memoryview(into)).wait() for peer in others), len(sends)

    cluster = LocalCluster(4, deaths=deaths)
    with pytest.raises((SetupError, ProtocolError)) as caught:
        cluster.run(program)
    return cluster.errors, caught.value


def test_a_wrong_key_is_shut_out_and_the_others_go_on():
    errors, error = refusing(tolerant=True)
    assert "ranks 0, 1, 3 do not let this rank in" in str(error)
    assert errors == [None, None, error, None]


def test_without_fault_tolerance_a_wrong_key_ends_the_job_by_name():
    errors, _ = refusing(tolerant=False)
    assert "rank 2 is refused: its key" in str(errors[0])
    assert "is not the" in str(errors[0])


def test_two_processes_with_one_key_are_refused():
    def program(transport):
        mine = KEYS[1] if transport.rank == 2 else KEYS[transport.rank]
        open_to_all = identity.Identity(mine, lambda rank, key: None, True, "whoever")
        return seal(transport, open_to_all).lost()

    cluster = LocalCluster(3, deaths={0: Death(at_s=1e6)})
    with pytest.raises(SetupError, match=r"this rank has key .*, and so has rank 1; each process needs"):
        cluster.run(program)
    assert cluster.errors[:2] == [None, None]


def test_a_rank_that_does_not_seal_is_shut_out():
    def program(transport):
        if transport.rank == 1:
            return frozenset({-1})
        return seal(transport, identity.fresh()).lost()

    found = LocalCluster(3, deaths={0: Death(at_s=1e6)}, deadline_s=4.0).run(program)
    assert found == [{1}, {-1}, {1}]


def test_a_key_is_gone_when_the_transport_is_closed():
    def program(transport):
        sealed = seal(transport, identity.fresh())
        sealed.deadline_s = 3.0
        assert transport.deadline_s == 3.0
        sealed.close()
        with pytest.raises(SetupError, match="closed, and its keys are gone"):
            sealed.isend(1 - sealed.rank, 1, memoryview(b"x"))

    LocalCluster(2).run(program)
