"""The MPI transport keeps the contract, and gives the same bits as the local cluster."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pydec.comm.agree import agree
from pydec.comm.stop import StopGuard
from pydec.comm.transport import Stream
from pydec.errors import ConfigError, FrameError, MismatchError, PeerTimeout

pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.timeout(60)]


def around(transport):
    return (transport.rank + 1) % transport.size, (transport.rank - 1) % transport.size


def program(transport):
    """Ring averaging with messages below and above the eager limit, in float32."""
    following, previous = around(transport)
    x = np.random.default_rng(transport.rank).standard_normal(20_000).astype(np.float32)
    y = np.empty_like(x)
    for tag, part in enumerate([slice(0, 10), slice(0, None), slice(5, 5000)] * 5):
        receive = transport.irecv(previous, tag, memoryview(y[part]))
        send = transport.isend(following, tag, memoryview(x[part]))
        receive.wait()
        send.wait()
        x[part] = (x[part] + y[part]) * np.float32(1 / 3)
    transport.stream(Stream.STORE).post(following, x[:4].tobytes())
    while (note := transport.stream(Stream.STORE).poll()) is None:
        time.sleep(0)
    assert note[0] == previous
    return np.append(x, np.frombuffer(note[1], np.float32)), transport.bytes_sent, transport.bytes_received


def test_mpi_and_local_clusters_agree_bit_for_bit(mpi_transport, run_locally):
    sent, received = mpi_transport.bytes_sent, mpi_transport.bytes_received
    mine, bytes_sent, bytes_received = program(mpi_transport)
    expected = run_locally(program, mpi_transport.size)[mpi_transport.rank]
    np.testing.assert_array_equal(mine, expected[0])
    assert (bytes_sent - sent, bytes_received - received) == expected[1:]


@pytest.mark.parametrize("n_bytes", [0, 1, 65_537, 100_000_000])
def test_messages_of_any_size_arrive(mpi_transport, n_bytes):
    following, previous = around(mpi_transport)
    x = np.full(n_bytes, mpi_transport.rank + 1, np.uint8)
    y = np.zeros(n_bytes + 10, np.uint8)
    receive = mpi_transport.irecv(previous, 1, memoryview(y))
    send = mpi_transport.isend(following, 1, memoryview(x))
    assert receive.wait() == n_bytes
    assert send.wait() == n_bytes
    expected = (previous + 1,) * 2 if n_bytes else (0, 0)
    assert (y[:n_bytes].min(initial=previous + 1 if n_bytes else 0), y.max()) == expected
    assert not np.any(y[n_bytes:])


@pytest.mark.parametrize("n_bytes", [6400, 6401])
def test_messages_beyond_the_count_limit_go_as_one_derived_type(mpi_transport, monkeypatch, n_bytes):
    monkeypatch.setattr("pydec.comm.mpi_requests._COUNT_LIMIT", 1000)
    following, previous = around(mpi_transport)
    x = np.arange(n_bytes).astype(np.uint8) + np.uint8(mpi_transport.rank)
    y = np.zeros(7000, np.uint8)
    receive = mpi_transport.irecv(previous, 1, memoryview(y))
    mpi_transport.isend(following, 1, memoryview(x)).wait()
    assert receive.wait() == n_bytes
    np.testing.assert_array_equal(y[:n_bytes], np.arange(n_bytes).astype(np.uint8) + np.uint8(previous))


def test_deadline_names_the_peer_and_leaves_the_operation_pending(mpi_transport):
    following, previous = around(mpi_transport)
    buffer = bytearray(4)
    receive = mpi_transport.irecv(previous, 2, memoryview(buffer))
    with pytest.raises(PeerTimeout, match=rf"rank {previous} let 0.2 s pass: no message .*GOSSIP, tag 2"):
        receive.wait(0.2)
    assert not receive.done()
    agree(mpi_transport, {})  # everybody has seen the deadline pass
    mpi_transport.isend(following, 2, memoryview(b"late")).wait()
    assert receive.wait() == 4
    assert bytes(buffer) == b"late"


def test_a_cancelled_receive_takes_nothing(mpi_transport):
    following, previous = around(mpi_transport)
    cancelled, taken = bytearray(1), bytearray(1)
    mpi_transport.irecv(previous, 3, memoryview(cancelled)).cancel()
    receive = mpi_transport.irecv(previous, 3, memoryview(taken))
    # A neighbour that is ahead must not send before the first receive is gone.
    mpi_transport.isend(previous, 9, memoryview(b"!")).wait()
    mpi_transport.irecv(following, 9, memoryview(bytearray(1))).wait()
    mpi_transport.isend(following, 3, memoryview(b"x")).wait()
    receive.wait()
    assert (bytes(cancelled), bytes(taken)) == (b"\0", b"x")


def test_a_long_message_is_a_frame_error(mpi_transport):
    following, previous = around(mpi_transport)
    receive = mpi_transport.irecv(previous, 4, memoryview(bytearray(3)))
    mpi_transport.isend(following, 4, memoryview(b"four")).wait()
    with pytest.raises(FrameError, match=f"rank {previous} sent more bytes than the 3 that fit"):
        receive.wait()


def test_a_message_with_another_tag_or_stream_is_not_taken(mpi_transport):
    following, previous = around(mpi_transport)
    ledger = mpi_transport.stream(Stream.LEDGER)
    one, other, far = bytearray(1), bytearray(1), bytearray(1)
    receives = [
        mpi_transport.irecv(previous, 5, memoryview(one)),
        ledger.irecv(previous, 5, memoryview(other)),
        mpi_transport.irecv(previous, (1 << 23) - 1, memoryview(far)),
    ]
    mpi_transport.isend(following, (1 << 23) - 1, memoryview(b"c"))
    ledger.isend(following, 5, memoryview(b"b"))
    mpi_transport.isend(following, 5, memoryview(b"a"))
    for receive in receives:
        receive.wait()
    assert (bytes(one), bytes(other), bytes(far)) == (b"a", b"b", b"c")
    with pytest.raises(ConfigError, match="tag 8388608"):
        mpi_transport.isend(following, 1 << 23, memoryview(b""))
    with pytest.raises(ConfigError, match="does not exist"):
        mpi_transport.isend(mpi_transport.size, 0, memoryview(b""))


def test_posts_arrive_in_order_up_to_64_kib(mpi_transport):
    following, previous = around(mpi_transport)
    ledger = mpi_transport.stream(Stream.LEDGER)
    posts = [bytes([number]) * length for number, length in enumerate([1, 65_536, 5000, 0, 3] * 4)]
    for data in posts:
        ledger.post(following, data)
    arrived: list[tuple[int, bytes]] = []
    until_s = ledger.now() + 20.0
    while len(arrived) < len(posts) and ledger.now() < until_s:
        note = ledger.poll()
        if note is not None:
            arrived.append(note)
    assert arrived == [(previous, data) for data in posts]


def test_a_difference_stops_all_with_the_same_words(mpi_transport):
    agree(mpi_transport, {"model": "a"})
    with pytest.raises(MismatchError, match=r"disagree on model: rank 0 has a, rank \d has b"):
        agree(mpi_transport, {"model": "a" if mpi_transport.rank == 0 else "b"})


def test_everybody_says_goodbye(mpi_transport):
    assert StopGuard(mpi_transport).goodbye(10.0)


def test_interrupt_leaves_a_wait(mpi_transport):
    class Enough(Exception):
        pass

    def interrupt():
        raise Enough

    receive = mpi_transport.irecv(around(mpi_transport)[1], 6, memoryview(bytearray(1)))
    mpi_transport.set_interrupt(interrupt)
    try:
        with pytest.raises(Enough):
            receive.wait()
    finally:
        mpi_transport.set_interrupt(None)
    receive.cancel()


def test_a_matched_send_waits_for_its_receiver(mpi_transport):
    following, previous = around(mpi_transport)
    send = mpi_transport.isend(following, 11, memoryview(b"x"), matched=True)
    time.sleep(0.05)
    assert not send.done()
    agree(mpi_transport, {})  # everybody has looked, and nobody had posted a receive
    into = bytearray(1)
    mpi_transport.irecv(previous, 11, memoryview(into)).wait()
    send.wait()
    assert into == b"x"


def test_messages_move_in_the_background_of_a_computation(mpi_transport):
    """A large message arrives although its receiver never asks for it in the program's own thread."""
    following, previous = around(mpi_transport)
    out, into = np.full(8_000_000, mpi_transport.rank, np.uint8), np.zeros(8_000_000, np.uint8)
    receive = mpi_transport.irecv(previous, 12, memoryview(into))
    send = mpi_transport.isend(following, 12, memoryview(out))
    arrived = []

    def tick():
        mpi_transport.advance()
        if not arrived and receive.done() and send.done():
            arrived.append(True)
        return False

    work = mpi_transport.background(tick)
    assert work is not None
    until_s = time.monotonic() + 20.0
    while not arrived and time.monotonic() < until_s:
        time.sleep(0.01)
    work.close()
    assert arrived
    assert into.min() == into.max() == previous
