"""Coming back: a node that finds itself evicted sends the JOIN that its chain's admission asks for.

The chain says who was evicted and by which block: the table of the last epoch in which the account had a vote
names the height that ended it. Who left, was slashed, or lost its roles to an admin stays out. After the
evidence window, or where a snapshot stands in the place of that block, nothing is kept that tells these
apart, and an operator must join the node again: whoever starts a node on purpose asks for the same JOIN with
``back``, whatever has ended its membership.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from pydec.consensus.access import may_take
from pydec.consensus.block import NO_HASH, Block
from pydec.consensus.messages import Decision, decode
from pydec.consensus.puzzle import Puzzle
from pydec.consensus.roles import Role
from pydec.consensus.state.chain import ChainState
from pydec.consensus.state.draft import Draft
from pydec.consensus.state.parts import Account
from pydec.consensus.transactions import NO_DIGEST, Dead, Evict, Join, Transaction, sign
from pydec.crypto.signing import SigningKey
from pydec.errors import TransactionError

_MEMBER = Role.TRAINER | Role.VALIDATOR


class Solver(Protocol):
    """Looks for a puzzle's nonce; None: it goes on, ask again."""

    def __call__(self, puzzle: Puzzle) -> int | None:
        """The nonce, if it is known by now."""
        ...


class Background:
    """Solves the puzzle that was asked for last in a thread of its own."""

    def __init__(self) -> None:
        self._puzzle: Puzzle | None = None
        self._found: list[int] = []
        self._stop = threading.Event()

    def __call__(self, puzzle: Puzzle) -> int | None:
        """The nonce, if it is known by now; another puzzle than before ends the search for that one's."""
        if puzzle != self._puzzle:
            self.close()
            self._puzzle, self._stop, self._found = puzzle, threading.Event(), []
            arguments = (puzzle, self._found, self._stop)
            threading.Thread(target=_search, args=arguments, name="pydec-puzzle", daemon=True).start()
        return self._found[0] if self._found else None

    def close(self) -> None:
        """End the search, within one slice of it."""
        self._stop.set()


def _search(puzzle: Puzzle, found: list[int], stop: threading.Event) -> None:
    nonce = puzzle.solve(stop=stop.is_set)
    if nonce is not None:
        found.append(nonce)


