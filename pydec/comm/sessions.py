"""The keys that one rank shares with the others, and what all its streams have in common."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from pydec.comm.transport import Stream
from pydec.crypto.handshake import Secrets
from pydec.crypto.seal import Limits, Opener, Sealer, Unsealed, Way, padded
from pydec.errors import PeerLost, SetupError

_log = logging.getLogger("pydec.secure")
_WORDS = 255  # in place of a stream: what is said beside them
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
        renewed: how many handshakes there have been with a peer since the first.
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
    renewed: Counter[int] = field(init=False, default_factory=Counter)
    pool: Pool = field(init=False, default_factory=Pool, repr=False)
    _ends: dict[tuple[int, int], tuple[Sealer, Opener]] = field(init=False, repr=False)
    _speaking: threading.Lock = field(init=False, default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.identities = {peer: made.identity for peer, made in self.secrets.items()}
        self.suites = {peer: made.suite for peer, made in self.secrets.items()}
        self._ends = {
            (peer, stream): self._pair(peer, stream, made)
            for peer, made in self.secrets.items()
            for stream in (*Stream, _WORDS)
        }
        self.secrets = {}  # the ends go on to newer ones, and nothing may lead back to the older

    def _pair(self, peer: int, stream: int, made: Secrets) -> tuple[Sealer, Opener]:
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
        raise SetupError("the sealed transport is closed, and its keys are gone; open the peer again")

    def number(self, peer: int) -> int:
        """Of the session with a peer whose messages this rank takes: 0 from the start."""
        return self.renewed[peer]

    def ratchets(self, peer: int) -> int:
        """The most times that a key shared with a peer has made its successor since the handshake."""
        ends = [ends for (other, _), ends in self._ends.items() if other == peer]
        return max((end.ratchets for pair in ends for end in pair), default=0)

    def renew_receiving(self, peer: int, made: Secrets, number: int) -> None:
        """Take messages under the keys of a new handshake, too."""
        self.renewed[peer] = number
        for (other, _), (_, opener) in tuple(self._ends.items()):
            if other == peer:
                opener.renew(made.receiving, number)

    def renew_sending(self, peer: int, made: Secrets, number: int) -> None:
        """Send with the keys of a new handshake, which the peer takes by now."""
        for (other, _), (sealer, _) in tuple(self._ends.items()):
            if other == peer:
                sealer.renew(made.sending, number)

    def knows(self, peer: int) -> bool:
        """Whether there are keys that prove a peer's words."""
        return (peer, _WORDS) in self._ends

    def seal_word(self, peer: int, kind: int, word: bytes) -> bytes:
        """A short word beside the streams, such as a farewell, sealed; any thread may.

        Args:
            peer: one that it ``knows``.
            kind: of the word, in place of a tag.
            word: anything.
        """
        with self._speaking:
            sealer, _ = self._ends[peer, _WORDS]
            sealed = bytearray(sealer.size(len(word)))
            sealer.seal_into(kind, memoryview(word), memoryview(sealed))
        return bytes(sealed)

    def open_word(self, peer: int, kind: int, sealed: bytes) -> bytes | None:
        """What ``seal_word`` sealed at a peer; None, and counted, if it is something else."""
        with self._speaking:
            into = bytearray(len(sealed))
            try:
                n_bytes = self._ends[peer, _WORDS][1].open_into(kind, memoryview(sealed), memoryview(into))
            except Unsealed as error:
                self.refuse(peer, Stream.CONTROL, error)
                return None
        return bytes(into[:n_bytes])

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
