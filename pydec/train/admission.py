"""Which ranks of a job take part: the ledger's roles decide before anything of the model is sent.

All ranks meet on the ledger first. Who has no role to take part in gossip is outside: the others go on as a
team (``comm.team``) that sends it nothing but what ``observers`` has. A rank that loses its role while
training goes on is outside from the next report on, which all ranks make at one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydec.comm.living import living
from pydec.comm.team import place_of, rank_of
from pydec.comm.transport import Transport
from pydec.consensus import grants
from pydec.consensus.access import Action, allow, check_role
from pydec.consensus.driver import Driver
from pydec.consensus.state.chain import ChainState
from pydec.crypto.keyring import Keyring, Lock
from pydec.crypto.signing import SigningKey
from pydec.errors import AccessDenied, ConfigError, FrameError, LedgerError, StoreError
from pydec.train.together import Member, table

_TRIES = 8


class Admission:
    """One rank's knowledge of who takes part.

    Args:
        peer: this rank, with the whole job around it.
        keys: of all ranks, proved, 32 bytes each.
        driver: this rank's node of the ledger.

    Attributes:
        whole: the transport of all ranks of the job.
        rank: of this process in the job.
        outside: ranks of the job that take no part, and what was denied to them.
    """

    def __init__(self, peer: Member, keys: Sequence[bytes], driver: Driver) -> None:
        self.whole: Transport = peer.transport
        self.rank = peer.rank
        self.keys, self.outside = tuple(keys), dict[int, AccessDenied]()
        self._peer, self._driver = peer, driver

    @property
    def _state(self) -> ChainState:
        state = self._driver.state
        assert isinstance(state, ChainState)
        return state

    @property
    def inside(self) -> tuple[int, ...]:
        """Ranks of the job that take part, in increasing order."""
        return tuple(rank for rank in range(self.whole.size) if rank not in self.outside)

    @property
    def takes_part(self) -> bool:
        """Whether this rank does."""
        return self.rank not in self.outside

    def may(self, rank: int, action: Action) -> bool:
        """Whether a rank of the job may do something now; nothing is counted."""
        return self.denial(rank, action) is None

    def who_may(self, action: Action) -> int:
        """The lowest rank that takes part and may do something.

        Raises:
            AccessDenied: none may; it names the lowest of all.
        """
        for rank in self.inside:
            if self.may(rank, action):
                return rank
        first = self.inside[0]
        denied = self.denial(first, action)
        assert denied is not None
        self._driver.gate.note(denied, quiet=self.rank != first)
        raise denied

    def decide(self, level: Callable[[], None]) -> None:
        """Agree on who takes part; all ranks of the job together, all with the same result.

        Args:
            level: waits until every rank has what any rank has of the ledger.

        Raises:
            ConfigError: nobody may.
            LedgerError: the roles change faster than the ranks can agree.
        """
        here = list(living(self.whole).members)
        for _ in range(_TRIES):
            denied = [self.denial(rank, Action.GOSSIP) for rank in range(self.whole.size)]
            rows = table(self._peer, [float(error is not None) for error in denied])[here]
            if (rows == rows[0]).all():
                break
            level()
        else:
            raise LedgerError(
                "the ranks do not agree on who may train: their roles are changing; start again"
            )
        self._shut_out({rank: error for rank, error in enumerate(denied) if error is not None})
        if not self.inside:
            raise ConfigError(f"no rank of this job may train: {self.outside[0]}")

    def shut_out(self, places: Sequence[int]) -> None:
        """Members of the team have lost their role; all of them call it at one step, those as well."""
        ranks = [rank_of(self._peer.transport, place) for place in places]
        found = {rank: self.denial(rank, Action.GOSSIP) for rank in ranks}
        self._shut_out({rank: error for rank, error in found.items() if error is not None})
        living(self._peer.transport).leave_out(places)

    def _shut_out(self, denied: dict[int, AccessDenied]) -> None:
        self.outside |= denied
        first = min(self.inside, default=0)
        for error in denied.values():
            self._driver.gate.note(error, quiet=self.rank != first)

    def denial(self, rank: int, action: Action) -> AccessDenied | None:
        """Why a rank of the job may not do something now, None if it may; nothing is counted."""
        try:
            allow(self._state, self.keys[rank], action)
        except AccessDenied as error:
            return error
        return None

    def check_reader(self) -> None:
        """Raise AccessDenied unless this rank has a role for reading data sets; that is counted."""
        self._check(self.keys[self.rank], Action.READ_DATA)

    def may_have(self, place: int, sealed: bool) -> bool:
        """Whether a member of the team may be given a data set's objects now; a denial is counted.

        Any thread may ask. The data set may not be registered yet, so its roles decide alone: plain objects
        go to who may read; those of a private one are no more than bytes, for who may keep copies.
        """
        action = Action.SERVE_DATA if sealed else Action.READ_DATA
        try:
            self._check(self.keys[rank_of(self._peer.transport, place)], action)
        except AccessDenied:
            return False
        return True

    def keyring(self, identity: SigningKey, root: bytes, lock: bytes) -> Keyring | None:
        """This rank's keys of a private data set; None where the ledger does not know it.

        Args:
            identity: of this rank.
            root: of the data set.
            lock: encoded, of the manifest with that root.

        Raises:
            AccessDenied: it was not granted to this rank, or was taken from it; that is counted.
            StoreError: a granted key does not open.
        """
        record = self._state.datasets.get(root)
        if record is None or not record.encrypted:
            return None
        try:
            return grants.keyring(self._state, identity, root, Lock.decode(lock))
        except AccessDenied as error:
            self._driver.gate.note(error)
            raise
        except FrameError as error:
            raise StoreError(f"the ledger's key of data set {root.hex()[:16]}: {error}") from None

    def _check(self, identity: bytes, action: Action) -> None:
        try:
            check_role(identity, self._state.accounts.get(identity), action)
        except AccessDenied as error:
            self._driver.gate.note(error)
            raise

    def place(self, rank: int) -> int | None:
        """The number in the team of a rank of the job; None if it takes no part."""
        return None if rank in self.outside else place_of(self._peer.transport, rank)
