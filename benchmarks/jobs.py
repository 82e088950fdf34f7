"""Starts a benchmark's ranks as a user would, with ``pydec run``, or on the hosts of a lab."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from .netlab.lab import Lab

_LIMIT_S = 1800
_STOP_S = 20.0  # pydec run ends a job that is to stop within less, if its ranks do not


def run_ranks(ranks: int, words: Sequence[str]) -> None:
    """Run a command on several ranks.

    Args:
        ranks: how many.
        words: what follows ``pydec run -n RANKS``: a command of pydec or a program.

    Raises:
        RuntimeError: it failed; shows the end of what it wrote to standard error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pydec", "run", "-n", str(ranks), *words],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"pydec run {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )


def measured(where: int | Lab, program: str, *words: object, flags: Sequence[str] = ()) -> Any:
    """What a program of this folder writes.

    Args:
        where: ranks on this machine, or hosts with one rank each.
        program: its file; its last word names the JSON file that rank 0 writes.
        words: those before.
        flags: for the mpirun of a lab.

    Raises:
        RuntimeError: as ``run_ranks``.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(Path(__file__).with_name(program)), *map(str, words), str(result)]
        if isinstance(where, int):
            run_ranks(where, command)
        else:
            where.run(command, timeout_s=_LIMIT_S, flags=flags)
        return json.loads(result.read_text())


class Started:
    """A job that runs; from ``started_ranks``."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self._process, self._said = process, said

    @property
    def pid(self) -> int:
        """Process id of its ``pydec run``."""
        return self._process.pid

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            RuntimeError: shows the end of what it wrote to standard error.
        """
        if self._process.poll() is not None:
            raise self._failed(f"ended with {self._process.returncode} too early")

    def wait(self, limit_s: float) -> None:
        """Wait until it has ended well.

        Raises:
            RuntimeError: it failed or took too long.
        """
        try:
            status = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise self._failed(f"took more than {limit_s:g} s") from None
        if status:
            raise self._failed(f"ended with {status}")

    def _failed(self, how: str) -> RuntimeError:
        self._said.seek(0)
        return RuntimeError(
            f"a job of pydec run {how}:\n{self._said.read()[-2000:].decode(errors='replace')}"
        )


@contextlib.contextmanager
def started_ranks(ranks: int, words: Sequence[str]) -> Iterator[Started]:
    """As ``run_ranks``, but go on beside the job; it is stopped, if it runs yet, when this is left."""
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "pydec", "run", "-n", str(ranks), "--max-restarts", "0", *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            yield Started(process, said)
        finally:
            for _ in range(3):  # pydec run takes each as more urgent than the one before
                if process.poll() is None:
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_STOP_S)
            if process.poll() is None:
                process.kill()
                process.wait()
