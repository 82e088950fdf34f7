"""Small things that all ranks do at the same point: tables of numbers, shared texts, shared failures.

Every function here is called by all ranks, in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydec.comm.collect import broadcast, ring_mean
from pydec.comm.transport import Stream, Transport
from pydec.errors import ConfigError, MismatchError, PydecError, SetupError

_KINDS: tuple[type[PydecError], ...] = (ConfigError, SetupError, MismatchError, PydecError)
_RELEASE_TAG = 3 << 21  # above every tag that comm.collect uses
_NAP_S = 0.02


class Member(Protocol):
    """What this module needs of a ``Peer``."""

    rank: int
    size: int
    transport: Transport

    def check(self) -> None:
        """Raise Stopped when the job is being stopped."""

    def reached(self, step: int) -> bool:
        """Whether all ranks stop after this step, where a stop is deferred."""


def table(peer: Member, values: Sequence[float]) -> NDArray[np.float64]:
    """Numbers of every rank, shape (size, len(values)), the same on all ranks.

    NaN and infinities of one rank spread over its column only as far as arithmetic takes them, so
    callers pass finite numbers.
    """
    rows = np.zeros((peer.size, len(values)))
    rows[peer.rank] = values
    ring_mean(peer.transport, rows.reshape(-1))
    rows *= peer.size
    return rows


def text(peer: Member, mine: str, root: int = 0) -> str:
    """What ``root`` says, on every rank."""
    data = np.frombuffer(mine.encode(), np.uint8).copy() if peer.rank == root else np.zeros(0, np.uint8)
    length = np.array([data.size], "<i8")
    broadcast(peer.transport, length.view(np.uint8), root)
    if peer.rank != root:
        data = np.zeros(int(length[0]), np.uint8)
    broadcast(peer.transport, data, root)
    return data.tobytes().decode()


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


def release(peer: Member) -> None:
    """Rank 0: let the others out of ``await_release``."""
    link = peer.transport.stream(Stream.COLLECT)
    sends = [link.isend(other, _RELEASE_TAG, memoryview(b"\1")) for other in range(1, peer.size)]
    for send in sends:
        send.wait()


def await_release(peer: Member) -> None:
    """Ranks other than 0: sleep, using no processor time to speak of, until rank 0 calls ``release``.

    Raises:
        Stopped: the job is being stopped.
        PeerLost: rank 0 is gone.
    """
    arrived = bytearray(1)
    pending = peer.transport.stream(Stream.COLLECT).irecv(0, _RELEASE_TAG, memoryview(arrived))
    try:
        while not pending.done():
            peer.check()
            time.sleep(_NAP_S)
    except BaseException:
        pending.cancel()
        raise
