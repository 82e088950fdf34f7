"""Both ciphers are the standards', the faster one comes first, and a pair takes what both are fast at."""

from __future__ import annotations

import itertools

import pytest

from pydec.crypto import suites
from pydec.crypto.suites import Suite, choose
from pydec.errors import ConfigError

AES, CHACHA = Suite.AES_256_GCM, Suite.CHACHA20_POLY1305


def test_aes_gcm_is_the_standards():
    """Test case 14 of McGrew, Viega, "The Galois/Counter Mode of operation", 2005: a zero key and block."""
    sealed = bytearray(32)
    suites.cipher(AES, bytes(32)).encrypt_into(bytes(12), bytes(16), b"", sealed)
    assert sealed.hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


def test_chacha_is_the_standards():
    """RFC 8439, section 2.8.2."""
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = bytearray(len(text) + 16)
    tool = suites.cipher(CHACHA, bytes(range(0x80, 0xA0)))
    nonce = bytes.fromhex("070000004041424344454647")
    tool.encrypt_into(nonce, text, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), sealed)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


def test_the_faster_one_comes_first(monkeypatch):
    for first in Suite:
        suites.preferred.cache_clear()
        monkeypatch.setattr(suites, "seconds", lambda suite, first=first: float(suite is not first))
        assert suites.preferred()[0] is first
    suites.preferred.cache_clear()


def test_the_shortest_of_several_trials_counts():
    ticks = itertools.accumulate([0.0, 5.0, 1.0, 2.0, 1.0, 4.0, 1.0, 3.0, 1.0, 6.0])
    assert suites.seconds(AES, lambda: next(ticks)) == 2.0


@pytest.mark.parametrize(
    "lies", [lambda out: None, lambda out: out.__setitem__(slice(None), bytes(len(out)))]
)
def test_a_library_that_takes_anything_is_not_used(monkeypatch, lies):
    class Lies:
        def encrypt_into(self, nonce, plain, data, out):
            pass

        def decrypt_into(self, nonce, sealed, data, out):
            lies(out)

    monkeypatch.setattr(suites, "cipher", lambda suite, key: Lies())
    with pytest.raises(suites.SetupError, match="does not work here"):
        suites.seconds(AES)


def test_a_pair_takes_the_cipher_that_neither_is_slow_at():
    assert choose((AES, CHACHA), (AES, CHACHA)) is AES
    assert choose((AES, CHACHA), (CHACHA, AES)) is CHACHA
    assert choose((AES,), (CHACHA, AES)) is AES
    with pytest.raises(ConfigError, match="no cipher suite in common"):
        choose((AES,), (CHACHA,))
