"""Hosts are asked through the program that would start Open MPI there, all at once and for a bounded time."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from pydec.launch.ask import answering, question
from pydec.launch.supervise import Signals

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def agent(tmp_path):
    """Knows host up, refuses host down, and hangs for any other."""
    path = tmp_path / "agent"
    path.write_text('#!/bin/sh\ncase $1 in up) shift; exec "$@";; down) exit 1;; *) exec sleep 60;; esac\n')
    path.chmod(0o755)
    return str(path)


def test_who_answers_in_time_is_there(agent):
    with Signals() as signals:
        assert answering(["up", "down", "hangs"], signals, agent, timeout_s=2.0) == {"up"}


def test_this_host_is_not_asked():
    with Signals() as signals:
        found = answering(["localhost", socket.gethostname(), "x"], signals, "/nonexistent/agent")
    assert found == {"localhost", socket.gethostname()}


def test_a_signal_ends_the_asking(agent):
    with Signals() as signals:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert answering(["hangs"], signals, agent, timeout_s=50.0) == set()
        assert signals.received == [signal.SIGTERM]


def test_the_question_fits_the_launcher():
    assert question("a")[0] == "ssh"
    assert "BatchMode=yes" in question("a")
    assert question("a", slurm=True)[0] == "srun"
    assert question("a", "/x", slurm=True) == ["/x", "a", "true"]
