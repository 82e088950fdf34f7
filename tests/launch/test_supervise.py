"""The supervisor ends with the job's status, the reason last, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pydec.launch.supervise import Signals, Supervisor, sessions

pytestmark = pytest.mark.timeout(60)


def supervise(code, stop_s=30.0, kill_s=5.0, launcher="mpirun"):
    """Run a stand-in for mpirun or srun."""
    argv = [sys.executable, "-c", code]
    return Supervisor(argv, os.environ, launcher=launcher, stop_s=stop_s, kill_s=kill_s).run()


@pytest.mark.parametrize(
    ("status", "expected"), [(0, 0), (1, 1), (2, 2), (3, 1), (130, 130), (143, 143), (137, 1)]
)
def test_the_status_is_the_job_s(status, expected, capfd):
    assert supervise(f"raise SystemExit({status})") == expected
    assert capfd.readouterr().err == (
        "" if status == 0 else f"pydec: error: mpirun ended with status {status}\n"
    )


def test_the_reason_is_the_last_line(capfd):
    code = "import sys; sys.stderr.write('pydec: error: rank 1: x\\nmore\\n'); sys.exit(1)"
    assert supervise(code) == 1
    assert capfd.readouterr().err == "pydec: error: rank 1: x\nmore\npydec: error: rank 1: x\n"


def test_standard_input_is_empty():
    assert supervise("import sys; sys.exit(0 if sys.stdin.read() == '' else 1)") == 0


@pytest.mark.parametrize(
    ("signum", "forwarded", "status", "launcher"),
    [
        (signal.SIGTERM, "SIGUSR1", 143, "mpirun"),
        (signal.SIGINT, "SIGUSR2", 130, "mpirun"),
        (signal.SIGUSR1, "SIGUSR1", 143, "mpirun"),
        (signal.SIGINT, "SIGUSR1", 130, "mpiexec"),
    ],
)
def test_a_stop_is_forwarded_and_named(tmp_path, signum, forwarded, status, launcher, capfd):
    ready = tmp_path / "ready"
    code = (
        f"import signal, sys, pathlib; signal.signal(signal.{forwarded}, lambda *_: sys.exit(9));"
        f"pathlib.Path({str(ready)!r}).touch(); signal.pause()"
    )
    send_when(ready, signum)
    assert supervise(code, launcher=launcher) == status
    name = "SIGINT" if signum == signal.SIGINT else "SIGTERM"
    assert capfd.readouterr().err == f"pydec: stopped by {name}\n"


def test_a_job_that_does_not_stop_is_ended_and_nothing_is_left(tmp_path):
    ready = tmp_path / "ready"
    code = (
        "import signal, subprocess, sys, pathlib, time\n"
        "for name in ('SIGTERM', 'SIGUSR1'): signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], process_group=0)\n"
        f"path = pathlib.Path({str(ready)!r}); path.with_suffix('.tmp').write_text(str(child.pid))\n"
        "path.with_suffix('.tmp').rename(path); time.sleep(600)"
    ).replace("process_group=0", "preexec_fn=__import__('os').setpgrp")
    send_when(ready, signal.SIGTERM)
    assert supervise(code, stop_s=0.3, kill_s=0.3) == 143
    assert int(ready.read_text()) not in sessions()


def test_the_job_ends_when_the_supervisor_is_killed(tmp_path):
    ready = tmp_path / "ready"
    job = (
        f"import os, pathlib, time; pathlib.Path({str(ready)!r}).write_text(str(os.getpid())); time.sleep(99)"
    )
    code = (
        "import os, sys; from pydec.launch.supervise import Supervisor\n"
        f"Supervisor([sys.executable, '-c', {job!r}], os.environ).run()"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: ready.exists() and ready.read_text())
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: int(ready.read_text()) not in sessions())


def wait_for(condition):
    until_s = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def send_when(path, signum):
    def send():
        wait_for(path.exists)
        os.kill(os.getpid(), signum)

    threading.Thread(target=send, daemon=True).start()


SAY = "import os, sys; from pydec.comm.words import say; say(0, begins=True); say(1, begins=True); "


def test_who_died_on_the_way_is_named_and_the_job_is_done(capfd):
    assert supervise(SAY + "say(0, begins=False)") == 0
    assert capfd.readouterr().err == "pydec: rank 1 died on the way; the others have finished\n"


HANG = "from pydec.comm.words import say_out; import time; say_out(1); "


def test_who_hangs_when_all_others_have_finished_is_ended(capfd):
    assert supervise(SAY + HANG + "say(0, begins=False); time.sleep(600)", stop_s=0.3) == 0
    assert capfd.readouterr().err == "pydec: rank 1 died on the way; the others have finished\n"


def test_a_job_whose_ranks_are_all_cut_off_has_failed(capfd):
    assert supervise(SAY + HANG + "say_out(0); time.sleep(600)", stop_s=0.3) == 1
    assert capfd.readouterr().err == "pydec: error: mpirun was killed by signal 9\n"


def test_a_job_whose_ranks_all_died_has_failed_whatever_mpirun_says(capfd):
    assert supervise(SAY) == 1
    assert capfd.readouterr().err == "pydec: error: no rank has finished: all died, or a host was lost\n"


@pytest.mark.parametrize(
    ("code", "fault", "reason"),
    [
        ("pass", False, ""),
        ("sys.exit(2)", False, "pydec: error: mpirun ended with status 2"),
        ("os.kill(os.getpid(), 9)", True, "pydec: error: mpirun was killed by signal 9"),
        (
            (
                "print('-' * 74 + '\\nPRTE has lost communication with a remote daemon.\\n\\n  HNP daemon: "
                "[p@0,0] on node h0\\n  Remote daemon: [p@0,2] on node h2\\n' + '-' * 74, file=sys.stderr)"
            ),
            True,
            "pydec: error: host h2 was lost",
        ),
        (
            "print('pydec: error: rank 0: PeerLost: rank 1', file=sys.stderr); sys.exit(1)",
            True,
            "pydec: error: rank 0: PeerLost: rank 1",
        ),
        (
            "print('pydec: error: rank 1: ValueError: bad', file=sys.stderr); sys.exit(1)",
            False,
            "pydec: error: rank 1: ValueError: bad",
        ),
    ],
)
def test_another_start_helps_where_something_was_lost(code, fault, reason):
    with Signals() as signals:
        outcome = Supervisor([sys.executable, "-c", f"import os, sys; {code}"], os.environ).outcome(signals)
    assert (outcome.fault, outcome.reason) == (fault, reason)
    assert (outcome.status == 0) == (not reason)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("sys.exit(9)", True),  # MPICH's, of a rank that was killed
        ("sys.exit(255)", True),  # Intel's
        ("sys.exit(3)", False),  # a rank's own
        ("print('pydec: error: x', file=sys.stderr); sys.exit(255)", False),
    ],
)
def test_mpiexec_s_status_tells_of_a_death_where_no_rank_gives_a_reason(code, fault, capfd):
    with Signals() as signals:
        outcome = Supervisor([sys.executable, "-c", SAY + code], os.environ, launcher="mpiexec").outcome(
            signals
        )
    assert (outcome.status, outcome.fault) == (1, fault)
    assert fault == ("a rank died, and mpiexec ended with status" in outcome.reason)
    capfd.readouterr()


DIED = "sys.stderr.write('srun: error: n2: task 1: Killed\\n'); "


def test_srun_s_status_is_not_that_of_those_who_have_died(capfd):
    assert supervise(SAY + "say(0, begins=False); " + DIED + "sys.exit(137)", launcher="srun") == 0
    assert "pydec: rank 1 died on the way; the others have finished\n" in capfd.readouterr().err


def test_a_job_of_srun_that_nobody_finished_has_failed(capfd):
    assert supervise(SAY + DIED + "sys.exit(137)", launcher="srun") == 1
    assert capfd.readouterr().err.splitlines()[-1] == "pydec: error: rank 1 on n2: Killed"


def test_a_job_of_srun_that_was_stopped_after_a_death_was_stopped(capfd):
    left = "sys.stderr.write('srun: error: n1: task 0: Exited with exit code 143\\n'); "
    code = SAY + "say(0, begins=False); " + DIED + left + "sys.exit(143)"
    with Signals() as signals:
        outcome = Supervisor([sys.executable, "-c", code], os.environ, launcher="srun").outcome(signals)
    assert (outcome.status, outcome.fault) == (143, False)
    capfd.readouterr()


def test_a_job_of_srun_that_ended_itself_is_not_started_again(capfd):
    own = (
        "sys.stderr.write('pydec: error: rank 0: x\\nsrun: error: n1: task 0: Exited with exit code 2\\n'); "
    )
    with Signals() as signals:
        code = SAY + own + DIED + "sys.exit(2)"
        outcome = Supervisor([sys.executable, "-c", code], os.environ, launcher="srun").outcome(signals)
    assert (outcome.status, outcome.fault, outcome.reason) == (2, False, "pydec: error: rank 0: x")
    assert capfd.readouterr().err == "pydec: error: rank 0: x\n"


def test_srun_is_asked_to_end_ranks_that_hang(tmp_path, capfd):
    asked = tmp_path / "asked"
    code = (
        f"import signal, pathlib\ndef end(*_):\n    pathlib.Path({str(asked)!r}).touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
    )
    code = SAY + HANG + "say(0, begins=False)\n" + code + "time.sleep(600)"
    assert supervise(code, stop_s=0.3, launcher="srun") == 0
    assert asked.exists()
    assert capfd.readouterr().err == "pydec: rank 1 died on the way; the others have finished\n"
