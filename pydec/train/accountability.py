"""A run whose ranks answer for what they send: signed packets, evidence for the ledger, and what it decides.

Gossip finds out who has signed two things (``gossip.witness``), the ledger takes the stake of who has
(``consensus.transactions.Equivocation``); here one is told of the other. From the moment that a rank, or its
ledger, holds the proof it takes nothing more from the guilty; all ranks leave it out at the next report.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from pydec.comm.team import rank_of
from pydec.comm.transport import Transport
from pydec.consensus.driver import Driver, Receipt
from pydec.consensus.equivocation import Equivocation
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import prove
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError, TransactionError
from pydec.gossip.witness import Conflict, Witness
from pydec.optim.accountable import check, hold_to_account
from pydec.optim.optimizer import DecentralizedOptimizer
from pydec.train.admission import Admission
from pydec.train.config import TrainConfig
from pydec.train.together import Member, table

COUNTS = ("signed", "verified", "unsigned", "refused", "told", "compared", "made up", "ignored")


def accountable(config: TrainConfig, optimizer: DecentralizedOptimizer) -> bool:
    """Whether a run with a ledger is to be held to account."""
    if config.accountable != "auto":
        return config.accountable == "on"
    if not optimizer.algorithm.robust:
        return False
    try:
        check(optimizer)
    except ConfigError:
        return False
    return True


class Accountability:
    """One rank's part; from its construction on the optimiser signs. All ranks make it together.

    Args:
        transport: of those that take part.
        key: of this rank.
        run_id: of the run that has begun.
        driver: this rank's node of the ledger.
        admission: with everybody's keys.
        optimizer: of this rank.

    Raises:
        ConfigError: it sends different things to different neighbours by design, or the like.
    """

    def __init__(
        self,
        transport: Transport,
        key: SigningKey,
        run_id: bytes,
        driver: Driver,
        admission: Admission,
        optimizer: DecentralizedOptimizer,
    ) -> None:
        self._driver, self._run_id = driver, run_id
        self._keys = {place: admission.keys[rank_of(transport, place)] for place in range(transport.size)}
        self._seen: ChainState | None = None
        self._submitted: list[Future[Receipt]] = []
        self._accused: dict[int, int] = {}  # round by rank: what this rank has found itself
        context = self._state.chain_id + run_id
        self.witness = Witness(transport.rank, context, key, self._keys)
        self.witness.accuse = self._accuse
        hold_to_account(optimizer, self.witness)

    @property
    def _state(self) -> ChainState:
        state = self._driver.state
        assert isinstance(state, ChainState)
        return state

    def look(self) -> None:
        """Before a round: who has lost its stake on the ledger is not heard any more."""
        state = self._state
        if state is self._seen:
            return
        self._seen = state
        self.witness.guilty |= self.slashed()

    def slashed(self) -> set[int]:
        """Who has lost its stake."""
        accounts = self._state.accounts
        found = {place: accounts.get(key) for place, key in self._keys.items()}
        return {place for place, account in found.items() if account is not None and account.slashed}

    def settle(self, timeout_s: float, check: Callable[[], None]) -> None:
        """After training: compare what was told last, and wait until the ledger has judged."""
        self.witness.look()
        submitted, self._submitted = self._submitted, []
        for future in submitted:
            with suppress(TransactionError):  # another rank has proved it already
                self._driver.wait([future], timeout_s, check)

    def summary(self, peer: Member) -> dict[str, Any]:
        """What was counted on all ranks, and who lost its stake; all ranks together."""
        sums = table(peer, [float(self.witness.counts[name]) for name in COUNTS]).sum(axis=0)
        size = range(len(self._keys))
        found = table(peer, [float(self._accused.get(place, -1) + 1) for place in size])
        rounds = {place: found[:, place] for place in size if found[:, place].any()}
        return {
            **{name.replace(" ", "_"): round(float(n)) for name, n in zip(COUNTS, sums, strict=True)},
            "equivocated": [
                {
                    "rank": place,
                    "round": round(float(column[column > 0].min())) - 1,
                    "found_by": int((column > 0).sum()),
                }
                for place, column in rounds.items()
            ],
            "slashed": sorted(self.slashed()),
        }

    def _accuse(self, conflict: Conflict) -> None:
        first, second = conflict.first, conflict.second
        self._accused[conflict.peer] = conflict.slot.round
        body = Equivocation(
            self._keys[conflict.peer],
            self._run_id,
            *conflict.slot,
            first.digest,
            first.signature,
            second.digest,
            second.signature,
        )
        self._submitted.append(self._driver.submit(prove(body)))
