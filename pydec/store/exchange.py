"""Get objects from other peers, verified, and give them what this one has: a state machine over posts.

``turn`` takes what has arrived, serves, asks and moves requests on; it never waits. A request asks one peer
after the other, and a second one when the first is late. What arrives is compared with its name before
anybody sees it; who sends something else is counted, and not asked for it again.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from pydec.errors import ChunkError, FrameError, PeerTimeout, StoreError
from pydec.store.link import Link
from pydec.store.manifest import MOST_MANIFEST_BYTES, Manifest
from pydec.store.messages import PIECE_BYTES, Kind, Message
from pydec.store.objects import MOST_BYTES, digest_of
from pydec.store.possession import Proofs, possession
from pydec.store.requests import Request, Serving, Try
from pydec.store.serving import Seal
from pydec.store.store import Store

_ASKED_MOST = 2  # requests to one peer at a time
_SERVED_MOST = 8  # requests of one peer at a time; the rest is turned away
_KEEPING = 8  # objects that are on their way to the disk
_REPORTS = 1024  # that wait to be taken
LATE_S = 0.5  # after which another peer is asked as well
DEADLINE_S = 30.0  # after which a peer that sends nothing is given up


class Exchange:
    """One peer's part; may be used from several threads if the link may.

    Args:
        link: a stream of the transport that carries nothing else.
        store: what is served, and where objects that come are put; None keeps nothing.
        order: for a digest the ranks to ask, the most likely first; those that it leaves out come after.
        admit: whether a rank may have an object; it is told that it is not here if not.
        seal: signs what is served, and what comes without a signature that covers it is dropped; None: nobody
            signs.
        keeps: whether an object that came is put into the store.

    Attributes:
        counts: how often: "fetched", "bytes_fetched", "served", "bytes_served", "bad" (something else came
            than was asked for), "unsigned" (of these: no signature covered it), "refused" (a message that is
            none), "denied" (``admit`` said no), "hedged", "unanswered".
        liars: how often each rank sent something else than its name says.
        withheld: objects that this peer proves to nobody, as it lets go of them.
        answered: the highest number of a request or challenge that each rank has answered.
        reports, standings: that came, with their senders; of standings the last.
        lacking: told of an object that a peer wants proved and that is not here.
        lock: held by the thread that moves it on.
    """

    def __init__(
        self,
        link: Link,
        store: Store | None,
        order: Callable[[bytes], Iterable[int]] = lambda digest: (),
        admit: Callable[[int, bytes], bool] = lambda peer, digest: True,
        seal: Seal | None = None,
        keeps: Callable[[bytes], bool] = lambda digest: True,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.liars: Counter[int] = Counter()
        self._link, self._store, self._order, self._admit = link, store, order, admit
        self._seal = seal
        self._keeps = keeps
        self.withheld: set[bytes] = set()
        self._numbers = 0
        self._asked: dict[tuple[int, int], tuple[Request, Try]] = {}  # by peer and number
        self._open: list[Request] = []
        self._serving: dict[int, deque[Serving]] = {}
        self._unsaid: dict[int, deque[bytes]] = {}
        self._keeping: deque[Future[None]] = deque()
        self._proofs = Proofs()
        self.answered: Counter[int] = Counter()
        self.reports: deque[tuple[int, Message]] = deque(maxlen=_REPORTS)
        self.standings: dict[int, bytes] = {}
        self.lacking: Callable[[bytes], object] = lambda digest: None
        self.lock = threading.RLock()

    def want(self, digest: bytes, kind: Kind = Kind.OBJECT, limit: int | None = None) -> Request:
        """Begin to get an object or a manifest, unless that is under way; ``turn`` goes on.

        Args:
            digest: its name, or the root.
            kind: which.
            limit: most peers to ask; None: all.
        """
        with self.lock:
            for request in self._open:
                if (request.digest, request.kind) == (digest, kind):
                    return request
            first = [rank for rank in self._order(digest) if rank != self._link.rank]
            near = [(self._link.rank + k) % self._link.size for k in range(1, self._link.size)]
            request = Request(kind, digest, deque([*dict.fromkeys([*first, *near])][:limit]))
            self._open.append(request)
            self._advance(request)
            return request

    def challenge(self, peer: int, digest: bytes, offset: int, length: int, nonce: bytes) -> tuple[int, int]:
        """Ask a peer to prove that it holds an object; ``proof`` has the answer later.

        Args:
            peer: its rank.
            digest: of the object.
            offset, length: of the range of it that is to be hashed.
            nonce: 32 bytes that nobody knows before.
        """
        with self.lock:
            self._numbers += 1
            self._proofs.ask(peer, self._numbers)
            self._say(peer, Message(Kind.CHALLENGE, self._numbers, digest, offset, length, nonce))
            return peer, self._numbers

    def proof(self, key: tuple[int, int]) -> bytes | None:
        """The answer to a challenge: a digest, empty for "not here"; None while there is none."""
        with self.lock:
            return self._proofs.take(key)

    def forget(self, key: tuple[int, int]) -> None:
        """Wait for the answer to a challenge no longer."""
        with self.lock:
            self._proofs.forget(key)

    def tell(self, peer: int, message: Message) -> None:
        """Send a peer what needs no answer: a report or a standing."""
        with self.lock:
            self._say(peer, message)

    def turn(self) -> bool:
        """Take what has arrived, and send what can be sent; never waits. Whether anything moved."""
        if not self.lock.acquire(blocking=False):
            return False  # another thread is at it
        try:
            moved = False
            while (note := self._link.poll()) is not None:
                moved = True
                self._hear(*note)
            lost = self._link.lost()
            for peer in [peer for peer in (*self._serving, *self._unsaid) if peer in lost]:
                self._serving.pop(peer, None)
                self._unsaid.pop(peer, None)
            for peer in list(self._unsaid):
                self._say(peer, None)
            for peer in list(self._serving):
                moved |= self._serve(peer)
            for request in list(self._open):
                self._look(request, lost)
            self._look_at_kept(_KEEPING)
            return moved
        finally:
            self.lock.release()

    def get(self, digest: bytes, kind: Kind = Kind.OBJECT, nap: Callable[[], None] = lambda: None) -> bytes:
        """An object from any peer that has it; put into the store.

        Args:
            digest: its name.
            kind: or the manifest of this root.
            nap: called when nothing moves.

        Raises:
            ChunkError: nobody has it.
            StoreError: it came, and the disk does not take it.
        """
        request = self.want(digest, kind)
        while not request.done:
            if not self.turn():
                nap()
        if request.data is None:
            raise ChunkError(
                digest,
                True,
                f"object {digest.hex()[:16]} is neither here nor at any of {self._link.size - 1} peers",
            )
        return request.data

    def now(self) -> float:
        """Seconds on the link's clock."""
        return self._link.now()

    @property
    def busy(self) -> bool:
        """Whether this peer waits for something, or sends something."""
        return bool(self._open or any(self._serving.values()) or self._unsaid or self._keeping)

    def _advance(self, request: Request) -> None:
        """Ask the next peer that is alive and has room; end the request if there is none left."""
        lost = self._link.lost()
        for _ in range(len(request.peers)):
            peer = request.peers.popleft()
            if peer in lost:
                continue
            if sum(asked == peer for asked, _ in self._asked) >= _ASKED_MOST:
                request.peers.append(peer)
                continue
            self._numbers += 1
            attempt = Try(peer, self._numbers, self._link.now())
            request.tries.append(attempt)
            self._asked[peer, attempt.number] = request, attempt
            self._say(peer, Message(request.kind, attempt.number, request.digest))
            return
        if not request.tries and not request.peers:
            self._end(request)

    def _look(self, request: Request, lost: frozenset[int]) -> None:
        """Give up peers that are dead or silent, and ask another one if the last is late."""
        now = self._link.now()
        for attempt in list(request.tries):
            if attempt.peer in lost or now - attempt.moved_s > DEADLINE_S:
                self.counts["unanswered"] += attempt.peer not in lost
                self._drop(request, attempt)
        if request.done:
            return
        late = all(now - attempt.moved_s > LATE_S for attempt in request.tries)
        if not request.tries or (late and len(request.tries) < 2 and request.peers):
            self.counts["hedged"] += bool(request.tries)
            self._advance(request)

    def _drop(self, request: Request, attempt: Try) -> None:
        request.tries.remove(attempt)
        self._asked.pop((attempt.peer, attempt.number), None)

    def _end(self, request: Request) -> None:
        for attempt in list(request.tries):
            self._drop(request, attempt)
        request.done = True
        if request in self._open:
            self._open.remove(request)

    def _hear(self, peer: int, note: bytes) -> None:
        try:
            message = Message.decode(note)
        except FrameError:
            self.counts["refused"] += 1
            return
        if message.kind is Kind.REPORT:
            self.reports.append((peer, message))
        elif message.kind is Kind.STANDING:
            self.standings[peer] = message.body
        elif message.kind in (Kind.OBJECT, Kind.MANIFEST, Kind.CHALLENGE):
            self._asked_for(peer, message)
        else:
            if message.request <= self._numbers:
                self.answered[peer] = max(self.answered[peer], message.request)
            if self._proofs.hear(peer, message):
                return
            found = self._asked.get((peer, message.request))
            if found is not None and found[0].digest == message.digest:
                self._answered(*found, message)

    def _answered(self, request: Request, attempt: Try, message: Message) -> None:
        most = MOST_BYTES if request.kind is Kind.OBJECT else MOST_MANIFEST_BYTES
        whole = len(attempt.data) == attempt.total
        if message.kind is Kind.SIGNED and whole:
            self._judge(request, attempt, message.body)
            return
        if message.kind is not Kind.DATA:
            self._drop(request, attempt)
            self._advance(request)
            return
        attempt.total = message.total if attempt.total < 0 else attempt.total
        fits = message.offset == len(attempt.data) and attempt.total == message.total <= most
        if fits:
            attempt.data += message.body
            attempt.moved_s = self._link.now()
            if len(attempt.data) < attempt.total or self._signs(request.kind):
                return
            self._judge(request, attempt, b"")
        else:
            self._refuse(request, attempt)

    def _signs(self, kind: Kind) -> bool:
        return self._seal is not None and kind is Kind.OBJECT

    def _refuse(self, request: Request, attempt: Try) -> None:
        """Something else came than was asked for: ask another peer."""
        self.counts["bad"] += 1
        self.liars[attempt.peer] += 1
        self._drop(request, attempt)
        self._advance(request)

    def _judge(self, request: Request, attempt: Try, signature: bytes) -> None:
        """Everything has come from a peer: take it if it is what was asked for."""
        data = bytes(attempt.data)
        if self._seal is not None and request.kind is Kind.OBJECT:
            name, digest = request.digest, digest_of(data)
            if not self._seal.holds(attempt.peer, attempt.number, name, digest, signature):
                self.counts["unsigned"] += 1
                digest = b""
            right = digest == name
        else:
            right = _is(request, data)
        if not right:
            self._refuse(request, attempt)
            return
        self.counts["fetched"] += 1
        self.counts["bytes_fetched"] += len(data)
        request.data, request.source = data, attempt.peer
        self._end(request)
        if self._store is not None and request.kind is Kind.OBJECT and self._keeps(request.digest):
            request.kept = self._store.objects.submit(self._store.objects.keep, data)
            self._keeping.append(request.kept)
            self._look_at_kept(_KEEPING)

    def _look_at_kept(self, most: int) -> None:
        """See which writes have ended, and wait until there are at most so many."""
        while self._keeping and (len(self._keeping) > most or self._keeping[0].done()):
            error = self._keeping.popleft().exception()
            if isinstance(error, StoreError):
                self.counts["unkept"] += 1  # the disk is full: what was asked for is here all the same
            elif error is not None:
                raise error

    def _asked_for(self, peer: int, message: Message) -> None:
        lack = Message(Kind.LACK, message.request, message.digest)
        data: bytes | None = None
        waiting = self._serving.setdefault(peer, deque())
        if not self._admit(peer, message.digest):
            self.counts["denied"] += 1
        elif message.kind is Kind.CHALLENGE:
            if message.digest not in self.withheld:
                data = self._found(message)
                if not data:
                    self.lacking(message.digest)
        elif len(waiting) < _SERVED_MOST:
            data = self._found(message)
        if not data:
            self._say(peer, lack)
        elif message.kind is Kind.CHALLENGE:
            answer = possession(data, message.offset, message.total, message.body)
            self._say(
                peer,
                lack if not answer else Message(Kind.PROOF, message.request, message.digest, body=answer),
            )
        else:
            waiting.append(Serving(message.kind, message.request, message.digest, data))
            self.counts["served"] += 1

    def _found(self, message: Message) -> bytes | None:
        if self._store is None:
            return None
        try:
            if message.kind is Kind.MANIFEST:
                return self._store.manifest(message.digest).encode()
            return self._store.objects.get(message.digest)
        except StoreError:
            return None

    def _serve(self, peer: int) -> bool:
        """Send pieces to a peer as far as its queue takes them; whether there were any."""
        waiting, moved = self._serving[peer], False
        while waiting:
            item = waiting[0]
            piece = item.data[item.sent : item.sent + PIECE_BYTES]
            message = Message(Kind.DATA, item.request, item.digest, item.sent, len(item.data), piece)
            try:
                self._link.post(peer, message.encode())
            except PeerTimeout:
                return moved
            moved = True
            item.sent += len(piece)
            self.counts["bytes_served"] += len(piece)
            if item.sent == len(item.data):
                waiting.popleft()
                if self._seal is not None and item.kind is Kind.OBJECT:
                    signature = self._seal.sign(peer, item.request, item.digest, item.digest)
                    self._say(peer, Message(Kind.SIGNED, item.request, item.digest, body=signature))
        del self._serving[peer]
        return moved

    def _say(self, peer: int, message: Message | None) -> None:
        """Post a message after those that the peer's queue had no room for."""
        unsaid = self._unsaid.setdefault(peer, deque())
        if message is not None:
            unsaid.append(message.encode())
        try:
            while unsaid:
                self._link.post(peer, unsaid[0])
                unsaid.popleft()
        except PeerTimeout:
            return
        del self._unsaid[peer]


def _is(request: Request, data: bytes) -> bool:
    if request.kind is Kind.OBJECT:
        return digest_of(data) == request.digest
    try:
        return Manifest.decode(data).root == request.digest
    except FrameError:
        return False
