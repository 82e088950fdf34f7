"""Make a lost fragment again from fragments that other peers hold: a state machine over an exchange."""

from __future__ import annotations

from collections import deque

from pydec.errors import ChunkError
from pydec.store.erasure import Code
from pydec.store.exchange import Exchange
from pydec.store.fragments import decoded, remade
from pydec.store.requests import Request
from pydec.store.shard import Layout
from pydec.store.store import Store


class Remaking:
    """One fragment on its way.

    Args:
        exchange: gets others of its chunk. store: what is here of them, and where the fragment is put.
        layout: of its shard.
        row: which chunk of the shard.
        wanted: the fragment's name.

    Attributes:
        n_bytes: what it may fetch.
        done: whether it has ended.
        made: whether the fragment is here now; else too few others are to be had.
    """

    def __init__(self, exchange: Exchange, store: Store, layout: Layout, row: int, wanted: bytes) -> None:
        assert layout.code is not None
        self._exchange, self._store, self._wanted = exchange, store, wanted
        self._code: Code = layout.code
        self._name, self._size = layout.index.names[row], int(layout.index.chunk_lengths[row])
        self._names = layout.index.fragment_names[row]
        self._found: dict[int, bytes] = {}
        self._asked: dict[int, Request] = {}
        self._left: deque[int] = deque()
        self.n_bytes, self.done, self.made = self._size, False, False
        for number, name in enumerate(self._names):
            if name == wanted:
                continue
            try:
                self._found[number] = store.objects.get(name)
            except ChunkError:
                self._left.append(number)

    def turn(self) -> bool:
        """Take what has come, and ask for more; whether anything moved."""
        if self.done:
            return False
        moved = False
        for number, request in list(self._asked.items()):
            if request.done:
                moved = True
                del self._asked[number]
                if request.data is not None:
                    self._found[number] = request.data
        while self._left and len(self._found) + len(self._asked) < self._code.data:
            moved, number = True, self._left.popleft()
            self._asked[number] = self._exchange.want(self._names[number])
        if len(self._found) >= self._code.data:
            self._end()
        elif not self._asked and not self._left:
            self.done = True
        return moved or self.done

    def _end(self) -> None:
        """Raises StoreError: the disk is full, or the data set was wrong from its making."""
        self.done = True
        chunk = decoded(self._code, self._found, self._name, self._size)
        made = remade(self._code, chunk, self._names, [self._wanted])
        self._store.objects.adopt(self._wanted, made[self._wanted])
        self.made = True
