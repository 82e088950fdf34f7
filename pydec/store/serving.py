"""Answer for what is served: every object comes with a signature, and who signs for other bytes proves it.

Who sends bytes that its signature does not cover is dropped as if it had sent nothing; who signs for them has
signed that they are not the object that it was asked for, which anybody can check (``crypto.serving``). An
honest peer verifies an object when it reads it and signs its name, so that no fault of its memory on the way
can accuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydec.crypto.serving import serving_bytes
from pydec.crypto.signing import SigningKey, verify
from pydec.errors import SignatureError


@dataclass(frozen=True)
class Proof:
    """Peer ``peer`` signed that, asked for ``name``, it sent bytes of BLAKE3 ``digest``, which are others."""

    peer: int
    asker: int
    request: int
    name: bytes
    digest: bytes
    signature: bytes


class Seal:
    """Signs what a peer serves, and checks what others do.

    Args:
        rank: of this peer.
        key: its identity.
        keys: of all peers, by rank.
        context: 32 bytes that no other ledger has.
        accuse: told of every proof.
    """

    def __init__(
        self,
        rank: int,
        key: SigningKey,
        keys: Mapping[int, bytes],
        context: bytes,
        accuse: Callable[[Proof], None],
    ) -> None:
        self._rank, self._key, self._keys, self._context = rank, key, keys, context
        self._accuse = accuse

    def sign(self, asker: int, request: int, name: bytes, digest: bytes) -> bytes:
        """The signature that goes with an object; ``digest`` is that of what is sent."""
        return self._key.sign(serving_bytes(self._context, asker, request, name, digest))

    def holds(self, peer: int, request: int, name: bytes, digest: bytes, signature: bytes) -> bool:
        """Whether a signature covers what came from a peer; one that covers something else is a proof."""
        said = serving_bytes(self._context, self._rank, request, name, digest)
        try:
            verify(self._keys[peer], said, signature)
        except (KeyError, SignatureError):
            return False
        if digest != name:
            self._accuse(Proof(peer, self._rank, request, name, digest, signature))
        return True
