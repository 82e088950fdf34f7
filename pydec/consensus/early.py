"""Messages of the next height wait for it, a few of each author (rule 9)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from pydec.consensus.messages import Message

EARLY = 8  # messages that are kept of one author
EARLY_BYTES = 3 << 19  # and their bytes: a proposal and some votes
STRANGERS = 64  # authors outside the table, who may be in the next one


class Early:
    """What has come before its time."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[tuple[Message, int]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def keep(self, sender: bytes, message: Message, n_bytes: int, n_validators: int) -> None:
        """Keep a message; of too many of one author the oldest is forgotten.

        Args:
            sender: its author.
            message: of the next height.
            n_bytes: its length.
            n_validators: size of the table.
        """
        if sender not in self._waiting and len(self._waiting) >= n_validators + STRANGERS:
            return
        waiting = self._waiting.setdefault(sender, deque())
        waiting.append((message, n_bytes))
        while len(waiting) > EARLY or sum(size for _, size in waiting) > EARLY_BYTES:
            waiting.popleft()

    def take(self) -> Iterator[tuple[bytes, Message, int]]:
        """All of them, with author and length; nothing is kept any more."""
        waiting, self._waiting = self._waiting, {}
        for sender, messages in waiting.items():
            for message, n_bytes in messages:
                yield sender, message, n_bytes
