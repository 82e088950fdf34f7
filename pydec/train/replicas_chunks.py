"""Copies of parts that lie in a content-addressed store: receivers hear the root and pull what they lack.

A part that is in the store (``checkpoint_chunks``) goes to other disks as the difference to what is there:
its sender says its root on the STORE stream, and a receiver gets the manifest, the indices, and those chunks
that it does not hold whole, from any rank that has them, on the CHUNKS stream. What comes is compared with
its name before it is written, in a thread. Everything else is as for files, see ``replicas``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue

from pydec.comm.transport import Stream
from pydec.crypto.hashing import DIGEST_BYTES
from pydec.errors import (
    ChunkError,
    ConfigError,
    FrameError,
    PeerTimeout,
    PydecError,
    SetupError,
    StoreError,
)
from pydec.store.exchange import Exchange
from pydec.store.manifest import Manifest
from pydec.store.messages import Kind
from pydec.store.requests import Request
from pydec.store.store import Store as Data
from pydec.store.store import layout_of
from pydec.train.checkpoint_files import DamagedPart, Store
from pydec.train.checkpoint_stored import StoredParts
from pydec.train.replicas import _DONE, _HEAD, _TAKEN, Replicas, _Leaving
from pydec.train.together import Member

_HOLD = 4  # beside ``replicas``' kinds: hold the part of this root
_AT_ONCE = 8  # objects that one pull waits for
_PULLS = 2  # at a time; others wait
_BATCH = 32  # objects that become durable together


@dataclass
class _Pull:
    """A part on its way here: what its thread wants, and what came.

    Attributes:
        wanted: objects to ask for; the thread appends, ``turn`` takes.
        open: asked for.
        answers: bytes by name, None for what nobody has; put by ``turn``. None alone: give up.
        taken: bytes that came.
    """

    root: bytes
    wanted: deque[tuple[bytes, Kind]] = field(default_factory=deque)
    open: list[Request] = field(default_factory=list)
    answers: SimpleQueue[tuple[bytes, bytes | None] | None] = field(default_factory=SimpleQueue)
    taken: int = 0
    ends: Future[None] | None = None

    def get(self, names: Sequence[bytes], kind: Kind = Kind.OBJECT) -> Iterator[tuple[bytes, bytes]]:
        """Objects in the order in which they come; in the thread.

        Raises:
            DamagedPart: nobody has one of them.
            SetupError: it was given up.
        """
        self.wanted.extend((name, kind) for name in names)
        for _ in names:
            answer = self.answers.get()
            if answer is None:
                raise SetupError("it was given up")
            name, data = answer
            if data is None:
                raise DamagedPart(f"object {name.hex()[:16]} of it is whole on no disk")
            yield name, data


class ChunkReplicas(Replicas):
    """See ``Replicas``; parts in a store go there as what receivers lack.

    Args:
        peer: this rank.
        store: where its checkpoints are; with a store for chunks.
        copies, disk: see ``Replicas``.

    Attributes:
        exchange: gives and gets objects.
    """

    def __init__(self, peer: Member, store: StoredParts, copies: int, disk: Sequence[int]) -> None:
        super().__init__(peer, store, copies, disk)
        self._parts, self._chunks = store, store.chunks
        self._root = b""  # of what is leaving; empty: it is files
        self._first: tuple[int, ...] = ()  # whom to ask first
        self.exchange = Exchange(
            peer.transport.stream(Stream.CHUNKS), self._chunks.store, lambda digest: self._first,
            keeps=lambda digest: False,
        )  # fmt: skip
        self._pulls: dict[tuple[int, int, int], _Pull] = {}  # by sender, step, rank
        self._threads = ThreadPoolExecutor(_PULLS, "pydec-pull")

    def begin(self, step: int, rank: int | None = None, to: Sequence[int] | None = None) -> None:
        """See ``Replicas.begin``."""
        self._root = self._store.stored(step, self._peer.rank if rank is None else rank)
        super().begin(step, rank, to)

    def turn(self) -> bool:
        """See ``Replicas.turn``."""
        moved = super().turn() | self.exchange.turn()
        lost = self._link.lost()
        for key, pull in list(self._pulls.items()):
            if key[0] in lost:
                self._give_up_pull(key)
                continue
            moved |= self._moved(key, pull)
            if pull.ends is not None and pull.ends.done():
                del self._pulls[key]
                error = pull.ends.exception()
                if error is None:
                    self.arrived.add(key[1:])
                    self._answer(key, _DONE, pull.taken)
                elif isinstance(error, PydecError):
                    self._refuse(key, str(error), damaged=isinstance(error, DamagedPart))
                else:
                    raise error
        return moved

    def __exit__(self, *error: object) -> None:
        for key in list(self._pulls):
            self._give_up_pull(key)
        self._threads.shutdown(wait=True)
        super().__exit__(*error)

    def _fresh(self) -> _Leaving:
        return _Leaving((0, 1), moved_s=self._link.now()) if self._root else super()._fresh()

    def _send(self, other: int, leaving: _Leaving) -> bool:
        if not self._root:
            return super()._send(other, leaving)
        if leaving.sent:
            return False
        try:
            self._link.post(other, _HEAD.pack(_HOLD, *self._what, 0, 0, 0) + self._root)
        except PeerTimeout:
            return False  # its queue is full: at the next turn
        leaving.sent = 1
        return True

    def _hear(self, sender: int, note: bytes) -> None:
        if len(note) == _HEAD.size + DIGEST_BYTES and note[0] == _HOLD:
            _, step, rank, *_ = _HEAD.unpack_from(note)
            for key in [key for key in self._pulls if key[0] == sender]:
                self._give_up_pull(key)  # its sender has begun another
            pull = self._pulls[sender, step, rank] = _Pull(note[_HEAD.size :])
            pull.ends = self._threads.submit(self._pull, pull, step, rank)
            return
        super()._hear(sender, note)

    def _moved(self, key: tuple[int, int, int], pull: _Pull) -> bool:
        """Ask for what a pull's thread wants, and give it what has come; whether anything moved."""
        moved = False
        self._first = (key[0],)
        while pull.wanted and len(pull.open) < _AT_ONCE:
            name, kind = pull.wanted.popleft()
            pull.open.append(self.exchange.want(name, kind))
            moved = True
        for request in [request for request in pull.open if request.done]:
            pull.open.remove(request)
            pull.taken += len(request.data or b"")
            pull.answers.put((request.digest, request.data))
            self._answer(key, _TAKEN, pull.taken)
            moved = True
        return moved

    def _give_up_pull(self, key: tuple[int, int, int]) -> None:
        pull = self._pulls.pop(key)
        pull.answers.put(None)

    def _pull(self, pull: _Pull, step: int, rank: int) -> None:
        """In the thread: bring a part here, and let it count."""
        ((_, data),) = pull.get([pull.root], Kind.MANIFEST)
        with self._chunks.writing():
            try:
                manifest, store = Manifest.decode(data), self._chunks.store
                self._bring(pull, manifest, store)
                self._chunks.forget_others(manifest)
                store.add_manifest(manifest)
            except (ConfigError, FrameError, StoreError) as error:
                raise SetupError(str(error)) from error
            self._parts.adopt_stored(step, rank, pull.root, self.expected.get((step, rank), ""))

    def _bring(self, pull: _Pull, manifest: Manifest, store: Data) -> None:
        batch = store.objects.batch()
        try:
            for shard in manifest.shards:
                data = _whole(store, shard.index)
                if data is None:
                    ((_, data),) = pull.get([shard.index])
                    batch.put(data)
                names = dict.fromkeys(layout_of(manifest, shard, data).index.names)
                for _, data in pull.get([name for name in names if _whole(store, name) is None]):
                    batch.put(data)
                    if len(batch) >= _BATCH:
                        batch.commit()
            batch.commit()
        finally:
            batch.abandon()


def replicas(peer: Member, store: Store, copies: int, disk: Sequence[int]) -> Replicas:
    """What makes copies of a rank's parts, wherever they lie."""
    if isinstance(store, StoredParts):
        return ChunkReplicas(peer, store, copies, disk)
    return Replicas(peer, store, copies, disk)


def _whole(store: Data, name: bytes) -> bytes | None:
    """An object that is here and right, or None; one that is damaged is moved away."""
    try:
        return store.objects.get(name)
    except ChunkError:
        return None
