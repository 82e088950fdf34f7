"""The ledger as audits see it: draws that nobody can know before, findings of a quorum, who is slashed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from pydec.comm.team import rank_of
from pydec.consensus.attestation import Attestation
from pydec.consensus.driver import Driver, Receipt
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import Attested, Audit, Beacon, sign
from pydec.crypto.hashing import sha256
from pydec.crypto.signing import SigningKey
from pydec.errors import LedgerError, TransactionError
from pydec.train.admission import Admission
from pydec.train.together import Member, speaks, table

Certify = Callable[[Callable[[int, Attestation], Attested], bytes], bool]


class LedgerCourt:
    """One rank's part; see ``audit.Court``.

    Args:
        peer: this rank.
        key: of this rank.
        driver: its node of the ledger.
        admission: with everybody's keys.
        timeout_s: for every step.
        certify: has a quorum sign a statement and submits it.
        level: waits until every rank has what any rank has.
    """

    def __init__(
        self,
        peer: Member,
        key: SigningKey,
        driver: Driver,
        admission: Admission,
        timeout_s: float,
        certify: Certify,
        level: Callable[[], None],
    ) -> None:
        self._peer, self._key, self._driver, self._admission = peer, key, driver, admission
        self._timeout_s, self._certify, self._level = timeout_s, certify, level

    @property
    def _state(self) -> ChainState:
        state = self._driver.state
        assert isinstance(state, ChainState)
        return state

    def draw(self, step: int) -> bytes:
        """The hash of a block that was made after all ranks had called this.

        The next block may have been proposed before, by somebody who knew its hash; the one after it holds
        the next one's votes.

        Raises:
            LedgerError: no quorum answers.
        """
        height = 2 + int(table(self._peer, [self._driver.head[0]]).max())
        if not speaks(self._peer) and self._is_unseen():
            self._say(step)
        while speaks(self._peer) and self._driver.head[0] < height:
            beacon = self._say(step)
            with suppress(TransactionError):  # a block has changed the account meanwhile
                self._driver.wait([beacon], self._timeout_s, self._peer.check)
        self._driver.wait_for_height(height, self._timeout_s, self._peer.check)
        while True:
            state, (newest, head) = self._state, self._driver.head
            if state.height == newest:
                break
        return state.recent[height - newest] if newest > height else head

    def _say(self, step: int) -> Future[Receipt]:
        account = self._state.accounts[self._key.public]
        body = Beacon(max(step, account.round + 1))
        return self._driver.submit(sign(self._key, self._state.chain_id, account.sequence, body))

    def _is_unseen(self) -> bool:
        """Whether the chain might soon hold this rank for absent: draws make blocks, and who is slow is in
        no certificate.
        """
        state = self._state
        return 2 * (state.height - state.accounts[self._key.public].seen) > state.rules.downtime_blocks

    def convict(self, place: int, step: int, guilty: bool, digest: bytes) -> bool | None:
        """Put a quorum's finding on the ledger; see ``Court``.

        Raises:
            LedgerError: no quorum answers.
        """
        node = self._node(place)
        root = sha256(bytes([guilty]), digest)

        def found(epoch: int, shares: Attestation) -> Audit:
            return Audit(epoch, node, step, int(guilty), digest, shares)

        def verdict() -> bool | None:
            records = [r for r in self._state.run.audits if (r.subject, r.round) == (node, step)]
            return bool(records[-1].guilty) if records else None

        if not self._certify(found, root):
            return None
        until_s = self._peer.transport.now() + self._timeout_s
        while verdict() is None and place not in self.slashed():  # by other evidence meanwhile
            if self._peer.transport.now() >= until_s:
                raise LedgerError(f"the audit of rank {place} was not committed within {self._timeout_s:g} s")
            self._peer.check()
            self._driver.pause()
        self._level()
        return verdict()

    def slashed(self) -> set[int]:
        """Ranks that have lost their stake."""
        accounts = self._state.accounts
        found = {place: accounts.get(self._node(place)) for place in range(self._peer.size)}
        return {place for place, account in found.items() if account is not None and account.slashed}

    def _node(self, place: int) -> bytes:
        return self._admission.keys[rank_of(self._peer.transport, place)]
