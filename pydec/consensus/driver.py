"""Runs a replica beside the program: messages over a transport, votes on disk, timers by the clock.

Everything happens in ``tick``, which never waits for a peer: on MPI a thread of its own calls it, with sleeps
that grow to ``IDLE_S`` while there is nothing to do; on the local cluster every message does. The program
only submits transactions and reads the newest state, and neither waits for the other.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import cast

from pydec.comm.progress import Engine
from pydec.comm.transport import Background, Transport
from pydec.consensus import effects
from pydec.consensus.application import LedgerState
from pydec.consensus.channel import Channel
from pydec.consensus.effects import Committed, Effect, Timer
from pydec.consensus.gate import Gate
from pydec.consensus.hello import Greeter
from pydec.consensus.joining import Joining
from pydec.consensus.messages import MAX_MESSAGE_BYTES, encode
from pydec.consensus.mourning import Mourning
from pydec.consensus.receipts import Receipt, Receipts
from pydec.consensus.rejoin import Rejoin
from pydec.consensus.replica import Replica
from pydec.consensus.state.chain import ChainState
from pydec.consensus.storage import Storage
from pydec.errors import DeniedTransaction, LedgerError, PydecError, TransactionError
from pydec.trace import ended

__all__ = ["Driver", "Receipt"]

IDLE_S = 0.05  # longest sleep of an idle ledger: what the first message after silence may wait at each hop
_AT_ONCE = 64  # messages taken before timers and submissions are looked at again
_SERVED_BYTES = 4 << 20  # of stored blocks that one request gets
_STOPPED_S = 2.0  # a thread that did not run for so long was stopped, and much may have happened
_REPORTS = 100
_LOOK_S = 0.5e-3  # between looks of a program that waits for the thread


class Driver:
    """One node of the ledger, running; also a context manager.

    Args:
        link: the LEDGER stream of the transport; nothing else uses it.
        replica: not started yet.
        storage: its disk, closed with the driver if it can be.
        greeter: of this node's identity.
        start: False leaves the thread out; the program then calls ``tick``.
        rejoin: brings this node back when it was evicted; None leaves it out.
        joining: gives snapshots away, and fetches one if this node is far behind; None leaves both out.

    Attributes:
        reports: what peers sent that no honest peer sends, the newest last.
        faults: number of such messages by rank.
        failure: why the ledger has stopped here, None while it runs.
        deaths: of members: what this node has seen, and what is agreed on.
        gate: decides who may do what, and counts what was denied.
    """

    def __init__(
        self,
        link: Transport,
        replica: Replica,
        storage: Storage,
        greeter: Greeter,
        *,
        start: bool = True,
        rejoin: Rejoin | None = None,
        joining: Joining | None = None,
    ) -> None:
        self._link, self._replica, self._storage, self._rejoin = link, replica, storage, rejoin
        self._joining = joining
        self._channel = Channel(link, greeter, MAX_MESSAGE_BYTES, self._show_head, self._report)
        self._ran_s = link.now()
        self._chain_id = replica.member.chain_id
        self.reports: deque[str] = deque(maxlen=_REPORTS)
        self.faults: Counter[int] = Counter()
        self.failure: str | None = None
        self.deaths = Mourning(
            replica.member, self._perform, lambda data: self._perform(replica.submit(data)), link.now
        )
        self.gate = Gate(lambda: cast(ChainState, self.state))
        self._turn = threading.Lock()  # one tick at a time; on the local cluster a poll may lead to another
        self._submitted: SimpleQueue[tuple[bytes, Future[Receipt]]] = SimpleQueue()
        self._receipts = Receipts()
        self._callbacks: list[Callable[[Committed], None]] = []
        self._timers: dict[Timer, float] = {}
        self._started: tuple[int, int, float] | None = None
        self._committed: tuple[LedgerState, bytes] = replica.state, replica.head[0]
        self._closed = False
        self._perform(replica.start(storage.load()))
        self._work: Background | None = None
        if start:
            self._work = link.background(self.tick, most_s=IDLE_S)

    # ---------------------------------------------------------------- for the program, from any thread

    @property
    def state(self) -> LedgerState:
        """The state after the last committed block; immutable."""
        return self._committed[0]

    @property
    def head(self) -> tuple[int, bytes]:
        """Height and hash of the last committed block; 0 and the chain id before the first."""
        state, block_hash = self._committed
        return state.height, block_hash

    def submit(self, transaction: bytes) -> Future[Receipt]:
        """Ask for a transaction to be committed; returns at once.

        Returns:
            A future of the receipt. Its exception is a TransactionError if the state refuses the transaction,
            now or after another block, and a LedgerError if the ledger stops or is closed.
        """
        future: Future[Receipt] = Future()
        self._submitted.put((transaction, future))
        if self._closed or self.failure is not None:
            self._refuse_all()
        elif self._work is not None:
            self._work.kick()
        return future

    def subscribe(self, callback: Callable[[Committed], None]) -> Callable[[], None]:
        """Call ``callback`` with every block from now on, in order, in the ledger's thread; it must be quick.

        Returns:
            A function that ends it. A callback that raises is reported and not called again.
        """
        self._callbacks.append(callback)

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    def wait(
        self,
        futures: Sequence[Future[Receipt]],
        timeout_s: float,
        check: Callable[[], None] = lambda: None,
    ) -> list[Receipt]:
        """Wait for receipts, and let the ledger go on meanwhile where it has no thread.

        Args:
            futures: from ``submit``.
            timeout_s: longest time in all.
            check: called now and then; what it raises ends the wait.

        Raises:
            LedgerError: not committed in time, or the ledger has stopped.
            TransactionError: one was refused.
        """
        self._until(
            lambda: all(future.done() for future in futures),
            timeout_s,
            check,
            lambda: f"{sum(not future.done() for future in futures)} transactions were not committed",
        )
        return [future.result() for future in futures]

    def wait_for_height(
        self, height: int, timeout_s: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until this node has committed a height; see ``wait``.

        Raises:
            LedgerError: not in time, or the ledger has stopped.
        """
        self._until(
            lambda: self.head[0] >= height or self.failure is not None,
            timeout_s,
            check,
            lambda: f"height {height} was not reached",
        )
        if self.failure is not None:
            raise LedgerError(f"the ledger has stopped: {self.failure}")

    def _until(
        self,
        done: Callable[[], bool],
        timeout_s: float,
        check: Callable[[], None],
        missing: Callable[[], str],
    ) -> None:
        until_s = self._link.now() + timeout_s
        while not done():
            if self._link.now() >= until_s:
                raise LedgerError(
                    f"{missing()} within {timeout_s:g} s, this node is at height {self.head[0]}: peers with "
                    "a third of the stake, or more, do not answer"
                )
            check()
            self.pause()

    def pause(self, most_s: float = _LOOK_S) -> None:
        """For a program that waits: sleep for a moment, or let the ledger go on where it has no thread."""
        if isinstance(self._work, Engine):
            time.sleep(most_s)
        elif not self.tick():
            self._link.advance()

    def close(self) -> None:
        """Stop; what is not committed is refused. Idempotent."""
        self._closed = True
        work, self._work = self._work, None
        if work is not None:
            work.close()
        if self._rejoin is not None:
            self._rejoin.close()
        self._refuse_all()
        close = getattr(self._storage, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---------------------------------------------------------------- beside it

    def tick(self) -> bool:
        """Do what there is to do, at most some milliseconds' worth; whether there was anything."""
        if self._closed or self.failure is not None or not self._turn.acquire(blocking=False):
            return False
        try:
            started_ns = time.perf_counter_ns()
            busy = self._tick()
            if busy:
                ended("ledger", started_ns)
            return busy
        except Exception as error:  # a ledger that fails must not take training with it
            self._fail(
                f"{type(error).__name__}: {error}" if not isinstance(error, PydecError) else str(error)
            )
            return False
        finally:
            self._turn.release()

    def _tick(self) -> bool:
        if isinstance(self._work, Engine):
            now_s, before_s = self._link.now(), self._ran_s
            self._ran_s = now_s
            if now_s - before_s > _STOPPED_S:
                self._started = None  # that time says nothing about rounds
                for node in self._channel.nodes():
                    self._show_head(node)  # whoever is ahead answers
        self._channel.greet()
        busy = self._take_submitted()
        for _ in range(_AT_ONCE):
            message = self._channel.receive()
            if message is None:
                break
            busy = True
            if self.deaths.takes(message[1]):
                self.deaths.receive(self.state, *message)
            elif self._joining is not None and self._joining.takes(message[1]):
                self._perform(self._joining.receive(self._link.now(), *message))
            else:
                self._perform(self._replica.receive(*message))
        now_s = self._link.now()
        for timer in [timer for timer, at_s in self._timers.items() if at_s <= now_s]:
            if self._timers.get(timer, now_s + 1.0) <= now_s:  # an earlier one may have cancelled it
                del self._timers[timer]
                self._perform(self._replica.timer(timer))
                busy = True
        if self._rejoin is not None and isinstance(state := self.state, ChainState):
            back = self._rejoin.due(state)
            if back is not None:
                self._submitted.put((back, Future()))
        if self._joining is not None and (done := self._joining.tick(now_s)):
            self._perform(done)
            busy = True
        return self.deaths.tick(self.state) or busy

    def _take_submitted(self) -> bool:
        busy = False
        while not self._submitted.empty():
            try:
                transaction, future = self._submitted.get_nowait()
            except Empty:
                break
            busy = True
            if not self._receipts.add(transaction, future):
                continue
            try:
                done = self._replica.submit(transaction)
            except TransactionError as error:
                if isinstance(error, DeniedTransaction):
                    self.gate.note(error)
                self._receipts.settle(transaction, error)
                continue
            self._perform(done)
        return busy

    def _show_head(self, node: bytes) -> None:
        """Tell a node how far this one is."""
        self._channel.send(node, encode(self._replica.here(), self._chain_id))

    # ---------------------------------------------------------------- effects

    def _perform(self, done: Sequence[Effect]) -> None:
        """Carry effects out, in order; what must be durable is before the next one is looked at."""
        for effect in done:
            if isinstance(effect, effects.Persist):
                self._storage.persist(effect.record)
            elif isinstance(effect, effects.Append):
                self._storage.append(effect.height, effect.record)
            elif isinstance(effect, effects.Send):
                self._channel.send(effect.node, effect.data)
            elif isinstance(effect, effects.Broadcast):
                for node in effect.nodes:
                    self._channel.send(node, effect.data)
            elif isinstance(effect, effects.Serve):
                self._serve(effect)
            elif isinstance(effect, effects.SetTimer):
                self._timers[effect.timer] = self._link.now() + effect.delay_s
            elif isinstance(effect, effects.CancelTimer):
                self._timers.pop(effect.timer, None)
            elif isinstance(effect, effects.Started):
                self._started = effect.height, effect.round, self._link.now()
            elif isinstance(effect, Committed):
                if self._joining is not None:
                    self._joining.committed(effect)
                self._publish(effect)
            elif isinstance(effect, effects.Adopted):
                self._committed, self._started = (effect.state, effect.head), None
                self._receipts.recheck(effect.state)
            elif isinstance(effect, effects.Report):
                rank = self._channel.rank_of(effect.node)
                self._report(-1 if rank is None else rank, effect.reason)
            elif isinstance(effect, effects.Denied):
                self.gate.note(effect.error)
            elif isinstance(effect, effects.Halted):
                self._fail(effect.reason)

    def _serve(self, wanted: effects.Serve) -> None:
        n_bytes = 0
        for height in range(wanted.first, wanted.last + 1):
            record = self._storage.record(height)
            if (
                record is None
                or n_bytes + len(record) > _SERVED_BYTES
                or not self._channel.send(wanted.node, record)
            ):
                return
            n_bytes += len(record)

    def _publish(self, committed: Committed) -> None:
        header = committed.block.header
        if self._started is not None and self._started[:2] == (header.height, committed.certificate.round):
            self._replica.measured(self._link.now() - self._started[2])
        self._started = None
        receipt = Receipt(header.height, header.hash())
        table = self._committed[0].table
        self._committed = committed.state, receipt.block_hash
        if table[header.origin_proposer].node_id == self._replica.member.node_id:
            for node in self._channel.nodes():
                if None in (table.index(node), committed.state.table.index(node)):
                    self._show_head(node)  # it had or has no vote: it hears of a block from its maker alone
        for callback in tuple(self._callbacks):
            try:
                callback(committed)
            except Exception as error:
                self._callbacks.remove(callback)
                self.reports.append(f"a subscriber raised {type(error).__name__}: {error}")
        for transaction in committed.block.transactions:
            self._receipts.settle(transaction, receipt)
        self._receipts.recheck(committed.state)

    def _report(self, rank: int, reason: str) -> None:
        self.faults[rank] += 1
        self.reports.append(reason if reason.startswith("rank ") else f"rank {rank}: {reason}")

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._refuse_all()

    def _refuse_all(self) -> None:
        while True:
            try:
                transaction, future = self._submitted.get_nowait()
            except Empty:
                break
            self._receipts.add(transaction, future)
        why = f"the ledger has stopped: {self.failure}" if self.failure else "the ledger was closed"
        self._receipts.refuse(LedgerError(why))
