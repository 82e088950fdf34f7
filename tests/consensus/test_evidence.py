from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.consensus.evidence import Detector, Evidence, EvidenceError, conflict, verify
from pydec.consensus.signed import Kind, timeout_body
from pydec.errors import FrameError, SignatureError

from .samples import CHAIN, key, statement

A, B = b"a" * 32, b"b" * 32
ME = key(1)


def said(kind, round, body, **where):
    return statement(ME, kind, round, body if isinstance(body, bytes) else timeout_body(body), **where)


PROOFS = [
    (said(Kind.PROPOSAL, 1, A), said(Kind.PROPOSAL, 1, B)),
    (said(Kind.PREPARE, 1, A), said(Kind.PREPARE, 1, B)),
    (said(Kind.COMMIT, 1, A), said(Kind.COMMIT, 1, B)),
    (said(Kind.TIMEOUT, 1, -1), said(Kind.TIMEOUT, 1, 0)),
    (said(Kind.COMMIT, 1, A), said(Kind.TIMEOUT, 1, 0)),
    (said(Kind.COMMIT, 1, A), said(Kind.TIMEOUT, 5, -1)),
]
INNOCENT = [
    (said(Kind.PREPARE, 1, A), said(Kind.PREPARE, 1, A)),
    (said(Kind.PREPARE, 1, A), said(Kind.PREPARE, 2, B)),
    (said(Kind.PREPARE, 1, A), said(Kind.COMMIT, 1, B)),  # its quorum was for B; it prepared A
    (said(Kind.PROPOSAL, 1, A), said(Kind.PREPARE, 1, B)),
    (said(Kind.PREPARE, 3, A), said(Kind.TIMEOUT, 3, -1)),  # preparing locks nobody
    (said(Kind.COMMIT, 1, A), said(Kind.TIMEOUT, 1, 1)),
    (said(Kind.COMMIT, 1, A), said(Kind.TIMEOUT, 5, 3)),
    (said(Kind.COMMIT, 2, A), said(Kind.TIMEOUT, 1, -1)),  # gave up round 1, then committed in round 2
    (said(Kind.COMMIT, 1, A), said(Kind.COMMIT, 2, A)),
    (said(Kind.COMMIT, 1, A), said(Kind.COMMIT, 1, B, height=2)),
    (said(Kind.COMMIT, 1, A), said(Kind.COMMIT, 1, B, epoch=2)),
    (said(Kind.COMMIT, 1, A), said(Kind.COMMIT, 1, B, chain=bytes(32))),
    (said(Kind.COMMIT, 1, A), said(Kind.TIMEOUT, 1, 0, height=2)),
]


@pytest.mark.parametrize(("one", "other"), PROOFS)
def test_each_kind_of_contradiction_is_a_proof_in_either_order(one, other):
    evidence = Evidence.of(one, other)
    assert evidence == Evidence.of(other, one)
    verify(evidence, ME.public, CHAIN)
    assert Evidence.decode(evidence.encode()) == evidence
    assert "height 1" in evidence.describe()
    with pytest.raises(EvidenceError, match="order"):
        Evidence(evidence.second, evidence.first)


@pytest.mark.parametrize(("one", "other"), INNOCENT)
def test_what_honest_nodes_may_sign_is_no_proof(one, other):
    assert conflict(one, other) is None
    assert conflict(other, one) is None
    with pytest.raises(EvidenceError, match="do not contradict"):
        Evidence.of(one, other)


def test_forged_evidence_is_refused():
    one, other = PROOFS[2]
    forged = dataclasses.replace(other, signature=key(2).sign(other.message()))
    with pytest.raises(SignatureError):
        verify(Evidence.of(one, forged), ME.public, CHAIN)
    with pytest.raises(SignatureError):
        verify(Evidence.of(one, other), key(2).public, CHAIN)
    with pytest.raises(EvidenceError, match="of chain"):
        verify(Evidence.of(one, other), ME.public, bytes(32))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_evidence_or_a_frame_error(data):
    try:
        evidence = Evidence.decode(data)
    except FrameError:
        return
    assert evidence.encode() == data


def test_changed_bytes_are_another_evidence_or_none():
    data = Evidence.of(*PROOFS[4]).encode()
    for at in range(len(data)):
        for other in (data[:at], data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :], data + b"\0"):
            try:
                assert Evidence.decode(other) != Evidence.of(*PROOFS[4])
            except FrameError:
                pass


@pytest.mark.parametrize(("one", "other"), PROOFS)
def test_the_detector_finds_each_in_either_order(one, other):
    for pair in ((one, other), (other, one)):
        detector = Detector()
        assert detector.observe(ME.public, pair[0]) == []
        assert detector.knows(ME.public, pair[0].kind, pair[0].round, pair[0].body)
        assert detector.observe(ME.public, pair[0]) == []
        assert detector.observe(b"another", pair[1]) == []
        assert detector.observe(ME.public, pair[1]) == [Evidence.of(one, other)]


def test_the_detector_agrees_with_the_definition():
    everything = [
        *(
            said(kind, round, body)
            for kind in (Kind.PREPARE, Kind.COMMIT)
            for round in (0, 1, 2)
            for body in (A, B)
        ),
        *(said(Kind.TIMEOUT, round, high) for round in (0, 1, 2) for high in range(-1, round + 1)),
    ]
    for one, other in itertools.permutations(everything, 2):
        detector = Detector()
        detector.observe(ME.public, one)
        assert bool(detector.observe(ME.public, other)) == (conflict(one, other) is not None)


def test_the_detectors_memory_is_bounded_for_each_key():
    detector = Detector(most=10)
    for round in range(100):
        detector.observe(ME.public, said(Kind.PREPARE, round, A))
    assert len(detector) == 10
