from __future__ import annotations

import pytest

from pydec.consensus.pool import MAX_OF_ONE, MAX_TRANSACTIONS, Pool
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import World
from pydec.errors import TransactionError

STATE = World([1]).genesis


def test_each_transaction_waits_once_in_order():
    pool = Pool()
    assert [pool.add(note(k), b"a", STATE) for k in (2, 1, 2)] == [True, True, False]
    assert pool.transactions() == [note(2), note(1)]
    assert note(1) in pool
    assert pool.of(b"a") == [note(2), note(1)]
    assert pool.of(b"b") == []


def test_a_block_takes_out_what_it_holds_and_what_it_makes_impossible():
    pool, after = Pool(), STATE._apply(note(1))
    for k in (1, 2, 3):
        pool.add(note(k), b"a", STATE)
    pool.settle([note(2)], after)
    assert pool.transactions() == [note(3)]
    with pytest.raises(TransactionError, match="executed before"):
        pool.add(note(1), b"a", after)


def test_nobody_fills_it_alone_and_all_together_fill_it_to_the_limit():
    pool = Pool()
    for k in range(MAX_OF_ONE):
        pool.add(note(k), b"a", STATE)
    with pytest.raises(TransactionError, match="of one node"):
        pool.add(note(MAX_OF_ONE), b"a", STATE)
    for k in range(MAX_OF_ONE, MAX_TRANSACTIONS):
        pool.add(note(k), b"%d" % (k // MAX_OF_ONE), STATE)
    with pytest.raises(TransactionError, match="try again later"):
        pool.add(note(1 << 40), b"b", STATE)
    pool.settle([note(0)], STATE)
    pool.add(note(1 << 40), b"a", STATE)


def test_bytes_are_bounded_too():
    pool = Pool()
    with pytest.raises(TransactionError, match="at most 1048576"):
        pool.add(note(0, 1 << 20), b"a", STATE)
    for k in range(8):
        pool.add(note(k, (1 << 20) - 100), b"a", STATE)
    with pytest.raises(TransactionError, match="try again later"):
        pool.add(note(9, 1 << 19), b"b", STATE)
