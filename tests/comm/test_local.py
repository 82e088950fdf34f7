"""The in-process cluster: MPI's rules, seeded faults, and errors that name who did what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pydec.comm.local import EAGER_BYTES, Deadlock, LocalCluster, LocalTransport, solo
from pydec.comm.transport import Stream
from pydec.errors import ConfigError, FrameError, PeerLost, PeerTimeout, PydecError

FAULTS: dict[str, Any] = {"delay_s": (1e-4, 1e-2), "loss": 0.1, "duplicate": 0.1, "reorder": 0.2}


def gossip(transport, rounds=10, n=300):
    """Average with both ring neighbours; a neighbour that misses its deadline is left out."""
    x = np.random.default_rng(transport.rank).standard_normal(n).astype(np.float32)
    inbox = np.empty((2, n), np.float32)
    left, right = (transport.rank - 1) % transport.size, (transport.rank + 1) % transport.size
    for tag in range(rounds):
        receives = [transport.irecv(peer, tag, inbox[i]) for i, peer in enumerate((left, right))]
        sends = [transport.isend(peer, tag, x.copy()) for peer in (left, right)]
        total, count = x.astype(np.float64), 1
        for i, receive in enumerate(receives):
            try:
                receive.wait(0.5)
            except PeerTimeout:
                receive.cancel()
                continue
            total, count = total + inbox[i], count + 1
        for send in sends:
            send.cancel()
        x = (total / count).astype(np.float32)
    return x


def test_ranks_average_to_the_mean():
    results = LocalCluster(5).run(lambda transport: gossip(transport, rounds=200))
    start = [np.random.default_rng(rank).standard_normal(300).astype(np.float32) for rank in range(5)]
    np.testing.assert_allclose(results, [np.mean(start, axis=0)] * 5, atol=1e-5)


def test_same_seed_same_trace_and_same_bits():
    def run(seed):
        cluster = LocalCluster(6, seed, trace=True, **FAULTS)
        return np.stack(cluster.run(gossip)), cluster.trace

    (first, trace), (again, trace_again), (other, trace_other) = run(1), run(1), run(2)
    np.testing.assert_array_equal(first, again)
    assert trace == trace_again
    assert trace != trace_other
    assert np.any(first != other)
    assert {event.kind for event in trace} == {"send", "deliver", "lose", "double"}


def test_sixty_four_ranks_run_a_hundred_rounds():
    assert len(LocalCluster(64).run(lambda transport: gossip(transport, rounds=100, n=4))) == 64


def test_faults_come_as_often_as_asked():
    def program(transport):
        for tag in range(2000):
            if transport.rank == 0:
                transport.isend(1, tag, b"x")

    cluster = LocalCluster(2, trace=True, loss=0.2, duplicate=0.1)
    cluster.run(program)
    kinds = [event.kind for event in cluster.trace]
    assert kinds.count("lose") == pytest.approx(400, abs=80)
    assert kinds.count("double") == pytest.approx(0.8 * 200, abs=60)


@pytest.mark.parametrize("reorder", [0.0, 0.5])
def test_messages_with_one_tag_stay_in_order_unless_asked(reorder):
    def program(transport):
        if transport.rank == 0:
            for number in range(50):
                transport.isend(1, 3, bytes([number]))
            return []
        buffers = [bytearray(1) for _ in range(50)]
        for buffer in buffers:
            transport.irecv(0, 3, buffer).wait()
        return [buffer[0] for buffer in buffers]

    received = LocalCluster(2, delay_s=(0.0, 1e-3), reorder=reorder).run(program)[1]
    assert sorted(received) == list(range(50))
    assert (received == sorted(received)) is (reorder == 0.0)


def test_a_delay_is_virtual_time():
    def program(transport):
        if transport.rank == 0:
            transport.isend(1, 0, b"x")
            return transport.now()
        assert transport.irecv(0, 0, bytearray(1)).wait() == 1
        return transport.now()

    assert LocalCluster(2, delay_s=3.5).run(program) == [0.0, 3.5]


def test_deadline_names_the_peer_the_message_and_the_seconds():
    def program(transport):
        if transport.rank == 0:
            transport.irecv(1, 7, bytearray(1)).wait(2.5)

    with pytest.raises(PeerTimeout, match=r"rank 1 let 2.5 s pass: no message .*GOSSIP, tag 7") as caught:
        LocalCluster(2).run(program)
    assert caught.value.peer == 1


def test_an_operation_is_still_pending_after_its_deadline():
    def program(transport):
        if transport.rank == 1:
            transport.sleep(10.0)
            transport.isend(0, 7, b"late")
            return None
        buffer = bytearray(10)
        receive = transport.irecv(1, 7, buffer)
        with pytest.raises(PeerTimeout):
            receive.wait(1.0)
        assert not receive.done()
        return bytes(buffer[: receive.wait()])

    assert LocalCluster(2).run(program)[0] == b"late"


def test_polling_lets_others_run_and_time_pass():
    def program(transport):
        if transport.rank == 1:
            transport.sleep(1.0)
            transport.isend(0, 0, b"x")
            return 0
        receive = transport.irecv(1, 0, bytearray(1))
        polls = 0
        while not receive.done():
            polls += 1
        return polls

    assert 900 < LocalCluster(2).run(program)[0] < 1100


def test_deadlock_says_who_waits_for_what():
    def program(transport):
        transport.irecv((transport.rank + 1) % 3, 5, bytearray(1)).wait()

    with pytest.raises(
        Deadlock, match=r"rank 0 waits for message from rank 1 .* rank 2 waits for message from"
    ):
        LocalCluster(3, deadline_s=float("inf")).run(program)


@pytest.mark.parametrize("n_bytes", [EAGER_BYTES, EAGER_BYTES + 1])
def test_large_sends_wait_for_their_receiver_as_on_mpi(n_bytes):
    def program(transport):
        other = 1 - transport.rank
        transport.isend(other, 0, bytes(n_bytes)).wait()
        return transport.irecv(other, 0, bytearray(n_bytes)).wait()

    cluster = LocalCluster(2, deadline_s=float("inf"))
    if n_bytes <= EAGER_BYTES:
        assert cluster.run(program) == [n_bytes, n_bytes]
    else:
        with pytest.raises(Deadlock, match="receive of 4097 bytes"):
            cluster.run(program)


def test_a_send_buffer_that_changes_too_early_is_found():
    def program(transport):
        if transport.rank == 0:
            buffer = bytearray(10_000)
            send = transport.isend(1, 0, buffer)
            buffer[5] = 1
            send.wait()
        else:
            transport.irecv(0, 0, bytearray(10_000)).wait()

    with pytest.raises(PydecError, match="send buffer changed"):
        LocalCluster(2).run(program)


def test_a_long_message_is_a_frame_error_and_a_short_one_is_not():
    def program(transport):
        if transport.rank == 0:
            transport.isend(1, 0, b"four")
            transport.isend(1, 0, b"four")
            return
        assert transport.irecv(0, 0, bytearray(9)).wait() == 4
        with pytest.raises(FrameError, match="rank 0 sent 4 bytes where at most 3 fit"):
            transport.irecv(0, 0, bytearray(3)).wait()

    LocalCluster(2).run(program)


def test_the_first_failure_is_raised_and_the_others_see_a_lost_peer():
    def program(transport):
        if transport.rank == 2:
            raise ValueError("bad luck")
        transport.irecv(2, 0, bytearray(1)).wait()

    cluster = LocalCluster(4)
    with pytest.raises(ValueError, match="bad luck"):
        cluster.run(program)
    assert [type(error) for error in cluster.errors] == [PeerLost, PeerLost, ValueError, PeerLost]
    assert "rank 2 is gone (its program raised ValueError: bad luck)" in str(cluster.errors[0])


def test_streams_have_tags_counters_and_posts_of_their_own():
    def program(transport):
        other = 1 - transport.rank
        store = transport.stream(Stream.STORE)
        assert store.stream(Stream.GOSSIP) is transport
        transport.isend(other, 1, b"gossip")
        store.isend(other, 1, b"store!!")
        store.post(other, b"note")
        buffer = bytearray(7)
        assert store.irecv(other, 1, buffer).wait() == 7
        assert buffer == b"store!!"
        assert transport.irecv(other, 1, buffer).wait() == 6
        assert transport.poll() is None
        assert store.poll() == (other, b"note")
        assert store.poll() is None
        return (transport.bytes_sent, transport.bytes_received, store.bytes_sent, store.bytes_received)

    assert LocalCluster(2).run(program) == [(6, 6, 11, 11)] * 2


def test_an_interrupt_leaves_a_wait_when_a_note_arrives():
    class Enough(Exception):
        pass

    def program(transport):
        control = transport.stream(Stream.CONTROL)
        if transport.rank == 0:
            transport.sleep(1.0)
            control.post(1, b"stop")
            return None

        def interrupt():
            if control.poll() is not None:
                raise Enough

        transport.set_interrupt(interrupt)
        with pytest.raises(Enough):
            transport.irecv(0, 0, bytearray(1)).wait()
        transport.set_interrupt(None)
        return transport.now()

    assert LocalCluster(2).run(program)[1] == pytest.approx(1.0)


def test_a_cancelled_receive_takes_nothing():
    def program(transport):
        if transport.rank == 0:
            transport.sleep(1.0)
            transport.isend(1, 0, b"x")
            return None
        cancelled, taken = bytearray(1), bytearray(1)
        transport.irecv(0, 0, cancelled).cancel()
        transport.irecv(0, 0, taken).wait()
        return bytes(cancelled), bytes(taken)

    assert LocalCluster(2).run(program)[1] == (b"\0", b"x")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda t: t.isend(2, 0, b""), ConfigError, "rank 2 does not exist"),
        (lambda t: t.irecv(-1, 0, bytearray(1)), ConfigError, "ranks 0 to 1"),
        (lambda t: t.isend(1, 2**23, b""), ConfigError, "tag 8388608"),
        (lambda t: t.isend(1, -1, b""), ConfigError, "tag -1"),
        (lambda t: t.isend(1, 0, "text"), TypeError, "got str"),
        (lambda t: t.isend(1, 0, np.zeros((4, 4))[:, 0]), TypeError, "C-contiguous"),
        (lambda t: t.irecv(1, 0, b"constant"), TypeError, "read-only"),
        (lambda t: t.post(1, bytes(65537)), ConfigError, "65536 bytes, got 65537"),
    ],
)
def test_bad_arguments_are_refused(call, error, words):
    def program(transport: LocalTransport) -> None:
        with pytest.raises(error, match=words):
            call(transport)

    LocalCluster(2).run(program)


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": 2, "loss": 1.5}, {"size": 2, "delay_s": -1.0}, {"size": 2, "delay_s": (2.0, 1.0)}],
)
def test_bad_clusters_are_refused(options):
    with pytest.raises(ConfigError):
        LocalCluster(**options)


def test_solo_talks_to_itself_on_the_real_clock():
    transport = solo()
    assert (transport.rank, transport.size) == (0, 1)
    buffer = np.zeros(3)
    receive = transport.irecv(0, 0, memoryview(buffer))
    transport.isend(0, 0, memoryview(np.arange(3.0))).wait()
    assert receive.wait() == 24
    assert buffer.tolist() == [0.0, 1.0, 2.0]
    before = transport.now()
    assert transport.now() >= before > 0
    with pytest.raises(PeerTimeout):
        transport.irecv(0, 1, memoryview(buffer)).wait()
    transport.close()


def test_an_interrupted_run_leaves_no_rank_behind():
    def program(transport):
        if transport.rank == 0:
            raise KeyboardInterrupt
        transport.irecv(0, 0, bytearray(1)).wait()

    with pytest.raises(KeyboardInterrupt):
        LocalCluster(3).run(program)


def test_a_matched_send_is_done_only_when_its_receiver_takes_it() -> None:
    def program(transport: LocalTransport) -> list[bool]:
        if transport.rank == 1:
            transport.sleep(1.0)
            transport.irecv(0, 1, memoryview(bytearray(1))).wait()
            transport.irecv(0, 2, memoryview(bytearray(1))).wait()
            return []
        plain = transport.isend(1, 1, memoryview(b"a"))
        matched = transport.isend(1, 2, memoryview(b"b"), matched=True)
        early = [plain.done(), matched.done()]
        transport.sleep(2.0)
        return [*early, matched.done()]

    assert LocalCluster(2).run(program)[0] == [True, False, True]


def test_a_link_carries_one_message_after_the_other_at_its_rate() -> None:
    def program(transport: LocalTransport) -> Any:
        if transport.rank == 0:
            sends = [transport.isend(1, tag, memoryview(bytes(10_000))) for tag in range(3)]
            return [send.wait() for send in sends] and transport.now()
        times = []
        for tag in range(3):
            transport.irecv(0, tag, memoryview(bytearray(10_000))).wait()
            times.append(transport.now())
        return times

    _, times = LocalCluster(2, bytes_per_s=1e6, delay_s=0.5).run(program)
    assert times == pytest.approx([0.51, 0.52, 0.53])
    with pytest.raises(ConfigError, match="bytes_per_s must be above 0, got 0"):
        LocalCluster(2, bytes_per_s=0.0)
