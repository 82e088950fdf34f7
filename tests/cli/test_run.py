"""pydec run from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydec.cli.run import Again
from pydec.errors import ConfigError

pytestmark = pytest.mark.timeout(90)
ROOT = Path(__file__).parents[2]
OUTSIDE = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("OMPI_", "PMIX_", "PRTE_", "PMI_"))
}


def start(*words, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "pydec", "run", *map(str, words)],
        env={**OUTSIDE, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*words, **env):
    process = start(*words, **env)
    out, err = process.communicate(timeout=80)
    return process.returncode, out, err


@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
def test_a_script_runs_on_every_rank_with_its_arguments(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pydec.comm.mpi import open_mpi\n"
        "with open(f'{sys.argv[1]}/{open_mpi().rank}', 'w') as file: file.write(sys.argv[2])\n"
    )
    status, _, err = run("-n", 3, script, tmp_path, "--epochs=2")
    assert (status, err) == (0, "")
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == ["--epochs=2"] * 3


@pytest.mark.usefixtures("mpirun")
def test_the_reason_of_a_failure_is_the_last_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\nfrom pydec.comm.mpi import open_mpi\n"
        "if open_mpi().rank == 1: raise ValueError('bad')\ntime.sleep(60)\n"
    )
    status, _, err = run("--no-fault-tolerance", "-n", 2, script)
    assert status == 1
    assert err.splitlines()[-1] == "pydec: error: rank 1: ValueError: bad"
    assert err.count("Traceback") == 1
    assert "MPI_ABORT" not in err


@pytest.mark.usefixtures("mpirun")
def test_a_rank_that_is_killed_is_named_and_the_others_finish(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\nfrom pydec.comm.mpi import open_mpi\n"
        "t = open_mpi(20.0)\n"
        "if t.rank == 0: os.kill(os.getpid(), 9)\n"
        "while t.lost() != {0}: time.sleep(0.01)\n"
    )
    status, _, err = run("-n", 3, script)
    assert (status, err) == (0, "pydec: rank 0 died on the way; the others have finished\n")


@pytest.mark.usefixtures("mpirun")
def test_a_stop_reaches_every_rank(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom pydec.comm.mpi import open_mpi\n"
        "from pydec.comm.stop import StopGuard\nfrom pydec.errors import Stopped\n"
        "t = open_mpi(60.0)\n"
        "with StopGuard(t) as guard:\n"
        "    try:\n"
        "        Path(sys.argv[1], f'ready-{t.rank}').touch()\n"
        "        t.irecv(t.rank, 0, memoryview(bytearray(1))).wait()\n"
        "    except Stopped as stopped:\n"
        "        Path(sys.argv[1], f'written-{t.rank}').write_text(str(stopped.signum))\n"
        "        guard.goodbye()\n"
        "        sys.exit(128 + stopped.signum)\n"
    )
    process = start("-n", 3, script, tmp_path)
    until_s = time.monotonic() + 60.0
    while len(list(tmp_path.glob("ready-*"))) < 3:
        assert time.monotonic() < until_s
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [(tmp_path / f"written-{rank}").read_text() for rank in range(3)] == ["2"] * 3
    assert err.splitlines()[-1] == "pydec: stopped by SIGINT"


@pytest.mark.parametrize(
    ("words", "env", "reason"),
    [
        (["-n", "0", "true"], {}, "at least 1 rank, got -n 0"),
        (["-n", "x", "true"], {}, "invalid int value"),
        (["-n", "2"], {}, "no command to run"),
        (["-n", "2", "--hosts", "a:b", "true"], {}, "host:slots"),
        (["-n", "2", "--secure", "on", "true"], {}, "others ask with pydec.init(secure='on')"),
        (["-n", "2", "nonexistent-program"], {}, "no program 'nonexistent-program'"),
        (
            ["-n", "2", "true"],
            {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
            "rank 0 of 4 of a job already",
        ),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(words, env, reason):
    status, out, err = run(*words, **env)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("pydec: error: ")
    assert reason in err


def test_a_run_that_is_lost_before_its_first_checkpoint_begins_anew_beside_it(tmp_path):
    first = ("py", "-m", "pydec", "train", "stdlib-lm", "--run-dir", f"{tmp_path}/R")
    again = Again(first)
    assert again.command(0) == first
    assert again.command(1) == (*first, "--run-dir", f"{tmp_path}/R-again-1")
    assert again.command(2)[-1] == f"{tmp_path}/R-again-2"
    assert again.progress() == 0


def test_a_run_gets_a_directory_and_another_program_does_not():
    words = Again(("py", "-m", "pydec", "train", "stdlib-lm:width=64")).command(0)
    assert words[-2] == "--run-dir"
    assert words[-1].startswith("runs/stdlib-lm-")
    assert Again(("py", "x.py")).command(1) == ("py", "x.py")


def test_a_run_that_is_resumed_is_sealed_as_it_was_on_hosts_that_are_new_to_it_too(tmp_path):
    words = ("py", "-m", "pydec", "train", "--resume", str(tmp_path))
    assert Again(words).command(0) == words  # its configuration is on another host
    (tmp_path / "config.json").write_text(json.dumps({"options": {"ledger": "L", "key": "", "pad": True}}))
    again = Again(words)
    assert again.command(0) == (*words, "--ledger", "L", "--pad")
    again.counted = 5
    assert again.command(1) == again.command(0)


def test_a_requeued_job_goes_on_where_it_has_a_checkpoint(tmp_path):
    first = ("py", "-m", "pydec", "train", "stdlib-lm", "--run-dir", f"{tmp_path}/R")
    assert Again(first, onward=True).command(0) == first
    (tmp_path / "R").mkdir()
    assert (
        Again(first, onward=True).command(0)[-1] == f"{tmp_path}/R-again-1"
    )  # lost before its first checkpoint
    (tmp_path / "R-again-1").mkdir()
    again = Again(first, onward=True)
    again.counted = 7
    assert again.command(0) == ("py", "-m", "pydec", "train", "--resume", f"{tmp_path}/R-again-1")
    assert Again(first).command(0) == first


@pytest.mark.parametrize("words", [["py", "x.py"], ["py", "-m", "pydec", "train", "stdlib-lm"]])
def test_auto_resume_needs_a_directory_to_look_into(words):
    with pytest.raises(ConfigError, match="pydec train with --run-dir DIR"):
        Again(words, onward=True)
