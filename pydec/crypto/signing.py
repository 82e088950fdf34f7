"""Ed25519 signatures, by libsodium alone.

One verifier everywhere: implementations differ in which borderline signatures they accept (cofactored
or not, small-order keys), and honest nodes that disagree on one signature disagree on a certificate.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NoReturn

import nacl.bindings as sodium
from nacl.exceptions import BadSignatureError

from pydec.errors import SignatureError

KEY_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key pair. Signing is deterministic: the same message has the same signature.

    Args:
        seed: 32 secret bytes; not shown by ``repr``.

    Source: RFC 8032, section 5.1.
    """

    seed: bytes = field(repr=False)
    public: bytes = field(init=False)
    _secret: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise ValueError(f"an Ed25519 seed has {SEED_BYTES} bytes, got {len(self.seed)}")
        public, secret = sodium.crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "public", public)
        object.__setattr__(self, "_secret", secret)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the system's random numbers."""
        return cls(os.urandom(SEED_BYTES))

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of this key's signature over ``message``."""
        signed: bytes = sodium.crypto_sign(message, self._secret)
        return signed[:SIGNATURE_BYTES]

    def scalar(self) -> bytes:
        """The secret X25519 key of the same point (RFC 7748, section 4.1), 32 bytes, for ``wrapping``."""
        scalar: bytes = sodium.crypto_sign_ed25519_sk_to_curve25519(self._secret)
        return scalar

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key is neither copied nor stored; keyfile.create writes one")


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Check one signature; releases the GIL.

    Args:
        public: 32 bytes.
        message: what was signed.
        signature: 64 bytes.

    Raises:
        SignatureError: anything but a valid signature, a key of small order among it.
    """
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise SignatureError(
            f"an Ed25519 key has {KEY_BYTES} bytes and a signature {SIGNATURE_BYTES}, "
            f"got {len(public)} and {len(signature)}"
        )
    try:
        sodium.crypto_sign_open(signature + message, public)
    except BadSignatureError:
        raise SignatureError(f"no signature of key {public.hex()[:16]} over these bytes") from None
