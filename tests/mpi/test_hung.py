"""A rank that is stopped (SIGSTOP) in mid-run, under Open MPI's fault tolerance; see also test_watch.py."""

from __future__ import annotations

import pytest

FLAGS = ["--with-ft", "ulfm", "--mca", "async_mpi_finalize", "1", "--prtemca", "state_base_recoverable", "1"]
PROGRAM = """
import os, signal, subprocess, sys
from pathlib import Path
import numpy as np
import pydec
from pydec import compress, gossip, topology
from pydec.comm.living import agree_who_lives
from pydec.comm.transport import Stream

folder = Path(sys.argv[1])
with pydec.init(deadline_s=60.0, grace=GRACE) as peer:
    algorithm, graph = gossip.make(ALGORITHM), topology.make("ring", size=peer.size)
    x = np.full(50_000, float(peer.rank), np.float32)
    mixers = algorithm.rule(x, compress.make("none"), graph.degree).mixers
    link = peer.transport.stream(Stream.GOSSIP)
    if algorithm.asynchronous:
        exchange = algorithm.connect(link, graph, mixers, epoch=0, seed=1)
    else:
        exchange = gossip.Exchange(link, graph, mixers, lost="drop")
    for number in range(80):
        peer.check()
        if peer.rank == 2 and number == 40:
            wake = f"until {UNTIL}; do sleep 0.1; done; kill -CONT {os.getpid()}"
            subprocess.Popen(["sh", "-c", wake], cwd=folder)
            os.kill(os.getpid(), signal.SIGSTOP)
        exchange.begin(number)
        exchange.finish()
    (folder / f"done-{peer.rank}").touch()
    exchange.flush()
    members = agree_who_lives(peer.transport)
    (folder / f"end-{peer.rank}").write_text(f"{members} {sorted(peer.watch.silent)}")
"""


def run(mpirun, tmp_path, until, *, grace, algorithm="dpsgd"):
    code = PROGRAM.replace("GRACE", repr(grace)).replace("ALGORITHM", repr(algorithm))
    done = mpirun(code.replace("{UNTIL}", until), 4, flags=FLAGS, timeout_s=200.0)
    assert done.returncode == 0, done.stderr
    return done, {path.name: path.read_text() for path in tmp_path.glob("end-*")}


@pytest.mark.timeout(240)
def test_a_rank_that_is_stopped_for_good_is_left_out_and_leaves_when_it_wakes(mpirun, tmp_path):
    """It goes on when the others have finished, and finds nobody there."""
    done, ends = run(mpirun, tmp_path, "[ -e end-0 ] && [ -e end-1 ] && [ -e end-3 ]", grace=5)
    assert ends == {f"end-{rank}": "(0, 1, 3) [2]" for rank in (0, 1, 3)}, done.stderr
    assert "pydec: rank 2 was silent for" in done.stderr
    assert "error" not in done.stderr


@pytest.mark.timeout(240)
def test_a_short_stop_costs_nobody_its_place(mpirun, tmp_path):
    done, ends = run(mpirun, tmp_path, "sleep 1", grace=60)
    assert ends == {f"end-{rank}": "(0, 1, 2, 3) []" for rank in range(4)}, done.stderr


@pytest.mark.timeout(240)
def test_asynchronous_gossip_does_not_wait_for_a_stopped_rank(mpirun, tmp_path):
    """It goes on only when the others have taken all their steps: they would wait for ever."""
    until = "[ -e done-0 ] && [ -e done-1 ] && [ -e done-3 ]"
    done, ends = run(mpirun, tmp_path, until, grace=100, algorithm="adsgd")
    assert ends == {f"end-{rank}": "(0, 1, 2, 3) []" for rank in range(4)}, done.stderr
