"""What somebody sees who listens between two hosts, with and without seals; the suite ``secure``."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from pydec.cli import bench
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey

lab = bench.load("netlab.lab")
KEY = SigningKey(bytes([5]) * 32)
LABEL = b"patient 4711, diagnosis confidential. "
TALK = """
import math, sys
import numpy as np
import pydec
from pydec.comm.sealing import Sealing
from pydec.comm.transport import Stream
mode, key, path = sys.argv[1:]
label = open(path, "rb").read()  # mpirun sends command lines in the clear
with pydec.init(secure=Sealing(mode, key=key), deadline_s=90.0) as peer:
    other = 1 - peer.rank
    x = np.arange(4096, dtype=np.float32) * np.float32(math.pi)
    for stream in Stream:
        link, y = peer.transport.stream(stream), np.zeros_like(x)
        receive, send = link.irecv(other, 3, memoryview(y)), link.isend(other, 3, memoryview(x))
        assert receive.wait() == send.wait() == x.nbytes
        assert np.array_equal(x, y)
        if stream is Stream.CONTROL:
            continue  # its posts are the peer's own
        link.post(other, 100 * label)
        while (note := link.poll()) is None:
            pass
        assert note == (other, 100 * label)
    print(type(peer.transport).__name__)
"""
LISTEN = """
import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
link.bind(("eth0", 0))
print("listening", flush=True)
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.write(link.recv(1 << 18))
"""


def overheard(made, folder, mode, key):
    """Every byte on the second host's link while two ranks talk, and what they said of their transport."""
    path = folder / f"{mode}.pcap"
    command = made.inside(1, [sys.executable, "-c", LISTEN, str(path)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            said = made.run([sys.executable, "-c", TALK, mode, key, str(folder / "label")], timeout_s=150)
            time.sleep(0.5)  # what was heard last is written
        finally:
            listener.kill()
    return path.read_bytes(), said


@pytest.mark.slow
@pytest.mark.skipif(lab.missing() is not None, reason=str(lab.missing()))
@pytest.mark.timeout(400)
def test_a_listener_between_two_hosts_finds_plaintext_without_seals_and_none_with(tmp_path):
    tensor = np.arange(4096, dtype=np.float32) * np.float32(np.pi)
    keyfile.create(tmp_path / "key", KEY)
    (tmp_path / "label").write_bytes(LABEL)
    with lab.Lab([lab.Link("1gbit")] * 2) as made:
        plain, said = overheard(made, tmp_path, "off", "")
        assert said.count("MpiTransport") == 2
        assert plain.count(LABEL) > 500
        seen = [tensor[at : at + 8].tobytes() in plain for at in range(100, 4000, 300)]
        assert sum(seen) > len(seen) / 2  # the others lie across the ends of packets
        _, said = overheard(made, tmp_path, "auto", "")
        assert said.count("SecureTransport") == 2  # because they are on two hosts
        sealed, said = overheard(made, tmp_path, "on", str(tmp_path / "key"))
        assert said.count("SecureTransport") == 2
        assert len(sealed) > 5 * 2 * tensor.nbytes
        for secret in (LABEL, LABEL[:12], KEY.public, KEY.seed):
            assert secret not in sealed
        assert not any(tensor[at : at + 3].tobytes() in sealed for at in range(0, 4093, 3))


@pytest.mark.timeout(100)
def test_the_suite_compares_seals_with_the_raw_cipher_and_counts_handshakes():
    suite, harness = bench.load("suite_secure"), bench.load("harness")
    quick = harness.Options(quick=True)
    rows = [*suite.sealing(quick), *suite.at_rest(quick), suite.handshakes(4)]
    assert [row.suite for row in rows] == ["secure"] * len(rows)
    assert all(row.value > 0 and row.ratio > 0 for row in rows)
