"""What an exchange knows of what is wanted, and of what it sends."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from pydec.store.messages import Kind


@dataclass
class Try:
    """One peer that was asked, and what has come from it."""

    peer: int
    number: int
    moved_s: float
    data: bytearray = field(default_factory=bytearray)
    total: int = -1


@dataclass
class Request:
    """Something that is wanted.

    Attributes:
        done: whether it has ended.
        data: the object or manifest, verified; None if nobody has it.
        source: the rank that sent it.
        kept: done once it is in the store, or cannot be; None: it is not put there.
    """

    kind: Kind
    digest: bytes
    peers: deque[int]
    tries: list[Try] = field(default_factory=list)
    done: bool = False
    data: bytes | None = None
    source: int = -1
    kept: Future[None] | None = None

    @property
    def settled(self) -> bool:
        """Whether it has ended, and is in the store if it is to be."""
        return self.done and (self.kept is None or self.kept.done())


@dataclass
class Serving:
    """Something on its way to a peer."""

    kind: Kind
    request: int
    digest: bytes
    data: bytes
    sent: int = 0
