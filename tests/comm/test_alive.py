"""Who has a process's card sees it end; who is elsewhere sees nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pydec.comm.alive import CARD_BYTES, Watched, card

PROGRAM = "from pydec.comm.alive import card; print(card().hex(), flush=True); input()"
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells of processes' ends")


def test_the_end_of_a_process_is_seen_whether_or_not_it_was_watched_before():
    before, after = Watched(), Watched()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        shown = bytes.fromhex(process.stdout.readline().decode())
        before.add(shown)
        before.add(card())
        assert not before.gone()
        process.kill()
        process.wait()
    assert before.gone()
    after.add(shown)
    assert after.gone()
    for watched in (before, after):
        watched.close()
        watched.close()
    assert before.gone()


def test_processes_of_other_machines_count_as_living():
    watched = Watched()
    watched.add(bytes(CARD_BYTES))
    watched.add(bytes([1]) * CARD_BYTES)
    assert not watched.gone()
    watched.close()
