"""What training has moved over the links of one rank; what reports and evaluations send is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pydec.comm.transport import Stream, Transport


class Traffic:
    """Counts the bytes of gossip, and those of what is done ``counted``.

    Args:
        transport: of this rank; its gossip stream carries nothing but training.
    """

    def __init__(self, transport: Transport) -> None:
        self._gossip = transport.stream(Stream.GOSSIP)
        self._collect = transport.stream(Stream.COLLECT)
        self._sent, self._received = -self._gossip.bytes_sent, -self._gossip.bytes_received
        self._sent_to = Counter({rank: -count for rank, count in self._gossip.sent_to.items()})

    @property
    def bytes_sent(self) -> int:
        """Bytes sent so far."""
        return self._gossip.bytes_sent + self._sent

    @property
    def bytes_received(self) -> int:
        """Bytes received so far."""
        return self._gossip.bytes_received + self._received

    @property
    def sent_to(self) -> dict[int, int]:
        """Bytes sent so far, by the rank that they went to."""
        total = Counter(self._gossip.sent_to)
        total.update(self._sent_to)
        return {rank: count for rank, count in sorted(total.items()) if count}

    def counted(self, send: Callable[[], object]) -> None:
        """Do something that trains, and count what it moves beside gossip, too."""
        sent, received = self._collect.bytes_sent, self._collect.bytes_received
        sent_to = Counter(self._collect.sent_to)
        send()
        self._sent += self._collect.bytes_sent - sent
        self._received += self._collect.bytes_received - received
        self._sent_to.update(self._collect.sent_to)
        self._sent_to.subtract(sent_to)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"bytes": [self.bytes_sent, self.bytes_received], "sent_to": self.sent_to}

    def load_state(self, state: dict[str, Any]) -> None:
        """Count on from ``state()``, where numbers of ranks may be text; older ones know no ranks."""
        sent, received = state["bytes"]
        self._sent += sent
        self._received += received
        self._sent_to.update({int(rank): count for rank, count in state.get("sent_to", {}).items()})
