"""What a replica asks its driver to do, in order.

A driver carries out the effects of one event from the first to the last; ``Append`` and ``Persist`` are
durable before the next one is looked at, so nothing is ever sent that a restart would not remember.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from pydec.consensus.application import LedgerState
from pydec.consensus.block import Block, Header
from pydec.consensus.certificate import QuorumCertificate
from pydec.errors import AccessDenied


class Timer(Enum):
    """The timers of a replica. Each runs at most once at a time; setting it again replaces it."""

    ROUND = "round"
    FETCH = "fetch"
    SYNC = "sync"
    HEADS = "heads"
    RESEND = "resend"
    ALLOWANCE = "allowance"


@dataclass(frozen=True, slots=True)
class Persist:
    """Replace the safety record on disk."""

    record: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Write a decided height to the ledger: ``record`` is its DECISION message."""

    height: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Send to one node, by node id."""

    node: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to each of the nodes."""

    nodes: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Serve:
    """Send a node the stored records of these heights, in order; fewer if they are large."""

    node: bytes
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call ``timer(timer)`` after that time, unless it is set again or cancelled."""

    timer: Timer
    delay_s: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget the timer."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Started:
    """This node has prepared a block in a round: from here to ``Committed`` in the same round is what
    ``measured`` wants to know.
    """

    height: int
    round: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A height is decided and on disk."""

    block: Block
    certificate: QuorumCertificate
    state: LedgerState


@dataclass(frozen=True, slots=True)
class Install:
    """Begin the ledger at a state that a quorum certified; then ``Replica.adopt`` it.

    Args:
        record: header, certificate and state, as ``Replay.begin`` reads them.
        steps: that lead from this node's epoch to that of the block: each epoch, and its step, encoded.
        header: of the block that it is the state after.
        commit: the block's certificate.
        state: after the block.
        voted: the newest height that the chain shows this node's COMMIT of, 0 for none.
    """

    record: bytes
    steps: tuple[tuple[int, bytes], ...]
    header: Header
    commit: QuorumCertificate
    state: LedgerState
    voted: int

    @property
    def height(self) -> int:
        """Of the block."""
        return self.header.height


@dataclass(frozen=True, slots=True)
class Report:
    """A node sent what no honest node sends. The message was dropped."""

    node: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Denied:
    """A node wants what its roles do not allow. The message was dropped; an honest node may do so, if its
    roles have changed in a block that it does not have yet.
    """

    error: AccessDenied


@dataclass(frozen=True, slots=True)
class Halted:
    """The replica has stopped: a quorum decided what it holds to be impossible. An operator must look."""

    reason: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """The replica has gone on from a later state, without the blocks before it."""

    state: LedgerState
    head: bytes


Effect: TypeAlias = (
    Persist
    | Append
    | Install
    | Send
    | Broadcast
    | Serve
    | SetTimer
    | CancelTimer
    | Started
    | Committed
    | Adopted
    | Report
    | Denied
    | Halted
)


class Refused(Exception):
    """A message that no honest node sends, and why."""


class Outbox:
    """Collects the effects of one event, and puts what must be durable first.

    All of an event's state changes are in the one record that is persisted before the event's first message,
    so an event costs at most one sync for each decided height and one for votes.
    """

    def __init__(self) -> None:
        self.appends: list[Effect] = []
        self.rest: list[Effect] = []
        self.dirty = False

    def refuse(self, node: bytes, error: Exception) -> None:
        """A node's message was refused: what it may not do is denied, what nobody honest sends reported."""
        self.rest.append(Denied(error) if isinstance(error, AccessDenied) else Report(node, str(error)))

    def drain(self, record: bytes | None) -> list[Effect]:
        """The effects; ``record`` is the safety record if ``dirty`` is set."""
        effects = self.appends
        if record is not None:
            effects.append(Persist(record))
        effects += self.rest
        self.appends, self.rest, self.dirty = [], [], False
        return effects
