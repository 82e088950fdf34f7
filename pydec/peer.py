"""One running peer: the place where a transport, a view and the stop signals come together."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

from pydec.comm.agree import agree
from pydec.comm.clocks import offset_ns
from pydec.comm.detect import launched_ranks, refuse_torchrun
from pydec.comm.failing import fail_job
from pydec.comm.living import living
from pydec.comm.local import solo
from pydec.comm.sealing import Sealing, sealed
from pydec.comm.stop import MEET, StopGuard
from pydec.comm.team import Team
from pydec.comm.transport import Stream, Transport
from pydec.comm.view import View
from pydec.comm.watch import Watch, grace_of
from pydec.errors import ConfigError, LeftOut, PydecError, SetupError, Stopped
from pydec.trace import Recorder
from pydec.trace.merge import merge, origin_ns, part

DEADLINE_S = 120.0
"""Seconds without an answer after which a peer is given up; a slow rank's first step counts too."""
GOODBYE_S = 10.0
"""Seconds that a stopped rank waits for the others to have written their files."""


class Peer:
    """One peer of a job; a context manager, made by ``pydec.init``.

    Inside ``with``, an exception ends the whole job with the traceback of the first rank that
    failed, or this rank alone where the MPI lets the others live (see ``fail_job``); a normal exit leaves
    when the others do.

    Args:
        transport: how the peers talk; owned, closed with the peer.
        seed: seed of everything that all peers draw alike.
        signals: whether SIGINT and SIGTERM stop all peers at their next step.
        in_job: whether this process is one rank of a job that an exception must end.
        grace_s: silence after which a rank counts as dead where ranks outlive others; 0 follows what is
            measured. See ``pydec.comm.watch``.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        seed: int = 0,
        signals: bool = True,
        in_job: bool = False,
        grace_s: float = 0.0,
    ) -> None:
        self.transport = transport
        self.rank = transport.rank
        self.size = transport.size
        self.view = View(epoch=0, members=tuple(range(transport.size)), seed=seed)
        outlives = transport.tolerant and transport.size > 1
        self.watch = Watch(transport, grace_s) if outlives else None
        """Who judges silence; None where a dead rank ends the job anyway."""
        self._guard = (
            StopGuard(transport, watch=self.watch) if signals else StopGuard(transport, (), watch=self.watch)
        )
        self._guard.__enter__()
        self._in_job = in_job
        self._closed = False
        self._recorder: Recorder | None = None

    def configure(self, *, seed: int, deadline_s: float, grace_s: float) -> None:
        """Take what was found out only once all peers were there; all take the same.

        Args:
            seed, deadline_s: see ``init``.
            grace_s: see ``Peer``.
        """
        self.view = replace(self.view, seed=seed)
        if self.watch is not None:
            self.watch.given_s = grace_s
        for stream in Stream:
            self.transport.stream(stream).deadline_s = deadline_s

    def narrow(self, members: tuple[int, ...]) -> None:
        """Go on with some ranks of the job alone, numbered anew; all of them call it together.

        Nothing is sent to the other ranks from now on, and nothing of them is taken.

        Args:
            members: their ranks, in increasing order, this one among them.

        Raises:
            Stopped: the job is being stopped.
        """
        self.check()
        before = self._guard
        before.__exit__(None, None, None)
        self.transport = Team(self.transport, members)
        self.rank, self.size = self.transport.rank, self.transport.size
        self.view = replace(self.view, members=tuple(range(self.size)))
        outlives = self.transport.tolerant and self.size > 1
        self.watch = Watch(self.transport, self.watch.given_s if self.watch else 0.0) if outlives else None
        self._guard = before.anew(self.transport, self.watch)
        self._guard.__enter__()

    def check(self) -> None:
        """Call once a step: raises Stopped once any rank has received SIGINT or SIGTERM.

        Raises:
            LeftOut: this rank was silent for so long that the others go on without it.
            CutOff: so many others are silent that this rank must not go on.
        """
        self._guard.check()
        if self.watch is not None:
            self.watch.step()

    def busy(self, most_s: float | None = None) -> AbstractContextManager[None]:
        """Within, this rank may compute or write for long without being held for dead.

        Args:
            most_s: for how long at most, in seconds; None: the deadline.
        """
        if self.watch is None:
            return nullcontext()
        return self.watch.busy(self.transport.deadline_s if most_s is None else most_s)

    def defer(self, step: Callable[[], int]) -> AbstractContextManager[None]:
        """Within, a signal lets all ranks come to the same step first; see ``StopGuard.defer``.

        Args:
            step: number of the step that is under way.
        """
        return self._guard.defer(step)

    def reached(self, step: int) -> bool:
        """Whether all ranks stop after this step; see ``StopGuard.reached``."""
        return self._guard.reached(step)

    def ask_to_stop(self) -> bool:
        """Have all ranks end at one step, as at a SIGTERM, if a stop is deferred; whether they will."""
        return self._guard.request_deferred(signal.SIGTERM)

    def ask_to_meet(self) -> bool:
        """Have all ranks come to one step, to go on with others, where they defer; whether they will."""
        return self._guard.request_deferred(MEET)

    @property
    def meets(self) -> bool:
        """Whether what ``reached`` tells is that: all are at one step, and go on with others."""
        return self._guard.meets

    @property
    def unheard(self) -> int | None:
        """A signal that came while the ranks were about to meet, and has stopped nobody."""
        return self._guard.unheard

    def heed(self, signum: int) -> None:
        """Do what the arrival of a signal at this rank does."""
        self._guard.request(signum)

    def agree(self, facts: Mapping[str, str]) -> None:
        """Compare facts that all ranks must share; all living ranks call it together.

        Args:
            facts: value by name, in words.

        Raises:
            MismatchError: names the fact, both values and both ranks.
        """
        if self.transport.tolerant:
            living(self.transport).run(lambda group: agree(group, facts, group.members))
        else:
            agree(self.transport, facts)

    def last_words(self, rank: int) -> str:
        """Why a rank that is gone has ended alone, if it said so, or was left out; else empty."""
        silent = self.watch.silent if self.watch is not None else {}
        return self._guard.last_words.get(rank) or silent.get(rank, "")

    def record(self, directory: Path, *, between: str = "") -> None:
        """Record what this rank does, as a Chrome trace, until it closes; all living ranks call it together.

        Each writes to a file in ``directory/trace``; at the end the lowest that lives makes ``trace.json`` of
        them. See ``pydec.trace``.

        Args:
            directory: the same on all ranks.
            between: what to call the time between two steps of an optimiser; "" leaves it out.

        Raises:
            SetupError: it cannot be written.
        """
        if self._recorder is not None:
            return
        shift_ns, error_ns = living(self.transport).run(
            lambda group: offset_ns(group, partial(origin_ns, directory))
        )
        facts = {"clock within us": f"{error_ns / 1e3:.0f}"}
        recorder = Recorder(
            part(directory, self.rank), self.rank, shift_ns=shift_ns, facts=facts, between=between
        )
        self._recorder = recorder.__enter__()
        self._traces = directory

    def _end_recording(self) -> Path | None:
        """Have everything on disk; where the parts are, if this rank puts them together."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return None
        recorder.close()
        lost = self.transport.lost()
        return self._traces if all(rank in lost for rank in range(self.rank)) else None

    def close(self) -> None:
        """Leave the job when the others do, or when they take too long; idempotent."""
        if self._closed:
            return
        self._closed = True
        traces = self._end_recording()
        self._guard.__exit__(None, None, None)
        self.transport.close()
        if traces is not None:  # all others have closed theirs
            try:
                merge(traces)
            except (ConfigError, SetupError) as error:
                print(f"pydec: warning: {error}", file=sys.stderr, flush=True)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, LeftOut) and self.watch is not None:
            self.watch.bye()
        if isinstance(error, Stopped):
            self.transport.deadline_s = GOODBYE_S
            self.close()
        elif error is None or not self._in_job or (isinstance(error, SystemExit) and not error.code):
            self.close()
        else:
            self._end_recording()
            fail_job(error)


