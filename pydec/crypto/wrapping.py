"""Secret keys sealed for one reader, whom an Ed25519 identity names; the result may be shown to everybody.

HPKE (RFC 9180), single-shot, base mode, DHKEM(X25519, HKDF-SHA256) with HKDF-SHA256 and AES-256-GCM: an
ephemeral X25519 key meets the reader's static one. What the secret is for, and for whom, is its ``info``, so
that it opens nowhere else. Base mode does not prove who wrapped it: on the ledger the owner's signature does.

The reader's X25519 key is its Ed25519 key on the other form of the same curve (RFC 7748, section 4.1), by
libsodium. No second key has to be made, certified, stored and lost, and whoever is on the ledger can be
granted something while it is away. One pair for signing and for this is sound: Ed25519 signatures and an
X25519 KEM with HKDF that share a key are jointly as secure as each alone (Thormarker, "On using the same key
pair for Ed25519 and an X25519 based KEM", IACR ePrint 2021/509), and both sides hash with domains that the
other never uses. Keys of small order, or off the prime-order group, are refused before anything is wrapped.
"""

from __future__ import annotations

from typing import Any

import nacl.bindings as sodium
from nacl.exceptions import CryptoError

from pydec.crypto.signing import KEY_BYTES as IDENTITY_BYTES
from pydec.crypto.signing import SigningKey
from pydec.crypto.suites import KEY_BYTES, TAG_BYTES
from pydec.crypto.vault import DatasetKey
from pydec.errors import FrameError, SignatureError

WRAPPED_BYTES = 32 + KEY_BYTES + TAG_BYTES
"""Of a key: the ephemeral public key, and the key under its authentication tag."""
_INFO = b"pydec.v1 | wrap | "
_DATASET = b"data set | "


class BadWrapping(FrameError):
    """A wrapped key that does not open: it is for another reader or purpose, or was changed."""


def wrap(secret: bytes, grantee: bytes, about: bytes) -> bytes:
    """Seal a secret key for one reader; another result every time.

    Args:
        secret: 32 bytes.
        grantee: public identity key of the reader, 32 bytes.
        about: what the secret is for, of one form for one purpose.

    Returns:
        ``WRAPPED_BYTES`` bytes.

    Raises:
        SignatureError: ``grantee`` is no key that somebody could hold.
        ValueError: a secret of another length.

    Source: RFC 9180, section 6.1, ``SealBase`` with empty associated data (section 8.1).
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    if len(secret) != KEY_BYTES:
        raise ValueError(f"a key to wrap has {KEY_BYTES} bytes, got {len(secret)}")
    try:
        point = sodium.crypto_sign_ed25519_pk_to_curve25519(grantee)
    except (CryptoError, ValueError, TypeError):
        raise SignatureError(
            f"{grantee.hex()[:16]} is no public key that a reader could hold; nothing was wrapped for it"
        ) from None
    return bytes(_suite().encrypt(secret, X25519PublicKey.from_public_bytes(point), _info(grantee, about)))


def unwrap(wrapped: bytes, identity: SigningKey, about: bytes) -> bytes:
    """Open what ``wrap`` made for this identity and purpose; 32 secret bytes.

    Args:
        wrapped: anything at all.
        identity: of the reader.
        about: as it was wrapped.

    Raises:
        BadWrapping: it is for another reader or purpose, or damaged; the library does not tell which.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    whose = identity.public.hex()[:16]
    if len(wrapped) != WRAPPED_BYTES:
        raise BadWrapping(f"a wrapped key has {WRAPPED_BYTES} bytes, that for {whose} has {len(wrapped)}")
    try:
        scalar = X25519PrivateKey.from_private_bytes(identity.scalar())
        return bytes(_suite().decrypt(wrapped, scalar, _info(identity.public, about)))
    except InvalidTag:
        raise BadWrapping(
            f"the wrapped key does not open for {whose}: it is for another reader, data set or generation, "
            "or was changed"
        ) from None


def wrap_key(key: DatasetKey, root: bytes, grantee: bytes) -> bytes:
    """A data set's key for one reader, as a GRANT carries it.

    Args:
        key: of one generation.
        root: 32 bytes that name the data set on the ledger.
        grantee: public identity key of the reader.

    Raises:
        SignatureError: ``grantee`` is no key that somebody could hold.
    """
    return wrap(key.reveal(), grantee, _about(root, key.generation))


def unwrap_key(
    wrapped: bytes, identity: SigningKey, root: bytes, generation: int, dataset: bytes
) -> DatasetKey:
    """The key that ``wrap_key`` wrapped for this reader, data set and generation.

    Args:
        wrapped: anything at all.
        identity: of the reader.
        root, generation: as the ledger has them.
        dataset: id under which chunks are sealed; see ``DatasetKey``.

    Raises:
        BadWrapping: it is for another reader, data set or generation, or damaged.
    """
    return DatasetKey(unwrap(wrapped, identity, _about(root, generation)), dataset, generation)


def _about(root: bytes, generation: int) -> bytes:
    return _DATASET + root + generation.to_bytes(4, "little")


def _info(grantee: bytes, about: bytes) -> bytes:
    assert len(grantee) == IDENTITY_BYTES
    return _INFO + grantee + about


def _suite() -> Any:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
