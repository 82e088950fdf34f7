"""Training and the ledger agree on who is in: deaths go there, views come back, and a minority stops.

A rank tells its ledger node whom it sees dead, with the round that it will not begin before that is decided,
about ``_AHEAD_S`` ahead. Usually the decision is there long before, and all members enter the view without
the dead in its round. Otherwise they pause at theirs; if the living are no quorum, or it does not answer in
time, training stops with one error, because nobody could tell it from the smaller part of two. Where it makes
checkpoints, the living that are no quorum end at one step and save it first.

Nobody promises a round for what an admin or evidence changes: whose role or stake was taken, or who has left,
is left out at the next report, which all ranks make at one step (``align``).
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from pydec.comm.living import living
from pydec.comm.team import rank_of
from pydec.comm.view import View
from pydec.consensus import transactions
from pydec.consensus.access import Action
from pydec.consensus.driver import Driver
from pydec.consensus.effects import Committed
from pydec.consensus.epochs import Epochs, members, rank_in_address
from pydec.consensus.state.chain import ChainState
from pydec.consensus.state.parts import Account
from pydec.errors import ConfigError, Evicted, LedgerError
from pydec.optim.optimizer import DecentralizedOptimizer
from pydec.train.admission import Admission
from pydec.train.together import Member, table

_AHEAD_S = 0.25  # what a decision may take before anybody pauses for it: some blocks
_FEWEST, _MOST = 8, 1 << 16  # rounds ahead, at least and at most
_UNPROMISED = {  # whose senders ask no trainer
    "JOIN", "LEAVE", "STAKE", "KEY", "GRANT", "REVOKE", "CONFIG", "EVIDENCE", "FORGERY", "EQUIVOCATION",
    "AUDIT", "WITHHELD",
}  # fmt: skip
_NEVER = 1 << 40  # rounds ahead of ranks that have none in common


class Minority(LedgerError):
    """Those who live cannot decide who is in; every one of them stops at the round that it had promised."""


class Membership:
    """One rank's part; from its construction to ``close`` the optimiser follows the ledger's views.

    Args:
        peer: this rank.
        driver: its ledger node, running; the thread that the optimiser steps in is another one.
        optimizer: of this rank.
        patience_s: longest pause for a decision.
        admission: of this rank; who is outside is in no view of training.
        beside: called before every round.

    Attributes:
        kept: why the old graph stayed, less the dead, where one could not be made for the members of a view.
    """

    def __init__(
        self,
        peer: Member,
        driver: Driver,
        optimizer: DecentralizedOptimizer,
        patience_s: float,
        admission: Admission,
        beside: Callable[[], None] = lambda: None,
    ) -> None:
        self.kept: list[str] = []
        self._admission, self._beside = admission, beside
        self._held: list[View] = []  # that were not promised: entered at a report
        self._peer, self._driver, self._optimizer, self._patience_s = peer, driver, optimizer, patience_s
        self._told: dict[int, float] = {}  # ranks seen dead, and when
        self._alone = optimizer.algorithm.asynchronous
        self._round, self._round_s, self._pace_s = 0, 0.0, 0.0
        self._arrived: SimpleQueue[tuple[View, bool]] = SimpleQueue()
        self._history: list[View] = []
        lock = threading.Lock()

        def committed(what: Committed) -> None:
            state, head = what.state, what.block.header.hash()
            assert isinstance(state, ChainState)
            with lock:
                view = epochs.committed(state, head)
            if view is not None:
                self._arrived.put((view, _of_deaths(what.block.transactions)))

        with lock:
            self._unsubscribe = driver.subscribe(committed)
            epochs = Epochs(self._state, driver.head[1], self._place)
        self._first = epochs.at(0)
        driver.deaths.promise = self._promise
        optimizer.views.before_round = self.before_round

    @property
    def _state(self) -> ChainState:
        state = self._driver.state
        assert isinstance(state, ChainState)
        return state

    def before_round(self, round: int) -> None:
        """Called before every round of gossip.

        Raises:
            Minority: those who live are no quorum, or it does not answer.
            LedgerError: the ledger has stopped here, and somebody is dead.
            Stopped: the job is being stopped.
            Evicted: the algorithm is asynchronous, and this rank's role was taken.
        """
        self._beside()
        now_s = self._peer.transport.now()
        if round > self._round:
            took_s = (now_s - self._round_s) / (round - self._round)
            self._pace_s = took_s if not self._pace_s else 0.9 * self._pace_s + 0.1 * took_s
        self._round, self._round_s = round, now_s
        self._look()
        self._take_views()
        while self._must_wait(round) and not self._ends():
            self._wait_for_a_decision()
        self._take_views()
        if self._alone:
            self._check_role()

    def _check_role(self) -> None:
        """Without common steps nobody waits for a report: who lost its role ends when it hears of it."""
        newest = self._history[-1] if self._history else self._first
        if self._peer.rank in newest.members:
            return
        denied = self._admission.denial(self._admission.rank, Action.GOSSIP)
        if denied is not None:
            self._driver.gate.note(denied)
            raise Evicted(self._admission.rank, newest.epoch, denied)

    def settle(self) -> None:
        """After training: wait until the ledger knows of all who are dead, or cannot, or time is up."""
        self._look()
        until_s = self._peer.transport.now() + self._patience_s
        while self._undecided() and self._deciding() and self._peer.transport.now() < until_s:
            self._peer.check()
            self._driver.pause()
        self._take_views()

    def close(self) -> None:
        """Follow no longer; idempotent."""
        self._unsubscribe()
        self._optimizer.views.before_round = None

    def summary(self) -> dict[str, Any]:
        """``epochs`` entered or decided during the run, and who was ``evicted`` by which."""
        views = [self._first, *self._history]
        evicted = [
            {"rank": rank, "epoch": after.epoch, "round": after.start_round}
            for before, after in itertools.pairwise(views)
            for rank in sorted(set(before.members) - {*after.members})
        ]
        epochs = [
            {"epoch": v.epoch, "members": sorted(v.members), "start_round": v.start_round, "seed": v.seed}
            for v in views
        ]
        return {"epochs": epochs, "evicted": evicted, **({"kept": self.kept} if self.kept else {})}

    def _promise(self) -> int:
        """The round that this rank does not begin before a death that is signed now is decided."""
        if self._alone:
            return self._round + _NEVER
        ahead = math.ceil(_AHEAD_S / self._pace_s) if self._pace_s > 0.0 else _FEWEST
        return self._round + min(max(ahead, _FEWEST), _MOST)

    def _look(self) -> None:
        """Tell the ledger of ranks that have died since the last look."""
        transport = self._peer.transport
        for rank in sorted(transport.lost() - self._told.keys()):
            self._told[rank] = transport.now()
            for account in members(self._state):
                if self._place(account) == rank:
                    self._driver.deaths.saw(account.node_id)

    def _take_views(self) -> None:
        while not self._arrived.empty():
            view, promised = self._arrived.get()
            if promised or self._alone:
                self._held = []
                self._change(view)
            else:
                self._held.append(view)

    def _change(self, view: View) -> None:
        self._history.append(view)
        try:
            self._optimizer.views.change(view)
        except ConfigError as error:
            self.kept.append(f"epoch {view.epoch}: {error}")

    def align(self) -> None:
        """All that take part are at one step: enter, in their next round, what an admin has changed.

        Raises:
            AccessDenied: this rank may not take part any more; the others go on.
            LedgerError: somebody is to be left out whom the algorithm cannot do without.
        """
        self._take_views()
        link = self._peer.transport
        newest = self._held[-1].epoch if self._held else 0
        known = table(self._peer, [newest])[list(living(link).members), 0].min()
        view = next((view for view in reversed(self._held) if view.epoch <= known), None)
        if view is None:
            return
        self._held = [later for later in self._held if later.epoch > view.epoch]
        out = [place for place in living(link).members if place not in view.members]
        if not out:
            return  # other options, and the same members
        self._change(replace(view, start_round=self._optimizer.rounds))
        self._admission.shut_out(out)
        if self.kept and self.kept[-1].startswith(f"epoch {view.epoch}: "):
            who = ", ".join(map(str, out))
            raise LedgerError(
                f"rank {who} may not take part any more, and nobody can go on without it: {self.kept[-1]}; "
                "start again"
            )
        if not self._admission.takes_part:
            raise self._admission.outside[self._admission.rank]

    def _undecided(self) -> list[int]:
        """Ranks seen dead that are members yet; asked in every round, and nearly always nobody is."""
        if not self._told:
            return []
        return sorted(self._told.keys() & set(map(self._place, members(self._state))))

    def _place(self, account: Account) -> int | None:
        """The rank of a member among those that take part."""
        return self._admission.place(rank_in_address(account))

    def _must_wait(self, round: int) -> bool:
        gone = self._undecided()
        if not gone:
            return False
        if self._alone:
            waited_s = self._peer.transport.now() - max(self._told[rank] for rank in gone)
            return waited_s > self._patience_s
        hold = self._driver.deaths.hold
        return hold is not None and round >= hold

    def _deciding(self) -> bool:
        """Whether those who live are a quorum of a ledger that runs."""
        voters = self._state.table
        gone = {f"rank:{rank_of(self._peer.transport, rank)}" for rank in self._told}
        here = [index for index, validator in enumerate(voters.validators) if validator.address not in gone]
        return self._driver.failure is None and voters.quorum(voters.weight(here))

    def _ends(self) -> bool:
        """Whether those who live cannot decide, and therefore end, all at one step, which they save."""
        if self._driver.failure is not None or not self._undecided() or self._deciding():
            return False
        return self._peer.ask_to_stop()

    def _wait_for_a_decision(self) -> None:
        transport = self._peer.transport
        until_s = transport.now() + (0.0 if self._alone else self._patience_s)
        while self._undecided() and self._deciding() and transport.now() < until_s:
            self._peer.check()
            self._driver.pause()
            self._look()
        if not self._undecided() or self._ends():
            return
        if self._driver.failure is not None:
            raise LedgerError(f"the ledger has stopped: {self._driver.failure}")
        raise self.minority() or Minority(
            f"{self._who_is_gone()}, and the ledger did not decide that within {self._patience_s:g} s: the "
            f"others do not answer, and training has stopped in round {self._round}"
        )

    def minority(self) -> Minority | None:
        """The error of those who live and are no quorum, if that is so; of one that waits for them, too."""
        self._look()
        if not self._undecided() or self._deciding():
            return None
        voters = self._state.table
        needed = next(
            (count for count in range(len(voters)) if voters.quorum(voters.weight(range(count)))), len(voters)
        )
        return Minority(
            f"{self._who_is_gone()}, the ledger needs {needed}: training has stopped in round {self._round}, "
            "with everything that was saved; start again with all ranks of the ledger"
        )

    def _who_is_gone(self) -> str:
        gone, size = self._undecided(), len(self._state.table)
        return f"{len(gone)} of {size} members are gone (ranks {', '.join(map(str, gone))})"


def _of_deaths(block: Sequence[bytes]) -> bool:
    """Whether the members that a block changes have promised each other the round of that change."""
    return not any(transactions.kind_name(data) in _UNPROMISED for data in block)
