"""What a node can give to a newcomer: the steps of all epochs, and the state at a height that all keep.

Every node keeps the states after the last ``KEPT`` heights that ``SPACING`` divides, so that a newcomer gets
the pieces of one snapshot from any of them. A state shares what did not change with the next one; its pieces
are made when somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from pydec.consensus import messages, offers
from pydec.consensus.block import Block, Header
from pydec.consensus.catchup import Allowance
from pydec.consensus.certificate import QuorumCertificate
from pydec.consensus.effects import Committed, Send
from pydec.consensus.light import EpochStep, encode_step
from pydec.consensus.offers import Ask, AskPieces, AskProof, Manifest, Offer, Piece, Proof, Step
from pydec.consensus.state import streams
from pydec.consensus.state.chain import ChainState

SPACING = 256  # heights
KEPT = 2
STEPS = 16  # that one request gets
AT_ONCE = 4  # pieces that one request gets: 1 MiB
_REFILL_S = 2.0  # between allowances of requests


@dataclass(frozen=True)
class Certified:
    """A decided block, and the state after it."""

    header: Header
    commit: QuorumCertificate
    state: ChainState

    @cached_property
    def _parts(self) -> list[list[bytes]]:
        return [streams.pieces(part) for part in streams.parts(self.state)]

    @cached_property
    def pieces(self) -> list[bytes]:
        """All pieces of the state in order."""
        return [piece for part in self._parts for piece in part]

    @cached_property
    def offer(self) -> Offer:
        """What says that it is here."""
        return Offer(Proof(self.header, self.commit), Manifest.of(self._parts))


class Shelf:
    """The last states of this node, for its own restart and for newcomers."""

    def __init__(self) -> None:
        self.kept: deque[Certified] = deque(maxlen=KEPT)

    def add(self, certified: Certified) -> None:
        """Keep a state if it is one of those that all keep."""
        if certified.state.height % SPACING == 0:
            self.kept.append(certified)

    def at(self, height: int) -> Certified | None:
        """The state after a height, None if it is not here."""
        return next((one for one in self.kept if one.state.height == height), None)


class Handover:
    """Answers newcomers; no I/O but reading what is stored.

    Args:
        chain_id: 32 bytes.
        shelf: with the states from this node's start.
        step: the stored step of an epoch, None if it is not there.
        record: the stored decision of a height, None if it is not there.
    """

    def __init__(
        self,
        chain_id: bytes,
        shelf: Shelf,
        step: Callable[[int], bytes | None],
        record: Callable[[int], bytes | None],
    ) -> None:
        self._chain_id, self._step, self._record = chain_id, step, record
        self.shelf = shelf
        self._allowance, self._refill_s = Allowance(), 0.0

    def committed(self, committed: Committed) -> tuple[int, bytes] | None:
        """A height was decided; the epoch that it began and the step to it, None if it began none."""
        state, header = committed.state, committed.block.header
        assert isinstance(state, ChainState)
        self.shelf.add(Certified(header, committed.certificate, state))
        if state.changed != state.height:
            return None
        return state.table.epoch, encode_step(EpochStep(header, committed.certificate, state.table))

    def answer(self, now_s: float, node: bytes, message: Ask | AskProof | AskPieces) -> list[Send]:
        """A newcomer's request; so many of each in a while."""
        if now_s >= self._refill_s:
            self._allowance.refill()
            self._refill_s = now_s + _REFILL_S
        if not self._allowance.take(node):
            return []
        if isinstance(message, Ask):
            found = self._steps(message.epoch)
        elif isinstance(message, AskProof):
            found = self._proof(message.height)
        else:
            found = self._pieces(message)
        return [Send(node, offers.encode(one, self._chain_id)) for one in found]

    def _steps(self, epoch: int) -> list[offers.Message]:
        newest = self.shelf.kept[-1] if self.shelf.kept else None
        if newest is None or len(newest.pieces) > offers.MOST_PIECES:
            return []
        last = newest.state.table.epoch
        found: list[offers.Message] = []
        for number in range(epoch, min(last, epoch + STEPS - 1) + 1):
            data = self._step(number)
            if data is None:
                return found
            found.append(Step(data))
        return found if epoch + len(found) <= last else [*found, newest.offer]

    def _proof(self, height: int) -> list[offers.Message]:
        data = self._record(height)
        if data is None:
            return []
        decision = messages.decode(data, self._chain_id)
        assert isinstance(decision, messages.Decision)
        return [Proof(Block.decode(decision.block).header, decision.commit)]

    def _pieces(self, message: AskPieces) -> list[offers.Message]:
        certified = self.shelf.at(message.height)
        if certified is None:
            return [self.shelf.kept[-1].offer] if self.shelf.kept else []
        chosen = certified.pieces[message.first : message.first + AT_ONCE]
        return [Piece(message.height, message.first + n, piece) for n, piece in enumerate(chosen)]
