from __future__ import annotations

from concurrent.futures import Future

import pytest

from pydec.consensus.receipts import Receipt, Receipts
from pydec.consensus.transactions import Transfer
from pydec.errors import LedgerError, TransactionError

from .world import World, key


def test_all_that_wait_for_a_transaction_hear_of_it_once():
    receipts, futures = Receipts(), [Future[Receipt]() for _ in range(3)]
    assert receipts.add(b"one", futures[0])
    assert not receipts.add(b"one", futures[1])
    assert receipts.add(b"two", futures[2])
    receipts.settle(b"one", Receipt(7, b"h" * 32))
    receipts.settle(b"one", Receipt(8, b"h" * 32))
    receipts.settle(b"none", Receipt(8, b"h" * 32))
    assert [future.result(0).height for future in futures[:2]] == [7, 7]
    receipts.refuse(LedgerError("closed"))
    with pytest.raises(LedgerError, match="closed"):
        futures[2].result(0)
    receipts.refuse(LedgerError("nobody waits"))


def test_what_the_state_refuses_is_told():
    world, receipts = World(), Receipts()
    good, bad = (world.tx("a", Transfer(key("b").public, 1), number) for number in (1, 0))
    futures = {data: Future[Receipt]() for data in (good, bad)}
    for data, future in futures.items():
        receipts.add(data, future)
    world.run("a", Transfer(key("c").public, 1))
    receipts.recheck(world.state)
    assert not futures[good].done()
    with pytest.raises(TransactionError, match="its next is 1"):
        futures[bad].result(0)
