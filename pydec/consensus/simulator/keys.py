"""Signatures for simulations: a keyed hash that one keyring can check, 20 times faster than Ed25519."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pydec.errors import SignatureError


@dataclass(frozen=True)
class ToySigner:
    """Signs by a keyed hash; deterministic like Ed25519, and worthless outside of a simulation."""

    secret: bytes = field(repr=False)
    public: bytes

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return hashlib.blake2b(message, key=self.secret, digest_size=64).digest()


class Keyring:
    """All keys of a simulation."""

    def __init__(self) -> None:
        self._signers: dict[bytes, ToySigner] = {}

    def signer(self, name: str) -> ToySigner:
        """The key of that name."""
        secret = hashlib.sha256(name.encode()).digest()
        signer = ToySigner(secret, hashlib.sha256(b"public" + secret).digest())
        return self._signers.setdefault(signer.public, signer)

    def of(self, public: bytes) -> ToySigner:
        """Whoever holds the keyring can sign for anybody: adversaries take their own keys only."""
        return self._signers[public]

    def verify(self, public: bytes, message: bytes, signature: bytes) -> None:
        """As ``pydec.crypto.signing.verify``."""
        signer = self._signers.get(public)
        if signer is None or signer.sign(message) != signature:
            raise SignatureError(f"no signature of key {public.hex()[:16]} over these bytes")
