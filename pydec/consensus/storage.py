"""What a replica needs of a disk, and a disk in memory that can lose its last writes.

The replica does no I/O: its driver carries out ``Persist`` and ``Append`` effects on a ``Storage`` before it
sends anything, and gives what ``load`` and ``record`` return to a replica that starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Restored:
    """What a start finds.

    Args:
        record: the newest safety record, None if there is none.
        sound: False if votes were or may have been signed that ``record`` does not show: it is damaged or
            stale, or the chain knows the key but no record is here. The replica then only follows until
            nothing that it could vote on was open when the record was lost.
    """

    record: bytes | None = None
    sound: bool = True


class Storage(Protocol):
    """Durable when the call returns, or an exception and the old contents."""

    def load(self) -> Restored:
        """The safety record."""
        ...

    def persist(self, record: bytes) -> None:
        """Replace the safety record."""
        ...

    def append(self, height: int, record: bytes) -> None:
        """Add the decision of the next height: a DECISION message, block and commit certificate."""
        ...

    def record(self, height: int) -> bytes | None:
        """The decision of a height, None if it is not here."""
        ...

    @property
    def head(self) -> int:
        """The last height, 0 if there is none."""
        ...


class MemoryStorage:
    """Storage in memory. ``crash`` loses what was written since the last ``sync``.

    Args:
        lazy: True makes ``persist`` and ``append`` return before they are durable, which is the bug that
            tests must see; False syncs in each call.
    """

    def __init__(self, lazy: bool = False) -> None:
        self._lazy = lazy
        self._record: bytes | None = None
        self._blocks: list[bytes] = []
        self._durable: tuple[bytes | None, int] = (None, 0)

    def load(self) -> Restored:
        """The safety record."""
        return Restored(self._record)

    def persist(self, record: bytes) -> None:
        """Replace the safety record."""
        self._record = record
        self._synced()

    def append(self, height: int, record: bytes) -> None:
        """Add the decision of the next height."""
        if height != len(self._blocks) + 1:
            raise ValueError(f"the ledger ends at height {len(self._blocks)}, so {height} cannot follow")
        self._blocks.append(record)
        self._synced()

    def record(self, height: int) -> bytes | None:
        """The decision of a height, None if it is not here."""
        return self._blocks[height - 1] if 0 < height <= len(self._blocks) else None

    @property
    def head(self) -> int:
        """The last height, 0 if there is none."""
        return len(self._blocks)

    def sync(self) -> None:
        """Make everything written so far durable."""
        self._durable = (self._record, len(self._blocks))

    def crash(self) -> None:
        """Back to the last sync."""
        self._record, blocks = self._durable
        del self._blocks[blocks:]

    def _synced(self) -> None:
        if not self._lazy:
            self.sync()
