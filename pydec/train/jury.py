"""A rank's vote on who does not hold the data that it owes: shares of a statement that the ledger judges.

Shares come beside the data (``store.challenges``); whoever has a quorum's submits ``transactions.Withheld``.
A share names an object and an epoch: those of different objects, or of epochs that are over, never add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydec.codec import wire
from pydec.consensus.attestation import Attestation, attest, collect, verify_share
from pydec.consensus.signed import Signer
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import Withheld, prove, statement
from pydec.errors import SignatureError
from pydec.store.challenges import Owed

_NOBODY = Attestation(b"", ())
_MOST_NAMES = 16  # objects of one accused, from one signer, whose shares are kept


class LedgerJury:
    """One rank's part; see ``challenges.Jury``. From one thread.

    Args:
        place: of this rank.
        key: of this rank.
        nodes: identity of every rank.
        root: of the data set; only of one that is registered is anything owed.
        state: the newest.
        submit: hands a transaction to the ledger.
    """

    def __init__(
        self,
        place: int,
        key: Signer,
        nodes: Sequence[bytes],
        root: bytes,
        state: Callable[[], ChainState],
        submit: Callable[[bytes], None],
    ) -> None:
        self._place, self._key, self._nodes, self._root = place, key, nodes, root
        self._state, self._submit = state, submit
        self._epoch = -1
        self._seen: ChainState | None = None
        self._out: frozenset[int] = frozenset()
        self._shares: dict[tuple[int, bytes], dict[int, bytes]] = {}  # by accused and object, by signer
        self._named: dict[tuple[int, int], list[bytes]] = {}  # objects, by signer and accused
        self._submitted: set[tuple[int, bytes]] = set()

    def sign(self, owed: Owed) -> bytes | None:
        """See ``Jury.sign``."""
        state = self._enter()
        if not self._may_lose(state, owed.peer) or state.table.index(self._nodes[self._place]) is None:
            return None
        share = attest(self._key, state.chain_id, self._said(owed))
        self._take(state, self._place, owed, share)
        return wire.u64(self._epoch) + share

    def hear(self, signer: int, owed: Owed, share: bytes) -> bool:
        """See ``Jury.hear``."""
        state = self._enter()
        index = state.table.index(self._nodes[signer])
        if index is None or share[:8] != wire.u64(self._epoch) or not self._may_lose(state, owed.peer):
            return False
        if self._shares.get((owed.peer, owed.name), {}).get(index) == share[8:]:
            return True
        try:
            verify_share(state.table, index, state.chain_id, self._said(owed), share[8:])
        except SignatureError:
            return False
        self._take(state, signer, owed, share[8:])
        return True

    def convicted(self) -> frozenset[int]:
        """Ranks that have lost their stake, for whatever reason."""
        state = self._state()
        if state is not self._seen:
            self._seen = state
            found = [state.accounts.get(node) for node in self._nodes]
            self._out = frozenset(place for place, account in enumerate(found) if account and account.slashed)
        return self._out

    def _enter(self) -> ChainState:
        state = self._state()
        if state.table.epoch != self._epoch:
            self._epoch = state.table.epoch
            self._shares.clear()
            self._named.clear()
            self._submitted.clear()
        return state

    def _may_lose(self, state: ChainState, accused: int) -> bool:
        if self._root not in state.datasets or not 0 <= accused < len(self._nodes):
            return False
        account = state.accounts.get(self._nodes[accused])
        return account is not None and bool(account.roles or account.locked)

    def _said(self, owed: Owed) -> bytes:
        return statement(self._body(owed, _NOBODY))

    def _body(self, owed: Owed, shares: Attestation) -> Withheld:
        return Withheld(self._epoch, self._nodes[owed.peer], self._root, owed.name, shares)

    def _take(self, state: ChainState, signer: int, owed: Owed, share: bytes) -> None:
        index = state.table.index(self._nodes[signer])
        assert index is not None
        case = owed.peer, owed.name
        named = self._named.setdefault((signer, owed.peer), [])
        if owed.name not in named:
            named.append(owed.name)
            if len(named) > _MOST_NAMES:
                old = owed.peer, named.pop(0)
                self._shares[old].pop(index, None)
                if not self._shares[old]:
                    del self._shares[old]
        shares = self._shares.setdefault(case, {})
        shares[index] = share
        if case not in self._submitted and state.table.quorum(state.table.weight(shares)):
            self._submitted.add(case)
            self._submit(prove(self._body(owed, collect(state.table, shares))))
