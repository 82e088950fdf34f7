"""Farewells and words of failure over a pretended MPI: sealed once there are keys, and believed as proved."""

from __future__ import annotations

from collections import defaultdict, deque
from types import SimpleNamespace

import pytest

from pydec.comm.mpi_posts import _FAILING, _GOODBYE, Posts
from pydec.comm.sessions import Sessions
from pydec.crypto.handshake import Secrets
from pydec.crypto.suites import Suite

FIRST = (1).to_bytes(4, "little")


class Comm:
    """What ``Posts`` uses of a communicator; all ranks share ``wire``, by receiver and tag."""

    def __init__(self, rank: int, size: int, wire: defaultdict[tuple[int, int], deque]) -> None:
        self.Get_rank, self.Get_size = (lambda: rank), (lambda: size)
        self.rank, self.wire = rank, wire

    def Isend(self, buffer, peer, tag):
        self.wire[peer, tag].append((self.rank, bytes(buffer[0])))
        return "sent"

    def Improbe(self, source, tag, status):
        if not self.wire[self.rank, tag]:
            return None
        status.sender, data = self.wire[self.rank, tag].popleft()
        status.n_bytes = len(data)
        return SimpleNamespace(Irecv=lambda into: into[0].__setitem__(slice(None), data))


class Status:
    def Get_count(self, kind):
        return self.n_bytes

    def Get_source(self):
        return self.sender


def posts(rank: int, size: int, wire: defaultdict) -> Posts:
    mpi = SimpleNamespace(BYTE=None, ANY_SOURCE=-1, Exception=ZeroDivisionError, Status=Status)
    quiet = {"settled": lambda request: True, "watch": lambda: None, "sweep": lambda: None}
    return Posts(SimpleNamespace(mpi=mpi, left={}, lost=set(), **quiet), Comm(rank, size, wire))


def sessions(rank: int, size: int) -> Sessions:
    """Keys as handshakes leave them: of the way from a to b both have the same."""
    secrets = {
        peer: Secrets(Suite.AES_256_GCM, bytes([rank, peer] * 16), bytes([peer, rank] * 16), bytes(32))
        for peer in range(size)
        if peer != rank
    }
    return Sessions(rank, size, 0, secrets, {})


@pytest.fixture
def pair():
    wire = defaultdict(deque)
    return posts(0, 2, wire), posts(1, 2, wire), wire, sessions(0, 2), sessions(1, 2)


def left(here: Posts) -> set[int]:
    here.hear_goodbyes()
    return set(here._requests.left)


def test_farewells_without_keys_are_plain(pair):
    here, there, wire, *_ = pair
    there.goodbye(1, 0.0)
    assert left(here) == {1}
    assert here.goodbye(1, 0.0)
    assert wire[1, _GOODBYE][0] == (0, FIRST + FIRST)


def test_a_forged_farewell_is_not_believed_and_a_sealed_one_is(pair, caplog):
    here, there, wire, mine, theirs = pair
    here.protect(mine)
    there.protect(theirs)
    for forged in (FIRST + FIRST, FIRST, FIRST + bytes(64), FIRST + theirs.seal_word(0, _FAILING, FIRST)):
        wire[0, _GOODBYE].append((1, forged))
        assert left(here) == set()
    assert "refused a message of rank 1" in caplog.text
    there.goodbye(1, 0.0)
    sealed = wire[0, _GOODBYE][-1]
    assert left(here) == {1}
    here._requests.left.clear()
    wire[0, _GOODBYE].append(sealed)  # again
    assert left(here) == set()
    assert {kind for _, kind in mine.refused} == {"truncated", "forged", "misplaced", "replayed"}


def test_what_was_forged_before_there_were_keys_counts_no_more(pair):
    here, _, wire, mine, _ = pair
    wire[0, _GOODBYE].append((1, FIRST + FIRST))
    assert left(here) == {1}  # nothing can be proved yet
    here.protect(mine)
    assert left(here) == set()


def test_a_peer_that_leaves_before_this_rank_has_its_keys_is_believed_afterwards(pair):
    here, there, _, mine, theirs = pair
    there.protect(theirs)
    there.goodbye(1, 0.0)
    assert left(here) == set()
    here.protect(mine)
    assert left(here) == {1}


def test_farewells_of_the_next_opening_wait_for_it(pair):
    here, there, _, mine, theirs = pair
    here.protect(mine)
    there.protect(theirs)
    there.goodbye(1, 0.0)
    there.goodbye(2, 0.0)  # it opened again, had no keys, and ended
    assert left(here) == {1}
    assert here.goodbye(1, 0.0)
    assert set(here._requests.left) == {1}


def test_a_peer_that_was_not_let_in_may_leave_as_it_likes():
    wire = defaultdict(deque)
    here, mine = posts(0, 3, wire), sessions(0, 2)
    here.protect(mine)
    wire[0, _GOODBYE].append((2, FIRST + FIRST))
    assert left(here) == {2}


def test_nobody_else_can_say_that_a_rank_fails(pair):
    here, there, wire, mine, theirs = pair
    here.protect(mine)
    wire[0, _FAILING].append((1, b"\1"))
    assert here.fail(0.0) == set()
    there.protect(theirs)
    assert there.fail(0.0) == {0}
    here._hear_failures()
    assert here._failing == {1: False}
