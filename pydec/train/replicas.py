"""Copies of a rank's checkpoint on other disks, sent piece by piece between steps and verified on arrival.

A checkpoint's two files go, as they are on disk, to ``copies - 1`` ranks that have disks of their own, those
on other nodes first. Who shares a disk is found out by probe files with a nonce, so that on a shared file
system nothing is sent. Pieces are posted messages on the STORE stream, at most ``WINDOW_BYTES`` of them
without an answer; a receiver writes them to a temporary file, and renames it, tensors before manifest, once
all bytes have the digests that the manifest says. A sender that dies leaves a temporary file, which goes;
so do those of an earlier run that was killed.

Without MPI_THREAD_MULTIPLE no thread may send, so all this happens in ``turn``, which is called between
steps, takes what has arrived and fills the window again: at most ``WINDOW_BYTES`` a step for each copy.
"""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydec.comm.buffers import POST_LIMIT
from pydec.comm.layout import node_layout
from pydec.comm.living import living
from pydec.comm.transport import Stream
from pydec.errors import PeerTimeout, PydecError, SetupError
from pydec.train.checkpoint_files import DamagedPart, Store
from pydec.train.together import Member, settle, table, text

WINDOW_BYTES = 4 << 20
"""Bytes on their way to one rank; also what one call of ``turn`` sends to it at most."""
_HEAD = struct.Struct("<BqIQQQ")  # kind, step, rank of the files, offset, bytes of tensors, of both files
_DATA, _TAKEN, _DONE, _FAILED = range(4)
_PIECE = POST_LIMIT - _HEAD.size
_NAP_S = 0.001


def disks(peer: Member, folder: Path) -> list[int]:
    """The disk of every rank, as the lowest rank that sees the same folder; all ranks together.

    Args:
        peer: this rank.
        folder: of the run; made if it is missing.

    Raises:
        SetupError: a rank cannot write there; all ranks raise.
    """
    nonce = text(peer, os.urandom(8).hex())
    mine = folder / f".probe-{nonce}-{peer.rank}"
    error: PydecError | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mine.write_bytes(b"")
    except OSError as caught:
        error = SetupError(f"run directory {folder} cannot be written: {caught.strerror or caught}")
    settle(peer, error)
    sees = [(folder / f".probe-{nonce}-{rank}").exists() for rank in range(peer.size)]
    lowest = table(peer, [float(sees.index(True)) if any(sees) else float(peer.rank)])[:, 0]
    mine.unlink(missing_ok=True)
    return [round(float(rank)) for rank in lowest]


def holders(rank: int, members: Sequence[int], disk: Sequence[int], node: Sequence[int]) -> list[int]:
    """One rank for every disk but ``rank``'s own, in the order in which they get copies.

    Other nodes come first, and among equals the next on the ring of ``members``.
    """
    size = len(disk)
    ring = sorted((other for other in members if other != rank), key=lambda other: (other - rank) % size)
    ring.sort(key=lambda other: node[other] == node[rank])
    found: dict[int, int] = {}
    for other in ring:
        if disk[other] != disk[rank]:
            found.setdefault(disk[other], other)
    return list(found.values())


@dataclass
class _Leaving:
    """Two files on their way to one rank."""

    sizes: tuple[int, int]
    sent: int = 0
    taken: int = 0
    moved_s: float = 0.0


@dataclass
class _Arriving:
    """Files of which some bytes are here; the manifest's are in memory, they are few."""

    path: Path
    file: BinaryIO
    sizes: tuple[int, int]
    manifest: bytes = b""
    taken: int = 0
    sealing: Future[None] | None = None


