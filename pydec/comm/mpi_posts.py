"""Posted messages over MPI: small, taken without a posted receive, used for control and farewells."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Protocol

from pydec.comm.backoff import Backoff
from pydec.comm.bell import Bell
from pydec.comm.mpi_requests import Requests
from pydec.errors import PeerTimeout, SetupError

_POSTS_LIMIT = 1024  # posted messages to one peer that it has not taken yet
_BYTES_LIMIT = 8 << 20  # and their bytes: what a peer that takes nothing can cost
_AT_ONCE_BYTES = 2048  # MPI libraries send messages up to some kilobytes whole, and larger ones by agreement
_FAILING, _GOODBYE = 100, 101  # tags beside the streams'
_OPENING_BYTES = 4


class Guard(Protocol):
    """What proves who said a word: ``Sessions``."""

    def knows(self, peer: int) -> bool:
        """Whether this rank shares keys with a peer."""

    def seal_word(self, peer: int, kind: int, word: bytes) -> bytes:
        """A word, sealed for a peer that it shares keys with."""

    def open_word(self, peer: int, kind: int, sealed: bytes) -> bytes | None:
        """The word of a peer that it shares keys with; None if it is not, which is counted."""


class Posts:
    """Posted messages of one process, told apart by tag. One thread posts; any may poll.

    Args:
        requests: what all operations share.
        comm: a communicator that nothing else uses.
        matched: whether a message counts as taken only once its receiver has looked at it. MPI keeps small
            messages that nobody looks at in the receiver's memory, as many as come; with this at most the
            limits' worth of each sender's.
        bell: rung for whom something was posted, at the next ``poll``: once for all that an event makes.
    """

    def __init__(
        self, requests: Requests, comm: Any, *, matched: bool = False, bell: Bell | None = None
    ) -> None:
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self._requests = requests
        self._mpi = requests.mpi
        self._comm = comm
        self._send = comm.Issend if matched else comm.Isend
        self._bell = bell
        self._unrung: set[int] = set()
        self._dry = False
        self._large: list[Any] = []  # requests that take more than one step to complete
        self._opening = 1
        self._guard: Guard | None = None
        self._early: deque[tuple[int, bytes]] = deque(maxlen=4 * self.size)  # farewells to judge later
        self._told, self._first = False, True  # about a failure of this rank
        self._failing: dict[int, bool] = {}  # by rank: whether it told before it heard of any other
        self._sent: dict[int, deque[tuple[Any, bytes]]] = {}
        self._waiting_bytes: dict[int, int] = {}
        self._arriving: dict[int, deque[tuple[Any, int, bytearray]]] = {}
        self._polling = threading.Lock()  # a thread beside the program asks for farewells, too

    def post(self, peer: int, tag: int, data: bytes) -> None:
        """Send a small message that nobody waits for; dropped if the peer is gone.

        Raises:
            PeerTimeout: too many messages, or bytes, wait for the peer to take them.
        """
        queue = self._sent.setdefault(peer, deque())
        waiting = self._waiting_bytes.get(peer, 0)
        while queue and self._requests.settled(queue[0][0]):
            waiting -= len(queue.popleft()[1])
        self._waiting_bytes[peer] = waiting
        if peer in self._requests.lost:
            return
        if len(queue) >= _POSTS_LIMIT or waiting + len(data) > _BYTES_LIMIT:
            raise PeerTimeout(
                peer, f"has not taken {len(queue)} posted messages of {waiting} bytes; it may be gone"
            )
        try:
            request = self._send([data, len(data), self._mpi.BYTE], peer, tag)
            queue.append((request, data))
            self._waiting_bytes[peer] += len(data)
            if self._bell is not None:
                self._unrung.add(peer)
                if len(data) > _AT_ONCE_BYTES:
                    self._large.append(request)
        except self._mpi.Exception as error:
            self._requests.peer_error(peer, error.Get_error_code(), "posted message")

    def poll(self, tag: int) -> tuple[int, bytes] | None:
        """The next posted message with this tag, if one has arrived."""
        with self._polling:
            self._requests.watch()
            if self._bell is not None:
                if not self._dry:  # what came since the last look was rung for, and is about to be found
                    self._bell.heed()
                for peer in self._unrung:
                    self._bell.ring(peer)
                self._unrung.clear()
            note = self._next(tag)
            self._dry = note is None
            return note

    def still(self) -> bool:
        """Whether the last ``poll`` found nothing and nothing moves that must be looked after: the next
        message is rung for.
        """
        if self._large:
            self._large = [request for request in self._large if not self._requests.settled(request)]
        return self._dry and not self._unrung and not self._large and not any(self._arriving.values())

    def _next(self, tag: int) -> tuple[int, bytes] | None:
        notes = self._arriving.setdefault(tag, deque())
        status = self._mpi.Status()
        try:
            message = self._comm.Improbe(self._mpi.ANY_SOURCE, tag, status)
            if message is None:  # MPI may look first and let messages in afterwards
                message = self._comm.Improbe(self._mpi.ANY_SOURCE, tag, status)
            if message is not None:
                data = bytearray(status.Get_count(self._mpi.BYTE))
                notes.append((message.Irecv([data, len(data), self._mpi.BYTE]), status.Get_source(), data))
        except self._mpi.Exception as error:
            if error.Get_error_class() not in self._requests.failures:
                raise SetupError(f"MPI cannot look for messages: {error}") from None
            self._comm.Ack_failed()  # a dead rank hides the living from ANY_SOURCE until acknowledged
        blocked: set[int] = set()
        for index, (request, sender, data) in enumerate(notes):
            if sender not in blocked and self._requests.settled(request):
                del notes[index]
                return sender, bytes(data)
            blocked.add(sender)  # keeps messages of one sender in order
        self._requests.sweep()
        return None

    def fail(self, settle_s: float) -> set[int]:
        """Tell the peers that this rank fails, once; which others do, too.

        Args:
            settle_s: how long to listen for peers that fail at the same moment.
        """
        try:
            if not self._told:
                self._hear_failures()
                self._first = not self._failing
                for peer in set(range(self.size)) - {self.rank}:
                    self.post(peer, _FAILING, self._said(peer, _FAILING, bytes([self._first])))
                self._told = True
            until_s = time.monotonic() + settle_s
            while (now_s := time.monotonic()) < until_s:
                self._hear_failures()
                time.sleep(min(0.005, until_s - now_s))
        except Exception:
            pass  # MPI itself is what fails: better two reasons than none
        return set(self._failing)

    def first_to_fail(self, settle_s: float) -> bool:
        """Tell the peers that this rank fails; whether it did so before it heard of any other, and no lower
        one did, too: true on one of them.

        Args:
            settle_s: see ``fail``.
        """
        self.fail(settle_s)
        return self._first and all(peer > self.rank for peer, first in self._failing.items() if first)

    def _hear_failures(self) -> None:
        while (note := self.poll(_FAILING)) is not None:
            word = self._heard(note[0], _FAILING, note[1])
            if word is not None:
                self._failing[note[0]] = word == b"\1"

    def protect(self, guard: Guard) -> None:
        """From now on, until the goodbye, words to and from the peers that it knows are sealed.

        What such a peer seemed to have said before counts no more: it shared keys afterwards.
        """
        self._guard = guard
        for peer in range(self.size):
            if guard.knows(peer):
                self._requests.left.pop(peer, None)
        self._judge_early()

    def _said(self, peer: int, kind: int, word: bytes) -> bytes:
        guard = self._guard
        return guard.seal_word(peer, kind, word) if guard is not None and guard.knows(peer) else word

    def _heard(self, peer: int, kind: int, note: bytes) -> bytes | None:
        guard = self._guard
        return guard.open_word(peer, kind, note) if guard is not None and guard.knows(peer) else note

    def goodbye(self, opening: int, timeout_s: float) -> bool:
        """Exchange farewells, so that nobody leaves while another still sends; whether all came.

        Args:
            opening: which opening of the transport this ends, counted from 1.
            timeout_s: longest time to wait for the others.
        """
        until_s = time.monotonic() + timeout_s
        peers = set(range(self.size)) - {self.rank}
        number = opening.to_bytes(_OPENING_BYTES, "little")
        for peer in peers:
            self.post(peer, _GOODBYE, number + self._said(peer, _GOODBYE, number))
        backoff = Backoff()
        left, lost = self._requests.left, self._requests.lost
        while peers - left.keys() - lost and (now_s := time.monotonic()) < until_s:
            self.hear_goodbyes()
            backoff.pause(now_s)
        complete = peers <= left.keys()
        left.clear()
        self._opening, self._guard = opening + 1, None
        self._judge_early()
        return complete

    def hear_goodbyes(self) -> None:
        """Note who has said goodbye."""
        while (note := self.poll(_GOODBYE)) is not None:
            self._judge(*note)

    def _judge_early(self) -> None:
        for _ in range(len(self._early)):
            self._judge(*self._early.popleft())

    def _judge(self, sender: int, note: bytes) -> None:
        """Whether a farewell is one: of this opening, and sealed if its sender has keys for that.

        A peer that is through with the handshakes may have come and gone before this rank is: what it
        sealed waits.
        """
        number, word = note[:_OPENING_BYTES], note[_OPENING_BYTES:]
        opening, guard = int.from_bytes(number, "little"), self._guard
        if opening == self._opening + 1 or (opening == self._opening and guard is None and word != number):
            self._early.append((sender, note))
        elif opening == self._opening and self._heard(sender, _GOODBYE, word) == number:
            self._requests.left[sender] = time.monotonic()
