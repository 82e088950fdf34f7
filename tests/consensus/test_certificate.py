from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.consensus.certificate import (
    CertificateError,
    QuorumCertificate,
    TimeoutCertificate,
    Verifier,
    from_bitmap,
    to_bitmap,
)
from pydec.consensus.signed import Kind
from pydec.errors import FrameError, SignatureError

from .samples import CHAIN, key, keys_and_table, quorum_certificate, statement, timeout_certificate

KEYS, TABLE = keys_and_table([1, 1, 1, 1, 0])
QC = quorum_certificate(KEYS, TABLE, [0, 2, 3])
TC = timeout_certificate(KEYS, TABLE, {0: -1, 1: 2, 3: 0}, round=2)


def verify(certificate, **about):
    about = {"chain_id": CHAIN, "table": TABLE, "height": 1, "verifier": Verifier()} | about
    if isinstance(certificate, QuorumCertificate):
        about = {"kind": Kind.COMMIT} | about
    certificate.verify(**about)


@given(st.sets(st.integers(0, 40)))
def test_bitmaps(indices):
    assert from_bitmap(to_bitmap(indices, 41)) == sorted(indices)
    assert len(to_bitmap(indices, 41)) == 6


def test_a_quorum_is_enough():
    verify(QC)
    verify(quorum_certificate(KEYS, TABLE, [0, 1, 2, 3]))
    verify(TC)
    assert TC.high_round == 2
    assert QC.signers() == [0, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": Kind.PREPARE}, "PREPARE certificate"),
        ({"epoch": 1}, "epoch 1"),
        ({"height": 2}, "height 2"),
        ({"round": 1}, "signer 0 did not sign"),
        ({"block_hash": b"x" * 32}, "signer 0 did not sign"),
        ({"bitmap": b""}, "bitmap of 0 bytes"),
        ({"bitmap": QC.bitmap + b"\0"}, "bitmap of 2 bytes"),
        ({"bitmap": to_bitmap([0, 2, 7], 8)}, "signer 7"),
        ({"bitmap": to_bitmap([0, 1, 2, 3], 8)}, "3 signatures of 4"),
        ({"bitmap": to_bitmap([0, 1, 3], 8)}, "signer 1 did not sign"),
        ({"signatures": QC.signatures[:2]}, "2 signatures of 3"),
        ({"signatures": QC.signatures[::-1]}, "signer 0 did not sign"),
        ({"bitmap": to_bitmap([0, 2], 8), "signatures": QC.signatures[:2]}, "stake 2 of 4 is no quorum"),
    ],
)
def test_commit_certificates_that_prove_nothing(change, message):
    with pytest.raises(CertificateError, match=message):
        verify(dataclasses.replace(QC, **change))


def test_a_certificate_is_of_one_chain_height_and_table():
    for about in ({"chain_id": bytes(32)}, {"height": 2}, {"table": keys_and_table([1] * 4, epoch=1)[1]}):
        with pytest.raises(CertificateError):
            verify(QC, **about)
        with pytest.raises(CertificateError):
            verify(TC, **about)


def test_a_signer_without_stake_is_refused():
    with pytest.raises(CertificateError, match="signer 4 has no stake"):
        verify(quorum_certificate(KEYS, TABLE, [0, 2, 3, 4]))
    with pytest.raises(CertificateError, match="signer 4 has no stake"):
        verify(timeout_certificate(KEYS, TABLE, {0: -1, 1: -1, 3: -1, 4: -1}))


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        (TC.votes[:2], "no quorum"),
        (TC.votes[::-1], "do not increase"),
        (TC.votes[:1] + TC.votes, "do not increase"),
        ((*TC.votes[:2], (9, 0, TC.votes[2][2])), "signer 9"),
        ((*TC.votes[:2], (3, 1, TC.votes[2][2])), "signer 3 did not sign"),
        ((*TC.votes[:2], (3, 3, TC.votes[2][2])), "claims round 3"),
        ((*TC.votes[:2], (3, -2, TC.votes[2][2])), "claims round -2"),
        ((), "no quorum"),
    ],
)
def test_timeout_certificates_that_prove_nothing(votes, message):
    with pytest.raises(CertificateError, match=message):
        verify(dataclasses.replace(TC, votes=votes))


def test_signatures_are_verified_once_and_the_memory_is_bounded():
    calls = []
    verifier = Verifier(lambda *arguments: calls.append(arguments), capacity=4)
    for _ in range(3):
        verify(QC, verifier=verifier)
    assert len(calls) == 3
    verifier.check(b"other key", calls[0][1], calls[0][2])
    assert len(calls) == 4
    for i in range(20):
        verifier.check(b"k", b"m", bytes((i,)))
    assert len(verifier) == 4


def test_bad_signatures_are_not_remembered_and_end_the_work():
    calls = []

    def refuse(*arguments):
        calls.append(arguments)
        raise SignatureError("no")

    verifier = Verifier(refuse)
    for _ in range(2):
        with pytest.raises(CertificateError):
            verify(QC, verifier=verifier)
    assert (len(calls), len(verifier)) == (2, 0)


def test_statements_of_a_certificate_are_what_its_signers_said():
    for index, said in (*QC.statements(CHAIN), *TC.statements(CHAIN)):
        Verifier().check(KEYS[index].public, said.message(), said.signature)
    assert QC.statements(CHAIN)[1] == (2, statement(KEYS[2], Kind.COMMIT, 0, bytes(32)))


@pytest.mark.parametrize("certificate", [QC, TC, dataclasses.replace(TC, votes=())])
def test_a_certificate_comes_back_and_a_changed_one_does_not(certificate):
    data = certificate.encode()
    assert type(certificate).decode(data) == certificate
    for at in range(len(data)):
        for other in (data[:at], data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]):
            try:
                assert type(certificate).decode(other) != certificate
            except FrameError:
                pass
    with pytest.raises(FrameError):
        type(certificate).decode(data + b"\0")


@given(
    st.sampled_from([QuorumCertificate, TimeoutCertificate]),
    st.binary(max_size=400),
    st.sampled_from([0, 2, 3]),
)
def test_any_bytes_are_a_certificate_or_a_frame_error(cls, data, kind):
    data = bytes((kind,)) + data
    try:
        made = cls.decode(data)
    except FrameError:
        return
    assert made.encode() == data
    with pytest.raises(CertificateError):
        verify(made)


def test_huge_counts_cost_nothing():
    head = QC.encode()[: 1 + 8 + 8 + 4 + 32]
    with pytest.raises(FrameError, match="at most 1024"):
        QuorumCertificate.decode(head + b"\0\0" + b"\xff\xff")
    with pytest.raises(FrameError, match="at most 1024"):
        TimeoutCertificate.decode(bytes(20) + b"\xff\xff")


def test_a_key_that_is_not_in_the_table_cannot_sign_for_one_that_is():
    strangers = [key(100 + i) for i in range(5)]
    with pytest.raises(CertificateError, match="signer 0 did not sign"):
        verify(quorum_certificate(strangers, TABLE, [0, 2, 3]))
