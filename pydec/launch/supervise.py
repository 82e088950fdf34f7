"""Runs mpirun, or srun, in a session of its own and sees the job through: signals, last words, leftovers."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from pydec.comm.orders import order
from pydec.comm.words import VARIABLE, Listener
from pydec.launch.noise import NoiseFilter

if TYPE_CHECKING:
    from pydec.launch.scale import Desk

STOP_S = 30.0  # how long the ranks may take to write what they have
KILL_S = 5.0  # how long mpirun may take to end them after that
_FORWARD = {  # see comm/stop.py; SIGUSR1 is what schedulers send before a job's time is over
    signal.SIGTERM: signal.SIGUSR1,
    signal.SIGINT: signal.SIGUSR2,
    signal.SIGUSR1: signal.SIGUSR1,
}
_STATUSES = (0, 1, 2, 130, 143)
_DEATHS = (
    *range(4, 16),
    255,
)  # MPICH's statuses where a signal ended ranks: theirs in one, bit by bit; Intel's
_LEFT = 128 + signal.SIGTERM  # of ranks that have written what they have and gone


class Signals:
    """SIGINT and SIGTERM, or SIGUSR1 in its place, kept while this is entered; for the main thread."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.wake = -1  # readable after a signal

    def __enter__(self) -> Signals:
        self._previous = {signum: signal.signal(signum, self._handle) for signum in _FORWARD}
        self.wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._wakeup = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        os.close(self.wake)
        os.close(self._waker)

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until a signal has come."""
        if not self.received:
            select.select([self.wake], [], [], seconds)

    def stopped(self) -> Outcome:
        """What a job comes to that ends by a signal."""
        first = signal.Signals(self.received[0])
        return Outcome(128 + first, f"pydec: stopped by {first.name}")

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.received.append(signal.SIGTERM if signum == signal.SIGUSR1 else signum)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Args:
        status: exit status for ``pydec run``: 0, 1, 2, 130 or 143.
        reason: last line for standard error; "" where the status is 0.
        fault: whether it ended because a process or host was lost, so that another start may help.
        lost: ranks that died while the others ended well.
        shown: whether the reason is the last line already.
        left: whether the ranks left because ``pydec scale`` asked for another number of them.
    """

    status: int
    reason: str = ""
    fault: bool = False
    lost: tuple[int, ...] = ()
    shown: bool = False
    left: bool = False


def conclude(outcome: Outcome) -> int:
    """Write the last words and return the exit status."""
    if outcome.lost:
        who = f"rank{'s' if len(outcome.lost) > 1 else ''} {', '.join(map(str, outcome.lost))}"
        write(f"pydec: {who} died on the way; the others have finished\n".encode())
    if outcome.reason and not outcome.shown:
        write(f"{outcome.reason}\n".encode())
    return outcome.status


