"""How far the clocks of ranks are apart: on one host not at all, between hosts by an unknown number."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from pydec.comm.transport import Transport

_TIMES = struct.Struct("<qq")
_TAG = (1 << 22) + (1 << 18)  # of the COLLECT stream
_ROUNDS = 16  # the shortest counts; the first ones wait until rank 0 has come to this rank


def offset_ns(
    link: Transport, zero_ns: Callable[[], int], clock_ns: Callable[[], int] = time.perf_counter_ns
) -> tuple[int, int]:
    """What to add to this rank's clock for rank 0's time; all ranks call it together.

    Every rank asks rank 0 for its time, again and again, and takes the answer that came fastest for one
    from the middle between question and answer. Source: Cristian, "Probabilistic clock synchronization",
    Distributed Computing 1989, section 4.

    Args:
        link: of this rank, whose messages do not overtake one another under equal tags.
        zero_ns: called on rank 0 alone; what its clock is to be shifted by.
        clock_ns: this rank's.

    Returns:
        Nanoseconds: what is to be added, and the most by which that can be wrong: half of the shortest way
        there and back.

    Cost: 32 small messages a rank, one rank after the other.
    """
    tag = _TAG
    question, answer = bytearray(1), bytearray(_TIMES.size)
    if link.rank == 0:
        shift_ns = zero_ns()
        for peer in range(1, link.size):
            for _ in range(_ROUNDS):
                link.irecv(peer, tag, memoryview(question)).wait()
                said = _TIMES.pack(clock_ns(), shift_ns)
                link.isend(peer, tag, memoryview(said)).wait()
        return shift_ns, 0
    best_ns, apart_ns = -1, 0
    for _ in range(_ROUNDS):
        asked_ns = clock_ns()
        sent = link.isend(0, tag, memoryview(question))
        link.irecv(0, tag, memoryview(answer)).wait()
        back_ns = clock_ns()
        sent.wait()
        theirs_ns, shift_ns = _TIMES.unpack(answer)
        if best_ns < 0 or back_ns - asked_ns < best_ns:
            best_ns = back_ns - asked_ns
            apart_ns = theirs_ns - (asked_ns + back_ns) // 2
    if abs(apart_ns) <= best_ns // 2:
        return shift_ns, 0  # one clock: those of two hosts have begun with them
    return shift_ns + apart_ns, best_ns // 2
