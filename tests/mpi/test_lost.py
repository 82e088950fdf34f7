"""Who is dead, asked without waiting for anybody, under Open MPI's fault tolerance."""

from __future__ import annotations

import pytest

FLAGS = ["--with-ft", "ulfm", "--mca", "async_mpi_finalize", "1", "--prtemca", "state_base_recoverable", "1"]
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from pydec.comm.mpi import open_mpi

transport = open_mpi(20.0)
assert transport.tolerant and not transport.lost()
if transport.rank in (0, 2):
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
until_s = time.monotonic() + 30.0
while len(transport.lost()) < 2 and time.monotonic() < until_s:
    time.sleep(5e-3)
(Path(sys.argv[1]) / f"end-{transport.rank}").write_text(str(sorted(transport.lost())))
transport.close()
"""


@pytest.mark.timeout(120)
def test_all_survivors_hear_of_every_death_without_a_message(mpirun, tmp_path):
    done = mpirun(PROGRAM, 4, flags=FLAGS)
    ends = {path.name: path.read_text() for path in tmp_path.glob("end-*")}
    assert ends == {"end-1": "[0, 2]", "end-3": "[0, 2]"}, done.stderr
    assert done.returncode == 0, done.stderr


SENDING = """
import os, signal, sys, threading, time
from pathlib import Path
import numpy as np
from pydec import compress, gossip, topology
from pydec.comm.living import agree_who_lives, mean_of_living
from pydec.comm.mpi import open_mpi
from pydec.gossip.exchange import Exchange

transport = open_mpi(30.0)
graph = topology.make("complete", size=transport.size)
x = np.full(10_000_000, float(transport.rank), np.float32)  # 40 MB to each neighbour
mixer = gossip.make("dpsgd").mixer(x, compress.make("none"), graph.degree)
exchange = Exchange(transport, graph, [mixer], lost="drop")
for number in range(12):
    if number == 4 and transport.rank in DYING:  # a thread ends the process in the middle of what it does
        threading.Timer(AFTER_S, os.kill, (os.getpid(), signal.SIGKILL)).start()
    exchange.begin(number)
    exchange.finish()
if transport.rank in DYING:
    time.sleep(60.0)
members = agree_who_lives(transport)
mean_of_living(transport, x)
(Path(sys.argv[1]) / f"end-{transport.rank}").write_text(f"{members} {sorted(exchange.gone)} {x[0]:.6f}")
transport.close()
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("dying", "after_s"),
    [
        ((0,), 0.03),
        pytest.param((1, 2), 0.06, marks=pytest.mark.slow),
        pytest.param((3,), 0.0, marks=pytest.mark.slow),
    ],
)
def test_a_kill_in_the_middle_of_40_mb_ends_neither_the_round_nor_the_job(mpirun, tmp_path, dying, after_s):
    code = SENDING.replace("DYING", repr(dying)).replace("AFTER_S", str(after_s))
    done = mpirun(code, 4, flags=FLAGS, timeout_s=200.0)
    assert done.returncode == 0, done.stderr
    ends = {path.name: path.read_text() for path in tmp_path.glob("end-*")}
    living = tuple(rank for rank in range(4) if rank not in dying)
    assert set(ends) == {f"end-{rank}" for rank in living}, done.stderr
    assert len(set(ends.values())) == 1, ends
    assert ends[f"end-{living[0]}"].startswith(f"{living} {sorted(dying)} "), ends
