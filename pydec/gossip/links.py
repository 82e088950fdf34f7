"""What is under way between a rank and one neighbour, where nobody waits for anybody."""

from __future__ import annotations

from dataclasses import dataclass

from pydec.comm.transport import Pending


@dataclass
class Source:
    """What is received from one neighbour."""

    slot: int
    receive: Pending | None = None
    held: bool = False  # the message in the slot waits to be looked at again
    heard_s: float = 0.0
    last: bool = False


@dataclass
class Sink:
    """What is sent to one neighbour."""

    send: Pending | None = None
    content: int | None = None  # what ``delivered`` is told
    told: int = -1  # the ranks that it was told to have ended
    sent_s: float = 0.0
    begun: int = 0  # calls of ``begin`` when it was told so
    last: bool = False
