"""Do all ranks have the same model, configuration and version? Asked once, at the start.

Every rank sends its facts to the next rank of a ring and compares with those of the previous one: if
all neighbours agree, all agree. A rank that sees a difference tells everybody else, so that every
rank stops with the same words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pydec.comm.transport import Stream, Transport
from pydec.errors import MismatchError, PeerTimeout, ProtocolError

_LIMIT_BYTES = 64 * 1024
_FACTS_TAG, _VERDICT_TAG = (1 << 22) + 1, (1 << 22) + 2


def agree(transport: Transport, facts: Mapping[str, str], names: Sequence[int] | None = None) -> None:
    """Return if all ranks pass the same facts; raise on every rank if two differ.

    The facts go one hop; then the verdicts go all the way round, so that each rank knows them all:
    ``size`` small messages per rank. All ranks call it together.

    Args:
        transport: any stream of the cluster; the CONTROL stream is used.
        facts: name to value, compared as text; the message shows both values.
        names: what the message calls each rank; by default its number.

    Raises:
        MismatchError: names the fact, both values and both ranks, the same words on every rank.
        PeerTimeout, PeerLost: a rank did not take part within the transport's deadline.
    """
    if transport.size == 1:
        return
    link = transport.stream(Stream.CONTROL)
    data = json.dumps(dict(facts), sort_keys=True).encode()
    if len(data) > _LIMIT_BYTES:
        raise ValueError(
            f"the facts to agree on take {len(data)} bytes, at most {_LIMIT_BYTES}; pass digests"
        )
    previous = (link.rank - 1) % link.size
    theirs = _facts(previous, _exchange(link, _FACTS_TAG, data))
    called = range(link.size) if names is None else names
    verdict = _difference(dict(facts), called[link.rank], theirs, called[previous])
    # The verdict of the lowest rank that saw a difference reaches everyone in size - 1 hops.
    first = (link.rank, verdict) if verdict else None
    passing = first
    for hop in range(link.size - 1):
        arrived = _exchange(link, _VERDICT_TAG + hop, json.dumps(passing).encode())
        passing = _verdict(previous, arrived)
        if passing is not None and (first is None or passing[0] < first[0]):
            first = passing
    if first is not None:
        raise MismatchError(first[1])


def _exchange(link: Transport, tag: int, data: bytes) -> bytes:
    """Send ``data`` to the next rank; what the previous one sent."""
    following, previous = (link.rank + 1) % link.size, (link.rank - 1) % link.size
    into = bytearray(_LIMIT_BYTES)
    receive = link.irecv(previous, tag, memoryview(into))
    send = link.isend(following, tag, memoryview(data))
    try:
        arrived = bytes(into[: receive.wait()])
        send.wait()
    except PeerTimeout:
        receive.cancel()
        send.cancel()
        raise
    return arrived


def _facts(sender: int, data: bytes) -> dict[str, str]:
    try:
        facts = json.loads(data)
        if not isinstance(facts, dict):
            raise ValueError("it is no JSON object")
    except ValueError as error:
        raise ProtocolError(sender, f"sent facts that are no JSON object ({error})") from None
    return {str(name): str(value) for name, value in facts.items()}


def _verdict(sender: int, data: bytes) -> tuple[int, str] | None:
    try:
        verdict = json.loads(data)
        return None if verdict is None else (int(verdict[0]), str(verdict[1]))
    except (ValueError, TypeError, LookupError) as error:
        raise ProtocolError(sender, f"sent a verdict that cannot be read ({error})") from None


def _difference(mine: dict[str, str], rank: int, theirs: dict[str, str], peer: int) -> str | None:
    """The first difference in words, lower rank first, or None."""
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            (a, value_a), (b, value_b) = sorted([(rank, mine.get(name)), (peer, theirs.get(name))])
            return f"ranks disagree on {name}: rank {a} has {_show(value_a)}, rank {b} has {_show(value_b)}"
    return None


def _show(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= 200 else f"{value[:200]}... ({len(value)} characters)"
