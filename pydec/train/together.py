"""Small things that all ranks do at the same point: tables of numbers, shared texts, shared failures.

Every function here is called by all living ranks, in the same order; see ``pydec.comm.living`` for those that
die meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pydec.comm.collect import broadcast, ring_mean
from pydec.comm.group import Group
from pydec.comm.living import living
from pydec.comm.transport import Stream, Transport
from pydec.errors import ConfigError, MismatchError, PeerLost, PydecError, SetupError, Stopped

T = TypeVar("T")

_KINDS: tuple[type[PydecError], ...] = (ConfigError, SetupError, MismatchError, PydecError)
_RELEASE_TAG = 3 << 21  # above every tag that comm.collect uses
_NAP_S = 0.02


class Member(Protocol):
    """What this module needs of a ``Peer``."""

    rank: int
    size: int
    transport: Transport

    def last_words(self, rank: int) -> str:
        """Why a rank that is gone has ended alone, if it said so, or was left out."""

    def busy(self, most_s: float | None = None) -> AbstractContextManager[None]:
        """Within, this rank may answer nobody for long without being held for dead."""

    def check(self) -> None:
        """Raise Stopped when the job is being stopped."""

    def ask_to_stop(self) -> bool:
        """Have all ranks stop after one step, where a stop is deferred; whether they will."""

    def reached(self, step: int) -> bool:
        """Whether all ranks stop after this step, where a stop is deferred."""


def speaks(peer: Member) -> bool:
    """Whether this rank is the one that writes and prints for all: the lowest that lives."""
    return living(peer.transport).first == peer.rank


def speaks_alone(peer: Member) -> bool:
    """Whether this rank speaks for all that end now, without asking them: every lower one is dead."""
    lost = peer.transport.lost()
    return all(rank in lost for rank in range(peer.rank))


def table(peer: Member, values: Sequence[float]) -> NDArray[np.float64]:
    """Numbers of every rank, shape (size, len(values)), the same on all ranks; zeros of those that are dead.

    NaN and infinities of one rank spread over its column only as far as arithmetic takes them, so
    callers pass finite numbers.
    """

    def work(group: Group) -> NDArray[np.float64]:
        rows = np.zeros((peer.size, len(values)))
        rows[peer.rank] = values
        ring_mean(group, rows.reshape(-1))
        return rows * group.size

    return living(peer.transport).run(work)


def text(peer: Member, mine: str, root: int = 0) -> str:
    """What ``root`` says, on every rank; if it is dead, what the lowest living rank says."""
    return content(peer, mine.encode(), root).decode()


def content(peer: Member, mine: bytes, root: int = 0) -> bytes:
    """As ``text``, of bytes."""

    def work(group: Group) -> bytes:
        place = group.members.index(root) if root in group.members else 0
        speaks = group.rank == place
        data = np.frombuffer(mine, np.uint8).copy() if speaks else np.zeros(0, np.uint8)
        length = np.array([data.size], "<i8")
        broadcast(group, length.view(np.uint8), place)
        if not speaks:
            data = np.zeros(int(length[0]), np.uint8)
        broadcast(group, data, place)
        return data.tobytes()

    return living(peer.transport).run(work)


def texts(peer: Member, mine: str) -> list[str]:
    """What every rank says, by rank; only those that say something cost a message."""
    speak = table(peer, [float(bool(mine))])[:, 0]
    return [text(peer, mine, rank) if speak[rank] else "" for rank in range(peer.size)]


def everyone(peer: Member, mine: bytes) -> list[bytes]:
    """What every rank passes, by rank; the same number of bytes on all, and all call it together."""
    rows = np.rint(table(peer, list(mine))).astype(np.uint8)
    return [row.tobytes() for row in rows]


def settle(peer: Member, error: PydecError | None) -> None:
    """Fail on all ranks if one has failed, so that nobody waits for it.

    Args:
        peer: this rank.
        error: what went wrong here, or None.

    Raises:
        PydecError: the error of the lowest rank that has one, in its class; the message names the
            rank unless all have failed.
    """
    code = 0 if error is None else 1 + next(i for i, kind in enumerate(_KINDS) if isinstance(error, kind))
    codes = np.rint(table(peer, [code])[:, 0]).astype(int)
    failed = np.flatnonzero(codes)
    if not failed.size:
        return
    root = int(failed[0])
    message = text(peer, str(error), root)
    where = "" if failed.size == peer.size else f"rank {root}: "
    raise _KINDS[codes[root] - 1](where + message) from None


class SharedError(Exception):
    """Carries an error that all ranks have alike, so that they leave together instead of aborting the job.

    Args:
        error: what all ranks raise once they have left.
    """

    def __init__(self, error: PydecError) -> None:
        super().__init__(str(error))
        self.error = error


def jointly(peer: Member, work: Callable[[], T], *, settled: bool = True) -> T:
    """Do a part of the set-up on all ranks, or fail on all of them alike.

    Args:
        peer: this rank.
        work: what to do.
        settled: whether a failure may be this rank's alone and the others have to be told; False
            where all ranks fail by themselves.
    """
    error: PydecError | None = None
    result: T | None = None
    try:
        result = work()
    except Stopped:
        raise
    except PydecError as caught:
        error = caught
    if not settled:
        if isinstance(error, (ConfigError, SetupError, MismatchError)):
            raise SharedError(error) from error
        if error is not None:
            raise error
        return cast(T, result)
    try:
        settle(peer, error)
    except (Stopped, SharedError):
        raise
    except PydecError as shared:
        raise SharedError(shared) from error
    return cast(T, result)


def release(peer: Member) -> None:
    """The rank that speaks: let the others out of ``await_release``."""
    link = peer.transport.stream(Stream.COLLECT)
    others = [other for other in living(peer.transport).members if other != peer.rank]
    for send in [link.isend(other, _RELEASE_TAG, memoryview(b"\1")) for other in others]:
        try:
            send.wait()
        except PeerLost:
            if not link.tolerant:
                raise


def await_release(peer: Member) -> None:
    """The others: sleep, using no processor time to speak of, until the rank that speaks calls ``release``.

    Raises:
        Stopped: the job is being stopped.
        PeerLost: that rank is gone, and the MPI does not let the others live on.
    """
    arrived = bytearray(1)
    link = peer.transport.stream(Stream.COLLECT)
    pending = link.irecv(living(peer.transport).first, _RELEASE_TAG, memoryview(arrived))
    try:
        while not pending.done():
            peer.check()
            time.sleep(_NAP_S)
    except PeerLost:
        if not link.tolerant:
            raise
    except BaseException:
        pending.cancel()
        raise
