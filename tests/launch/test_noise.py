"""mpirun's usual texts are kept back, everything else passes as it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.launch.noise import NoiseFilter

RULE = b"-" * 74 + b"\n"
ABORT = RULE + b"MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\n\nNOTE: ...\n" + RULE
KILLED = (
    RULE + b"prterun noticed that process rank 2 with PID 1 on node a exited on\nsignal 9 (Killed).\n" + RULE
)
EXITED = (
    RULE + b"prterun detected that one or more processes exited with non-zero status,\n\n"
    b"   Process name: [prterun-vm-1@1,3]\n   Exit code:    7\n" + RULE
)
REAL = RULE + b"There are not enough slots available in the system\n" + RULE
COUNT = b"1 more process has sent help message help-mpi-api.txt / mpi-abort\n \0\n"


def through(data, size):
    noise = NoiseFilter()
    out = b"".join(noise.feed(data[i : i + size]) for i in range(0, len(data), size))
    return out + noise.finish(), noise


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_usual_texts_give_way_to_the_reason(size):
    out, noise = through(b"warning: x\npydec: error: rank 2: y\n" + ABORT + COUNT + KILLED, size)
    assert out == b"warning: x\npydec: error: rank 2: y\n"
    assert noise.reason == noise.last_line == "pydec: error: rank 2: y"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_is_not_usual_always_passes(size):
    out, noise = through(b"pydec: error: y\n" + REAL + b"- a list\n--\n12 monkeys\n", size)
    assert out == b"pydec: error: y\n" + REAL + b"- a list\n--\n12 monkeys\n"
    assert noise.last_line == "12 monkeys"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (KILLED, "rank 2 was killed by signal 9 (Killed)"),
        (EXITED, "rank 3 exited with status 7"),
        (ABORT, ""),
        (b"", ""),
    ],
)
def test_usual_texts_give_a_reason_where_the_job_gave_none(data, reason):
    out, noise = through(data, 100)
    assert noise.mpirun_reason() == reason
    assert out == (b"" if reason else data)


def test_a_progress_bar_is_not_held_back():
    noise = NoiseFilter()
    assert noise.feed(b"\r 12% |##  |") == b"\r 12% |##  |"
    assert noise.feed(b"\r 13%") == b"\r 13%"
    assert noise.feed(b"\n") == b"\n"


def test_an_unfinished_frame_is_shown_at_the_end():
    assert through(RULE + b"something real\n", 5)[0] == RULE + b"something real\n"


@given(
    st.lists(st.sampled_from([b"-", b"--\n", b"7 more", b"\r", b"\n", b" ", b"\0", b"text", RULE])),
    st.integers(1, 9),
)
def test_nothing_unusual_is_ever_lost(pieces, size):
    data = b"".join(pieces)
    assert through(data, size)[0] == data


SRUN = (
    b"slurmstepd-n1: error:  mpi/pmix_v4: _errhandler: n1 [0]: pmixp_client_v2.c:211: Error handler invoked\n"
    b"srun: error: n3: task 2: Killed\nsrun: launch/slurm: _step_signal: Terminating StepId=3.0\n"
    b"slurmstepd-n1: error: *** STEP 3.0 ON n1 CANCELLED AT 2026-11-29T07:44:24 ***\n"
    b"srun: error: n1: tasks 0-1: Exited with exit code 143\nsrun: Force Terminated StepId=3.0\n"
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_srun_says_at_the_end_gives_way_to_the_reason(size):
    out, noise = through(
        b"srun: Job step creation still disabled, retrying\npydec: stopped by SIGTERM\n" + SRUN, size
    )
    assert out == b"srun: Job step creation still disabled, retrying\npydec: stopped by SIGTERM\n"
    assert noise.killed()
    assert noise.exit_codes() == [143]
    assert noise.mpirun_reason() == "rank 2 on n3: Killed"


def test_a_node_that_srun_lost_is_the_reason_where_there_is_no_other():
    _, noise = through(
        b"srun: error: Node failure on n3\nsrun: error: n1: task 0: Exited with exit code 1\n", 99
    )
    assert noise.mpirun_reason() == "node n3 was lost"
    assert not noise.killed()
    assert not noise.node_lost  # which ends jobs of mpirun only


def test_what_open_mpi_says_of_a_broken_collective_for_ever_is_left_out():
    noise = NoiseFilter()
    line = (
        b"NBC_Progress: an error 75 was found during schedule 0x7f at row-offset 0 - aborting the schedule\n"
    )
    assert noise.feed(b"one\n" + line + line[:9]) == b"one\n"
    assert noise.feed(line[9:] + b"\n\0\n" + line + b"NBC\n\n") == b"NBC\n\n"
    assert noise.last_line == "NBC"
