"""Blocks of a megabyte go both ways at once over MPI, beside what the main thread sends."""

from __future__ import annotations

import time

import pytest

from pydec.comm.agree import agree
from pydec.comm.mail import Mail
from pydec.comm.transport import Stream

pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.timeout(60)]


def test_large_mail_crosses_beside_the_main_thread(mpi_transport):
    mail = Mail(mpi_transport.stream(Stream.LEDGER), 1_300_000)
    peers = [peer for peer in range(mpi_transport.size) if peer != mpi_transport.rank]
    arrived: list[tuple[int, bytes]] = []
    failed: list[BaseException] = []
    sizes = (10, 70_000, 1_300_000)

    def start() -> None:
        for size in sizes:
            for peer in peers:
                assert mail.send(peer, bytes([mpi_transport.rank]) * size)

    def tick() -> bool:
        try:
            note = mail.receive()
        except BaseException as error:
            failed.append(error)
            raise
        if note is not None and set(note[1]) == {note[0]}:  # no vote that an earlier test did not wait for
            arrived.append(note)
        return note is not None

    start()
    work = mpi_transport.background(tick, most_s=0.02)
    assert work is not None
    for number in range(20):  # as many on every rank
        agree(mpi_transport, {"the main thread goes on": str(number)})
    until_s = time.monotonic() + 30.0
    while len(arrived) < len(peers) * len(sizes) and time.monotonic() < until_s:
        time.sleep(0.001)
    work.close()
    assert not mail.lost
    assert not mail.refused
    for peer in peers:
        assert [len(data) for sender, data in arrived if sender == peer] == list(sizes)
