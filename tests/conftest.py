"""Tests marked ``mpi`` run in an MPI job: this one under mpirun, else one that pytest starts itself.

Under mpirun every rank runs the same tests; after each, the ranks tell rank 0 what failed, and the
first failure ends the run on all, because messages of a failed test may still be on their way.
Rank 0 alone reports. Plain pytest starts ``mpirun -n 4`` with exactly the mpi tests that were
selected, before the first of them, and shows for each what rank 0 said.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import settings

from pydec.comm.detect import launch
from pydec.comm.transport import Stream

settings.register_profile("pydec", deadline=None)  # load must not fail a test
settings.load_profile("pydec")

ROOT = Path(__file__).parent
RANKS = 4
JOB_LIMIT_S = 600.0
_LAUNCH = launch()
_VERDICT_TAG = 900_001
_reports = pytest.StashKey[list[str]]()
_outcomes = pytest.StashKey[dict[str, list[str]]]()


def pytest_addoption(parser):
    parser.addoption(
        "--mpi-report", help="file for what rank 0 says about each test; pytest passes it to its job"
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if _LAUNCH is not None and _LAUNCH.rank > 0:
        config.pluginmanager.unregister(name="terminalreporter")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    """Under mpirun, tests that start an mpirun themselves are left out: Open MPI refuses to nest."""
    for item in items:
        if (
            "mpirun" in item.fixturenames
            or item.get_closest_marker("mpi") is not None
            or "mpi" in item.path.relative_to(ROOT).parts
        ):
            item.add_marker(pytest.mark.job)
    if _LAUNCH is not None:
        items[:] = [item for item in items if "mpirun" not in item.fixturenames]


@pytest.fixture(scope="session")
def mpi_transport():
    """The transport of the job; None in the pytest that starts a job for its mpi tests."""
    if _LAUNCH is None:
        yield None
        return
    from pydec.comm.mpi import open_mpi

    transport = open_mpi(deadline_s=20.0)
    yield transport
    transport.close()


@pytest.fixture(autouse=True)
def _large_enough(request):
    marker = request.node.get_closest_marker("mpi")
    size = RANKS if _LAUNCH is None else _LAUNCH.size
    if marker is not None and size < marker.kwargs.get("min_size", 1):
        pytest.skip(f"needs {marker.kwargs['min_size']} ranks, this job has {size}")


@pytest.fixture
def run_locally():
    """Runs a program on a local cluster of the given size and returns its results by rank."""
    from pydec.comm.local import LocalCluster

    return lambda program, size: LocalCluster(size).run(program)


@pytest.fixture
def mpirun(tmp_path):
    """Starts Python code on n ranks and returns the finished process; no process may be left behind."""
    from pydec.launch.mpirun import Job, arguments, environment, family, find_mpirun
    from pydec.launch.supervise import kill_session, sessions

    def start(code, ranks=RANKS, *, flags=(), act=None, timeout_s=60.0):
        script = tmp_path / "program.py"
        script.write_text(code)
        job = Job(ranks, (sys.executable, str(script), str(tmp_path)))
        program = find_mpirun()
        argv = arguments(job, program, family(program), cores=1)
        argv[1:1] = flags
        root = str(Path(__file__).parents[1])
        env = environment(job, {**os.environ, "PYTHONPATH": root}, 1, os.geteuid() == 0)
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            if act is not None:
                act(process)
            out, err = process.communicate(timeout=timeout_s)
            until_s = time.monotonic() + 10.0  # Open MPI with fault tolerance ends before its ranks do
            while left := [pid for pid, session in sessions().items() if session == process.pid]:
                assert time.monotonic() < until_s, f"processes {left} are still there"
                time.sleep(0.05)
        finally:
            kill_session(process.pid)
            process.communicate()
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    return start


# Under mpirun: ranks fail together, rank 0 reports.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if _LAUNCH is None or item.get_closest_marker("mpi") is None:
        return report
    mine = item.stash.setdefault(_reports, [])
    if report.failed:
        mine.append(f"rank {_LAUNCH.rank}, {report.when}:\n{report.longreprtext}"[:8000])
    if report.when == "teardown":
        texts = _share("\n".join(mine))
        if texts:
            item.session.shouldfail = "a test failed, and its messages may still be on their way"
            if not mine:
                report.outcome, report.longrepr = "failed", texts
        target = item.config.getoption("--mpi-report")
        if target and _LAUNCH.rank == 0:
            skipped = "" if not item.stash.get(_outcomes, {}) else "skipped"
            line = json.dumps([item.nodeid, "failed" if texts else skipped or "passed", texts])
            with Path(target).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    elif report.skipped:
        item.stash[_outcomes] = {"skipped": []}
    return report


def _share(text):
    """What failed on any rank, known to all ranks after every test."""
    from pydec.comm.mpi import open_mpi

    link = open_mpi(deadline_s=20.0).stream(Stream.CONTROL)
    if link.rank > 0:
        into = bytearray(1 << 20)
        receive = link.irecv(0, _VERDICT_TAG, memoryview(into))
        link.isend(0, _VERDICT_TAG, memoryview(text.encode())).wait(90.0)
        return bytes(into[: receive.wait(90.0)]).decode()
    texts = [text]
    for peer in range(1, link.size):
        into = bytearray(1 << 16)
        texts.append(bytes(into[: link.irecv(peer, _VERDICT_TAG, memoryview(into)).wait(90.0)]).decode())
    all_of_it = "\n".join(filter(None, texts))
    for peer in range(1, link.size):
        link.isend(peer, _VERDICT_TAG, memoryview(all_of_it.encode()[: 1 << 20])).wait(90.0)
    return all_of_it


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if _LAUNCH is not None and _LAUNCH.rank > 0:
        session.exitstatus = 0  # mpirun kills the others as soon as one fails; rank 0's status is the job's


# Plain pytest: one job for the selected mpi tests.


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    if _LAUNCH is None and item.get_closest_marker("mpi") is not None and _outcomes not in item.config.stash:
        item.config.stash[_outcomes] = _run_job(item.session)  # before the test's own time limit starts
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if _LAUNCH is not None or pyfuncitem.get_closest_marker("mpi") is None:
        return None
    outcomes = pyfuncitem.config.stash[_outcomes]
    outcome, text = outcomes.get(pyfuncitem.nodeid, ["lost", "\n".join(outcomes["job"])])
    if outcome == "skipped":
        pytest.skip("skipped in the MPI job")
    if outcome != "passed":
        pytest.fail(f"{outcome} in the MPI job:\n{text}", pytrace=False)
    return True


def _run_job(session):
    """Outcome and text of every mpi test that was selected, by node id."""
    from pydec.launch.mpirun import Job, arguments, environment, family, find_mpirun
    from pydec.launch.supervise import kill_session

    names = [item.nodeid for item in session.items if item.get_closest_marker("mpi") is not None]
    report = Path(session.config._tmp_path_factory.mktemp("mpi")) / "report.jsonl"
    options = ["-q", "-m", "mpi", "-p", "no:cacheprovider", f"--mpi-report={report}"]
    job = Job(RANKS, (sys.executable, "-m", "pytest", *options, *names))
    program = find_mpirun()
    process = subprocess.Popen(
        arguments(job, program, family(program), cores=1),
        env=environment(job, os.environ, 1, os.geteuid() == 0),
        cwd=session.config.rootpath,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=JOB_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = f"the job took more than {JOB_LIMIT_S:g} s"
    finally:
        kill_session(process.pid)
        process.communicate()
    outcomes = {"job": [f"the job ended with status {process.returncode} before this test did", said[-8000:]]}
    if report.exists():
        for line in report.read_text(encoding="utf-8").splitlines():
            name, outcome, text = json.loads(line)
            outcomes[name] = [outcome, text]
    return outcomes
