"""Staying level with the others: whom to ask for what was missed, and how much to answer (rule 10).

No claim is believed: a peer that says it is ahead is asked, and what it sends proves itself or does not. One
request is open at a time; a peer that does not deliver loses its claim, one that sends nonsense is not asked
again.
"""

from __future__ import annotations

from pydec.consensus.validators import ValidatorTable

WINDOW = 16  # heights that one request asks for
ANSWERS = 32  # that one node gets until the allowance timer runs out
MOST_CLAIMS = 1024


class CatchUp:
    """Who claims to be ahead, and who was asked.

    Attributes:
        claims: decided height by node.
    """

    def __init__(self) -> None:
        self.claims: dict[bytes, int] = {}
        self._banned: set[bytes] = set()
        self.asked: bytes | None = None
        self.until = 0  # the open request is answered when this height is decided

    def __len__(self) -> int:
        return len(self.claims) + len(self._banned)

    def heard(self, node: bytes, decided: int, height: int) -> bool:
        """A node claims to have decided a height.

        Args:
            node: who.
            decided: the height that it claims.
            height: the one that this node is deciding.

        Returns:
            Whether it is ahead, may be asked, and no request is open.
        """
        if decided < height or node in self._banned:
            return False
        if node not in self.claims and len(self.claims) >= MOST_CLAIMS:
            return False
        self.claims[node] = max(decided, self.claims.get(node, 0))
        return self.asked is None

    def ask(self, height: int) -> bytes | None:
        """The node to ask for ``height`` and what follows, None if nobody claims to have it."""
        for node in [node for node, decided in self.claims.items() if decided < height]:
            del self.claims[node]
        if self.asked not in self.claims:
            self.asked = next(iter(self.claims), None)
        if self.asked is not None:
            self.until = min(height + WINDOW - 1, self.claims[self.asked])
        return self.asked

    def delivered(self, height: int) -> bool:
        """Whether the open request is answered; without one, whether all claims are reached.

        Args:
            height: the one that this node is deciding.
        """
        if self.asked is not None:
            return height > self.until
        return all(decided < height for decided in self.claims.values())

    def fail(self) -> None:
        """The node that was asked has not delivered."""
        if self.asked is not None:
            self.claims.pop(self.asked, None)
            self.asked = None

    def banned(self, node: bytes) -> bool:
        """Whether it sent what cannot be."""
        return node in self._banned

    def ban(self, node: bytes) -> None:
        """It sent what cannot be."""
        if len(self._banned) < MOST_CLAIMS:
            self._banned.add(node)
        self.claims.pop(node, None)
        if self.asked == node:
            self.asked = None


class Allowance:
    """How many answers each node still gets; the caller refills it by a timer."""

    def __init__(self) -> None:
        self._spent: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._spent)

    def take(self, node: bytes) -> bool:
        """Whether there is one more for this node."""
        spent = self._spent.get(node, 0)
        if spent >= ANSWERS:
            return False
        self._spent[node] = spent + 1
        return True

    def refill(self) -> None:
        """Everything again for everybody."""
        self._spent.clear()


class Bar:
    """Where a node without its safety record may vote again (rule 15).

    It may have signed anything in heights that were open when the record was lost. Let h be the highest that
    any of a quorum of the others has decided. Nobody of them signed beyond h + 1; but this node may have been
    the only one that the COMMITs of h + 1 reached, have decided it, and have signed at h + 2, which it led.
    Beyond that nothing was, because nothing is without a quorum. The specification's rule 15 bars h + 1 only,
    which is enough where this node still has its blocks; see tests/consensus/test_catchup.py.

    Heads of another epoch's validators do not say that: who has left may not have followed any more.

    Args:
        lost: whether the record is lost or may be stale.
    """

    def __init__(self, lost: bool) -> None:
        self._heads: dict[bytes, int] = {}
        self._resolved = not lost
        self._until = 0
        self._epoch: int | None = None  # of the quorum that was heard, as long as its heights are barred

    @property
    def waiting(self) -> bool:
        """Whether heads of a quorum are still missing."""
        return not self._resolved

    def lose(self) -> None:
        """The record does not show what this node may have signed."""
        self._heads.clear()
        self._resolved = False

    def until(self, height: int) -> None:
        """Bar heights up to this one: signed records say that this node has been further than its chain."""
        self._until = max(self._until, height)

    def heard(self, table: ValidatorTable, node: bytes, decided: int) -> None:
        """A validator's head."""
        if self._resolved or table.index(node) is None:
            return
        self._heads = {known: head for known, head in self._heads.items() if table.index(known) is not None}
        self._heads[node] = max(decided, self._heads.get(node, 0))
        if table.quorum(table.weight(index for index in map(table.index, self._heads) if index is not None)):
            self._resolved, self._epoch = True, table.epoch
            self._until = max(self._until, max(self._heads.values()) + 2)
            self._heads.clear()

    def entered(self, epoch: int, height: int) -> bool:
        """A height begins; whether heads must be asked for once more."""
        if self._epoch is None or height > self._until or epoch == self._epoch:
            self._epoch = None if height > self._until else self._epoch
            return False
        self._epoch = None
        self.lose()
        return True

    def shown(self, height: int) -> bool:
        """The chain shows this node's COMMIT of a height, no record here does; whether to ask for heads."""
        if not self.allows(height):
            return False
        self.lose()
        return True

    def allows(self, height: int) -> bool:
        """Whether votes at that height cannot contradict forgotten ones."""
        return self._resolved and height > self._until
