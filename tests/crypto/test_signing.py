"""Ed25519: RFC 8032's vectors, and everything that must be refused."""

from __future__ import annotations

import pytest

from pydec.crypto.signing import SigningKey, verify
from pydec.errors import SignatureError

# RFC 8032, section 7.1: seed, public key, message, signature of tests 1 to 3
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_vectors_of_the_rfc(seed, public, message, signature):
    key = SigningKey(bytes.fromhex(seed))
    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    verify(key.public, bytes.fromhex(message), bytes.fromhex(signature))


def test_every_flipped_bit_is_refused():
    key, message = SigningKey(bytes(32)), b"one vote"
    signature = key.sign(message)
    for bit in range(8 * len(signature)):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureError):
            verify(key.public, message, bytes(changed))
    with pytest.raises(SignatureError, match=key.public.hex()[:16]):
        verify(key.public, message + b"!", signature)


def test_the_same_signature_with_s_plus_the_order_is_refused():
    key = SigningKey(bytes(range(32)))
    signature = key.sign(b"x")
    order = 2**252 + 27742317777372353535851937790883648493
    larger = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(SignatureError):
        verify(key.public, b"x", signature[:32] + larger.to_bytes(32, "little"))


def test_keys_of_small_order_are_refused():
    neutral = (1).to_bytes(32, "little")  # R = A = neutral and s = 0 solve the equation
    with pytest.raises(SignatureError):
        verify(neutral, b"any message", neutral + bytes(32))


@pytest.mark.parametrize(("public", "signature"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_wrong_lengths_are_refused(public, signature):
    with pytest.raises(SignatureError, match=str(public)):
        verify(bytes(public), b"", bytes(signature))


def test_a_seed_of_another_length_is_refused_and_never_shown():
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        SigningKey(bytes(31))
    key = SigningKey.generate()
    assert key.seed.hex() not in repr(key)
    assert str(key.seed) not in repr(key)
