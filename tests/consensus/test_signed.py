from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.codec.wire import Reader
from pydec.consensus.signed import Kind, SignedStatement, signed_bytes, timeout_body
from pydec.crypto.signing import verify
from pydec.errors import FrameError

from .samples import CHAIN, key, statement


def test_the_layout_never_changes():
    data = signed_bytes(Kind.COMMIT, b"\xcc" * 32, 1, 2, 3, b"\xbb" * 32)
    assert data == (
        b"pydec.bft.v1"
        b"\3" + b"\xcc" * 32 + bytes(7) + b"\1" + bytes(7) + b"\2" + bytes(3) + b"\3" + b"\xbb" * 32
    )
    assert timeout_body(-1) == b"\xff" * 4


def test_every_field_is_signed():
    fields = {"kind": Kind.PREPARE, "chain_id": CHAIN, "epoch": 1, "height": 2, "round": 3, "body": bytes(32)}
    changes = {
        "kind": Kind.COMMIT,
        "chain_id": bytes(32),
        "epoch": 2,
        "height": 3,
        "round": 4,
        "body": b"x" * 32,
    }
    messages = {signed_bytes(**fields)} | {
        signed_bytes(**fields | {name: to}) for name, to in changes.items()
    }
    assert len(messages) == 7


def test_a_statement_holds_what_was_signed():
    made = statement(key(1), Kind.TIMEOUT, 5, timeout_body(3))
    verify(key(1).public, made.message(), made.signature)
    assert made.high_round == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chain_id": b""}, "32 bytes|of 32"),
        ({"signature": b""}, "signature"),
        ({"body": bytes(4)}, "body of 32"),
        ({"round": 1 << 31}, "out of range"),
        ({"epoch": -1}, "out of range"),
        ({"kind": Kind.TIMEOUT}, "body of 4"),
        ({"kind": Kind.TIMEOUT, "body": timeout_body(6)}, "cannot know"),
        ({"kind": Kind.TIMEOUT, "body": timeout_body(-2)}, "cannot know"),
    ],
)
def test_statements_that_cannot_be(change, message):
    made = statement(key(1), Kind.PREPARE, 5, bytes(32))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(made, **change)


def read(data):
    reader = Reader(data, "a statement")
    made = SignedStatement.read(reader)
    reader.end()
    return made


@given(
    st.sampled_from(list(Kind)),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, (1 << 31) - 1),
    st.data(),
)
def test_a_statement_comes_back(kind, epoch, height, round, data):
    if kind is Kind.TIMEOUT:
        body = timeout_body(data.draw(st.integers(-1, round)))
    else:
        body = data.draw(st.binary(min_size=32, max_size=32))
    made = statement(key(0), kind, round, body, height, epoch)
    assert read(made.encode()) == made


@given(st.binary(max_size=200), st.integers(0, 5))
def test_any_bytes_are_a_statement_or_a_frame_error(data, kind):
    try:
        made = read(bytes((kind,)) + data)
    except FrameError:
        return
    assert made.encode() == bytes((kind,)) + data
