"""Samples of a data set by their numbers, from verified chunks."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pydec.disk import Buffer
from pydec.errors import ConfigError, FrameError, StoreError
from pydec.store.fragments import gather
from pydec.store.manifest import Field, Kind, Manifest
from pydec.store.objects import Reader, digest_of
from pydec.store.shard import PIECE_BYTES, Layout
from pydec.store.store import layout_of

CACHE_BYTES = 64 << 20
_LAYOUTS = 64  # shards whose layout is kept
_PART_OF = 4  # of which more is wanted at once, a chunk is read as a whole


class Opener(Protocol):
    """What opens sealed chunks: a ``Keyring``, or a ``DatasetKey``."""

    def decrypt_chunk(self, index: int, sealed: Buffer) -> bytes:
        """What the chunk of that number in the data set holds; FrameError if it is not that chunk."""


@runtime_checkable
class Peeker(Protocol):
    """A reader that may give a part of an object."""

    def peek(self, digest: bytes, offset: int, n_bytes: int) -> bytes | None:
        """Bytes of an object that nobody has verified; None if it is not on this machine."""


class Samples:
    """Random access to the samples of a data set; from any thread.

    A chunk is read as a whole when it is asked for the second time within what the cache would have held: at
    first the pieces of it that are wanted are read and verified (``Index.pieces``). So a first batch of
    random samples, and any batch where the cache is small, reads little more than what it needs.

    Args:
        manifest: of the data set.
        reader: where objects come from.
        cache_bytes: most bytes of chunks that are kept in memory; the last one used always is.
        keys: what opens the chunks of a private data set.

    Raises:
        ConfigError: the data set is private, and there are no keys.
    """

    def __init__(
        self, manifest: Manifest, reader: Reader, cache_bytes: int = CACHE_BYTES, keys: Opener | None = None
    ) -> None:
        self.manifest, self._reader, self._limit, self._keys = manifest, reader, cache_bytes, keys
        if manifest.head.policy.encryption and keys is None:
            raise ConfigError(
                f"data set {manifest.name} is private: name the key that may read it, --key FILE"
            )
        self._first_chunks = [0, *accumulate(shard.chunks for shard in manifest.shards)]
        self._firsts = [0, *accumulate(shard.samples for shard in manifest.shards)]
        self._first_samples = np.array(self._firsts, np.int64)
        self._layouts: OrderedDict[int, Layout] = OrderedDict()
        self._chunks: OrderedDict[bytes, bytes] = OrderedDict()
        self._held = 0
        self._peek = reader.peek if isinstance(reader, Peeker) and keys is None else None
        self._touched: OrderedDict[bytes, int] = OrderedDict()  # chunks that were read in part, and lengths
        self._touched_bytes = 0
        self._lock = threading.Lock()
        self._reading: dict[bytes, threading.Event] = {}  # what some thread is getting now

    def __len__(self) -> int:
        return self.manifest.head.samples

    def raw(self, number: int) -> list[Buffer]:
        """The bytes of each field of a sample.

        Raises:
            IndexError: there is no such sample.
            ChunkError: a chunk is not to be had.
            StoreError: a chunk is not what its index says.
        """
        if not 0 <= number < len(self):
            raise IndexError(
                f"sample {number} is outside the {len(self)} samples of {self.manifest.head.name}"
            )
        shard = bisect_right(self._firsts, number) - 1
        layout, inside = self._layout(shard), number - self._firsts[shard]
        data = self._span(layout, *layout.pieces(inside))
        cuts = layout.cuts(inside)
        return [data[start:stop] for start, stop in pairwise(cuts)]

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Samples whose fields all have the same length, uint8 of shape (len(numbers), bytes of a sample).

        Raises:
            ChunkError, StoreError: as for ``raw``.

        Cost: one look-up for each chunk that they are in, and one copy.
        """
        size = sum(field.n_bytes for field in self.manifest.head.fields)
        out = np.empty((len(numbers), size), np.uint8)
        shards = np.searchsorted(self._first_samples, numbers, "right") - 1
        for shard in np.unique(shards).tolist():
            layout, places = self._layout(shard), np.flatnonzero(shards == shard)
            starts = (numbers[places] - self._firsts[shard]) * size
            chunks = np.searchsorted(layout.chunk_starts, starts, "right") - 1
            offsets = starts - layout.chunk_starts[chunks]
            order = np.argsort(chunks, kind="stable")
            cuts = np.flatnonzero(np.diff(chunks[order], prepend=-1, append=-1))
            for first, last in pairwise(cuts.tolist()):
                here = order[first:last]
                number, at = int(chunks[here[0]]), offsets[here]
                if self._partly(layout, number, len(here) * size):
                    for place, begin in zip(places[here].tolist(), at.tolist(), strict=True):
                        out[place] = np.frombuffer(self._part(layout, number, begin, size), np.uint8)
                    continue
                data = np.frombuffer(self.chunk(layout, number), np.uint8)
                if int(at.max()) + size <= len(data) and not (at % size).any():
                    out[places[here]] = data[: len(data) // size * size].reshape(-1, size)[at // size]
                else:  # a sample that is larger than a chunk, or begins where one ended
                    for place, begin in zip(places[here].tolist(), at.tolist(), strict=True):
                        out[place] = np.frombuffer(self._span(layout, number, begin, size), np.uint8)
        return out

    def pieces(self, number: int, field: int) -> Iterator[Buffer]:
        """The bytes of one field of a sample, chunk by chunk, for what is too large to hold."""
        shard = bisect_right(self._firsts, number) - 1
        layout, inside = self._layout(shard), number - self._firsts[shard]
        chunk, at, _ = layout.pieces(inside)
        cuts = layout.cuts(inside)
        at, left = at + cuts[field], cuts[field + 1] - cuts[field]
        while left:
            length = int(layout.chunk_starts[chunk + 1] - layout.chunk_starts[chunk])
            if at < length:
                piece = memoryview(self.chunk(layout, chunk))[at : at + left]
                left -= len(piece)
                yield piece
            at, chunk = max(0, at - length), chunk + 1

    def chunk(self, layout: Layout, number: int) -> bytes:
        """A chunk of a shard.

        Raises:
            ChunkError: it is not to be had.
            StoreError: it is not what its index says.
        """
        name = layout.index.names[number]
        while True:
            with self._lock:
                data = self._chunks.get(name)
                if data is not None:
                    self._chunks.move_to_end(name)
                    return data
                other = self._reading.get(name)
                if other is None:
                    self._reading[name] = threading.Event()
                    break
            other.wait()
        try:
            return self._read(layout, number, name)
        finally:
            with self._lock:
                self._reading.pop(name).set()

    def _read(self, layout: Layout, number: int, name: bytes) -> bytes:
        if layout.code is None:
            data = self._reader.get(name)
        else:
            size, names = int(layout.index.chunk_lengths[number]), layout.index.fragment_names[number]
            data = gather(self._reader, layout.code, names, name, size)
        if len(data) != layout.index.chunk_lengths[number]:
            raise StoreError(
                f"data set {self.manifest.name} is wrong from its making: chunk {name.hex()[:16]} has "
                f"{len(data)} "
                f"bytes, its index says {layout.index.chunk_lengths[number]}"
            )
        if self._keys is not None:
            try:
                data = self._keys.decrypt_chunk(layout.first_chunk + number, data)
            except FrameError as error:
                raise StoreError(f"data set {self.manifest.name}: chunk {name.hex()[:16]}: {error}") from None
        with self._lock:
            self._chunks[name] = data
            self._held += len(data)
            while self._held > self._limit and len(self._chunks) > 1:
                self._held -= len(self._chunks.popitem(last=False)[1])
        return data

    def place(self, number: int) -> tuple[int, int]:
        """The shard of a sample, and the chunk in it where the sample begins."""
        shard = bisect_right(self._firsts, number) - 1
        return shard, self._layout(shard).pieces(number - self._firsts[shard])[0]

    def _span(self, layout: Layout, chunk: int, at: int, n_bytes: int) -> Buffer:
        if not n_bytes:
            return b""
        if self._partly(layout, chunk, n_bytes):
            return self._part(layout, chunk, at, n_bytes)
        return self._across(layout, chunk, at, n_bytes)

    def _across(self, layout: Layout, chunk: int, at: int, n_bytes: int) -> Buffer:
        """Bytes from a chunk on, by whole chunks."""
        data = self.chunk(layout, chunk)
        if at + n_bytes <= len(data):
            return memoryview(data)[at : at + n_bytes]
        whole = bytearray(data[at:])
        while len(whole) < n_bytes:
            chunk += 1
            whole += self.chunk(layout, chunk)[: n_bytes - len(whole)]
        return whole

    def _partly(self, layout: Layout, chunk: int, n_bytes: int) -> bool:
        """Whether to read parts of a chunk alone, for ``n_bytes`` of samples; its next turn may be whole."""
        size = int(layout.index.chunk_lengths[chunk])
        if self._peek is None or not layout.index.has_pieces(chunk) or n_bytes > size // _PART_OF:
            return False
        name = layout.index.names[chunk]
        with self._lock:
            if name in self._chunks or name in self._reading:
                return False
            if self._touched.pop(name, 0):
                self._touched_bytes -= size
                return False
            self._touched[name] = size
            self._touched_bytes += size
            while self._touched_bytes > self._limit:
                self._touched_bytes -= self._touched.popitem(last=False)[1]
        return True

    def _part(self, layout: Layout, chunk: int, at: int, n_bytes: int) -> Buffer:
        """Bytes of a chunk by its pieces; by the chunk where these are not here, or damaged."""
        name, length = layout.index.names[chunk], int(layout.index.chunk_lengths[chunk])
        first, end = at // PIECE_BYTES, min(at + n_bytes, length)
        start, stop = first * PIECE_BYTES, min(-(-end // PIECE_BYTES) * PIECE_BYTES, length)
        data = None
        if at + n_bytes <= length and self._peek is not None:
            data = self._peek(name, start, stop - start)
        if data is not None and len(data) == stop - start:
            view = memoryview(data)
            pieces = [view[begin : begin + PIECE_BYTES] for begin in range(0, len(view), PIECE_BYTES)]
            if all(digest_of(p) == layout.index.piece(chunk, first + n) for n, p in enumerate(pieces)):
                return view[at - start : at - start + n_bytes]
        return self._across(layout, chunk, at, n_bytes)

    def _layout(self, shard: int) -> Layout:
        with self._lock:
            found = self._layouts.get(shard)
            if found is not None:
                self._layouts.move_to_end(shard)
                return found
        record = self.manifest.shards[shard]
        found = layout_of(self.manifest, record, self._reader.get(record.index))
        found.first_chunk = self._first_chunks[shard]
        with self._lock:
            self._layouts[shard] = found
            if len(self._layouts) > _LAYOUTS:
                self._layouts.popitem(last=False)
        return found


def decode(fields: Sequence[Field], values: Sequence[Buffer]) -> list[Any]:
    """Values of a sample's fields: bytes, text, NumPy arrays that own nothing, or NumPy numbers.

    Raises:
        StoreError: bytes that the field cannot hold, which whoever made the data set is to blame for.
    """
    return [_value(field, value) for field, value in zip(fields, values, strict=True)]


def _value(field: Field, data: Buffer) -> Any:
    try:
        if field.kind is Kind.BYTES:
            return bytes(data)
        if field.kind is Kind.TEXT:
            return str(data, "utf-8")
        array = np.frombuffer(data, np.dtype(field.dtype).newbyteorder("<"))
        if not field.shape:
            return array[0]
        return array.reshape((-1, *field.shape[1:]) if field.shape[0] == 0 else field.shape)
    except ValueError as error:
        raise StoreError(f"a sample's {field.name} cannot be read: {error}") from None
