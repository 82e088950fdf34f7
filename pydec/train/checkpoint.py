"""Checkpoints beside training: a step copies a rank's state, a thread writes it, and old ones go.

All living ranks checkpoint at the same steps. There, and a quarter of the way to the next, they tell one
another in one small exchange what each has written: a checkpoint counts once all have theirs (of a rank that
has died since, once any disk holds it), and a rank removes its part of an older one only when ``keep`` newer
ones count. If the disk of any rank still works on the one before, all leave this one out: training never
waits for a disk, and one that is slower than ``every`` steps gets as many as it can take.

A checkpoint that cannot be written costs a warning at the next step; the older ones stay, the next is
tried, and the run fails at its end only if its last one is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor

from pydec.comm.living import living
from pydec.comm.words import say_counted
from pydec.crypto.hashing import DIGEST_BYTES, merkle_root
from pydec.errors import PydecError, SetupError
from pydec.trace import traced
from pydec.train.checkpoint_files import Store, digest_of
from pydec.train.checkpoint_layout import Layout
from pydec.train.replicas import Replicas
from pydec.train.together import Member, speaks, table

NOTHING = -1
"""In place of a step: none has been written."""


@dataclass(frozen=True)
class Snapshot:
    """A rank's state between two steps, not copied.

    Args:
        tensors: by name, see ``checkpoint_files``.
        body: the rest, as JSON.
    """

    tensors: Mapping[str, Tensor]
    body: Mapping[str, Any]


class Saver:
    """This rank's checkpoints; a context manager that leaves when nothing is being written.

    Args:
        peer: this rank.
        store: where they go.
        take: makes a snapshot; called between steps.
        every: steps between checkpoints; 0 makes none but the last.
        keep: how many that count are kept; 0 makes none at all.
        certify: called on all ranks with a step and the Merkle root of all ranks' manifests, in order, once
            that checkpoint counts; None certifies nothing.
        replicas: sends copies to other disks, and a checkpoint counts once they are acknowledged; None
            makes none. With fewer disks than copies asked for it can be resumed from but is not certified,
            and the newest with all its copies is kept besides.

    Attributes:
        newest: step of this rank's newest checkpoint, with its copies.
        left_out: how often a disk was still busy.
        failure: why the newest attempt failed, or "".
    """

    def __init__(
        self,
        peer: Member,
        store: Store,
        take: Callable[[], Snapshot],
        *,
        every: int,
        keep: int,
        certify: Callable[[int, bytes], None] | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self.newest = NOTHING
        self.left_out = 0
        self.failure = ""
        self._peer, self._store, self._take = peer, store, take
        self._every, self._keep, self._certify = every, keep, certify
        self._digest = bytes(DIGEST_BYTES)  # of the newest manifest
        self._members: tuple[int, ...] = ()  # whom the newest is of
        self._taken = NOTHING  # its step
        self._soon = every // 4  # steps after which they ask one another whether it counts
        self._counts: list[int] = []  # steps that all ranks have, the newest last
        self._copies = 1  # of the newest
        self._whole = NOTHING  # the newest that counts with all the copies asked for
        self._warned = False
        self._layout: Layout | None = None
        self._buffer: Tensor | None = None
        self._writing: tuple[int, Future[bytes]] | None = None
        self._replicas = replicas
        self._copying: tuple[int, bytes] | None = None  # step and digest of what is being sent
        self._thread = ThreadPoolExecutor(1, "pydec-checkpoint")

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if self._replicas is not None:
            self._replicas.__exit__(kind, error, trace)
        self._store.close()

    @property
    def counts(self) -> list[int]:
        """Steps of the checkpoints that count, the newest last."""
        return list(self._counts)

    def go_on(self, step: int, counts: Sequence[int] | None = None) -> None:
        """The run goes on from this step; what came later is removed.

        Args:
            step: of the checkpoint, which counts.
            counts: what counts in its place, where the ranks had the state of that step in memory.
        """
        self._counts = [step] if counts is None else list(counts)
        if counts is None and speaks(self._peer):
            say_counted(self._peer.rank, step)
        for later in self._store.folders():
            if later > step:
                self._remove(later)
            self._store.sweep(later, self._peer.rank)

    def after(self, step: int) -> None:
        """Call after every step: looks at what was written, and begins the next where one is due.

        Raises:
            ConfigError: the state holds something that a checkpoint cannot.
        """
        self._look()
        if not self._every or not self._keep:
            return
        if step % self._every == self._soon and self._taken == step - self._soon:
            self._settle(busy=False)
        if step % self._every == 0:
            self._begin(step)

    @traced("checkpoint")
    def _begin(self, step: int) -> None:
        busy = self._writing is not None or self._copying is not None
        if self._settle(busy):
            self.left_out += 1
            return
        shot = self._snapshot(step)
        if self._layout is None or self._buffer is None or not _fits(self._layout, shot.tensors):
            self._layout = Layout(shot.tensors)
            self._buffer = None  # before the next is asked for
            self._buffer = self._layout.buffer()
        self._layout.fill(self._buffer, shot.tensors)
        writing = self._thread.submit(
            self._store.write_buffer, step, self._peer.rank, self._buffer, shot.body
        )
        self._writing = step, writing

    @traced("checkpoint")
    def now(self, step: int) -> None:
        """Write this step's checkpoint and return when it is there, or was found to be impossible.

        All ranks call it after the same step.
        """
        self.wait()
        if not self._keep:
            return
        self._copied()
        self._settle(busy=False)  # all agree who lives, too, which is what a checkpoint is of
        if self.newest != step:
            try:
                shot = self._snapshot(step)
                digest = self._store.write_tensors(step, self._peer.rank, shot.tensors, shot.body)
            except PydecError as error:
                self._fail(step, error)
            else:
                self._written(step, digest)
        self._copied()
        self._settle(busy=False)

    def _snapshot(self, step: int) -> Snapshot:
        self._members, self._taken = living(self._peer.transport).members, step
        return self._take()

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._writing is not None:
            self._writing[1].exception()
            self._look()

    def complete(self, step: int) -> SetupError | None:
        """Whether all living ranks have this step's checkpoint; all together, after ``now``."""
        if not self._keep:
            return None
        rows = table(self._peer, [self.newest])[:, 0]
        missing = [rank for rank in living(self._peer.transport).members if rows[rank] != step]
        if not missing:
            return None
        return SetupError(
            f"training is done and its model is written, but the checkpoint of step {step} is not complete: "
            f"rank {missing[0]} could not write its part ({self.failure or 'it says why above'}); a longer "
            f"run can go on from step {self._counts[-1] if self._counts else 0}"
        )

    def _settle(self, busy: bool) -> bool:
        """Learn what all ranks have; whether the disk of any is busy."""
        rows = table(self._peer, [float(busy), float(self.newest), float(self._copies), *self._digest])
        members = living(self._peer.transport).members
        digests = {rank: np.rint(rows[rank, 3:]).astype(np.uint8).tobytes() for rank in members}
        rows = rows[list(members)]
        step = int(rows[:, 1].min())
        if step > (self._counts[-1] if self._counts else NOTHING) and (rows[:, 1] == step).all():
            digests |= self._of_the_dead(step, members)
            if digests.keys() >= {*self._members}:
                self._count(step, digests, round(float(rows[:, 2].min())))
        return bool(rows[:, 0].any())

    def _count(self, step: int, digests: Mapping[int, bytes], copies: int) -> None:
        """A checkpoint counts: the digests of its parts by rank, and the fewest copies of any."""
        self._counts.append(step)
        if speaks(self._peer):
            say_counted(self._peer.rank, step)
        if self._replicated(step, copies) and self._certify is not None:
            self._certify(step, merkle_root(digests[rank] for rank in self._members))
        self._prune()

    def _of_the_dead(self, step: int, members: Sequence[int]) -> dict[int, bytes]:
        """Digests of the parts of those who have died since they wrote a step, where any disk holds them."""
        gone = [rank for rank in self._members if rank not in members]
        if not gone:
            return {}
        mine = []
        for rank in gone:
            try:
                found = bytes.fromhex(digest_of(self._store.manifest(step, rank)))
            except PydecError:
                mine += [0.0] * (1 + DIGEST_BYTES)
            else:
                mine += [1.0, *map(float, found)]
        rows = np.rint(table(self._peer, mine)).astype(np.uint8).reshape(-1, len(gone), 1 + DIGEST_BYTES)
        return {
            rank: rows[int(rows[:, place, 0].argmax()), place, 1:].tobytes()
            for place, rank in enumerate(gone)
            if rows[:, place, 0].any()
        }

    def _replicated(self, step: int, copies: int) -> bool:
        """Whether a step that counts has the copies asked for; a warning says once that it has not."""
        asked = 1 if self._replicas is None else self._replicas.copies
        if copies >= asked:
            self._whole, self._warned = step, False
            return True
        if not self._warned and speaks(self._peer):
            words = (
                f"has {copies} of the {asked} copies asked for: too few disks are left. It is not certified"
            )
            _warn(self._peer.rank, f"the checkpoint of step {step} {words}; --resume can use it")
        self._warned = True
        return False

    def _prune(self) -> None:
        """Remove this rank's part of what is older than the ``keep`` newest that count."""
        if len(self._counts) < self._keep:
            return
        del self._counts[: -self._keep]
        for old in self._store.folders():
            if old < self._counts[0] and old != self._whole:
                self._remove(old)

    def _remove(self, old: int) -> None:
        """Remove this rank's part, and its share of those of ranks that are dead or no more."""
        members = living(self._peer.transport).members
        place = members.index(self._peer.rank)
        others = [rank for rank in self._store.ranks(old) if rank not in members]
        mine = {rank for rank in others if rank % len(members) == place}
        if self._replicas is not None:
            mine.update(self._replicas.foreign(old))
        try:
            for rank in mine | {self._peer.rank}:
                self._store.remove(old, rank)
        except (OSError, PydecError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            _warn(self._peer.rank, f"cannot remove the checkpoint of step {old}: {why}")

    def _look(self) -> None:
        """See what came of the one that is being written, and of its copies."""
        if self._replicas is not None:
            self._replicas.turn()
            if self._copying is not None and not self._replicas.busy:
                (step, digest), self._copying = self._copying, None
                if self._replicas.failure:
                    self._fail(step, SetupError(self._replicas.failure))
                else:
                    self._has(step, digest)
                    self._copies = self._replicas.there
        if self._writing is None or not self._writing[1].done():
            return
        step, writing = self._writing
        self._writing = None
        error = writing.exception()
        if error is None:
            self._written(step, writing.result())
        elif isinstance(error, PydecError):
            self._fail(step, error)
        else:
            raise error

    def _written(self, step: int, digest: bytes) -> None:
        """This rank's own files are there; they count at once, or when their copies do."""
        if self._replicas is None:
            self._has(step, digest)
        else:
            self._replicas.begin(step)
            self._copying = step, digest

    def _has(self, step: int, digest: bytes) -> None:
        """This rank has what it must have of a checkpoint."""
        self.newest, self.failure, self._digest = step, "", digest

    def _copied(self) -> None:
        """Wait for the copies of all ranks, who call it together."""
        if self._replicas is not None:
            self._replicas.finish()
            self._look()

    def _fail(self, step: int, error: PydecError) -> None:
        self.failure = str(error)
        _warn(
            self._peer.rank,
            f"the checkpoint of step {step} could not be written, training goes on: {error}",
        )


def _fits(layout: Layout, tensors: Mapping[str, Tensor]) -> bool:
    return layout.shapes.keys() == tensors.keys() and all(
        layout.shapes[name] == (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()
    )


def _warn(rank: int, words: str) -> None:
    print(f"pydec: warning: rank {rank}: {words}", file=sys.stderr, flush=True)
