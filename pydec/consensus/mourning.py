"""Deaths beside a running ledger: what the program sees, what peers say, what is said again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from pydec.consensus.deaths import SHARE, Deaths, Effect, Submit
from pydec.consensus.effects import Broadcast, Report
from pydec.consensus.epochs import members
from pydec.consensus.member import Member
from pydec.consensus.state.chain import ChainState
from pydec.errors import TransactionError

_AGAIN_S = 0.5  # between shares about the same death, as long as it is not decided


class Mourning:
    """The driver's part in agreeing on deaths; the program calls ``saw`` and reads ``hold``, from any thread.

    Args:
        member: this node.
        carry: carries out what is sent or reported.
        submit: hands a transaction to the replica.
        now: seconds on the cluster's clock.

    Attributes:
        promise: gives the training round that deaths signed now may be decided before, see ``Deaths``.
    """

    def __init__(
        self,
        member: Member,
        carry: Callable[[Sequence[Broadcast | Report]], None],
        submit: Callable[[bytes], None],
        now: Callable[[], float],
    ) -> None:
        self.promise: Callable[[], int] = lambda: 0
        self._deaths = Deaths(member, self._promised, _member_ids)
        self._carry, self._submit, self._now = carry, submit, now
        self._seen: SimpleQueue[bytes] = SimpleQueue()
        self._height, self._said_s = -1, 0.0

    def _promised(self) -> int:
        return self.promise()

    def saw(self, node: bytes) -> None:
        """This node sees that a member is dead: it is evicted as soon as a quorum sees it, too."""
        self._seen.put(node)

    @property
    def hold(self) -> int | None:
        """Training round that must not begin before what was signed here is decided; None: nothing was."""
        return self._deaths.hold

    @property
    def undecided(self) -> frozenset[bytes]:
        """Members that this node holds for dead and the ledger does not yet."""
        return self._deaths.waiting

    def takes(self, data: bytes) -> bool:
        """Whether a message is for ``receive``."""
        return data[:1] == bytes([SHARE])

    def receive(self, state: Any, sender: bytes, data: bytes) -> None:
        """A share from a node."""
        self._perform(self._deaths.receive(state, sender, data))

    def tick(self, state: Any) -> bool:
        """Say what there is to say; whether there was anything."""
        done: list[Effect] = []
        if state.height != self._height:
            self._height = state.height
            done += self._deaths.committed(state)
        while not self._seen.empty():
            done += self._deaths.suspect(state, self._seen.get())
        if not done and self._deaths.waiting and self._now() - self._said_s > _AGAIN_S:
            done += self._deaths.again(state)
        if done:
            self._said_s = self._now()
        self._perform(done)
        return bool(done)

    def _perform(self, done: Sequence[Effect]) -> None:
        for effect in done:
            if not isinstance(effect, Submit):
                self._carry([effect])
                continue
            try:
                self._submit(effect.transaction)
            except TransactionError:
                pass  # somebody else had a quorum before


def _member_ids(state: Any) -> frozenset[bytes]:
    """Of all that take part in gossip; of a state without accounts, of those that vote."""
    if isinstance(state, ChainState):
        return frozenset(account.node_id for account in members(state))
    return frozenset(validator.node_id for validator in state.table.validators)