class Rejoin:
    """One node's way back; no I/O but the solver's.

    Args:
        key: identity of the node, which also votes.
        record: the decision of a height from its ledger, None if it is not there.
        solve: for admission by proof of work.
        roles: to ask for, as far as they are to be had; None: as before, see ``_wanted``.
    """

    def __init__(
        self,
        key: SigningKey,
        record: Callable[[int], bytes | None],
        solve: Solver | None = None,
        roles: Role | None = None,
    ) -> None:
        self._key, self._record, self._roles = key, record, roles
        self._solve: Solver = solve or Background()
        self._seen: ChainState | None = None
        self._evicted: int | None = None  # epoch of the eviction that ``_removed_by`` was asked about
        self._wanted = False
        self._sent: bytes | None = None
        self._puzzle: Puzzle | None = None

    def due(self, state: ChainState) -> bytes | None:
        """The JOIN to submit now, None if there is none: call it after every block, or as often as one likes.

        Args:
            state: after the last committed block.
        """
        if state is self._seen and self._puzzle is None:
            return None
        self._seen = state
        account = state.accounts.get(self._key.public)
        if account is None or account.roles or account.slashed or not self._was_evicted(state, account):
            self._sent = self._puzzle = None
            return None
        if self._sent is not None and _may_wait(state, self._sent):
            return None  # it is in the pool and told to the others again and again
        self._sent = self._join(state, account)
        return self._sent

    def close(self) -> None:
        """End a search that is going on."""
        if isinstance(self._solve, Background):
            self._solve.close()

    def _was_evicted(self, state: ChainState, account: Account) -> bool:
        past = next((past for past in state.tables if past.table.epoch == account.last_epoch), None)
        if past is None:
            return False
        if self._evicted != account.last_epoch:
            data = self._record(past.until)
            if data is None:
                return False
            self._evicted, self._wanted = account.last_epoch, self._removed_by(data, state.chain_id)
        return self._wanted

    def _removed_by(self, data: bytes, chain_id: bytes) -> bool:
        decision = decode(data, chain_id)
        assert isinstance(decision, Decision)
        bodies = (Transaction.decode(one).body for one in Block.decode(decision.block).transactions)
        return any(isinstance(body, Evict | Dead) and body.node == self._key.public for body in bodies)

    def _join(self, state: ChainState, account: Account) -> bytes | None:
        return next((data for data in self.joins(state, account) if _may_wait(state, data)), None)

    def joins(self, state: ChainState, account: Account) -> list[bytes]:
        """The JOINs that would bring this node back, the best first; none while the puzzle is being solved.

        Args:
            state: the newest.
            account: of this node, without roles.
        """
        draft = Draft(state, state.height + 1, NO_HASH)
        admission = draft.option("admission", state.rules.admission)
        wanted = self._roles or _wanted(account)
        roles = wanted & may_take(account, admission) or wanted  # which the chain refuses, and says why
        block, nonce = NO_DIGEST, 0
        if admission == "pow":
            self._puzzle = self._current(draft)
            found = self._solve(self._puzzle)
            if found is None:
                return []
            block, nonce, self._puzzle = self._puzzle.block, found, None
        others = [validator.stake for validator in state.table.validators]
        free = account.balance + account.locked
        if admission == "stake" and free < state.rules.min_stake:
            roles &= ~Role.VALIDATOR  # who can bond nothing trains, without a vote
        if admission != "stake" or not roles & Role.VALIDATOR:
            stakes = [0]
        else:
            least = max(account.locked, min((free, *others)), state.rules.min_stake)
            stakes = [least, min((least, *others))]  # the second one always passes the cap
        bodies = (Join(int(roles), stake, account.address, block=block, nonce=nonce) for stake in stakes)
        return [sign(self._key, state.chain_id, account.sequence, body) for body in bodies]

    def _current(self, draft: Draft) -> Puzzle:
        """The puzzle that is being solved as long as its solution would count, then one of a newer block."""
        state, work, known = draft.state, draft.work, self._puzzle
        kept = state.recent[-max(1, state.rules.recent_blocks // 2) :]
        block = known.block if known is not None and known.block in kept else kept[-1]
        return Puzzle(state.rules.puzzle, state.chain_id, work.period, block, self._key.public, work.target)


def _wanted(account: Account) -> Role:
    """Roles to ask for: those of an admin's grant, if there is one for who was never in; else also to train
    and to vote.
    """
    granted = Role(account.granted)
    return granted if granted and not account.joined else granted | _MEMBER


def back(key: SigningKey, state: ChainState, address: str = "", roles: Role | None = None) -> bytes | None:
    """The JOIN of a node that an operator starts and that is no member; None if it is one, or unknown.

    It returns when the puzzle is solved, where admission is by work. If the chain allows no JOIN, it is one
    that the chain refuses with its reason.

    Args:
        key: identity of the node.
        state: the newest.
        address: where it is reached from now on; a node that the chain does not know joins, too.
        roles: see ``Rejoin``.
    """
    account = state.accounts.get(key.public) or (Account(key.public, key.public) if address else None)
    if account is None or account.roles:
        return None
    account = replace(account, address=address or account.address)
    found = Rejoin(key, lambda height: None, lambda puzzle: puzzle.solve(), roles).joins(state, account)
    return next((data for data in found if _may_wait(state, data)), found[-1])


def _may_wait(state: ChainState, data: bytes) -> bool:
    try:
        state.check(data)
    except TransactionError:
        return False
    return True
