"""Audits: steps of ranks that the ledger draws are run again by others, and a wrong one costs the stake.

At every report, where all ranks are at one step, each publishes a digest of the states before all its steps
since the last one, and where they begin: where the last ones ended. Only then a block of the ledger is made,
whose hash says who is audited, in which step, and by whom. The audited hands over the state before that step,
the packets that it heard in it, with their senders' signatures, and its own claims about what it sent. The
auditor runs the step again. Its packets must be those that were claimed, and its end the state that was
published. The claims go to all who heard that rank: if it has told them something else, that is equivocation.

If an auditor finds a step wrong, all ranks run it again, and a quorum's finding goes on the ledger, where
being guilty costs the stake. An auditor whom the quorum contradicts is not believed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pydec.codec import wire
from pydec.comm.living import living
from pydec.comm.transport import Pending, Stream
from pydec.crypto.hashing import DIGEST_BYTES, sha256
from pydec.errors import FrameError, PeerError, PeerLost, PeerTimeout
from pydec.gossip.accountable import vouched
from pydec.gossip.witness import Said, Slot, Witness
from pydec.optim import DecentralizedOptimizer
from pydec.optim.accountable import standing
from pydec.train.audit_record import Account, Record, State, root_of
from pydec.train.audit_rerun import Outcome, Rerun
from pydec.train.task import Task
from pydec.train.together import Member, content, everyone, table

_TAG = (3 << 21) + 1  # above what ``comm.collect`` and ``together`` use
_OUTCOME = b"pydec.audit.outcome.v1"
_MOST_BYTES = 1 << 40


@dataclass(frozen=True)
class Order:
    """``auditor`` runs step ``number`` of ``subject`` again."""

    auditor: int
    subject: int
    number: int


def draw(seed: bytes, members: Collection[int], first: int, steps: int, budget: float) -> list[Order]:
    """Who audits which step of whom: every member with the same chance, no auditor more than one.

    Each is audited with probability min(1, budget * steps), in a step drawn evenly, so any one step of any
    rank is with p = min(budget, 1 / steps). The auditor is drawn evenly from the others. A rank then runs
    budget * steps steps again for every ``steps`` of its own, on average.

    Args:
        seed: 32 bytes that nobody knew when the steps were taken.
        members: ranks.
        first, steps: of the window.
        budget: share of all computation that audits may take, in (0, 1].
    """
    circle = sorted(members, key=lambda rank: sha256(b"pydec.audit.circle.v1", seed, wire.u64(rank)))
    orders = []
    for at, auditor in enumerate(circle):
        subject = circle[(at + 1) % len(circle)]
        drawn = sha256(b"pydec.audit.step.v1", seed, wire.u64(subject))
        chance, place = (int.from_bytes(part, "big") / 2.0**64 for part in (drawn[:8], drawn[8:16]))
        if subject != auditor and chance < budget * steps:
            orders.append(Order(auditor, subject, first + min(steps - 1, int(place * steps))))
    return orders


@dataclass(frozen=True)
class Commitment:
    """What a rank publishes of its window: ``root_of`` it, and the states where it begins and ends."""

    root: bytes
    begins: bytes
    ends: bytes

    def encode(self) -> bytes:
        """96 bytes."""
        return self.root + self.begins + self.ends

    @classmethod
    def decode(cls, data: bytes) -> Commitment:
        """What ``encode`` wrote."""
        return cls(*(data[at : at + DIGEST_BYTES] for at in range(0, 3 * DIGEST_BYTES, DIGEST_BYTES)))


@dataclass(frozen=True)
class Finding:
    """What an audit found: nothing wrong if ``fault`` is empty; ``digest`` stands for what the step gave."""

    fault: str
    digest: bytes = bytes(DIGEST_BYTES)
    claims: Mapping[Slot, Said] | None = None


def judge(
    data: bytes,
    order: Order,
    commitment: Commitment,
    expected: bytes | None,
    witness: Witness,
    run: Callable[[Account], Outcome],
) -> Finding:
    """Whether what a rank hands over is what it committed to, and right; the same on all honest ranks.

    Args:
        data: ``Account.encode`` of the subject; may be anything.
        order: which step.
        commitment: of the subject's window.
        expected: state where its window has to begin; None if nobody knows.
        witness: knows everybody's key.
        run: runs the step again.
    """
    try:
        account = Account.decode(data)
    except FrameError as error:
        return Finding(str(error) if data else "it handed over nothing")
    try:
        return _judge(account, order, commitment, expected, witness, run)
    except Exception as error:  # whatever it handed over, the auditor goes on
        return Finding(f"its step cannot be run again: {type(error).__name__}: {error}")


def _judge(
    account: Account,
    order: Order,
    commitment: Commitment,
    expected: bytes | None,
    witness: Witness,
    run: Callable[[Account], Outcome],
) -> Finding:
    step, leaves = account.step, account.leaves
    at = step.number - account.first
    if step.number != order.number or not 0 <= at < len(leaves) - 1:
        return Finding("it handed over another step")
    if account.first < 0 or any(len(leaf) != DIGEST_BYTES for leaf in leaves):
        return Finding("it handed over what are no digests of steps")
    published = root_of(account.first, leaves), leaves[0], leaves[-1]
    if published != (commitment.root, commitment.begins, commitment.ends):
        return Finding("its states are not those that it has published")
    if expected not in (None, leaves[0]):
        return Finding("its steps do not begin where the last ones have ended")
    if step.state.digest != leaves[at]:
        return Finding("it handed over another state")
    for heard in step.heard:
        if not vouched(witness, heard):
            return Finding(f"it handed over a packet that rank {heard.peer} has not signed")
    for slot, said in step.sent.items():
        if not witness.is_signed(order.subject, slot, said):
            return Finding("it has not signed what it claims to have sent")
    outcome = run(account)
    packets = sorted(outcome.packets.items())
    gave = b"".join(wire.u32(slot.number) + digest for slot, digest in packets)
    digest = sha256(_OUTCOME, gave, outcome.state.digest)
    if packets != sorted((slot, said.digest) for slot, said in step.sent.items()):
        return Finding("it sent something else than its step gives", digest, step.sent)
    if outcome.state.digest != leaves[at + 1]:
        return Finding("its step ends in another state", digest, step.sent)
    return Finding("", digest, step.sent)


class Court(Protocol):
    """What audits ask of the ledger; every method is called by all ranks together."""

    def draw(self, step: int) -> bytes:
        """32 bytes that nobody knew before, the same on all ranks."""

    def convict(self, place: int, step: int, guilty: bool, digest: bytes) -> bool | None:
        """Put a quorum's finding on the ledger: whether it is guilty; None if there was no quorum."""

    def slashed(self) -> set[int]:
        """Ranks that have lost their stake."""


