"""Snapshots beside a running ledger: what newcomers ask for, and this node's own way to one."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.consensus import offers
from pydec.consensus.effects import Committed, Effect, Install, Report
from pydec.consensus.file_storage import FileStorage
from pydec.consensus.handover import Certified, Handover, Shelf
from pydec.consensus.newcomer import Newcomer
from pydec.consensus.offers import OFFER, Ask, AskPieces, AskProof
from pydec.consensus.replica import Replica
from pydec.consensus.state.chain import ChainState
from pydec.errors import FrameError


class Joining:
    """The driver's part in joining by a snapshot.

    Args:
        replica: of this node.
        storage: its disk.
        shelf: with the states from its start.
        pins: block hashes by height that the chain must have, for its own snapshot.
        whole: False leaves its own snapshot out: it replays all blocks, and gives to others what it has.
    """

    def __init__(
        self,
        replica: Replica,
        storage: FileStorage,
        shelf: Shelf,
        pins: dict[int, bytes] | None = None,
        whole: bool = False,
    ) -> None:
        self._replica, self._storage = replica, storage
        self._chain_id = replica.member.chain_id
        self._handover = Handover(self._chain_id, shelf, storage.step, storage.record)
        self._newcomer = None if whole else Newcomer(replica, pins)

    @property
    def active(self) -> bool:
        """Whether a snapshot is being looked for."""
        return self._newcomer is not None and self._newcomer.active

    def takes(self, data: bytes) -> bool:
        """Whether a message is for ``receive``."""
        return data[:1] == bytes([OFFER])

    def receive(self, now_s: float, sender: bytes, data: bytes) -> list[Effect]:
        """A message from a node; what is to be carried out. Snapshots are installed before this returns.

        Raises:
            LedgerError: the disk refused a snapshot; what was there before is kept.
        """
        if self._replica.halted:
            return []
        try:
            message = offers.decode(data, self._chain_id)
        except FrameError as error:
            return [Report(sender, str(error))]
        if isinstance(message, Ask | AskProof | AskPieces):
            return [*self._handover.answer(now_s, sender, message)]
        if self._newcomer is None:
            return []
        return self._installed(self._newcomer.receive(now_s, sender, message))

    def tick(self, now_s: float) -> list[Effect]:
        """Do what it is time for; what is to be carried out."""
        if self._newcomer is None or self._replica.halted:
            return []
        return self._installed(self._newcomer.tick(now_s))

    def committed(self, committed: Committed) -> None:
        """A height was decided, and is on the disk.

        Raises:
            LedgerError: the disk refused; the next start makes up for it.
        """
        step = self._handover.committed(committed)
        if step is not None:
            self._storage.append_step(*step)

    def _installed(self, done: Sequence[Effect]) -> list[Effect]:
        found: list[Effect] = []
        for effect in done:
            if isinstance(effect, Install):
                self._storage.install(effect.height, effect.record, effect.steps)
                assert isinstance(effect.state, ChainState)
                self._handover.shelf.add(Certified(effect.header, effect.commit, effect.state))
                found += self._replica.adopt(effect)
            else:
                found.append(effect)
        return found
