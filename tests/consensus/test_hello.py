"""A rank is bound to a key by a fresh signature, and by nothing else."""

from __future__ import annotations

import pytest

from pydec.consensus.hello import Greeter
from pydec.crypto.signing import SigningKey
from pydec.errors import ProtocolError

CHAIN = bytes(range(32))
KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 5)]


def greeter(rank: int, *, key: int | None = None, chain: bytes = CHAIN, start: int = 1) -> Greeter:
    return Greeter(KEYS[rank if key is None else key], chain, rank, start)


def test_an_answer_binds_a_rank_to_its_key() -> None:
    a, b = greeter(0), greeter(1)
    assert a.node(1) is None
    assert a.rank_of(KEYS[0].public) == 0
    assert a.receive(1, b.receive(0, a.ask(1))) is None
    assert a.node(1) == KEYS[1].public
    assert a.rank_of(KEYS[1].public) == 1
    assert b.node(0) is None  # proof goes one way


def test_an_answer_counts_once_and_only_for_the_last_question() -> None:
    a, b, other = greeter(0), greeter(1), greeter(1, key=2)
    old = b.receive(0, a.ask(1))
    new = b.receive(0, a.ask(1))
    a.receive(1, old)
    assert a.node(1) is None
    a.receive(1, new)
    assert a.node(1) == KEYS[1].public
    a.receive(1, other.receive(0, a.ask(1)))
    a.receive(1, new)  # a replay does not bring the first key back
    assert a.node(1) == KEYS[2].public


def test_an_answer_to_somebody_else_proves_nothing() -> None:
    a, c = greeter(0), greeter(2)
    question = a.ask(1)
    relayed = c.receive(1, question)  # rank 1 hands the question on, to pass as rank 2's key
    with pytest.raises(ProtocolError, match="rank 1 claims a key without proof"):
        a.receive(1, relayed)
    assert a.node(1) is None


@pytest.mark.parametrize("other", [greeter(1, chain=bytes(32)), greeter(3, key=1)])
def test_another_chain_or_rank_is_refused(other) -> None:
    a = greeter(0)
    with pytest.raises(ProtocolError, match="without proof"):
        a.receive(1, other.receive(0, a.ask(1)))


def test_a_later_start_of_a_key_takes_its_place_and_an_earlier_one_does_not() -> None:
    a, first, second = greeter(0), greeter(1, start=4), greeter(2, key=1, start=5)
    a.receive(1, first.receive(0, a.ask(1)))
    a.receive(2, second.receive(0, a.ask(2)))
    assert a.node(1) is None
    assert a.rank_of(KEYS[1].public) == 2
    with pytest.raises(ProtocolError, match="in start 4, rank 2 in a later one"):
        a.receive(1, first.receive(0, a.ask(1)))


def test_a_copy_of_this_nodes_own_key_is_refused() -> None:
    a, copy = greeter(0), greeter(1, key=0, start=9)
    with pytest.raises(ProtocolError, match="rank 1 holds this node's own key"):
        a.receive(1, copy.receive(0, a.ask(1)))


@pytest.mark.parametrize("data", [b"", b"\xa0", b"\x01" + bytes(200), bytes(137)])
def test_other_bytes_are_refused(data) -> None:
    with pytest.raises(ProtocolError, match="rank 3"):
        greeter(0).receive(3, data)
