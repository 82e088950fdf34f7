"""Start-up and evaluation helpers over point-to-point messages: no MPI collective is ever called.

Training steps do not use them; they serve the common start (``broadcast``), the exact average model that
an evaluation looks at and the all-reduce baseline (``ring_mean``), and a final merge (``exact_mean``). All
ranks call them together, in the same order; they rely on MPI's rule that equal messages do not overtake
one another.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pydec.comm.transport import Stream, Transport
from pydec.topology.exact_mean import ExactMean

_CHUNK_BYTES = 64 << 20  # keeps one message below what every MPI counts in 32 bits
_BROADCAST = 1 << 22  # a tag bit, so that a broadcast and a mean that follows never meet
_STEP = 1 << 10


def broadcast(transport: Transport, data: NDArray[np.uint8], root: int = 0) -> None:
    """Give every rank the bytes that ``root`` holds, along a binomial tree.

    Args:
        transport: any stream of the cluster; the COLLECT stream is used.
        data: uint8 array of shape (n,), the same n everywhere; overwritten except on ``root``.
        root: rank whose bytes everyone gets.

    Raises:
        PeerTimeout, PeerLost: a rank on the path did not answer.

    Cost: ceil(log2(size)) hops; every rank receives n bytes once.
    """
    link = transport.stream(Stream.COLLECT)
    place = (link.rank - root) % link.size
    children = [place | (1 << bit) for bit in range(place.bit_length(), link.size.bit_length())]
    targets = [(child + root) % link.size for child in children if child < link.size]
    parent = ((place ^ (1 << (place.bit_length() - 1))) + root) % link.size if place else root
    for number, piece in enumerate(_pieces(data)):
        tag = _BROADCAST | number
        if place:
            link.irecv(parent, tag, memoryview(piece)).wait()
        sends = [link.isend(target, tag, memoryview(piece)) for target in targets]
        for send in sends:
            send.wait()


def ring_mean(
    transport: Transport, x: NDArray[np.generic], scratch: NDArray[np.generic] | None = None
) -> None:
    """Replace ``x`` by its mean over all ranks: ring reduce-scatter, then ring all-gather.

    Each chunk is summed in one fixed order round the ring, so all ranks get the same bits.
    Source: Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
    workstations", J. Parallel Distrib. Comput. 2009, section 3.

    Args:
        transport: any stream of the cluster; the COLLECT stream is used.
        x: float array of shape (n,), C-contiguous, the same n and dtype on all ranks; overwritten.
        scratch: same dtype, at least ceil(n / size) elements; allocated if None.

    Raises:
        PeerTimeout, PeerLost: a neighbour on the ring did not answer.

    Cost: sends and receives 2 (size - 1) / size of x's bytes per rank.
    """
    link = transport.stream(Stream.COLLECT)
    size, rank = link.size, link.rank
    if size == 1 or x.size == 0:
        return
    bounds = [x.size * i // size for i in range(size + 1)]
    chunks = [x[bounds[i] : bounds[i + 1]] for i in range(size)]
    if scratch is None:
        scratch = np.empty(max(chunk.size for chunk in chunks), x.dtype)
    after, before = (rank + 1) % size, (rank - 1) % size
    for step in range(size - 1):
        mine, theirs = chunks[(rank - step) % size], chunks[(rank - step - 1) % size]
        arrived = scratch[: theirs.size]
        _swap(link, after, mine, before, arrived, step)
        np.add(theirs, arrived, out=theirs)
    owned = chunks[(rank + 1) % size]
    np.divide(owned, owned.dtype.type(size), out=owned)
    for step in range(size - 1):
        mine, theirs = chunks[(rank + 1 - step) % size], chunks[(rank - step) % size]
        _swap(link, after, mine, before, theirs, size + step)


def exact_mean(transport: Transport, x: NDArray[np.generic]) -> None:
    """Replace ``x`` by its mean over all ranks in ceil(log2(size)) rounds; see ``topology.ExactMean``.

    Ranks add in different orders: their results agree up to rounding, not in bits.

    Args:
        transport: any stream of the cluster; the COLLECT stream is used.
        x: float array of shape (n,), C-contiguous, the same n and dtype on all ranks; overwritten.

    Raises:
        PeerTimeout, PeerLost: a rank on the way did not answer.

    Cost: sends and receives x's bytes once per round; allocates one or two arrays like x.
    """
    link = transport.stream(Stream.COLLECT)
    plan = ExactMean(link.size)
    if link.size == 1 or x.size == 0:
        return
    exclusive = np.zeros_like(x) if plan.needs_exclusive else None
    arrived = np.empty_like(x)
    for round in range(plan.rounds):
        step = plan.step(link.rank, round)
        leaving = x if step.sends == "inclusive" or exclusive is None else exclusive
        _swap(link, step.to, leaving, step.source, arrived, round)
        np.add(x, arrived, out=x)
        if exclusive is not None:
            np.add(exclusive, arrived, out=exclusive)
    np.divide(x, x.dtype.type(link.size), out=x)


def _swap(
    link: Transport,
    after: int,
    mine: NDArray[np.generic],
    before: int,
    theirs: NDArray[np.generic],
    step: int,
) -> None:
    """Send ``mine`` on while ``theirs`` arrives."""
    arriving, leaving = (_pieces(part.view(np.uint8)) for part in (theirs, mine))
    receives = [link.irecv(before, step * _STEP | i, memoryview(piece)) for i, piece in enumerate(arriving)]
    sends = [link.isend(after, step * _STEP | i, memoryview(piece)) for i, piece in enumerate(leaving)]
    for pending in (*receives, *sends):
        pending.wait()


def _pieces(data: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, data.size, _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]
