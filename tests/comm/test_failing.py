"""What a failing job prints and which status it ends with; over MPI see tests/mpi."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pydec.comm.failing import describe, exit_status, is_secondary
from pydec.errors import ConfigError, MismatchError, PeerLost, PeerTimeout, Stopped


def raised(error, cause=None):
    try:
        try:
            if cause is not None:
                raise cause
        except Exception:
            raise error  # noqa: B904 - the context is what is tested
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("x"), 1),
        (ConfigError("x"), 2),
        (MismatchError("x"), 1),
        (Stopped(2, 0), 130),
        (Stopped(15, 3), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status(error, status):
    assert exit_status(error) == status


def test_errors_from_another_rank_s_absence_are_secondary():
    assert is_secondary(PeerLost(1, "is gone"))
    assert is_secondary(raised(RuntimeError("x"), PeerTimeout(1, "is late")))
    assert not is_secondary(raised(RuntimeError("x"), KeyError("y")))


def test_a_traceback_carries_the_rank_and_the_last_line_says_all():
    lines = describe(raised(ValueError("bad\nluck")), 2).splitlines()
    assert lines[0] == "rank 2: Traceback (most recent call last):"
    assert lines[-1] == "pydec: error: rank 2: ValueError: bad luck"
    assert all(line.startswith("rank 2: ") for line in lines[:-1])


def test_an_error_that_explains_itself_is_one_line():
    assert describe(raised(ConfigError("no such task")), None) == "pydec: error: no such task\n"
    assert describe(raised(KeyError()), None).splitlines()[-1] == "pydec: error: KeyError"


def test_a_process_alone_prints_and_exits():
    code = "from pydec.comm.failing import fail_job\ntry:\n  1 / 0\nexcept Exception as e:\n  fail_job(e)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert done.stderr.splitlines()[-1] == "pydec: error: ZeroDivisionError: division by zero"
