"""Asking for missed heights and answering those that missed some: ``catchup``'s books, with messages."""

from __future__ import annotations

from collections.abc import Mapping

from pydec.consensus.catchup import WINDOW, Allowance, CatchUp
from pydec.consensus.effects import CancelTimer, Outbox, Send, Serve, SetTimer, Timer
from pydec.consensus.messages import SyncRequest, encode
from pydec.consensus.pacemaker import Pacemaker


class Follow:
    """One node's requests and answers (rule 10).

    Args:
        chain_id: 32 bytes.
        pace: a request may take as long as a first round.
        outbox: where effects go.

    Attributes:
        paused: a snapshot is on its way, so that no blocks are asked for.
    """

    def __init__(self, chain_id: bytes, pace: Pacemaker, outbox: Outbox) -> None:
        self._chain_id, self._pace, self._outbox = chain_id, pace, outbox
        self._catch_up, self._allowance = CatchUp(), Allowance()
        self._refill = False  # the allowance timer runs
        self._timer = False  # the sync timer runs
        self._asked_at = 0
        self.paused = False

    @property
    def claims(self) -> Mapping[bytes, int]:
        """By node, the height that it claims to have decided; none of it is proved."""
        return self._catch_up.claims

    def __len__(self) -> int:
        return len(self._catch_up) + len(self._allowance)

    def may_answer(self, node: bytes) -> bool:
        """Whether this node gets one more answer before the allowance is refilled."""
        if not self._refill:
            self._refill = True
            self._outbox.rest.append(SetTimer(Timer.ALLOWANCE, self._pace.delay_s(2)))
        return self._allowance.take(node)

    def refill(self) -> None:
        """The allowance timer has run out."""
        self._allowance.refill()
        self._refill = False

    def serve(self, node: bytes, first: int, decided: int) -> None:
        """Send what a node asked for, as far as it is decided."""
        if 1 <= first <= decided:
            self._outbox.rest.append(Serve(node, first, min(decided, first + WINDOW - 1)))

    def behind(self, node: bytes, decided: int, here: int, soft: bool = False) -> None:
        """A node has decided the height that is in progress here, or a later one.

        Args:
            node: who.
            decided: what it claims.
            here: the height in progress.
            soft: wait for a moment: most likely this node is about to decide it as well.
        """
        if not self._catch_up.heard(node, decided, here):
            return
        if not soft:
            self.ask(here)
        elif not self._timer:
            self._start_timer(self._pace.base_s / 4)

    def ask(self, here: int) -> None:
        """Open a request for the height in progress, if somebody claims to have decided it."""
        if self.paused:
            self._start_timer(self._pace.base_s)
            return
        node = self._catch_up.ask(here)
        if node is not None:
            self._asked_at = here
            self._outbox.rest.append(Send(node, encode(SyncRequest(here), self._chain_id)))
            self._start_timer(self._pace.base_s)
        elif self._timer:
            self._timer = False
            self._outbox.rest.append(CancelTimer(Timer.SYNC))

    def advanced(self, here: int) -> None:
        """A height was decided; ``here`` is the next one."""
        if self._timer and self._catch_up.delivered(here):
            self.ask(here)

    def expire(self, here: int) -> None:
        """The sync timer has run out: whoever was asked and gave nothing loses its claim."""
        self._timer = False
        if self._catch_up.asked is not None and here == self._asked_at and not self.paused:
            self._catch_up.fail()
        self.ask(here)

    def banned(self, node: bytes) -> bool:
        """Whether a node has sent a decision that cannot be."""
        return self._catch_up.banned(node)

    def ban(self, node: bytes, here: int) -> None:
        """A node sent a decision that cannot be; ask another one."""
        self._catch_up.ban(node)
        self.ask(here)

    def _start_timer(self, delay_s: float) -> None:
        self._timer = True
        self._outbox.rest.append(SetTimer(Timer.SYNC, delay_s))