class Replicas:
    """What this rank sends to other disks, and takes from other ranks; a context manager.

    Args:
        peer: this rank.
        store: where its checkpoints are.
        copies: of every file, this rank's own among them.
        disk: see ``disks``.

    Attributes:
        there: disks that have what ``begin`` named, this rank's own among them.
        failure: why a receiver could not keep it, or "".
        node: of every rank, see ``node_layout``.
        expected: digests that parts must have which arrive here, by step and rank; of others any will do.
        arrived: steps and ranks of the parts that have come here.
        refused: why others have not, and whether they were damaged, by sender, step and rank.
    """

    def __init__(self, peer: Member, store: Store, copies: int, disk: Sequence[int]) -> None:
        self.disk, self.copies = list(disk), copies
        self.there, self.failure = 1, ""
        self.expected: dict[tuple[int, int], str] = {}
        self.arrived: set[tuple[int, int]] = set()
        self.refused: dict[tuple[int, int, int], tuple[str, bool]] = {}
        self._peer, self._store = peer, store
        self.node = node_layout(peer.transport)
        self._link = peer.transport.stream(Stream.STORE)
        self._what = (0, 0)  # step and rank of what is leaving
        self._leaving: dict[int, _Leaving] = {}
        self._spare: list[int] = []
        self._arriving: dict[tuple[int, int, int], _Arriving] = {}  # by sender, step, rank
        self._unsaid: dict[int, deque[bytes]] = {}  # answers for which a sender's queue had no room
        for step in store.folders():
            store.sweep_copies(step, peer.rank)
        self._thread = ThreadPoolExecutor(1, "pydec-replica")

    @property
    def busy(self) -> bool:
        """Whether something of this rank's has not been acknowledged yet."""
        return bool(self._leaving)

    def foreign(self, step: int) -> list[int]:
        """Ranks whose files of a step lie on this disk and nobody who writes here wrote them."""
        members = living(self._peer.transport).members
        mine = self.disk[self._peer.rank]
        return [r for r in self._store.ranks(step) if r not in members or self.disk[r] != mine]

    def begin(self, step: int, rank: int | None = None, to: Sequence[int] | None = None) -> None:
        """Send a checkpoint's files; what was under way is given up.

        Args:
            step: of the checkpoint.
            rank: whose it is; None for this rank's.
            to: receivers; None for those that ``holders`` names.
        """
        mine = self._peer.rank
        self._what = (step, mine if rank is None else rank)
        self.there, self.failure = 1, ""
        if to is None:
            found = holders(mine, living(self._peer.transport).members, self.disk, self.node)
            to, self._spare = found[: self.copies - 1], found[self.copies - 1 :]
        else:
            self._spare = []
        self._leaving = {other: self._fresh() for other in to}

    def turn(self) -> bool:
        """Take what has arrived and send what fits the windows; never waits. Whether anything moved."""
        moved = False
        while (note := self._link.poll()) is not None:
            moved = True
            self._hear(*note)
        self._seal_all()
        lost = self._link.lost()
        for key in [key for key in self._arriving if key[0] in lost]:
            self._drop(key)
        for other in list(self._unsaid):
            if other in lost or self._answered(other):
                del self._unsaid[other]
        for other in list(self._leaving):
            if other in lost:
                del self._leaving[other]
                if self._spare:
                    self._leaving[self._spare.pop(0)] = self._fresh()
        for other, leaving in list(self._leaving.items()):
            if self._link.now() - leaving.moved_s > self._link.deadline_s:
                self._give_up(other, f"rank {other} took nothing for {self._link.deadline_s:g} s")
                continue
            try:
                moved |= self._send(other, leaving)
            except OSError as error:
                self._give_up(other, f"its files cannot be read: {error.strerror or error}")
        return moved

    def finish(self) -> None:
        """Until all ranks' copies are acknowledged or given up; all ranks together."""
        while table(self._peer, [float(self.busy)])[:, 0].any():
            if not self.turn():
                time.sleep(_NAP_S)

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(wait=True)
        for key in list(self._arriving):
            self._drop(key)

    def _fresh(self) -> _Leaving:
        try:
            sizes = [self._store.path(*self._what, kind).stat().st_size for kind in ("safetensors", "json")]
        except OSError:
            sizes = [0, 1]  # gone: the first piece will say so
        return _Leaving((sizes[0], sizes[1]), moved_s=self._link.now())

    def _give_up(self, other: int, why: str) -> None:
        self._leaving.pop(other, None)
        self.failure = self.failure or why

    def _send(self, other: int, leaving: _Leaving) -> bool:
        """Fill the window; whether anything was sent."""
        tensors, total = leaving.sizes[0], sum(leaving.sizes)
        before = leaving.sent
        while leaving.sent < total and leaving.sent - leaving.taken < WINDOW_BYTES:
            first = leaving.sent < tensors
            path = self._store.path(*self._what, "safetensors" if first else "json")
            start, stop = (0, tensors) if first else (tensors, total)
            with open(path, "rb") as file:
                file.seek(leaving.sent - start)
                piece = file.read(min(_PIECE, stop - leaving.sent))
            if not piece:
                raise OSError(f"{path} has become shorter")
            try:
                head = _HEAD.pack(_DATA, *self._what, leaving.sent, tensors, total)
                self._link.post(other, head + piece)
            except PeerTimeout:
                break  # its queue is full: at the next turn
            leaving.sent += len(piece)
        return leaving.sent > before

    def _answer(self, key: tuple[int, int, int], kind: int, at: int, more: bytes = b"") -> None:
        """Tell a sender what became of its files; at a later turn, if its queue is full now."""
        sender, step, rank = key
        self._unsaid.setdefault(sender, deque()).append(_HEAD.pack(kind, step, rank, at, 0, 0) + more)
        if self._answered(sender):
            del self._unsaid[sender]

    def _answered(self, sender: int) -> bool:
        """Post what is unsaid, in order, as far as the queue takes it; whether that was all."""
        unsaid = self._unsaid[sender]
        try:
            while unsaid:
                self._link.post(sender, unsaid[0])
                unsaid.popleft()
        except PeerTimeout:
            return False  # it hangs, perhaps: that is no reason to end here
        return True

    def _hear(self, sender: int, note: bytes) -> None:
        if len(note) < _HEAD.size:
            for key in [key for key in self._arriving if key[0] == sender]:
                self._refuse(key, "a message arrived cut short")
            if sender in self._leaving:
                self._give_up(sender, f"an answer of rank {sender} arrived cut short")
            return
        kind, step, rank, at, tensors, total = _HEAD.unpack_from(note)
        if kind == _DATA:
            self._take(sender, step, rank, at, (tensors, total - tensors), note[_HEAD.size :])
            return
        leaving = self._leaving.get(sender)
        if leaving is None or (step, rank) != self._what:
            return  # about something that was given up
        leaving.taken, leaving.moved_s = max(leaving.taken, at), self._link.now()
        if kind == _DONE:
            del self._leaving[sender]
            self.there += 1
        elif kind == _FAILED:
            words = note[_HEAD.size :].decode(errors="replace")
            self._give_up(sender, f"rank {sender} could not keep a copy: {words}")

    def _take(self, sender: int, step: int, rank: int, at: int, sizes: tuple[int, int], piece: bytes) -> None:
        """Write a piece; one that does not follow the last is of something that was given up."""
        key = sender, step, rank
        try:
            if at == 0:
                self._drop(key)
                for old in [old for old in self._arriving if old[0] == sender]:
                    self._drop(old)  # its sender has begun another
                path = self._store.path(step, rank)
                path.parent.mkdir(parents=True, exist_ok=True)
                path = path.with_name(f".{path.name}.{os.getpid()}-{self._peer.rank}.tmp")
                self._arriving[key] = _Arriving(path, open(path, "wb"), sizes)  # noqa: SIM115
            arriving = self._arriving.get(key)
            if arriving is None or at < arriving.taken:
                return
            end = sizes[0] if at < sizes[0] else sum(sizes)
            if at > arriving.taken or sizes != arriving.sizes or len(piece) != min(_PIECE, end - at):
                self._refuse(key, f"the piece at byte {at} is not what follows byte {arriving.taken}")
                return
            if at < sizes[0]:
                arriving.file.write(piece)
            else:
                arriving.manifest += piece
            arriving.taken += len(piece)
            if arriving.taken == sum(sizes):
                arriving.file.flush()
                arriving.sealing = self._thread.submit(self._seal, arriving, step, rank)
            self._answer(key, _TAKEN, arriving.taken)
        except OSError as error:
            self._refuse(key, error.strerror or str(error), damaged=False)

    def _seal(self, arriving: _Arriving, step: int, rank: int) -> None:
        """In the thread: verify what has arrived and put it in place."""
        os.fsync(arriving.file.fileno())
        arriving.file.close()
        digest = self.expected.get((step, rank), "")
        self._store.adopt(step, rank, arriving.path, arriving.manifest, digest)

    def _seal_all(self) -> None:
        for key, arriving in list(self._arriving.items()):
            if arriving.sealing is None or not arriving.sealing.done():
                continue
            error = arriving.sealing.exception()
            if error is None:
                del self._arriving[key]
                self.arrived.add(key[1:])
                self._answer(key, _DONE, arriving.taken)
            else:
                self._refuse(key, str(error), damaged=isinstance(error, DamagedPart))

    def _refuse(self, key: tuple[int, int, int], why: str, *, damaged: bool = True) -> None:
        self._drop(key)
        self.refused[key] = why, damaged
        self._answer(key, _FAILED, 0, why.encode()[:1000])

    def _drop(self, key: tuple[int, int, int]) -> None:
        """Forget what has arrived, and remove its temporary file."""
        arriving = self._arriving.pop(key, None)
        if arriving is None:
            return
        if arriving.sealing is not None:
            arriving.sealing.exception()
        try:
            arriving.file.close()
        except OSError:
            pass  # the disk is full, which its sender is told: what was buffered is lost, as it is to be
        arriving.path.unlink(missing_ok=True)
