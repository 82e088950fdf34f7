"""How a peer proves that it holds an object, and what is known of those that were asked."""

from __future__ import annotations

from blake3 import blake3

from pydec.store.messages import Kind, Message


def possession(data: bytes, offset: int, length: int, nonce: bytes) -> bytes:
    """What proves that somebody holds bytes: BLAKE3 of a range, keyed by a nonce; empty if too short."""
    return blake3(data[offset : offset + length], key=nonce).digest() if offset + length <= len(data) else b""


class Proofs:
    """Answers to challenges, by peer and number."""

    def __init__(self) -> None:
        self._said: dict[tuple[int, int], bytes | None] = {}

    def ask(self, peer: int, number: int) -> None:
        """A challenge was sent."""
        self._said[peer, number] = None

    def hear(self, peer: int, message: Message) -> bool:
        """Take an answer; whether it is one to a challenge."""
        key = peer, message.request
        if key not in self._said:
            return False
        if message.kind in (Kind.PROOF, Kind.LACK):
            self._said[key] = message.body
        return True

    def take(self, key: tuple[int, int]) -> bytes | None:
        """The answer, once: a digest, empty for "not here"; None while there is none."""
        found = self._said[key]
        if found is not None:
            del self._said[key]
        return found

    def forget(self, key: tuple[int, int]) -> None:
        """Wait for it no longer."""
        self._said.pop(key, None)