class Audits:
    """One rank's part; ``between`` is called between all steps, ``meet`` at every report.

    Args:
        peer: this rank.
        court: the ledger.
        witness: of this rank; tells what it hears.
        optimizer, task: of this rank.
        rerun: runs steps again.
        budget: share of the computation, in (0, 1].
        fresh: whether all ranks begin with the same state; otherwise that is taken at their word.

    Attributes:
        found: steps that were wrong, by a quorum's finding.
        doubted: ranks whose accusations a quorum has contradicted.
    """

    def __init__(
        self,
        peer: Member,
        court: Court,
        witness: Witness,
        optimizer: DecentralizedOptimizer,
        task: Task,
        rerun: Rerun,
        budget: float,
        *,
        fresh: bool,
    ) -> None:
        self.found: list[dict[str, Any]] = []
        self.doubted: set[int] = set()
        self._peer, self._court, self._witness, self._rerun = peer, court, witness, rerun
        self._optimizer, self._task, self._budget = optimizer, task, budget
        self._record = Record()
        self._fresh = fresh
        self._ends: dict[int, bytes] = {}  # where each rank's last window ended
        self._audited, self._audit_s, self._record_s, self._kept = 0, 0.0, 0.0, 0
        witness.recorder = self._record

    def between(self, number: int) -> None:
        """``number`` steps are done: keep the state."""
        began = time.perf_counter()
        self._record.between(number, State.of(self._task.model, self._optimizer))
        self._record_s += time.perf_counter() - began

    def meet(self) -> None:
        """All ranks are at one step: publish, draw, run again, and judge.

        Raises:
            LedgerError: the ledger does not answer.
            PydecError: whatever the others' ends do, outside an audit.
        """
        record = self._record
        if not record.steps or record.last is None:
            return
        first, steps = record.steps[0].number, len(record.steps)
        leaves = record.leaves()
        self._kept = max(self._kept, record.nbytes)
        mine = Commitment(root_of(first, leaves), leaves[0], leaves[-1])
        told = [Commitment.decode(data) for data in everyone(self._peer, mine.encode())]
        if self._fresh:
            self._ends, self._fresh = dict.fromkeys(range(self._peer.size), leaves[0]), False
        _, view, gone = standing(self._optimizer)
        same = all(slot.epoch == view.epoch for step in record.steps for slot in step.sent)
        # In a window in which ranks died or the graph has changed, steps cannot be run again.
        sound = table(self._peer, [float(same and not gone)])[list(living(self._peer.transport).members), 0]
        members = self._members()
        seed = self._court.draw(first + steps)
        if sound.all():
            orders = draw(seed, members, first, steps, self._budget)
            self._audit(orders, told, leaves)
        self._ends = {rank: commitment.ends for rank, commitment in enumerate(told)}
        record.begin()

    def summary(self) -> dict[str, Any]:
        """What was audited and what it cost; all ranks together."""
        mine = [self._audited, self._audit_s, self._record_s, self._kept]
        rows = table(self._peer, [float(value) for value in mine])
        return {
            "budget": self._budget,
            "audited": round(float(rows[:, 0].sum())),
            "wrong": self.found,
            "doubted": sorted(self.doubted),
            "audit_s": float(rows[:, 1].max()),
            "record_s": float(rows[:, 2].max()),
            "kept_bytes": round(float(rows[:, 3].max())),
        }

    def _members(self) -> list[int]:
        """Who takes part, the same on all ranks."""
        slashed = self._court.slashed()
        out = [float(rank in slashed) for rank in range(self._peer.size)]
        here = living(self._peer.transport).members
        rows = table(self._peer, out)[list(here)]
        return [rank for rank in here if not rows[:, rank].any()]

    def _audit(self, orders: Sequence[Order], told: Sequence[Commitment], leaves: Sequence[bytes]) -> None:
        rank, accounts = self._peer.rank, Accounts(self._peer)
        for order in orders:
            if order.subject == rank:
                accounts.send(order.auditor, self._account(order, leaves))
        accused: dict[int, Finding] = {}
        for order in orders:
            if order.auditor == rank:
                finding = self._judged(accounts.receive(order.subject), order, told)
                self._audited += 1
                self._testify(order, finding)
                if finding.fault:
                    accused[order.subject] = finding
        accounts.finish()
        rows = table(self._peer, [float(subject in accused) for subject in range(self._peer.size)])
        for order in orders:
            if rows[order.auditor, order.subject] and order.auditor not in self.doubted:
                self._try(order, told, leaves)

    def _try(self, order: Order, told: Sequence[Commitment], leaves: Sequence[bytes]) -> None:
        """All ranks run an accused step again, and a quorum decides."""
        mine = self._account(order, leaves) if order.subject == self._peer.rank else b""
        finding = self._judged(content(self._peer, mine, order.subject), order, told)
        guilty = self._court.convict(order.subject, order.number, bool(finding.fault), finding.digest)
        if guilty:
            self._witness.guilty.add(order.subject)
            self.found.append({"rank": order.subject, "step": order.number, "fault": finding.fault})
        elif guilty is False:
            self.doubted.add(order.auditor)

    def _judged(self, data: bytes, order: Order, told: Sequence[Commitment]) -> Finding:
        topology, view, _ = standing(self._optimizer)

        def run(account: Account) -> Outcome:
            return self._rerun(order.subject, account.step, topology, view)

        began = time.perf_counter()
        with self._peer.busy():
            expected = self._ends.get(order.subject)
            found = judge(data, order, told[order.subject], expected, self._witness, run)
        self._audit_s += time.perf_counter() - began
        return found

    def _account(self, order: Order, leaves: Sequence[bytes]) -> bytes:
        first = self._record.steps[0].number
        return Account(first, tuple(leaves), self._record.steps[order.number - first]).encode()

    def _testify(self, order: Order, finding: Finding) -> None:
        """Tell all who heard the subject what it claims to have sent."""
        if not finding.claims:
            return
        link = self._peer.transport.stream(Stream.GOSSIP)
        topology, _, _ = standing(self._optimizer)
        note = self._witness.testify(order.subject, finding.claims)
        for rank in topology.listeners(order.subject, next(iter(finding.claims)).round):
            if rank == self._peer.rank:
                self._witness.hear(rank, note)
                continue
            with suppress(PeerTimeout, PeerLost):
                link.post(rank, note)