class Supervisor:
    """One run of mpirun.

    Args:
        argv: the command line.
        env: the environment.
        desk: where requests for another number of ranks come in; None takes none.
        launcher: "mpirun", of Open MPI; "srun", whose status is not 0 when a rank has died, although the
            others have finished, and which ends ranks on other nodes when it is asked to, not when it is
            killed; or "mpiexec", MPICH's, which ends all ranks when one dies and passes SIGUSR1 alone on.
        stop_s, kill_s: patience, see ``STOP_S`` and ``KILL_S``.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        desk: Desk | None = None,
        launcher: str = "mpirun",
        stop_s: float = STOP_S,
        kill_s: float = KILL_S,
    ) -> None:
        self._desk = desk
        self._launcher = launcher
        self._argv = list(argv)
        self._env = {**env, VARIABLE: "1" if desk is None else str(desk.door.orders)}
        self._patience = (stop_s, kill_s)
        self._next_step_s = float("inf")
        self._finished_s = float("inf")  # when only ranks were left that the others had left out
        self._swept = False
        self._grows = False  # whether newcomers were asked for: those that fail decide mpirun's status, too
        self._steps = 0
        self._signals = Signals()
        self._heard = Listener()

    def run(self) -> int:
        """Run to the end and return the exit status: 0, 1, 2, 130 or 143.

        The reason of a status that is not 0 is the last line on standard error. No process of the
        job is left on this machine. Call it from the main thread.
        """
        with Signals() as signals:
            return conclude(self.outcome(signals))

    @property
    def counted(self) -> int:
        """Step of the newest checkpoint that all ranks said to have; -1 without one."""
        return self._heard.counted

    def outcome(self, signals: Signals) -> Outcome:
        """Run to the end, once, and tell how it ended; ``conclude`` writes the reason."""
        self._signals = signals
        noise = NoiseFilter()
        mpirun = subprocess.Popen(
            self._argv,
            env=self._env,
            stdin=subprocess.PIPE if self._takes_orders else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - one prctl, and no thread runs here yet
        )
        assert mpirun.stderr is not None
        try:
            self._relay(mpirun, mpirun.stderr.fileno(), signals.wake, noise)
            status = mpirun.wait()
        finally:
            kill_session(mpirun.pid)
            mpirun.stderr.close()
            if mpirun.stdin is not None:
                with suppress(OSError):
                    mpirun.stdin.close()
            mpirun.wait()
        write(noise.feed(self._heard.finish()) + noise.finish())
        return self._judge(status, noise)

    def _relay(self, mpirun: subprocess.Popen[bytes], stderr: int, wake: int, noise: NoiseFilter) -> None:
        """Pass standard error on, and signals, until the job's end."""
        door = [] if self._desk is None else [self._desk.fileno()]
        open_ends = [stderr, wake, *door]
        while stderr in open_ends or mpirun.poll() is None:
            self._step(mpirun)
            if self._desk is not None:
                self._desk.replace_lost(self._heard.out, self._signals)
                self._grow(mpirun, self._desk)
            self._sweep(mpirun)
            ready, _, _ = select.select(open_ends, [], [], 0.2)
            if wake in ready:
                os.read(wake, 4096)
            if self._desk is not None and self._desk.fileno() in ready:
                self._desk.serve(self._signals)
            if stderr in ready:
                data = os.read(stderr, 65536)
                if data:
                    write(noise.feed(self._heard.feed(data)))
                    if self._desk is not None:
                        self._hear(self._desk)
                    if self._desk is not None and self._heard.stepped:
                        self._desk.stepped()
                else:
                    open_ends.remove(stderr)
            elif mpirun.poll() is not None:
                return  # a process outside the job may hold the other end of standard error

    def _grow(self, mpirun: subprocess.Popen[bytes], desk: Desk) -> None:
        """Tell the ranks of newcomers."""
        desk.overdue()
        line = desk.order()
        if line and mpirun.stdin is not None:
            self._grows = True
            self._tell(mpirun.stdin.fileno(), line)

    def _hear(self, desk: Desk) -> None:
        """What the ranks have said of newcomers."""
        while self._heard.growth:
            desk.hear(*self._heard.growth.pop(0))

    def _step(self, mpirun: subprocess.Popen[bytes]) -> None:
        """Ask the ranks to stop, then mpirun to end them, then end everything."""
        received = self._signals.received or ([signal.SIGTERM] if self._leaving else [])
        asked = min(len(received), 2)  # a second signal means that the first took too long
        if asked <= self._steps and (not asked or time.monotonic() < self._next_step_s):
            return
        self._steps += 1
        step = (_FORWARD[signal.Signals(received[0])], signal.SIGTERM, signal.SIGKILL)[
            min(self._steps, 3) - 1
        ]
        if step == signal.SIGUSR2 and self._launcher == "mpiexec":
            step = signal.SIGUSR1
        if self._steps == 1:
            self._order(mpirun)
        if step == signal.SIGKILL:
            kill_session(mpirun.pid)
        elif mpirun.poll() is None:
            mpirun.send_signal(step)
        self._next_step_s = time.monotonic() + self._patience[min(self._steps, 2) - 1]

    def _order(self, mpirun: subprocess.Popen[bytes]) -> None:
        """Say how many ranks are to go on, before the signal that makes them leave."""
        if mpirun.stdin is None:
            return
        change = None if self._desk is None or self._signals.received else self._desk.change
        self._tell(mpirun.stdin.fileno(), order(0 if change is None else change.after.ranks))

    def _tell(self, stdin: int, line: bytes) -> None:
        """Give the ranks an order."""
        if self._desk is not None:
            self._desk.door.order(line)
        with suppress(OSError):  # it has ended meanwhile
            os.write(stdin, line)

    def _sweep(self, mpirun: subprocess.Popen[bytes]) -> None:
        """End ranks that hang when all others have finished without them."""
        heard, now_s = self._heard, time.monotonic()
        growing = self._desk is not None and self._desk.growing  # then they leave, and begin again
        if growing or not heard.out - heard.left or heard.begun - heard.left - heard.out:
            self._finished_s = float("inf")
            return
        self._finished_s = min(self._finished_s, now_s)
        if now_s - self._finished_s <= self._patience[0]:
            return
        if not self._swept and self._launcher == "srun":
            mpirun.terminate()
        elif not self._swept or now_s - self._finished_s > sum(self._patience):
            kill_session(mpirun.pid)
        self._swept = True

    @property
    def _takes_orders(self) -> bool:
        """Whether the ranks are of ``pydec train``; any other program finds the end of its input."""
        return self._desk is not None and bool(self._desk.run_dir())

    @property
    def _leaving(self) -> bool:
        """Whether the ranks are to write what they have so that another number of them goes on."""
        return self._desk is not None and self._desk.leaving

    def _all_left(self, noise: NoiseFilter) -> bool:
        """Whether all ranks have left in order but those that were dead before; mpirun's status is theirs."""
        failed = noise.reason.startswith("pydec: error")
        return bool(self._heard.left) and not failed and {*self._heard.lost()} <= self._heard.out

    def _judge(self, status: int, noise: NoiseFilter) -> Outcome:
        """What the job came to, by what its ranks say first: mpirun's status is 0 after some losses."""
        if self._signals.received:
            stopped = self._signals.stopped()
            return replace(stopped, shown=noise.last_line == stopped.reason)
        if self._leaving and (status == _LEFT or self._all_left(noise)):
            return Outcome(status, "pydec: stopped for another number of ranks", left=True)
        lost, killed = self._heard.lost(), noise.killed()
        codes = noise.exit_codes()
        if self._launcher == "srun" and (self._heard.left or codes):
            status = max(codes, default=0)  # srun's own is that of the dead, too
            killed = killed and not codes  # else Slurm has killed them because others failed, or all stopped
        well = status == 0 or (self._swept and self._heard.left) or (self._grows and self._all_left(noise))
        if well and not noise.node_lost and (self._heard.left or not lost):
            return Outcome(0, lost=tuple(lost))
        what = noise.node_lost or noise.mpirun_reason()
        if status == 0 and not what:
            what = "no rank has finished: all died, or a host was lost"
        elif status < 0:
            what = what or f"{self._launcher} was killed by signal {-status}"
        if self._launcher == "mpiexec" and status in _DEATHS and lost and not noise.reason:
            what, killed = f"a rank died, and mpiexec ended with status {status}", True
        fault = bool(noise.node_lost or killed or noise.peer_lost) or status <= 0
        if self._heard.out and self._desk is not None and self._desk.replaces:
            fault = True  # those that were left could not go on alone
        own = "" if noise.node_lost else noise.reason
        reason = own or f"pydec: error: {what or f'{self._launcher} ended with status {status}'}"
        if status not in _STATUSES or status == 0 or noise.node_lost:
            status = 1
        return Outcome(status, reason, fault, shown=noise.last_line == reason)


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


def write(data: bytes) -> None:
    """Write to standard error, past Python's buffers."""
    while data:
        try:
            data = data[os.write(2, data) :]
        except OSError:
            return  # nobody reads any more
