"""A rank that is killed in mid-run, under Open MPI's fault tolerance: asynchronous gossip goes on."""

from __future__ import annotations

import pytest

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from pydec import compress, gossip, topology
from pydec.comm.mpi import open_mpi

transport = open_mpi(20.0)
graph, algorithm = topology.make("complete", size=transport.size), gossip.make(ALGORITHM)
x = np.full(200_000, float(transport.rank), np.float32)
mixers = algorithm.rule(x, compress.make("none"), graph.degree).mixers
exchange = algorithm.connect(transport, graph, mixers, epoch=0, seed=1)
until_s = time.monotonic() + 60.0
steps = 0
while steps < 40 or (not exchange.gone and time.monotonic() < until_s):
    exchange.begin(0)
    time.sleep(2e-3)
    exchange.finish()
    steps += 1
    if transport.rank == 1 and steps == 20:
        os.kill(os.getpid(), signal.SIGKILL)
exchange.begin(0)
exchange.finish()
exchange.flush()
folder = Path(sys.argv[1])
(folder / f"end-{transport.rank}").write_text(f"{sorted(exchange.gone)} {x.mean():.3f}")
while len(list(folder.glob("end-*"))) < 3 and time.monotonic() < until_s:
    time.sleep(0.01)  # who leaves without a farewell is dead to the others
os._exit(0)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("algorithm", ["adsgd", pytest.param("ad-psgd", marks=pytest.mark.slow)])
def test_the_others_go_on_and_meet(mpirun, tmp_path, algorithm):
    done = mpirun(PROGRAM.replace("ALGORITHM", repr(algorithm)), 4, flags=["--with-ft", "ulfm"])
    ends = {path.name: path.read_text() for path in tmp_path.glob("end-*")}
    assert set(ends) == {"end-0", "end-2", "end-3"}, done.stderr
    assert all(words.startswith("[1] ") for words in ends.values()), ends
    means = [float(words.split()[1]) for words in ends.values()]
    assert max(means) - min(means) < 1.0  # they started from 0, 2 and 3
