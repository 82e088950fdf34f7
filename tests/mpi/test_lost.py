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
