"""Messages by key: what waits for a rank to prove its key, and what is dropped."""

from __future__ import annotations

from pydec.comm.local import LocalCluster
from pydec.comm.mail import Mail
from pydec.comm.transport import Stream
from pydec.consensus.channel import Channel
from pydec.consensus.hello import HELLO, Greeter
from pydec.crypto.signing import SigningKey

KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 4)]
CHAIN = bytes(32)


def test_messages_wait_until_keys_are_proved_then_come_in_order():
    def program(transport):
        met, faults, heard = [], [], []
        greeter = Greeter(KEYS[transport.rank], CHAIN, transport.rank, 1)
        channel = Channel(
            transport.stream(Stream.LEDGER), greeter, 1 << 20, met.append, lambda *fault: faults.append(fault)
        )
        other = KEYS[1 - transport.rank].public
        for number in range(70):  # more than wait for a node that is not known
            channel.send(other, bytes([1, number]))
        channel.send(KEYS[transport.rank].public, b"to itself")
        until_s = transport.now() + 1.0
        while transport.now() < until_s:
            channel.greet()
            if (message := channel.receive()) is not None:
                heard.append(message)
        return met, faults, heard, list(channel.nodes()), channel.rank_of(other)

    for rank, (met, faults, heard, nodes, other) in enumerate(LocalCluster(2, delay_s=0.001).run(program)):
        assert met == nodes == [KEYS[1 - rank].public]
        assert not faults
        assert heard == [(KEYS[1 - rank].public, bytes([1, number])) for number in range(6, 70)]
        assert other == 1 - rank


def test_a_rank_without_a_key_is_heard_by_nobody_and_its_lies_are_told():
    def program(transport):
        link = transport.stream(Stream.LEDGER)
        if transport.rank == 1:
            mail = Mail(link, 1 << 20)
            mail.send(0, b"\x01 a vote")
            mail.send(0, bytes([HELLO]) + bytes(10))
            return None
        faults: list[tuple[int, str]] = []
        greeter = Greeter(KEYS[0], CHAIN, 0, 1)
        channel = Channel(link, greeter, 1 << 20, lambda node: None, lambda *fault: faults.append(fault))
        until_s = transport.now() + 1.0
        while transport.now() < until_s:
            channel.greet()
            assert channel.receive() is None
        return faults

    faults = LocalCluster(2, delay_s=0.001).run(program)[0]
    assert faults == [(1, "rank 1 sent 11 bytes that are no greeting")]
