"""A bell for each rank of one machine: whoever posts a message rings, so its receiver need not look for it.

MPI tells nobody that a message has come. Where ranks share cores, one that looks often enough for short
delays spends more on looking than on messages. A datagram to a socket of the receiver wakes it within
microseconds and costs nothing while nothing is said. It carries no data and promises nothing: anybody on the
machine can ring for nothing, and whoever misses a ring finds the message when it looks, which it still does
now and then.

The sockets have abstract names (unix(7)): they vanish with their process, however it ends.
"""

from __future__ import annotations

import math
import os
import platform
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

_TOKEN_BYTES = 16
_NAP_S = 2e-4
_DRAINED = 64  # rings taken at a time; Linux keeps fewer unless told otherwise


class Bell:
    """This process's bell and those of its peers; any thread may ring, one waits.

    Args:
        own: a datagram socket bound to ``names[rank]``; the bell's from now on.
        names: socket names of all ranks.
        rank: this one.
    """

    def __init__(self, own: socket.socket, names: Sequence[bytes], rank: int) -> None:
        own.setblocking(False)
        self._own, self._names, self._rank = own, names, rank
        self._poll = select.poll()
        self._poll.register(own, select.POLLIN)

    def ring(self, peer: int) -> bool:
        """Wake a peer, or make its next wait short; whether it has a bell on this machine."""
        try:
            self._own.sendto(b"", self._names[peer])
        except BlockingIOError:
            pass  # it has many rings that it has not heard yet
        except OSError:
            return False
        return True

    def kick(self) -> None:
        """Wake the thread of this process that waits."""
        self.ring(self._rank)

    def wait(self, most_s: float) -> bool:
        """Sleep until somebody rings, at most so long, in whole milliseconds; whether somebody did.

        Rings since the last wait count: what they announce may have come after the last look.
        """
        if not self._poll.poll(math.ceil(1e3 * most_s)):
            return False
        self.heed()
        return True

    def heed(self) -> None:
        """Forget the rings so far; whoever does so looks for messages afterwards."""
        try:
            for _ in range(_DRAINED):
                self._own.recv(1)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Nobody can ring any more; idempotent."""
        self._own.close()


def hang(comm: Any) -> Bell | None:
    """This rank's bell; all ranks of the communicator call it together.

    Returns:
        None, on all ranks, unless everybody's bell can be rung by everybody: the ranks share a machine.
    """
    rank, size = comm.Get_rank(), comm.Get_size()
    token = os.urandom(_TOKEN_BYTES)
    own = _socket(token)
    tokens, rung = bytearray(size * _TOKEN_BYTES), bytearray(size)
    finish(comm.Iallgather(token, tokens))
    names = [_name(bytes(tokens[at : at + _TOKEN_BYTES])) for at in range(0, len(tokens), _TOKEN_BYTES)]
    bell = None if own is None else Bell(own, names, rank)
    mine = bell is not None and all(bell.ring(peer) for peer in range(size))
    finish(comm.Iallgather(bytes([mine]), rung))  # also: nobody closes its bell before all have tried it
    if bell is not None and not all(rung):
        bell.close()
        return None
    return bell


def finish(request: Any) -> None:
    """Wait for a collective operation, leaving the cores to others; see ``enlarge`` for blocking ones."""
    while not request.Test():
        time.sleep(_NAP_S)


def _socket(token: bytes) -> socket.socket | None:
    """A socket of that name; None where there are no abstract names, or they are forbidden."""
    if platform.system() != "Linux":
        return None
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        own.bind(_name(token))
    except OSError:
        own.close()
        return None
    return own


def _name(token: bytes) -> bytes:
    return b"\0pydec-bell-" + token.hex().encode()
