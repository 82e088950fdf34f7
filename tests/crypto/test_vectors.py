"""Official vectors against the ciphers and curves as pydec uses them.

``wycheproof.json`` is a selection of C2SP/wycheproof: borderline Ed25519 signatures, X25519 keys of small
order, non-canonical and with extreme shared secrets, changed tags and nonces of other lengths.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from pydec.crypto.handshake import Credentials, Initiator, Pair, expand, extract
from pydec.crypto.runkey import new_run_key
from pydec.crypto.signing import SigningKey, verify
from pydec.crypto.suites import NONCE_BYTES, TAG_BYTES, Suite, cipher
from pydec.crypto.wrapping import wrap
from pydec.errors import ProtocolError, SignatureError

WYCHEPROOF = json.loads((Path(__file__).parent / "wycheproof.json").read_bytes())
CHAIN = bytes(32)


def rows(name):
    return [pytest.param(*map(_bytes, row[1:]), id=f"{name}-{row[0]}") for row in WYCHEPROOF[name]]


def _bytes(value):
    return bytes.fromhex(value) if isinstance(value, str) else value


@pytest.mark.parametrize(("public", "message", "signature", "valid"), rows("ed25519"))
def test_ed25519_signatures_at_the_border(public, message, signature, valid):
    if valid:
        verify(public, message, signature)
    else:
        with pytest.raises(SignatureError):
            verify(public, message, signature)


def test_ed25519_of_a_digest():
    """RFC 8032, section 7.1, test SHA(abc); the first three are in ``test_signing``."""
    key = SigningKey(bytes.fromhex("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42"))
    message = bytes.fromhex(
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    )
    signature = (
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"
    )
    assert key.public.hex() == "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf"
    assert key.sign(message).hex() == signature


@pytest.fixture(scope="module")
def agree():
    """What a handshake makes of an exchange, with the given ephemeral key."""
    identity = SigningKey(bytes(32))
    run_key, certificate = new_run_key(identity, CHAIN, (0, 0))
    credentials = Credentials(run_key, certificate, lambda rank, identity: None, CHAIN, 0)

    def agreed(private, public):
        side = Initiator(Pair(0, 0, 1, 2), credentials, ephemeral=private, nonce=bytes(32))
        side._agree(1, public)
        return side._secret, side._hash.digest()

    return agreed


@pytest.mark.parametrize(("public", "private", "shared"), rows("x25519"))
def test_x25519_keys_at_the_border(agree, public, private, shared):
    """Keys of small order are refused, by all that exchange; non-canonical ones are those they stand for."""
    if any(shared):
        secret, transcript = agree(private, public)
        assert secret == extract(transcript, shared)
    else:
        with pytest.raises(ProtocolError, match="small order"):
            agree(private, public)


def test_x25519_a_thousand_times():
    """RFC 7748, section 5.2: the result of each multiplication is the scalar of the next."""
    scalar = point = (9).to_bytes(32, "little")
    found = []
    for _ in range(1000):
        exchanged = X25519PrivateKey.from_private_bytes(scalar).exchange(
            X25519PublicKey.from_public_bytes(point)
        )
        scalar, point = exchanged, scalar
        found.append(exchanged.hex())
    assert found[0] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert found[-1] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@pytest.mark.parametrize(
    ("suite", "key", "nonce", "bound", "message", "sealed", "valid"),
    [pytest.param(Suite.AES_256_GCM, *row.values, id=row.id) for row in rows("aes-256-gcm")]
    + [pytest.param(Suite.CHACHA20_POLY1305, *row.values, id=row.id) for row in rows("chacha20-poly1305")],
)
def test_ciphers_tags_and_nonces(suite, key, nonce, bound, message, sealed, valid):
    tool, room = cipher(suite, key), bytearray(len(message))
    if len(nonce) != NONCE_BYTES:
        assert not valid
        with pytest.raises(ValueError, match=r"[Nn]once"):
            tool.decrypt_into(nonce, sealed, bound, room)
    elif valid:
        out = bytearray(len(message) + TAG_BYTES)
        tool.encrypt_into(nonce, message, bound, out)
        assert out == sealed
        tool.decrypt_into(nonce, sealed, bound, room)
        assert room == message
    else:
        with pytest.raises(InvalidTag):
            tool.decrypt_into(nonce, sealed, bound, room)


@pytest.mark.parametrize(
    ("secret", "salt", "info", "extracted", "expanded"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "0b" * 22,
            "",
            "",
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf(secret, salt, info, extracted, expanded):
    """RFC 5869, appendices A.1 to A.3."""
    found = extract(bytes.fromhex(salt), bytes.fromhex(secret))
    assert found.hex() == extracted
    assert expand(found, bytes.fromhex(info), len(expanded) // 2).hex() == expanded


class Reader:
    """RFC 9180's receiver in base mode for DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM."""

    KEM = b"KEM" + (0x20).to_bytes(2, "big")
    SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x20, 1, 2))

    def __init__(self, private: bytes, sent: bytes, info: bytes) -> None:
        own = X25519PrivateKey.from_private_bytes(private)
        shared = own.exchange(X25519PublicKey.from_public_bytes(sent))
        context = sent + own.public_key().public_bytes_raw()
        early = self.extract(self.KEM, b"", b"eae_prk", shared)
        self.shared = self.expand(self.KEM, early, b"shared_secret", context, 32)
        about = b"\0" + self.extract(self.SUITE, b"", b"psk_id_hash", b"")
        about += self.extract(self.SUITE, b"", b"info_hash", info)
        secret = self.extract(self.SUITE, self.shared, b"secret", b"")
        self.key = self.expand(self.SUITE, secret, b"key", about, 32)
        self.nonce = self.expand(self.SUITE, secret, b"base_nonce", about, NONCE_BYTES)

    def open(self, sealed: bytes, bound: bytes = b"") -> bytes:
        return cipher(Suite.AES_256_GCM, self.key).decrypt(self.nonce, sealed, bound)

    @staticmethod
    def extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
        return extract(salt, b"HPKE-v1" + suite + label + secret)

    @staticmethod
    def expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
        return expand(secret, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def test_hpke():
    """The vector of RFC 9180's own set (github.com/cfrg/draft-irtf-cfrg-hpke) for this suite, mode 0.

    The library has no way to fix the ephemeral key, nor takes associated data: the receiver above does, is
    checked against the vector, and then opens what ``wrap`` makes.
    """
    sent = bytes.fromhex("6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256")
    private = bytes.fromhex("497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d")
    reader = Reader(private, sent, b"Ode on a Grecian Urn")
    assert reader.shared.hex() == "3101c54c3a4f87439eaac080699ed9bbcc726ffe44e860c0424ccb7e3e2ead7b"
    assert reader.key.hex() == "f50b0609186798729ed0564b36ef2ef8044f1f9d05636874d1f46c819c7a669f"
    assert reader.nonce.hex() == "151d9929e2449747889bc923"
    sealed = bytes.fromhex(
        "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a"
    )
    assert reader.open(sealed, b"Count-0") == b"Beauty is truth, truth beauty"

    identity, secret = SigningKey(bytes([1]) * 32), bytes(range(32))
    wrapped = wrap(secret, identity.public, b"what for")
    info = b"pydec.v1 | wrap | " + identity.public + b"what for"
    assert Reader(identity.scalar(), wrapped[:32], info).open(wrapped[32:]) == secret
