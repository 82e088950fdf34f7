"""From the ledger's head to the view that training uses: members in order, seed, round to switch at."""

from __future__ import annotations

from collections.abc import Callable

from pydec.codec import wire
from pydec.comm.view import View
from pydec.consensus.roles import Role
from pydec.consensus.state.chain import ChainState
from pydec.consensus.state.parts import Account
from pydec.crypto.hashing import sha256
from pydec.errors import LedgerError

RankOf = Callable[[Account], int | None]
_TRAINS = Role.TRAINER | Role.VALIDATOR


def members(state: ChainState) -> list[Account]:
    """Accounts that take part in gossip, sorted by node id: the order of their rows in the topology."""
    return [account for _, account in sorted(state.accounts.items()) if account.roles & _TRAINS]


def rank_in_address(account: Account) -> int:
    """The MPI rank of an account whose address is ``rank:N``.

    Raises:
        LedgerError: its address is something else.
    """
    kind, _, number = account.address.partition(":")
    if kind != "rank" or not number.isdigit():
        raise LedgerError(
            f"member {account.node_id.hex()[:16]} has the address {account.address!r}; in an MPI "
            "job it must be rank:N"
        )
    return int(number)


def view_of(state: ChainState, head: bytes, rank_of: RankOf = rank_in_address) -> View:
    """The view of the epoch that the state's table begins.

    The seed comes from the hash of the block that began the epoch, which a quorum decided. It is not a fair
    draw: whoever proposes that block can order or leave out transactions, and so take the best of the k seeds
    that it has the time to try before the round's timer runs out. An event of probability p under a fair draw
    then has at most 1 - (1 - p)^k <= k * p: with a million tries, worth the 20 bits that they are. What
    depends on the seed must stand that (aggregation that is robust for every graph with at most f liars
    around a node does); a choice that must be fair needs a beacon of several nodes. Every node that has the
    state computes the same view.

    What looks better and is not: the block's commit certificate (whoever makes the next block chooses which
    votes are in it, and an idle ledger makes no next block); a signature over chain and epoch in the manner
    of a verifiable random function (an Ed25519 signer can make any number of valid signatures of one text,
    see tests/consensus/test_epochs.py; unique ones are those of RFC 9381, or BLS).

    Args:
        state: after a committed block.
        head: that block's hash; the chain id at height 0.
        rank_of: the rank of a member, the same function on every node; None leaves it out of the view.

    Raises:
        LedgerError: two members have one rank, or a rank is not known.
    """
    found = members(state)
    ranks = tuple(rank for rank in map(rank_of, found) if rank is not None)
    if len(set(ranks)) != len(ranks):
        raise LedgerError(f"two members of epoch {state.table.epoch} have one rank: {sorted(ranks)}")
    began = head if state.changed == state.height else state.origin
    seed = sha256(b"pydec.view.v1", began, wire.u64(state.table.epoch))
    return View(state.table.epoch, ranks, int.from_bytes(seed, "big"), state.effect_round)


class Epochs:
    """Which view holds at which training round, as blocks are committed.

    A block decides the next view some rounds ahead of everybody; until then the present one holds.

    Args:
        state, head: of the newest committed block.
        rank_of: see ``view_of``.
    """

    def __init__(self, state: ChainState, head: bytes, rank_of: RankOf = rank_in_address) -> None:
        self._rank_of = rank_of
        self._views = [view_of(state, head, rank_of)]

    def committed(self, state: ChainState, head: bytes) -> View | None:
        """Take note of a block; the new view if it began an epoch."""
        if state.table.epoch <= self._views[-1].epoch:
            return None
        self._views.append(view_of(state, head, self._rank_of))
        return self._views[-1]

    def at(self, round: int) -> View:
        """The view of a round; rounds must not decrease from call to call."""
        while len(self._views) > 1 and self._views[1].start_round <= round:
            del self._views[0]
        return self._views[0]
