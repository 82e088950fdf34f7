"""Which key is behind which rank: a signed answer to a fresh nonce, and nothing before it.

A node asks a rank with a nonce of its own; the answer signs the nonce, the chain and both ranks, so that it
convinces nobody else, at no other time, about no other rank. Messages of a rank count as those of the key it
has proved; what matters in them is signed by that key once more.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from pydec.crypto.signing import KEY_BYTES, SIGNATURE_BYTES, SigningKey, verify
from pydec.errors import ProtocolError, SignatureError

ASK, HELLO = 0xA0, 0xA1  # first bytes; those of ledger messages are versions, which start at 1
NONCE_BYTES = 32
_DOMAIN = b"pydec.ledger.hello.v1"
_STATED = struct.Struct(">32s32sQII32s")  # chain, identity, incarnation, from, to, nonce
_HELLO = struct.Struct(">B32sQ32s64s")


class Greeter:
    """Asks, answers and remembers; no I/O.

    Args:
        key: this node's identity.
        chain_id: 32 bytes.
        rank: of this node in the cluster.
        incarnation: how often this node has started, see ``KeyLock``.
        draw: gives that many fresh random bytes.
    """

    def __init__(
        self,
        key: SigningKey,
        chain_id: bytes,
        rank: int,
        incarnation: int,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._key = key
        self._chain_id = chain_id
        self._rank = rank
        self._incarnation = incarnation
        self._draw = draw
        self._asked: dict[int, bytes] = {}
        self._nodes: dict[int, tuple[bytes, int]] = {}  # rank: identity, incarnation
        self._ranks: dict[bytes, int] = {key.public: rank}

    def ask(self, peer: int) -> bytes:
        """The question to send to a rank; an earlier one to it is void."""
        self._asked[peer] = self._draw(NONCE_BYTES)
        return bytes([ASK]) + self._asked[peer]

    def node(self, peer: int) -> bytes | None:
        """The identity that a rank has proved, None if none yet."""
        found = self._nodes.get(peer)
        return None if found is None else found[0]

    def rank_of(self, node: bytes) -> int | None:
        """The rank that has proved an identity, None if none has."""
        return self._ranks.get(node)

    def receive(self, peer: int, data: bytes) -> bytes | None:
        """Take a question, and return the answer to send; or take an answer to the last question to the rank.

        Raises:
            ProtocolError: it is neither, or the answer does not prove what it says.
        """
        if len(data) == 1 + NONCE_BYTES and data[0] == ASK:
            nonce = data[1:]
            signature = self._key.sign(
                self._stated(self._key.public, self._incarnation, self._rank, peer, nonce)
            )
            return _HELLO.pack(HELLO, self._key.public, self._incarnation, nonce, signature)
        if len(data) != _HELLO.size or data[0] != HELLO:
            raise ProtocolError(peer, f"sent {len(data)} bytes that are no greeting")
        _, identity, incarnation, nonce, signature = _HELLO.unpack(data)
        if self._asked.get(peer) != nonce:
            return None  # the network doubled it, or the peer was slow and asked again: it proves nothing
        del self._asked[peer]
        try:
            verify(identity, self._stated(identity, incarnation, peer, self._rank, nonce), signature)
        except SignatureError as error:
            raise ProtocolError(peer, f"claims a key without proof: {error}") from None
        self._bind(peer, identity, incarnation)
        return None

    def _bind(self, peer: int, identity: bytes, incarnation: int) -> None:
        holder = self._ranks.get(identity)
        if holder == self._rank:
            raise ProtocolError(peer, f"holds this node's own key {identity.hex()[:16]}: one process per key")
        if holder is not None and self._nodes[holder][1] > incarnation:
            raise ProtocolError(
                peer, f"holds key {identity.hex()[:16]} in start {incarnation}, rank {holder} in a later one"
            )
        if holder is not None:
            del self._nodes[holder]
        if (before := self.node(peer)) is not None:
            del self._ranks[before]
        self._nodes[peer] = identity, incarnation
        self._ranks[identity] = peer

    def _stated(self, identity: bytes, incarnation: int, sender: int, receiver: int, nonce: bytes) -> bytes:
        return _DOMAIN + _STATED.pack(self._chain_id, identity, incarnation, sender, receiver, nonce)


assert _HELLO.size == 1 + KEY_BYTES + 8 + NONCE_BYTES + SIGNATURE_BYTES
