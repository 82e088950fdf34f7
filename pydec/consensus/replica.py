"""The replica: a pure state machine that turns messages, timers and transactions into an agreed chain.

Events in, effects out; no clock, disk, network or random number inside. The driver owns those: it carries out
the effects in order (``effects``), and the same events give the same effects everywhere, in the simulator and
over MPI. The protocol is the specification's single-height Jolteon with broadcast votes: PROPOSAL, PREPARE,
COMMIT, three message delays, and nothing at all when there is nothing to decide.

Sources: Gelashvili et al., "Jolteon and Ditto", FC 2022, arXiv:2106.10362 (timeout certificates); Castro and
Liskov, "Practical Byzantine Fault Tolerance", OSDI 1999 (broadcast votes).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import ClassVar

from pydec.consensus import hearing
from pydec.consensus.application import LedgerState
from pydec.consensus.block import Header
from pydec.consensus.catchup import Bar
from pydec.consensus.certificate import QuorumCertificate, Verifier
from pydec.consensus.early import Early
from pydec.consensus.effects import (
    Adopted,
    Append,
    Broadcast,
    Committed,
    Effect,
    Halted,
    Install,
    Outbox,
    Refused,
    Send,
    SetTimer,
    Timer,
)
from pydec.consensus.follow import Follow
from pydec.consensus.height import Height
from pydec.consensus.member import Member
from pydec.consensus.messages import (
    BlockBody,
    Decision,
    GetBlock,
    Head,
    Message,
    NewRound,
    Proposal,
    SyncRequest,
    Timeout,
    Vote,
    decode,
    encode,
)
from pydec.consensus.pacemaker import Pacemaker
from pydec.consensus.place import Place
from pydec.consensus.pool import Pool
from pydec.consensus.record import SafetyRecord
from pydec.consensus.spread import Spread
from pydec.consensus.storage import Restored
from pydec.errors import AccessDenied, FrameError, TransactionError

__all__ = ["Member", "Replica"]

_OF_A_ROUND = (Vote, Proposal, Timeout, NewRound)


class Replica:
    """One node's part in the agreement.

    Args:
        member: who it is.
        state: after the last block on its disk; the genesis state if there is none.
        head: hash and commit certificate of that block; the chain id and None at the genesis.
        pace: durations of timers; passed in so that measurements survive.
    """

    height_type: ClassVar[type[Height]] = Height

    def __init__(
        self,
        member: Member,
        state: LedgerState,
        head: tuple[bytes, QuorumCertificate | None],
        pace: Pacemaker | None = None,
    ) -> None:
        self.member, self.pace = member, pace or Pacemaker()
        self.verifier = Verifier(member.verify)
        self.pool, self.bar, self._early = Pool(), Bar(lost=False), Early()
        self.halted: str | None = None
        self._outbox = Outbox()
        self.follow = Follow(member.chain_id, self.pace, self._outbox)
        self._kept: SafetyRecord | None = None
        self._signed = 0  # the newest height that this directory's records show signatures of
        self._previous: Height | None = None
        self.state, self.head = state, head
        self.height = self._open(None)
        self._spread = Spread(self.pool, member.node_id, self.pace, self._broadcast, self._outbox)

    # ---------------------------------------------------------------- events

    def start(self, restored: Restored | None = None) -> list[Effect]:
        """Begin, or begin again with what ``Storage.load`` gave.

        Raises:
            FrameError: the safety record is none, or of another chain.
        """
        restored = restored or Restored()
        record = None
        if not restored.sound:
            self.bar = Bar(lost=True)
            self.bar.until(self.state.height + 1)
        elif restored.record is not None:
            record = SafetyRecord.decode(restored.record, self.member.chain_id)
            self._signed = record.height if record.messages() else 0
        here = self.state.height + 1
        if record is not None and record.height > here:
            # The chain is behind what this key has signed; the record counts again where it belongs.
            self.bar.until(record.height - 1)
            self._kept = record
        self.height = self._open(record if record is not None and record.height == here else None)
        self.height.resume()
        self._broadcast(self.here())
        self._ask_heads()
        return self._settle()

    def receive(self, sender: bytes, data: bytes) -> list[Effect]:
        """A message has come.

        Args:
            sender: node id of whom the channel authenticated.
            data: any bytes.
        """
        if self.halted or sender == self.member.node_id:
            return []
        try:
            self._dispatch(sender, decode(data, self.member.chain_id), len(data))
        except (FrameError, Refused, AccessDenied) as error:
            self._outbox.refuse(sender, error)
        except hearing.Impossible as error:
            self._halt(str(error))
        return self._settle()

    def timer(self, timer: Timer) -> list[Effect]:
        """A timer has run out."""
        if self.halted:
            return []
        {
            Timer.ROUND: self.height.expire,
            Timer.FETCH: self.height.ask_again,
            Timer.ALLOWANCE: self.follow.refill,
            Timer.RESEND: self._spread.again,
            Timer.SYNC: lambda: self.follow.expire(self.state.height + 1),
            Timer.HEADS: self._ask_heads,
        }[timer]()
        return self._settle()

    def submit(self, transaction: bytes) -> list[Effect]:
        """A transaction of this node; the others hear of it until it is in a block.

        Raises:
            TransactionError: the state refuses it, or the pool is full.
        """
        if self.halted:
            raise TransactionError(f"the ledger has stopped: {self.halted}")
        if self.pool.add(transaction, self.member.node_id, self.state):
            self._spread.tell(transaction)
        return self._settle()

    def adopt(self, effect: Install) -> list[Effect]:
        """Go on from a later state, which is on the disk; the blocks before it are not here.

        Whose key has signed nothing in this directory, or less than the chain shows, may have signed anything
        from another one: it follows until a quorum says how far that can have been (rule 15).
        """
        if self.halted or effect.height <= self.state.height:
            return []
        signed = self.height.place.height if self.height.record.messages() else self._signed
        if effect.voted > signed or not signed:
            self.bar.lose()
            self.bar.until(effect.height + 1)
        self._previous = None
        self._go_on(effect.state, (effect.header.hash(), effect.commit))
        self._outbox.rest.insert(0, Adopted(self.state, self.head[0]))
        self._broadcast(self.here())
        self._ask_heads()
        return self._settle()

    def measured(self, seconds: float) -> None:
        """From ``Started`` to ``Committed`` of one round."""
        self.pace.measured(seconds)

    def here(self) -> Head:
        """What the trainer piggy-backs on its gossip: how far this node is."""
        return Head(self.state.table.epoch, self.state.height, self.head[0])

    def sizes(self) -> dict[str, int]:
        """How much is kept in memory, in entries; every one of them is bounded."""
        return self.height.sizes() | {
            "pool": len(self.pool),
            "early": len(self._early),
            "claims": len(self.follow),
            "signatures": len(self.verifier),
        }

    # ---------------------------------------------------------------- heights

    def _open(self, record: SafetyRecord | None) -> Height:
        member = self.member
        place = Place(member.chain_id, self.state, *self.head, self.verifier)
        index, signer = place.table.index(member.node_id), member.signer
        foreign = index is not None and (signer is None or place.table[index].key != signer.public)
        if foreign or not self.bar.allows(place.height):
            signer = None
        return self.height_type(place, index, signer, self.pace, self._outbox, self._select, record)

    def _select(self, header: Header, max_bytes: int) -> Sequence[bytes]:
        return self.state.select(header, self.pool.transactions(), max_bytes) if len(self.pool) else ()

    def _settle(self) -> list[Effect]:
        """Follow up on what the event has led to, and hand its effects out."""
        try:
            while self.height.decided and not self.halted:
                self._advance()
        except hearing.Impossible as error:
            self._halt(str(error))
        if self.height.found:
            self._accuse(self.height)
        if not self.halted and len(self.pool):
            self.height.wake()
            if self.height.decided:  # a table of one
                return self._settle()
        record = self.height.record.encode() if self._outbox.dirty else None
        return self._outbox.drain(record)

    def _advance(self) -> None:
        """Rule 5, and rule 1 for the height after."""
        assert self.height.decided is not None
        held, certificate = self.height.decided
        self._compare_last_commit(held.block.header)
        self._accuse(self.height)
        fresh = not self._signed and not self.height.record.messages()  # rule 15 in a new directory
        if fresh and self.height.index in certificate.signers() and self.bar.shown(held.block.height):
            self._ask_heads()
        decision = Decision(held.block.height, certificate, held.encoded)
        self._outbox.appends.append(Append(decision.height, encode(decision, self.member.chain_id)))
        self._outbox.rest.append(Committed(held.block, certificate, held.state))
        self._go_on(held.state, (held.hash, certificate), held.block.transactions)

    def _go_on(
        self, state: LedgerState, head: tuple[bytes, QuorumCertificate], done: Sequence[bytes] = ()
    ) -> None:
        """The next height, with what was signed and what has come for it."""
        if self.height.record.messages():
            self._signed = max(self._signed, self.height.place.height)
        self._outbox.dirty = False
        self.height.close()
        self.state, self.head = state, head
        self.pool.settle(done, state)
        record = None
        if self._kept is not None and self._kept.height <= state.height + 1:
            record = self._kept if self._kept.height == state.height + 1 else None
            self._kept = None
        if self.bar.entered(state.table.epoch, state.height + 1):
            self._ask_heads()
        self.height = self._open(record)
        if record is not None:
            self.height.resume()
        self._spread.settle()
        for sender, message, n_bytes in self._early.take():
            try:
                self._dispatch(sender, message, n_bytes)
            except (Refused, AccessDenied) as error:
                self._outbox.refuse(sender, error)
        self.follow.advanced(self.height.place.height)

    def _halt(self, reason: str) -> None:
        self.halted = reason
        self._outbox.rest = [Halted(reason)]
        self._outbox.dirty = False

    # ---------------------------------------------------------------- messages

    def _dispatch(self, sender: bytes, message: Message, n_bytes: int) -> None:
        here = self.height.place.height
        if isinstance(message, _OF_A_ROUND):
            if message.height == here:
                if not self.height.decided:
                    self._hear(sender, message)
                return
            if message.height < here:
                self._help(sender, message)
            else:
                if message.height == here + 1:
                    self._early.keep(sender, message, n_bytes, len(self.state.table))
                soft = message.height == here + 1
                self.follow.behind(sender, message.height - 1, here, soft)
        elif isinstance(message, Decision):
            self._decision(sender, message)
        elif isinstance(message, Head):
            self._head(sender, message)
        elif isinstance(message, SyncRequest):
            if self.follow.may_answer(sender):
                self._send(sender, self.here())
                self.follow.serve(sender, message.height, self.state.height)
        elif isinstance(message, GetBlock):
            self._get_block(sender, message)
        elif isinstance(message, BlockBody):
            if message.height == here:
                hearing.body(self.height, message)
        else:
            self._spread.heard(sender, message.data, self.state)

    def _hear(self, sender: bytes, message: Proposal | Vote | Timeout | NewRound) -> None:
        if isinstance(message, Vote):
            hearing.vote(self.height, sender, message)
        elif isinstance(message, Proposal):
            hearing.proposal(self.height, sender, message)
        elif isinstance(message, Timeout):
            told = self.height.new_round() if message.round < self.height.round else None
            if told is not None and self.follow.may_answer(sender):
                self._send(sender, told)
            hearing.timeout(self.height, sender, message)
        else:
            hearing.new_round(self.height, message)

    def _help(self, sender: bytes, message: Proposal | Vote | Timeout | NewRound) -> None:
        """The sender is at a height that is decided here.

        A late vote says nothing: its author is about to see the same quorum. Whoever is stuck has a timer.
        The specification's rule 10 answers votes too; what that costs: tests/consensus/test_deviations.py.
        """
        if not isinstance(message, Vote) and self.follow.may_answer(sender):
            self.follow.serve(sender, message.height, self.state.height)

    def _decision(self, sender: bytes, message: Decision) -> None:
        here = self.height.place.height
        if message.height > here:
            self.follow.behind(sender, message.height, here)
        elif message.height == here and not self.height.decided and not self.follow.banned(sender):
            try:
                hearing.decision(self.height, message)
            except Refused:
                self.follow.ban(sender, here)
                raise

    def _head(self, sender: bytes, message: Head) -> None:
        here = self.height.place.height
        if self.bar.waiting:
            self.bar.heard(self.state.table, sender, message.height)
        if message.height >= here:
            self.follow.behind(sender, message.height, here)
        elif message.height < here - 1 and self.follow.may_answer(sender):
            self._send(sender, self.here())

    def _get_block(self, sender: bytes, message: GetBlock) -> None:
        here = self.height.place.height
        held = self.height.blocks.get(message.block_hash) if message.height == here else None
        if held is not None and self.follow.may_answer(sender):
            self._send(sender, BlockBody(here, held.encoded))
        elif message.height < here and self.follow.may_answer(sender):
            self.follow.serve(sender, message.height, self.state.height)

    def _ask_heads(self) -> None:
        if self.bar.waiting:
            self._broadcast(SyncRequest(self.state.height + 1))
            self._outbox.rest.append(SetTimer(Timer.HEADS, self.pace.delay_s(3)))

    def _compare_last_commit(self, header: Header) -> None:
        """The certificate in the chain may show another COMMIT than the one that this node was sent."""
        if header.last_commit is not None and self._previous is not None:
            hearing.compare(self._previous, header.last_commit)
            self._accuse(self._previous)
        self._previous = self.height

    def _accuse(self, height: Height) -> None:
        """Rule 13: what was found goes to everybody's pool."""
        found, height.found = height.found, []
        table = height.place.table
        for index, evidence in found:
            transaction = self.state.evidence_transaction(table[index].node_id, evidence)
            with contextlib.suppress(TransactionError):  # it is on the chain already
                if self.pool.add(transaction, self.member.node_id, self.state):
                    self._spread.tell(transaction)

    # ---------------------------------------------------------------- sending

    def _send(self, node: bytes, message: Message) -> None:
        self._outbox.rest.append(Send(node, encode(message, self.member.chain_id)))

    def _broadcast(self, message: Message) -> None:
        others = tuple(v.node_id for v in self.state.table.validators if v.node_id != self.member.node_id)
        if others:
            self._outbox.rest.append(Broadcast(others, encode(message, self.member.chain_id)))