class Accounts:
    """Accounts on their way from the audited to their auditors.

    Args:
        peer: this rank.
    """

    def __init__(self, peer: Member) -> None:
        self._link = peer.transport.stream(Stream.COLLECT)
        self._sends: list[tuple[Pending, Any]] = []

    def send(self, to: int, data: bytes) -> None:
        """Begin to hand over."""
        head = wire.u64(len(data))
        for tag, part in ((_TAG, head), (_TAG + 1, data)):
            self._sends.append((self._link.isend(to, tag, memoryview(part)), part))

    def receive(self, subject: int) -> bytes:
        """What a rank hands over; nothing if it does not in time."""
        head = bytearray(8)
        pending = self._link.irecv(subject, _TAG, memoryview(head))
        try:
            pending.wait()
            length = int.from_bytes(head, "big")
            if length > _MOST_BYTES:
                return b""
            data = bytearray(length)
            pending = self._link.irecv(subject, _TAG + 1, memoryview(data))
            pending.wait()
        except (PeerError, FrameError, MemoryError):
            pending.cancel()
            return b""
        return bytes(data)

    def finish(self) -> None:
        """Wait until everything has been taken, or is not going to be."""
        for pending, _ in self._sends:
            try:
                pending.wait()
            except PeerError:
                pending.cancel()
