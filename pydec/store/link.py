"""What the store asks of a transport."""

from __future__ import annotations

from typing import Protocol


class Link(Protocol):
    """What is asked of a transport; ``comm.Transport`` has it."""

    rank: int
    size: int

    def post(self, peer: int, data: bytes) -> None:
        """Send a message."""

    def poll(self) -> tuple[int, bytes] | None:
        """The next message that has arrived."""

    def lost(self) -> frozenset[int]:
        """Ranks that are dead."""

    def now(self) -> float:
        """Seconds."""
