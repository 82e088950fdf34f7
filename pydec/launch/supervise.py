"""Runs mpirun in a session of its own and sees the job through: signals, last words, leftovers."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from pydec.launch.noise import NoiseFilter

STOP_S = 30.0  # how long the ranks may take to write what they have
KILL_S = 5.0  # how long mpirun may take to end them after that
_FORWARD = {signal.SIGTERM: signal.SIGUSR1, signal.SIGINT: signal.SIGUSR2}  # see comm/stop.py
_STATUSES = (0, 1, 2, 130, 143)


class Supervisor:
    """One run of mpirun.

    Args:
        argv: the command line.
        env: the environment.
        stop_s, kill_s: patience, see ``STOP_S`` and ``KILL_S``.
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], *, stop_s: float = STOP_S, kill_s: float = KILL_S
    ) -> None:
        self._argv = list(argv)
        self._env = dict(env)
        self._patience = (stop_s, kill_s)
        self._signals: list[int] = []  # received by the supervisor
        self._next_step_s = float("inf")
        self._steps = 0

    def run(self) -> int:
        """Run to the end and return the exit status: 0, 1, 2, 130 or 143.

        The reason of a status that is not 0 is the last line on standard error. No process of the
        job is left on this machine. Call it from the main thread.
        """
        previous = {signum: signal.signal(signum, self._handle) for signum in _FORWARD}
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        wakeup = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        try:
            return self._run(wake)
        finally:
            signal.set_wakeup_fd(wakeup)
            for signum, handler in previous.items():
                signal.signal(signum, handler)
            os.close(wake)
            os.close(waker)

    def _run(self, wake: int) -> int:
        noise = NoiseFilter()
        mpirun = subprocess.Popen(
            self._argv,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - one prctl, and no thread runs here yet
        )
        assert mpirun.stderr is not None
        try:
            self._relay(mpirun, mpirun.stderr.fileno(), wake, noise)
            status = mpirun.wait()
        finally:
            kill_session(mpirun.pid)
            mpirun.stderr.close()
            mpirun.wait()
        _write(noise.finish())
        return self._conclude(status, noise)

    def _relay(self, mpirun: subprocess.Popen[bytes], stderr: int, wake: int, noise: NoiseFilter) -> None:
        """Pass standard error on, and signals, until the job's end."""
        open_ends = [stderr, wake]
        while stderr in open_ends or mpirun.poll() is None:
            self._step(mpirun)
            ready, _, _ = select.select(open_ends, [], [], 0.2)
            if wake in ready:
                os.read(wake, 4096)
            if stderr in ready:
                data = os.read(stderr, 65536)
                if data:
                    _write(noise.feed(data))
                else:
                    open_ends.remove(stderr)
            elif mpirun.poll() is not None:
                return  # a process outside the job may hold the other end of standard error

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._signals.append(signum)

    def _step(self, mpirun: subprocess.Popen[bytes]) -> None:
        """Ask the ranks to stop, then mpirun to end them, then end everything."""
        asked = min(len(self._signals), 2)  # a second signal means that the first took too long
        if asked <= self._steps and (not asked or time.monotonic() < self._next_step_s):
            return
        self._steps += 1
        step = (_FORWARD[signal.Signals(self._signals[0])], signal.SIGTERM, signal.SIGKILL)[
            min(self._steps, 3) - 1
        ]
        if step == signal.SIGKILL:
            kill_session(mpirun.pid)
        elif mpirun.poll() is None:
            mpirun.send_signal(step)
        self._next_step_s = time.monotonic() + self._patience[min(self._steps, 2) - 1]

    def _conclude(self, status: int, noise: NoiseFilter) -> int:
        """The exit status, after the reason as the last line."""
        if self._signals:
            status = 128 + self._signals[0]
            reason = f"pydec: stopped by {signal.Signals(self._signals[0]).name}"
        elif status == 0:
            return 0
        else:
            what = noise.mpirun_reason()
            if status < 0:
                what = what or f"mpirun was killed by signal {-status}"
            reason = noise.reason or f"pydec: error: {what or f'mpirun ended with status {status}'}"
        if noise.last_line != reason:
            _write(f"{reason}\n".encode())
        return status if status in _STATUSES else 1


def kill_session(session: int) -> None:
    """Kill every process of a session, again and again until none is left."""
    for _ in range(100):
        members = [pid for pid, sid in sessions().items() if sid == session]
        if not members:
            return
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def sessions() -> dict[int, int]:
    """Session of every process on this machine that is not a zombie; empty where there is no /proc."""
    found: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command, in parentheses, may hold anything; state and session are fields 1 and 4 after it.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if fields and fields[0] not in "ZX":
            found[int(entry.parent.name)] = int(fields[3])
    return found


def _die_with_parent() -> Callable[[], None] | None:
    """Ask Linux to end mpirun when the supervisor dies without a word."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    death_signal, term = 1, int(signal.SIGTERM)  # PR_SET_PDEATHSIG

    def ask() -> None:
        libc.prctl(death_signal, term, 0, 0, 0)

    return ask


def _write(data: bytes) -> None:
    while data:
        try:
            data = data[os.write(2, data) :]
        except OSError:
            return  # nobody reads any more