def init(
    *,
    deadline_s: float = DEADLINE_S,
    seed: int = 0,
    transport: Transport | None = None,
    signals: bool = True,
    grace: str | float = "auto",
    secure: str | Sealing = "auto",
    trace: str | Path | None = None,
) -> Peer:
    """Start this process's peer: one of many under mpirun or srun, alone otherwise.

    Args:
        deadline_s: seconds that a wait for another peer may take before PeerTimeout.
        seed: seed of everything that all peers draw alike; must be the same on all.
        transport: use this instead of MPI (for tests and other launchers).
        signals: whether SIGINT and SIGTERM stop all peers at their next step; only in the main
            thread, and only for as long as the peer is open.
        grace: seconds of silence after which a rank that hangs counts as dead, or "auto": it follows what is
            measured of each. Only where ranks outlive others, as under ``pydec run``.
        secure: whether messages between ranks are sealed: "on", "off", or "auto", which seals where ranks are
            on more than one host; a ``Sealing`` says with which keys. The same on all ranks.
        trace: directory of a Chrome trace of what all ranks do, ``trace.json``, to be opened in Perfetto.

    Returns:
        The peer; use it as a context manager so that a failure ends the job on all ranks.

    Raises:
        ConfigError: a deadline or a grace that is not positive.
        SetupError: no MPI library, another MPI than the one that launched this process, or torchrun did; the
            trace cannot be written.
        MismatchError: the ranks were given different seeds.
        ProtocolError: a rank is not to be let in, and the MPI does not live on without it.
    """
    if not deadline_s > 0:
        raise ConfigError(f"deadline_s must be positive, got {deadline_s}")
    grace_s = grace_of(grace)
    in_job = transport is None and launched_ranks() is not None
    if transport is None:
        refuse_torchrun()
    if in_job:
        from pydec.comm.mpi import open_mpi  # a peer that runs alone needs no MPI

        transport = open_mpi(deadline_s=deadline_s)
    asked = Sealing(secure) if isinstance(secure, str) else secure
    transport = transport or solo(deadline_s)
    try:
        transport = sealed(asked, transport, in_job=in_job)
    except PydecError as error:
        if in_job:  # the others may go on without this rank, or must not wait for it
            fail_job(error)
        raise
    peer = Peer(transport, seed=seed, signals=signals, in_job=in_job, grace_s=grace_s)
    peer.agree({"seed": str(seed)})
    if trace is not None:
        peer.record(Path(trace), between="compute")
    return peer
