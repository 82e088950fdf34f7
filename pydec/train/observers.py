"""What ranks that take no part are told: metrics, where they may see them, and that the run has ended.

An observer is a rank of the job whose role on the ledger is not to train. It keeps a node of the ledger,
which follows every block, and writes the metrics that the others post to it. Models, gradients, checkpoints
are never sent to it: for those that train it is no rank of their cluster (``comm.team``).
"""

from __future__ import annotations

import json
import math
import struct
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydec.comm.buffers import POST_LIMIT
from pydec.comm.transport import Stream
from pydec.consensus.access import Action
from pydec.errors import LedgerError, PeerLost, PeerTimeout
from pydec.train.admission import Admission

if TYPE_CHECKING:
    from pydec.consensus.driver import Driver
    from pydec.peer import Peer
    from pydec.train.rundir import Metrics, RunDir

_EVERY_S = 1.0  # between posts of metrics
_NAP_S = 0.02
_LAST_S = 10.0  # between the first and the last that say that it is over
_LEVEL_S = 5.0  # that an observer waits for the last blocks
_ROWS, _END = range(2)
_HEIGHT = struct.Struct("<Q")


class Feed:
    """Tells those outside what they may know; a context manager, whose exit says that the run is over here.

    Args:
        admission: of this rank, which takes part.
        driver: its node of the ledger.
    """

    def __init__(self, admission: Admission, driver: Driver) -> None:
        self._admission, self._driver = admission, driver
        self._link = admission.whole.stream(Stream.COLLECT)
        self._lines = bytearray()
        self._told_s = self._link.now()
        self._denied: set[int] = set()

    def tell(self, row: bytes) -> None:
        """Metrics of this rank: one line of JSON. Sent now and then, with others."""
        if not self._admission.outside or len(row) >= POST_LIMIT:
            return
        if len(self._lines) + len(row) >= POST_LIMIT:
            self.flush()
        self._lines += row
        if self._link.now() - self._told_s >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Send what was told, now."""
        self._told_s = self._link.now()
        if self._lines:
            self._post(_ROWS, bytes(self._lines))
            self._lines.clear()

    def _post(self, kind: int, data: bytes) -> None:
        for rank in self._admission.outside.keys() - self._link.lost():
            if kind == _END or self._sees(rank):
                with suppress(PeerTimeout, PeerLost):  # whoever takes nothing cannot be told
                    self._link.post(rank, bytes([kind]) + data)

    def _sees(self, rank: int) -> bool:
        """Whether a rank may see metrics; counted once if it may not."""
        denied = self._admission.denial(rank, Action.READ_METRICS)
        if denied is not None and rank not in self._denied:
            self._denied.add(rank)
            self._driver.gate.note(denied, quiet=self._admission.rank != min(self._admission.inside))
        return denied is None

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._admission.takes_part:
            return  # it is outside itself by now
        self.flush()
        self._post(_END, _HEIGHT.pack(self._driver.head[0]))


def attend(peer: Peer, admission: Admission, driver: Driver, directory: RunDir, *, quiet: bool) -> None:
    """The part of a rank that is outside: follow what it may, until the others are done.

    Args:
        peer: this rank.
        admission: of this rank.
        driver: its node of the ledger, which goes on.
        directory: of the run; what this rank observes goes to ``observed/rank-N.jsonl`` in it.
        quiet: whether to print nothing.

    Raises:
        SetupError: that cannot be written.
    """
    denied = admission.outside[admission.rank]
    sees = admission.may(admission.rank, Action.READ_METRICS)
    if not quiet:
        what = "it follows metrics and the ledger" if sees else "it waits for the others to end"
        print(f"pydec: rank {admission.rank}: {denied}; {what}", flush=True)
    record = directory.observed(admission.rank) if sees else None
    # Nobody waits for this rank, at whatever step the others stop.
    with peer.defer(lambda: 0):
        height = _follow(peer, admission, driver, record, quiet=quiet)
    with suppress(LedgerError):
        driver.wait_for_height(height, _LEVEL_S)


def _follow(peer: Peer, admission: Admission, driver: Driver, record: Metrics | None, *, quiet: bool) -> int:
    """Take what comes, until those that take part say that it is over; the height of their ledger then."""
    link = admission.whole.stream(Stream.COLLECT)
    heights: dict[int, int] = {}
    until_s = math.inf
    with record or nullcontext():
        while (waiting := _training(admission) - link.lost() - heights.keys()) and link.now() < until_s:
            peer.check()
            note = link.poll()
            if note is None:
                driver.pause(_NAP_S)
                continue
            sender, data = note
            if sender not in waiting:
                continue
            if len(data) == 1 + _HEIGHT.size and data[0] == _END:
                (heights[sender],) = _HEIGHT.unpack(data[1:])
                until_s = min(until_s, link.now() + _LAST_S)
            elif data[:1] == bytes([_ROWS]) and record is not None:
                for row in _rows(data[1:]):
                    record.add({"rank": sender, **row})
                    if row.get("kind") == "evaluation" and not quiet:
                        print(f"pydec: step {row.get('step')}: loss {row.get('loss')}", flush=True)
    return max(heights.values(), default=driver.head[0])


def _training(admission: Admission) -> set[int]:
    """Ranks that take part and have not lost their role since."""
    return {rank for rank in admission.inside if admission.may(rank, Action.GOSSIP)}


def _rows(lines: bytes) -> list[dict[str, Any]]:
    """Rows of metrics; what is none is left out."""
    found = []
    for line in lines.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found
