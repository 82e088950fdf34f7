"""Three hosts as network namespaces; one dies with its daemon, and the job starts again on the others."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydec.cli import bench

lab = bench.load("netlab.lab")
pytestmark = [
    pytest.mark.skipif(lab.missing() is not None, reason=str(lab.missing())),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from pathlib import Path
from pydec.comm.mpi import open_mpi
t = open_mpi(60.0)
Path(sys.argv[1], f"ready-{t.size}-{t.rank}").touch()
while t.size == 3:
    t.lost()
    time.sleep(0.01)
"""


@pytest.fixture
def hosts():
    with lab.Lab([lab.Link("1gbit")] * 3) as made:
        yield made


def start(made, command, *options):
    names = ",".join(f"{host}:1" for host in made.hosts)
    words = ["run", "-n", "3", "--hosts", names, "--launch-agent", str(made.launcher), *options, *command]
    return subprocess.Popen(
        made.inside(0, [sys.executable, "-m", "pydec", *words]),
        env={
            **made.environment(),
            "PYTHONPATH": str(ROOT),
            "OMPI_MCA_btl_tcp_if_include": "eth0",
            "PRTE_MCA_prte_if_include": "eth0",
        },
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, process):
    until_s = time.monotonic() + 120.0
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until_s
        time.sleep(0.05)


def left(made):
    """What still runs on the hosts that are there."""
    return [
        pid
        for host in made.hosts[:2]
        for pid in subprocess.run(
            ["ip", "netns", "pids", host], check=True, capture_output=True, text=True
        ).stdout.split()
    ]


def finish(process, made):
    try:
        _, err = process.communicate(timeout=150)
    finally:
        made_left = left(made)
        until_s = time.monotonic() + 10.0
        while made_left and time.monotonic() < until_s:
            time.sleep(0.1)
            made_left = left(made)
        process.kill()
    assert not made_left, err
    return process.returncode, err


@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
def test_a_lost_host_costs_a_start(hosts, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    process = start(hosts, [str(script), str(tmp_path)])
    wait_for(lambda: len(list(tmp_path.glob("ready-3-*"))) == 3, process)
    hosts.lose(2)
    status, err = finish(process, hosts)
    assert status == 0, err
    assert "lost; starting again at once" in err, err  # what mpirun says of it differs from time to time
    assert f"start 2 with 2 ranks on {hosts.hosts[0]}, {hosts.hosts[1]}" in err
    assert {path.name for path in tmp_path.glob("ready-2-*")} == {"ready-2-0", "ready-2-1"}
