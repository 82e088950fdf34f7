"""What pydec asks of the thing that moves bytes between peers.

``comm/mpi.py`` and ``comm/local.py`` implement ``Transport``; security wraps one. Everything above
sees only this protocol, so the same program runs, with the same bits, on both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

TAG_BITS = 23  # what every MPI transport layer in use offers (UCX has the fewest)


class Stream(IntEnum):
    """Independent tag spaces of one cluster."""

    GOSSIP = 0
    CONTROL = 1
    LEDGER = 2
    STORE = 3
    COLLECT = 4
    DATA = 5
    CHUNKS = 6


class Pending(Protocol):
    """A send or receive under way."""

    peer: int

    @property
    def n_bytes(self) -> int:
        """Bytes moved, once it is done."""

    def done(self) -> bool:
        """Whether it has completed; makes progress, never blocks.

        Raises:
            PeerLost: the peer is known to be gone.
        """

    def wait(self, timeout_s: float | None = None) -> int:
        """Block until complete and return the number of bytes moved.

        Args:
            timeout_s: seconds before PeerTimeout; None means ``Transport.limit_s``.

        Raises:
            PeerTimeout: not complete in time; the operation is then still pending.
            PeerLost: the peer is known to be gone.
            Stopped: whatever the interrupt function raised.
        """

    def cancel(self) -> None:
        """Give up: the buffer is the caller's again when this returns (sends may still arrive)."""


class Background(Protocol):
    """Work that goes on beside the program; see ``Transport.background``."""

    def kick(self) -> None:
        """The program has made something to do: look at once."""

    def close(self) -> None:
        """End it: nothing of it runs any more when this returns; idempotent."""


class Watcher(Protocol):
    """Tells silence from death; see ``comm.watch``."""

    def enters(self, peer: int) -> None:
        """A wait for ``peer`` begins."""

    def waits(self, peer: int) -> None:
        """A wait for ``peer`` goes on; called in every look. May call ``Transport.expel``."""

    def heard(self, peer: int) -> None:
        """``peer`` has done something since."""

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """How long a wait for ``peer`` may take; with ``late`` until it is late for a round."""


class Transport(Protocol):
    """Point-to-point messages between ``size`` peers, on one stream.

    Messages with equal (sender, receiver, stream, tag) arrive in the order sent on MPI; the local
    cluster may lose, delay, double or reorder them on request. Buffers are anything with the
    buffer protocol, C-contiguous; nothing is copied or pickled on the sender's side, so a send
    buffer must not change until its Pending is done.

    Attributes:
        bytes_sent, bytes_received: on this stream so far.
    """

    rank: int
    size: int
    bytes_sent: int
    bytes_received: int
    deadline_s: float

    @property
    def sent_to(self) -> Counter[int]:
        """Bytes sent on this stream so far, by peer."""

    @property
    def tolerant(self) -> bool:
        """Whether the others live on when a rank dies, as they do under Open MPI's fault tolerance."""

    @property
    def takes_gpu_memory(self) -> bool:
        """Whether ``isend`` and ``irecv`` also take CUDA tensors, uint8 of shape (n,), where they lie."""

    def isend(self, peer: int, tag: int, data: memoryview, *, matched: bool = False) -> Pending:
        """Start to send ``data`` to ``peer``; 0 <= tag < 2**TAG_BITS.

        A small message may be done long before ``peer`` looks at it. With ``matched`` none is done before a
        receive of ``peer`` has taken it, so that a sender that waits for one before the next never fills
        the memory of a slower receiver.
        """

    def irecv(self, peer: int, tag: int, into: memoryview) -> Pending:
        """Start to receive at most ``len(into)`` bytes from ``peer`` with exactly this tag.

        A longer message raises FrameError at ``wait`` or ``done``; a shorter one is fine.
        """

    def stream(self, stream: Stream) -> Transport:
        """The same cluster on another stream, with tags and counters of its own."""

    def post(self, peer: int, data: bytes) -> None:
        """Send a small message without a posted receive; returns at once.

        At most ``buffers.POST_LIMIT`` bytes, so that a transport that seals can add its own to 64 KiB.
        """

    def poll(self) -> tuple[int, bytes] | None:
        """The next message that somebody posted to this rank as (sender, bytes), or None."""

    def lost(self) -> frozenset[int]:
        """Ranks that are known to be dead; may be asked at any time, from any stream and thread.

        Who is in it once stays in it. On MPI these are the ranks that an operation or the MPI itself has
        reported, which is asked at most fifty times a second; a rank that has said goodbye is not dead, and
        without fault tolerance (``tolerant``) the set stays empty, because the job ends with the first death.
        """

    def expel(self, peer: int) -> None:
        """Hold a rank for dead from now on, whatever it does: it is one of ``lost``, and waits for it end."""

    def watch(self, watcher: Watcher | None) -> None:
        """Who is asked in every wait of this rank, on any stream, and told of what arrives; None: nobody."""

    def attend(self, peer: int) -> None:
        """A rank that does not wait expects something of ``peer`` now: counts as a look in a wait for it."""

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """How long a wait for ``peer`` takes by default: ``deadline_s``, or what the watcher says.

        Args:
            peer: who is waited for.
            late: until it is late for a round, where rounds may go on without it.
        """

    def advance(self) -> None:
        """Let what is under way on any stream move on; returns at once, from any thread."""

    def background(self, tick: Callable[[], bool], *, most_s: float = 1e-3) -> Background | None:
        """Call ``tick`` now and then beside the program, whenever messages of this rank may have moved.

        On MPI a thread does so, at once again while ``tick`` returns True and with growing sleeps else; on
        the local cluster every message that reaches this rank, or leaves it, is such a moment, on the virtual
        clock. ``tick`` must not wait for messages.

        Args:
            tick: returns whether it found anything to do; may use streams that the program leaves alone
                meanwhile.
            most_s: longest sleep, in seconds.

        Returns:
            None where nothing can run beside the program: an MPI without MPI_THREAD_MULTIPLE.
        """

    def set_interrupt(self, interrupt: Callable[[], None] | None) -> None:
        """Function called now and then inside every wait; what it raises leaves the wait."""

    def now(self) -> float:
        """Seconds on this cluster's clock: monotonic, virtual in the local cluster."""

    def close(self) -> None:
        """Release everything; idempotent. Pending operations are abandoned."""
