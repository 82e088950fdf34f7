"""Which ranks share a node? Asked once, at the start, by those who treat near and far peers differently."""

from __future__ import annotations

import hashlib
import socket

import numpy as np

from pydec.comm.transport import Stream, Transport

_NAME_BYTES = 16  # a digest, so that every message has one length
_TAG = (1 << 22) + (1 << 16)


def node_layout(transport: Transport, host: str | None = None) -> list[int]:
    """The node of every rank, as a number: nodes are counted in the order of their lowest rank.

    Every rank's host name reaches all others in ceil(log2(size)) rounds of one message, each time twice as
    many names in one (Bruck et al., "Efficient algorithms for all-to-all communications in
    multiport message-passing systems", IEEE TPDS 1997, section 4). All ranks call it together.

    Args:
        transport: any stream of the cluster; the CONTROL stream is used.
        host: name of the node that this rank is on; None takes the transport's ``host`` if it has one
            (what MPI calls this processor), else this machine's host name.

    Returns:
        One number per rank, the same list on every rank.

    Raises:
        PeerTimeout, PeerLost: a rank did not take part within the transport's deadline.

    Cost: 16 bytes per rank received, less than 2 messages per doubling of the size.
    """
    link = transport.stream(Stream.CONTROL)
    size, rank = link.size, link.rank
    if host is None:
        host = str(getattr(transport, "host", "") or socket.gethostname())
    names = np.zeros((size, _NAME_BYTES), np.uint8)  # row k is the name of rank + k
    names[0] = np.frombuffer(hashlib.blake2b(host.encode(), digest_size=_NAME_BYTES).digest(), np.uint8)
    known = 1
    while known < size:
        more = min(known, size - known)
        receive = link.irecv((rank + known) % size, _TAG, memoryview(names[known : known + more]).cast("B"))
        send = link.isend((rank - known) % size, _TAG, memoryview(names[:more].copy()).cast("B"))
        receive.wait()
        send.wait()
        known += more
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(names[(r - rank) % size].tobytes(), len(numbers)) for r in range(size)]
