"""The keys that one rank shares with the others, and what all its streams have in common."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from pydec.comm.transport import Stream
from pydec.crypto.handshake import Secrets
from pydec.crypto.seal import Limits, Opener, Sealer, Unsealed, Way, padded
from pydec.errors import PeerLost, SetupError

_log = logging.getLogger("pydec.secure")
_KEPT = 8  # buffers of one size that wait for their next use


class Pool:
    """Buffers for sealed messages; those of nearly one size are the same."""

    def __init__(self) -> None:
        self._free: dict[int, list[memoryview]] = {}

    def take(self, n_bytes: int) -> memoryview:
        """A buffer of ``n_bytes``, with anything in it."""
        free = self._free.setdefault(padded(n_bytes), [])
        try:
            whole = free.pop()
        except IndexError:
            whole = memoryview(np.empty(padded(n_bytes), np.uint8))
        return whole[:n_bytes]

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back; nobody uses it any more."""
        whole = memoryview(buffer.obj)
        free = self._free.setdefault(len(whole), [])
        if len(free) < _KEPT:
            free.append(whole)


@dataclass
class Sessions:
    """The keys that one rank shares with the others, and what all its streams count.

    Args:
        rank, size: of the cluster.
        epoch: of the view at the start; in every header.
        secrets: by peer, of those that were let in.
        shut: by peer, of those that were not, the reason.
        limits: when a key makes its successor.
        pad: whether lengths are hidden.
        words: in which way peers are trusted, for people.

    Attributes:
        identities: public key by rank, proved.
        refused: messages dropped, by (peer, kind), see ``Unsealed``.
    """

    rank: int
    size: int
    epoch: int
    secrets: dict[int, Secrets] = field(repr=False)
    shut: dict[int, str]
    limits: Limits = Limits()  # noqa: RUF009  # frozen
    pad: bool = False
    words: str = ""
    identities: dict[int, bytes] = field(init=False)
    refused: Counter[tuple[int, str]] = field(init=False, default_factory=Counter)
    pool: Pool = field(init=False, default_factory=Pool, repr=False)
    _ends: dict[tuple[int, Stream], tuple[Sealer, Opener]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.identities = {peer: made.identity for peer, made in self.secrets.items()}
        self.suites = {peer: made.suite for peer, made in self.secrets.items()}
        self._ends = {
            (peer, stream): self._pair(peer, stream, made)
            for peer, made in self.secrets.items()
            for stream in Stream
        }
        self.secrets = {}  # the ends go on to newer ones, and nothing may lead back to the older

    def _pair(self, peer: int, stream: Stream, made: Secrets) -> tuple[Sealer, Opener]:
        there = Way(made.suite, stream, self.epoch, self.rank, peer)
        back = Way(made.suite, stream, self.epoch, peer, self.rank)
        return Sealer(there, made.sending, self.limits, pad=self.pad), Opener(back, made.receiving)

    def ends(self, peer: int, stream: Stream) -> tuple[Sealer, Opener]:
        """What seals messages to a peer on a stream, and opens those from it.

        Raises:
            PeerLost: it was not let in.
            SetupError: the transport is closed.
        """
        found = self._ends.get((peer, stream))
        if found is not None:
            return found
        if peer in self.shut:
            raise PeerLost(peer, self.shut[peer])
        raise SetupError("the sealed transport is closed, and its keys are gone")

    def refuse(self, peer: int, stream: Stream, error: Unsealed) -> None:
        """Count a message that is dropped; say so for the 1st, 10th, 100th ... of its kind."""
        self.refused[peer, error.kind] += 1
        count = self.refused[peer, error.kind]
        if str(count).strip("0") == "1":
            _log.warning(
                "rank %d: refused a message of rank %d on stream %s, %s (%d of this kind so far)",
                self.rank, peer, stream.name, error, count,
            )  # fmt: skip

    def close(self) -> None:
        """Forget all keys."""
        self._ends.clear()
