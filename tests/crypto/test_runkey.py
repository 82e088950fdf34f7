"""Run certificates: every field is signed by both keys, and the codec takes one encoding per value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydec.crypto.runkey import CERTIFICATE_BYTES, RunCertificate, certify, new_run_key
from pydec.crypto.signing import SigningKey
from pydec.errors import FrameError, SignatureError

IDENTITY, KEY = SigningKey(bytes(32)), SigningKey(bytes([1]) * 32)
CHAIN, RUN = bytes([2]) * 32, bytes([3]) * 32
CERTIFICATE = certify(IDENTITY, KEY, CHAIN, RUN, (4, 9))


def test_a_certificate_holds_in_its_range_and_survives_its_bytes():
    data = CERTIFICATE.encode()
    assert len(data) == CERTIFICATE_BYTES
    assert RunCertificate.decode(data) == CERTIFICATE
    for epoch in (4, 9):
        CERTIFICATE.verify(CHAIN, epoch)
    for epoch in (3, 10):
        with pytest.raises(SignatureError, match=f"covers epochs 4 to 9, not {epoch}"):
            CERTIFICATE.verify(CHAIN, epoch)
    with pytest.raises(SignatureError, match=r"is for chain 0202.*, not 0707"):
        CERTIFICATE.verify(bytes([7]) * 32, 5)


@pytest.mark.parametrize("byte", range(0, CERTIFICATE_BYTES, 7))
def test_every_changed_byte_is_refused(byte):
    data = bytearray(CERTIFICATE.encode())
    data[byte] ^= 1
    with pytest.raises((SignatureError, FrameError)):
        RunCertificate.decode(bytes(data)).verify(CHAIN, 5)


def test_nobody_claims_a_key_that_another_holds():
    thief = SigningKey(bytes([8]) * 32)
    stolen = certify(thief, KEY, CHAIN, RUN, (4, 9))
    with pytest.raises(SignatureError):
        replace(stolen, by_key=CERTIFICATE.by_key).verify(CHAIN, 5)


@pytest.mark.parametrize("length", [0, CERTIFICATE_BYTES - 1, CERTIFICATE_BYTES + 1])
def test_other_lengths_are_refused(length):
    with pytest.raises(FrameError, match=f"got {length}"):
        RunCertificate.decode(bytes(length))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="got 31 and 32"):
        certify(IDENTITY, KEY, bytes(31), RUN, (0, 1))
    for epochs in ((2, 1), (-1, 1), (0, 1 << 64)):
        with pytest.raises(ValueError, match="range of epochs"):
            certify(IDENTITY, KEY, CHAIN, RUN, epochs)
    data = bytearray(CERTIFICATE.encode())
    data[128:144] = bytes([0] * 7 + [2] + [0] * 7 + [1])
    with pytest.raises(FrameError, match="epochs 2 to 1 covers none"):
        RunCertificate.decode(bytes(data))


def test_new_run_keys_differ():
    (a, first), (b, second) = (new_run_key(IDENTITY, CHAIN, (0, 1)) for _ in range(2))
    assert a != b
    assert first.run_id != second.run_id
    first.verify(CHAIN, 0)
