"""Several hosts on this machine: they talk, their links are limited, and nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pydec.cli import bench

lab = bench.load("netlab.lab")
pytestmark = pytest.mark.skipif(lab.missing() is not None, reason=str(lab.missing()))

EXCHANGE = """
import numpy as np
from mpi4py import MPI
comm = MPI.COMM_WORLD
got = np.empty(1 << 16)
comm.Sendrecv(np.full(1 << 16, float(comm.rank)), 1 - comm.rank, recvbuf=got, source=1 - comm.rank)
print("heard", int(got[0]), "on", MPI.Get_processor_name())
"""
HOLD = """
import sys, time
from pydec.cli import bench
lab = bench.load("netlab.lab")
with lab.Lab([lab.Link("1gbit")] * 2) as made:
    print(*made.hosts, flush=True)
    time.sleep(60)
"""


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout


@pytest.mark.timeout(120)
def test_ranks_on_two_hosts_talk_over_limited_links():
    with lab.Lab([lab.Link("1gbit"), lab.Link("100mbit", down="50mbit")]) as made:
        out = made.run([sys.executable, "-c", EXCHANGE], timeout_s=60)
        for rank, host in enumerate(made.hosts):
            assert f"heard {1 - rank} on {host}" in out
            assert made.bytes_sent()[host] > 1 << 19
        limits = subprocess.run(
            ["tc", "-n", made.hosts[1], "qdisc", "show", "dev", "eth0"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert "tbf" in limits
        assert "rate 100Mbit" in limits
        hosts = made.hosts
    assert not any(host in namespaces() for host in hosts)
    assert not any((Path("/etc/netns") / host).exists() for host in hosts)


@pytest.mark.timeout(120)
def test_a_job_that_fails_or_hangs_is_reported_and_leaves_no_process():
    with lab.Lab([lab.Link("1gbit")] * 2) as made:
        with pytest.raises(RuntimeError, match=r"(?s)ended with .*no such thing"):
            made.run([sys.executable, "-c", "raise SystemExit('no such thing')"], timeout_s=60)
        with pytest.raises(RuntimeError, match="took more than 3 s"):
            made.run([sys.executable, "-c", "import time; time.sleep(100)"], timeout_s=3)
        for host in made.hosts:
            left = subprocess.run(
                ["ip", "netns", "pids", host], check=True, capture_output=True, text=True
            ).stdout
            assert left.strip() == ""


@pytest.mark.timeout(120)
def test_a_lab_whose_process_was_killed_is_removed_by_the_next():
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        lost = holder.stdout.readline().split()
        os.kill(holder.pid, signal.SIGKILL)
    assert all(host in namespaces() for host in lost)
    with lab.Lab([lab.Link("1gbit")]):
        assert not any(host in namespaces() for host in lost)


def test_a_rate_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="must read like 100mbit or 1gbit, got '100 MB/s'"):
        lab.Link("100 MB/s")
