"""Who of a job's ranks is on its ledger: newcomers join, the missing are evicted, leavers leave.

At the start of a run every rank has proved its key (``Opening.meet``). Ranks whose keys the chain does not
know join, at a price that its admission names: under ``stake`` the admin hands each as much as the smallest
validator has, under ``invite`` it grants the roles, under ``pow`` each solves its puzzle. Members that are no
rank of the job are held for dead, as if they had died in it. All of it takes a quorum of the members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pydec.consensus.access import Action, may_take
from pydec.consensus.driver import Driver, Receipt
from pydec.consensus.epochs import members, rank_in_address
from pydec.consensus.rejoin import back
from pydec.consensus.roles import Role
from pydec.consensus.state.chain import ChainState
from pydec.consensus.state.parts import Account
from pydec.consensus.transactions import NO_DIGEST, Body, Grant, Leave, Transfer, sign
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError, DeniedTransaction, LedgerError, TransactionError
from pydec.train.together import Member, jointly

PART_S = 15.0  # that leaving the ledger may take of the time in which ranks must end
_TRAINS = Role.TRAINER | Role.VALIDATOR


@dataclass(frozen=True)
class Roster:
    """The ranks of a job and its ledger; every rank calls its methods together.

    Args:
        peer: this rank.
        rank: of this process in the job, whatever numbers the peer has later.
        key: of this rank.
        keys: of all ranks, proved, 32 bytes each.
        fresh: ranks that had no ledger before.
        driver: this rank's node.
        level: waits until every rank has what any rank has.
        timeout_s: for every step.
        roles: that this rank asks for if it is new; None: to train and to vote, or what it was granted.
    """

    peer: Member
    rank: int
    key: SigningKey
    keys: Sequence[bytes]
    fresh: frozenset[int]
    driver: Driver
    level: Callable[[], None]
    timeout_s: float
    roles: Role | None = None

    @property
    def _state(self) -> ChainState:
        state = self.driver.state
        assert isinstance(state, ChainState)
        return state

    def enter(self, handed: Callable[[], Sequence[Future[Receipt]]] = tuple) -> None:
        """Make the members of the ledger the ranks of the job; begin with the newest state on all ranks.

        A newcomer that the roles on the ledger keep out stays out, and the others go on.

        Args:
            handed: submits what others have to say through this rank, such as grants, before anybody joins.

        Raises:
            SharedError: the directories are not of one ledger, too few of its members are here, no quorum
                answers, or the chain refuses a newcomer.
        """
        absent = jointly(self.peer, lambda: self._absent(self._state), settled=False)
        gone = {account.node_id for account in absent}
        for node in gone:
            self.driver.deaths.saw(node)

        def decided() -> None:
            self._until(lambda state: not gone & {a.node_id for a in members(state)}, self.timeout_s)

        jointly(self.peer, decided)
        self.level()
        others = handed()
        jointly(self.peer, lambda: self._done(others))
        handed()  # clears away what was decided
        self.level()
        newcomers = [rank for rank, key in enumerate(self.keys) if not _is_member(self._state, key)]
        if not newcomers:
            return
        self._settled(self._let_in(self._state, newcomers))
        self._settled([self._join()])

    def _join(self) -> bytes | None:
        """What this rank says to come in, unless it is in, or may not."""
        account = self._state.accounts.get(self.key.public)
        if account is not None and account.roles:
            return None
        if not self.driver.gate.allows(self.key.public, Action.JOIN):
            return None
        return back(self.key, self._state, f"rank:{self.rank}", self.roles)

    def part(self, ranks: int) -> list[int]:
        """Have the ranks from ``ranks`` on leave the ledger; those that are members yet when time is up.

        Args:
            ranks: how many go on.
        """

        def leavers(state: ChainState) -> list[int]:
            return [rank for rank in sorted(map(rank_in_address, members(state))) if rank >= ranks]

        if self.rank in leavers(self._state):
            self.driver.submit(self._signed(Leave()))
        try:
            self._until(lambda state: not leavers(state), PART_S, lambda: None)
        except LedgerError:
            pass  # the next start holds them for dead, if those who go on are a quorum
        return leavers(self._state)

    def _absent(self, state: ChainState) -> list[Account]:
        """Members that are no rank of the job."""
        absent = []
        for account in sorted(members(state), key=rank_in_address):
            rank = rank_in_address(account)
            if rank < self.peer.size and self.keys[rank] == account.node_id:
                continue
            if account.node_id in self.keys:
                at = self.keys.index(account.node_id)
                raise ConfigError(
                    f"--ledger: rank {at} has key {account.node_id.hex()[:16]}, which on its ledger is that "
                    f"of rank {rank}; the directories have changed places"
                )
            if rank < self.peer.size and rank not in self.fresh and not self._was_there(state, rank):
                raise ConfigError(
                    f"--ledger: rank {rank} has key {self.keys[rank].hex()[:16]}, its ledger was made for "
                    f"{account.node_id.hex()[:16]}; bring that key back, or give the rank an empty directory"
                )
            absent.append(account)
        here = [index for index, v in enumerate(state.table.validators) if v.node_id in self.keys]
        if not state.table.quorum(state.table.weight(here)):
            raise ConfigError(self._too_few(state, [rank_in_address(account) for account in absent]))
        return absent

    def _was_there(self, state: ChainState, rank: int) -> bool:
        """Whether a rank's key had its place before another took it: a lost disk is back."""
        account = state.accounts.get(self.keys[rank])
        return account is not None and account.address == f"rank:{rank}"

    def _too_few(self, state: ChainState, absent: Sequence[int]) -> str:
        count = len(members(state))
        emptied = [rank for rank in absent if rank < self.peer.size]
        if emptied:
            return (
                f"--ledger: rank {emptied[0]} has no ledger in rank-{emptied[0]}, and nobody can go on "
                f"without {len(absent)} of {count} members; use the directories of one run on all ranks, or "
                "a new one, --ledger NEW"
            )
        return (
            f"--ledger: the ledger there is of {count} ranks, this job has {self.peer.size}; start {count} "
            "ranks, or as many as hold more than two thirds of its stake, or use a new one, --ledger NEW"
        )

    def _let_in(self, state: ChainState, newcomers: Sequence[int]) -> list[bytes]:
        """What the admin has to say so that newcomers may join; nothing on the other ranks."""
        account = state.accounts.get(self.key.public)
        if account is None or not account.roles & Role.ADMIN:
            return []
        options = dict(state.run.options)
        admission = options.get("admission", state.rules.admission)
        bodies: list[Body] = []
        balance = account.balance
        for rank in newcomers:
            known = state.accounts.get(self.keys[rank]) or Account(self.keys[rank], self.keys[rank])
            open_to = may_take(known, admission)
            missing = min(v.stake for v in state.table.validators) - known.balance - known.locked
            if known.barred or known.slashed:
                continue  # it takes an admin's own word
            if admission == "invite" and not open_to:
                bodies.append(Grant(known.node_id, int(_TRAINS)))
            elif admission == "stake" and Role.VALIDATOR & open_to and 0 < missing <= balance:
                bodies.append(Transfer(known.node_id, missing))
                balance -= missing
        return [self._signed(body, number) for number, body in enumerate(bodies)]

    def _signed(self, body: Body, ahead: int = 0) -> bytes:
        sequence = self._state.accounts[self.key.public].sequence + ahead
        return sign(self.key, self._state.chain_id, sequence, body)

    def _settled(self, transactions: Sequence[bytes | None]) -> None:
        """Wait until what every rank has to say is committed, or fail on all."""
        futures = [self.driver.submit(data) for data in transactions if data is not None]

        def committed() -> None:
            for refused in self._done(futures):
                if not isinstance(refused, DeniedTransaction):  # which is counted at the gate, and stays out
                    raise ConfigError(f"the ledger does not let a newcomer in: {refused}") from None

        jointly(self.peer, committed)
        self.level()

    def _done(self, futures: Sequence[Future[Receipt]]) -> list[TransactionError]:
        """Wait until these are committed, or refused: why those were."""
        refused = []
        for future in futures:
            try:
                self.driver.wait([future], self.timeout_s, self.peer.check)
            except TransactionError as error:
                refused.append(error)
        return refused

    def _until(
        self, done: Callable[[ChainState], bool], timeout_s: float, check: Callable[[], None] | None = None
    ) -> None:
        transport = self.peer.transport
        until_s = transport.now() + timeout_s
        while not done(self._state):
            if transport.now() >= until_s or self.driver.failure is not None:
                raise LedgerError(
                    f"the ledger has not decided within {timeout_s:g} s who is in"
                    + (f": {self.driver.failure}" if self.driver.failure else "")
                )
            (check or self.peer.check)()
            self.driver.pause()


def fresh_ranks(chains: Sequence[bytes]) -> frozenset[int]:
    """Ranks that had no ledger, by the chain that each has named."""
    return frozenset(rank for rank, chain in enumerate(chains) if chain == NO_DIGEST)


def _is_member(state: ChainState, key: bytes) -> bool:
    account = state.accounts.get(key)
    return account is not None and bool(account.roles)
