"""Messages of up to some megabytes, sent and forgotten: posted in pieces, put together within bounds.

Whoever sends never waits. A peer that takes nothing loses its own messages, because only its own queue is
full; what sits on top must send again what matters. A receiver keeps a few unfinished messages for each peer,
so no peer makes it hold more than its share.
"""

from __future__ import annotations

import struct
from collections import Counter

from pydec.comm.buffers import POST_LIMIT
from pydec.comm.transport import Transport
from pydec.errors import PeerTimeout

_WHOLE, _PIECE = 0, 1
_HEAD = struct.Struct("<BIHH")  # kind, number of the message, index of the piece, number of pieces
_PIECE_BYTES = POST_LIMIT - _HEAD.size
_UNFINISHED = 2  # messages of one peer; a second one only where the network reorders


class Mail:
    """Whole messages over the posted messages of one stream; one thread uses it.

    Args:
        link: the stream; nothing else posts to it or polls it.
        most_bytes: longest message; longer ones from peers are dropped.

    Attributes:
        lost: messages that a peer's full queue cost, by rank.
        refused: pieces that did not fit together or were too many, by sender.
    """

    def __init__(self, link: Transport, most_bytes: int) -> None:
        self.link = link
        self.most_bytes = most_bytes
        self.lost: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self._most_pieces = -(-most_bytes // _PIECE_BYTES)
        self._numbers: Counter[int] = Counter()
        self._unfinished: dict[int, dict[int, dict[int, bytes]]] = {}  # sender: number: index: piece

    def send(self, peer: int, data: bytes) -> bool:
        """Put a message on its way; False if the peer's queue is full and the message is lost.

        Raises:
            ValueError: it is longer than ``most_bytes``.
        """
        if len(data) > self.most_bytes:
            raise ValueError(f"a message has at most {self.most_bytes} bytes, got {len(data)}")
        try:
            if len(data) < POST_LIMIT:
                self.link.post(peer, bytes([_WHOLE]) + data)
                return True
            number = self._numbers[peer] = (self._numbers[peer] + 1) % (1 << 32)
            pieces = -(-len(data) // _PIECE_BYTES)
            for index in range(pieces):
                piece = data[index * _PIECE_BYTES : (index + 1) * _PIECE_BYTES]
                self.link.post(peer, _HEAD.pack(_PIECE, number, index, pieces) + piece)
        except PeerTimeout:
            self.lost[peer] += 1
            return False
        return True

    def receive(self) -> tuple[int, bytes] | None:
        """The next message that is whole, as (sender, bytes), or None."""
        while (note := self.link.poll()) is not None:
            sender, data = note
            message = data[1:] if data[:1] == bytes([_WHOLE]) else self._put_together(sender, data)
            if message is not None:
                return sender, message
        return None

    def _put_together(self, sender: int, data: bytes) -> bytes | None:
        """The message that this piece completes, if it does."""
        piece = data[_HEAD.size :]
        kind, number, index, pieces = _HEAD.unpack_from(data) if piece else (_WHOLE, 0, 0, 0)
        full = index < pieces - 1
        if kind != _PIECE or not index < pieces <= self._most_pieces or (full and len(piece) != _PIECE_BYTES):
            self.refused[sender] += 1
            return None
        unfinished = self._unfinished.setdefault(sender, {})
        if number not in unfinished and len(unfinished) == _UNFINISHED:
            del unfinished[next(iter(unfinished))]  # its sender's queue was full, or the network lost a piece
        parts = unfinished.setdefault(number, {})
        parts[index] = piece
        if len(parts) < pieces:
            return None
        del unfinished[number]
        message = b"".join(parts[index] for index in sorted(parts))
        if max(parts) >= pieces or len(message) > self.most_bytes:
            self.refused[sender] += 1
            return None
        return message
