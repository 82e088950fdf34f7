"""Transactions: one encoding each, bound to chain, sender and number; any other bytes are refused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pydec.consensus.attestation import Attestation
from pydec.consensus.equivocation import Equivocation
from pydec.consensus.transactions import (
    KINDS,
    NO_DIGEST,
    Audit,
    Beacon,
    Begin,
    Checkpoint,
    Config,
    Dataset,
    Dead,
    End,
    Evict,
    EvidenceOf,
    Forgery,
    Grant,
    Join,
    Key,
    Leave,
    Revoke,
    Stake,
    Transaction,
    Transfer,
    Withheld,
    kind_name,
    prove,
    sign,
    statement,
    transaction_id,
)
from pydec.errors import FrameError, SignatureError
from tests.consensus.world import key

A, B = bytes([1]) * 32, bytes([2]) * 32
SIGNED = Attestation(b"\x05", (bytes([3]) * 64, bytes([4]) * 64))
BODIES = [
    Join(12, 1 << 61, "at:x", bytes(272), A, (1 << 64) - 1),
    Join(4, 0, ""),
    Leave(),
    Stake(1, 5),
    Stake(0, 0),
    Transfer(A, 7),
    Key(bytes(272)),
    Key(b""),
    Dataset(A, "digits", 255, 0, 1, B),
    Grant(A, 31),
    Revoke(A, 1, B),
    Grant(A, 0, B, (1 << 32) - 1, bytes(512)),
    Config((("f", "1"), ("topology", "ring"))),
    Config(()),
    Beacon((1 << 62) - 1),
    Begin(A, B),
    EvidenceOf(A, bytes(298)),
    Evict(A),
    Checkpoint(1, 2, A, SIGNED),
    Audit(1, A, 2, 1, B, SIGNED),
    End(1, A, 2, B, SIGNED),
    Dead(1, A, (7, (1 << 62) - 1), SIGNED),
    Forgery(A, 3, 4, A, B, bytes(64)),
    Withheld(1, A, B, A, SIGNED),
    Equivocation(A, B, 1, 2, 3, A, bytes(64), B, bytes([1]) * 64),
]
IDS = [f"{type(body).__name__}-{number}" for number, body in enumerate(BODIES)]


def encoded(body) -> bytes:
    return prove(body) if Transaction(body).proven else sign(key("a"), A, 3, body)


@pytest.mark.parametrize("body", BODIES, ids=IDS)
def test_every_body_comes_back_from_its_bytes(body):
    data = encoded(body)
    found = Transaction.decode(data)
    assert found.body == body
    assert found.encode() == data
    found.verify(A)
    assert kind_name(data) == type(body).__name__.upper().replace("EVIDENCEOF", "EVIDENCE")
    assert {type(b) for b in BODIES} == {kind for kind, _ in KINDS.values()}


@pytest.mark.parametrize("body", BODIES, ids=IDS)
def test_damaged_bytes_are_refused_or_another_transaction(body):
    data, rng = encoded(body), random.Random(5)
    for length in range(len(data)):
        with pytest.raises(FrameError):
            Transaction.decode(data[:length])
    changes = [data + b"\0"]
    for _ in range(100):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        changes.append(bytes(changed))
    for other in changes:
        try:
            found = Transaction.decode(other)
        except FrameError:
            continue
        assert found.encode() == other
        if not found.proven:
            with pytest.raises(SignatureError):
                found.verify(A)


def test_random_bytes_give_a_transaction_or_a_frame_error():
    rng = random.Random(9)
    for _ in range(3000):
        data = bytes([rng.choice([*KINDS, rng.randrange(256)])]) + rng.randbytes(rng.randrange(300))
        try:
            assert Transaction.decode(data).encode() == data
        except FrameError:
            pass


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (Join(32, 0, ""), r"an integer in \[0, 31\] was expected, got 32"),
        (Join(4, 1 << 62, ""), "an integer in"),
        (Join(4, 1.0, ""), "got 1.0"),
        (Join(True, 0, ""), "got True"),
        (Join(4, -1, ""), "got -1"),
        (Beacon(1 << 62), "an integer in"),
        (Join(4, 0, "\x1b[2J"), "printable ASCII was expected"),
        (Join(4, 0, "h\u00e9"), "printable ASCII was expected"),
        (Join(4, 0, "x" * 129), "at most 128 bytes were expected, got 129"),
        (Transfer(b"short", 1), "32 bytes were expected, got 5"),
        (Grant(A, wrapped=bytes(513)), "at most 512"),
        (Config((("b", "1"), ("a", "1"))), "must strictly increase"),
        (Config((("a", "1"), ("a", "1"))), "must strictly increase"),
        (Config(tuple((f"{i:03}", "") for i in range(65))), "at most 64 values"),
    ],
)
def test_nothing_is_encoded_that_a_peer_would_refuse(body, message):
    with pytest.raises(FrameError, match=message):
        sign(key("a"), A, 0, body)


def test_huge_counts_cost_no_memory():
    data = bytearray(encoded(Config(())))
    data[41:45] = b"\xff" * 4
    with pytest.raises(FrameError, match="claims 4294967295"):
        Transaction.decode(bytes(data))


def test_a_signature_covers_chain_sender_number_and_body():
    found = Transaction.decode(sign(key("a"), A, 3, Transfer(B, 7)))
    found.verify(A)
    with pytest.raises(SignatureError):
        found.verify(B)
    for change in ({"sequence": 4}, {"body": Transfer(B, 8)}, {"sender": key("b").public}):
        with pytest.raises(SignatureError):
            replace(found, **change).verify(A)


def test_a_statement_leaves_out_only_its_signatures():
    first = Checkpoint(1, 2, A, SIGNED)
    assert statement(first) == statement(replace(first, attestation=Attestation(b"", ())))
    others = [Checkpoint(2, 2, A, SIGNED), Checkpoint(1, 3, A, SIGNED), Checkpoint(1, 2, B, SIGNED)]
    assert (
        len(
            {
                statement(body)
                for body in (first, *others, Audit(1, A, 2, 1, B, SIGNED), End(1, A, 2, B, SIGNED))
            }
        )
        == 6
    )


def test_names():
    assert kind_name(b"") == kind_name(b"\xff") == "?"
    assert transaction_id(b"x") != transaction_id(b"y")
    with pytest.raises(FrameError, match="no transaction is of kind 0"):
        Transaction.decode(b"")
    with pytest.raises(FrameError, match="of 41 bytes has no room"):
        Transaction.decode(b"\x02" + bytes(40))
    assert Transaction.decode(prove(Evict(A))).sender == NO_DIGEST
