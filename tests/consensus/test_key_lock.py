"""One process per key, and every start has its own number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pydec.consensus.key_lock import KeyLock
from pydec.errors import LedgerError

KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32
HOLD = """
import sys
from pathlib import Path
from pydec.consensus.key_lock import KeyLock
lock = KeyLock(Path(sys.argv[1]), bytes([1]) * 32)
print(lock.begin(), flush=True)
sys.stdin.read()
"""


def test_every_start_has_the_next_number(tmp_path):
    for start in (1, 2, 3):
        with KeyLock(tmp_path, KEY) as lock:
            assert (lock.starts, lock.begin()) == (start - 1, start)
    with KeyLock(tmp_path, KEY) as lock:  # taken, but not begun
        assert lock.starts == 3
    with KeyLock(tmp_path, OTHER) as lock:
        assert lock.begin() == 1


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(LedgerError, match=rf"is held by process {holder.pid}: one process per key"):
            KeyLock(tmp_path, KEY)
        KeyLock(tmp_path, OTHER).release()
    finally:
        holder.kill()
        holder.communicate()
    with KeyLock(tmp_path, KEY) as lock:
        assert lock.begin() == 2


def test_the_same_process_is_refused_too(tmp_path):
    with KeyLock(tmp_path, KEY), pytest.raises(LedgerError, match="is held by process"):
        KeyLock(tmp_path, KEY)


def test_bad_files_are_named(tmp_path):
    (tmp_path / f"{KEY.hex()[:16]}.lock").write_text("what is this\n")
    with pytest.raises(LedgerError, match=r"lock is damaged: it must hold a count"):
        KeyLock(tmp_path, KEY)
    with pytest.raises(LedgerError, match=r"none/.*lock cannot be opened: No such file"):
        KeyLock(Path(tmp_path / "none"), KEY)
