"""Make a lost fragment again from fragments that other peers hold: a state machine over an exchange."""

from __future__ import annotations

from contextlib import suppress

from pydec.errors import ChunkError
from pydec.store.erasure import Code
from pydec.store.exchange import Exchange
from pydec.store.fragments import decoded, remade
from pydec.store.gathering import Gathering
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
        self._store, self._wanted = store, wanted
        self._code: Code = layout.code
        self._name, self._size = layout.index.names[row], int(layout.index.chunk_lengths[row])
        self._names = layout.index.fragment_names[row]
        self.n_bytes, self.done, self.made = self._size, False, False
        here: dict[int, bytes] = {}
        for number, name in enumerate(self._names):
            with suppress(ChunkError):
                if name != wanted:
                    here[number] = store.objects.get(name)
        without = [number for number, name in enumerate(self._names) if name == wanted]
        self._others = Gathering(exchange, self._names, here, self._code.data, without)

    def turn(self) -> bool:
        """Take what has come, and ask for more; whether anything moved."""
        if self.done:
            return False
        moved = self._others.turn()
        if len(self._others.found) >= self._code.data:
            self._end()
        elif self._others.done:
            self.done = True
        return moved or self.done

    def _end(self) -> None:
        """Raises StoreError: the disk is full, or the data set was wrong from its making."""
        self.done = True
        chunk = decoded(self._code, self._others.found, self._name, self._size)
        made = remade(self._code, chunk, self._names, [self._wanted])
        self._store.objects.adopt(self._wanted, made[self._wanted])
        self.made = True
