"""The index of a shard: which chunks it is made of, and where in them each sample begins.

A shard's samples follow one another without gaps, each its fields in order, and chunks cut that row of bytes;
a sample is in one chunk unless it is larger than one. So lengths say everything: those of the chunks, and
those of the fields that differ between samples, in the narrowest width that holds them all.

Where chunks are erasure coded (``erasure.py``), the index names the fragments of each one too, in format 2.
Elsewhere it gives the BLAKE3 of each 64 KiB of the chunks that are longer, in format 3, so that a sample can
be verified without the rest of its chunk.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pydec.crypto.vault import OVERHEAD_BYTES
from pydec.errors import FrameError
from pydec.store.erasure import MOST_FRAGMENTS, Code
from pydec.store.manifest import Head, Shard
from pydec.store.objects import MOST_BYTES

FORMAT, CODED_FORMAT, PIECES_FORMAT = 1, 2, 3
PIECE_BYTES = 1 << 16
MOST_PIECES = 1 << 15  # of one shard; a sample of more than 2 GiB is read by whole chunks
MOST_LENGTHS = 1 << 18  # in one index, so that the object stays below MOST_BYTES
MOST_CHUNKS = 116_000  # of one sample, for the same reason
_HEAD = struct.Struct(">8sHIIHB")  # magic, format, chunks, samples, fields of any length, width
_CODED = struct.Struct(">B")  # after it in format 2: fragments of each chunk
_MAGIC = b"pydec.sh"
_WIDTHS = (1, 2, 4, 8)
_MOST_LENGTH = 1 << 43  # of one field of one sample: sums stay below 2^63

Lengths = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Index:
    """What an index object says.

    Args:
        chunks: names of the chunks, shape (chunks, 32), uint8.
        chunk_lengths: bytes of each object, shape (chunks,).
        lengths: bytes of the fields whose length differs, shape (samples, such fields).
        fragments: names of each chunk's fragments, shape (chunks, k + m, 32), uint8; None: chunks are not
            erasure coded.
        pieces: BLAKE3 of each ``PIECE_BYTES`` of the chunks that are longer, shape (pieces, 32), uint8; None:
            there are none, or nobody took them.
    """

    chunks: NDArray[np.uint8]
    chunk_lengths: Lengths
    lengths: Lengths
    fragments: NDArray[np.uint8] | None = None
    pieces: NDArray[np.uint8] | None = None

    @property
    def samples(self) -> int:
        """How many samples the shard has."""
        return len(self.lengths)

    @cached_property
    def names(self) -> list[bytes]:
        """Names of the chunks, in order."""
        return _names(self.chunks)

    @cached_property
    def fragment_names(self) -> list[list[bytes]]:
        """Names of each chunk's fragments, in order; nothing where chunks are not erasure coded."""
        return [] if self.fragments is None else [_names(row) for row in self.fragments]

    @property
    def objects(self) -> list[bytes]:
        """Names of what lies on disks: the chunks, or their fragments."""
        return self.names if self.fragments is None else _names(self.fragments)

    @cached_property
    def _piece_starts(self) -> Lengths:
        """The first piece of each chunk, and how many there are in all."""
        return _starts(pieces_of(self.chunk_lengths))

    def piece(self, chunk: int, number: int) -> bytes:
        """BLAKE3 of a piece of a chunk."""
        assert self.pieces is not None
        row: NDArray[np.uint8] = self.pieces[int(self._piece_starts[chunk]) + number]
        return row.tobytes()

    def has_pieces(self, chunk: int) -> bool:
        """Whether pieces of a chunk can be verified."""
        return self.pieces is not None and int(self.chunk_lengths[chunk]) > PIECE_BYTES

    def object_lengths(self, code: Code | None) -> list[int]:
        """Bytes of each of these objects; ``code`` is the data set's."""
        lengths: list[int] = self.chunk_lengths.tolist()
        if code is None:
            return lengths
        return [code.fragment_bytes(n_bytes) for n_bytes in lengths for _ in range(code.fragments)]

    def encode(self) -> bytes:
        """The canonical bytes of the object."""
        samples, columns = self.lengths.shape
        most = int(self.lengths.max(initial=0))
        width = next(width for width in _WIDTHS if most < 1 << 8 * width)
        version = FORMAT
        if self.fragments is not None:
            version = CODED_FORMAT
        elif self.pieces is not None:
            version = PIECES_FORMAT
        head = _HEAD.pack(_MAGIC, version, len(self.chunks), samples, columns, width)
        coded = (
            () if self.fragments is None else (_CODED.pack(self.fragments.shape[1]), self.fragments.tobytes())
        )
        data = b"".join(
            [
                head,
                *coded,
                self.chunks.tobytes(),
                self.chunk_lengths.astype(">u4").tobytes(),
                b"" if self.pieces is None else self.pieces.tobytes(),
                self.lengths.astype(f">u{width}").tobytes(),
            ]
        )
        if len(data) > MOST_BYTES:
            raise FrameError(f"the index of a shard has {len(data)} bytes, at most {MOST_BYTES} are allowed")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Index:
        """The index of exactly these bytes.

        Raises:
            FrameError: they are none, or of another format.
        """
        try:
            magic, version, chunks, samples, columns, width = _HEAD.unpack_from(data)
        except struct.error:
            raise FrameError(
                f"an index of a shard has at least {_HEAD.size} bytes, got {len(data)}"
            ) from None
        if magic != _MAGIC:
            raise FrameError(f"an index of a shard does not begin with {_MAGIC.decode()}")
        if version not in (FORMAT, CODED_FORMAT, PIECES_FORMAT):
            raise FrameError(f"an index of format {version}; this pydec reads formats 1 to {PIECES_FORMAT}")
        if width not in _WIDTHS:
            raise FrameError(f"an index with lengths of {width} bytes")
        count, at = 0, _HEAD.size
        if version == CODED_FORMAT:
            count, at = (data[at], at + 1) if len(data) > at else (0, at)
            if not 2 <= count <= MOST_FRAGMENTS:
                raise FrameError(f"an index of chunks with {count} fragments")
        expected = at + (32 * count + 36) * chunks + samples * columns * width
        pieces, chunk_lengths = None, np.empty(0, np.int64)
        if len(data) >= expected:
            behind = at + 32 * (count + 1) * chunks
            chunk_lengths = np.frombuffer(data, ">u4", chunks, behind).astype(np.int64)
        if version == PIECES_FORMAT:
            total = int(pieces_of(chunk_lengths).sum())
            if not 0 < total <= MOST_PIECES:
                raise FrameError(f"an index of format {version} with {total} pieces")
            expected += 32 * total
        if len(data) != expected or len(data) > MOST_BYTES:
            raise FrameError(f"an index of {len(data)} bytes, whose head asks for {expected}")
        fragments = np.frombuffer(data, np.uint8, 32 * count * chunks, at).reshape(chunks, count, 32)
        at += 32 * count * chunks
        names = np.frombuffer(data, np.uint8, 32 * chunks, at).reshape(chunks, 32)
        at += 32 * chunks
        at += 4 * chunks
        if version == PIECES_FORMAT:
            pieces = np.frombuffer(data, np.uint8, 32 * total, at).reshape(total, 32)
            at += 32 * total
        raw = np.frombuffer(data, f">u{width}", samples * columns, at)
        most = int(raw.max(initial=0))
        if most >= _MOST_LENGTH or (width > 1 and most < 1 << 8 * _WIDTHS[_WIDTHS.index(width) - 1]):
            raise FrameError(f"an index whose longest length {most} has {width} bytes")
        if chunks and not 0 < int(chunk_lengths.min()) <= int(chunk_lengths.max()) <= MOST_BYTES:
            raise FrameError(f"an index with a chunk that has not 1 to {MOST_BYTES} bytes")
        if columns and samples * columns > MOST_LENGTHS + 256:
            raise FrameError(
                f"an index of {samples * columns} lengths, at most {MOST_LENGTHS + 256} are allowed"
            )
        lengths = raw.astype(np.int64).reshape(samples, columns)
        return cls(names, chunk_lengths, lengths, fragments if count else None, pieces)


def _names(array: NDArray[np.uint8]) -> list[bytes]:
    row = array.tobytes()
    return [row[at : at + 32] for at in range(0, len(row), 32)]


def pieces_of(chunk_lengths: Lengths) -> Lengths:
    """How many pieces the index has of each chunk."""
    return np.where(chunk_lengths > PIECE_BYTES, -(-chunk_lengths // PIECE_BYTES), 0)


def variable(head: Head) -> list[int]:
    """Numbers of the fields whose length differs between samples."""
    return [number for number, field in enumerate(head.fields) if not field.n_bytes]


class Layout:
    """Where the samples of one shard are, and their fields.

    Args:
        head: of the manifest.
        shard: its record.
        index: what its index object says.

    Attributes:
        index: as given.
        first_chunk: number of its first chunk among all of the data set; the reader sets it.
        code: of the chunks' fragments; None: they are not erasure coded.
        chunk_starts: where each chunk begins in the row of bytes, and where the last one ends.

    Raises:
        FrameError: they do not fit together.
    """

    def __init__(self, head: Head, shard: Shard, index: Index) -> None:
        self.index, self.first_chunk = index, 0
        self._free = variable(head)
        fixed = [field.n_bytes for field in head.fields]
        sealing = OVERHEAD_BYTES if head.policy.encryption else 0
        self.chunk_starts = _starts(index.chunk_lengths - sealing)
        coded = 0 if index.fragments is None else index.fragments.shape[1]
        self.code = head.policy.code
        if coded != (0 if self.code is None else self.code.fragments):
            raise FrameError(f"an index of chunks with {coded} fragments; the manifest says {self.code}")
        found = (index.samples, len(index.chunks), int(self.chunk_starts[-1]), index.lengths.shape[1])
        if found != (shard.samples, shard.chunks, shard.n_bytes, len(self._free)):
            raise FrameError(
                f"an index of {found[0]} samples, {found[1]} chunks and {found[2]} bytes; the manifest says "
                f"{shard.samples}, {shard.chunks} and {shard.n_bytes}"
            )
        sizes = np.diff(self.chunk_starts)
        if len(sizes) and not 0 < int(sizes.min()) <= int(sizes.max()) <= head.chunk_bytes:
            raise FrameError(
                f"an index with a chunk that has not 1 to {head.chunk_bytes} bytes, as the manifest says"
            )
        self._fixed, self._row = fixed, sum(fixed)
        self._cuts = [0, *np.cumsum(fixed).tolist()]
        self._starts = _starts(index.lengths.sum(axis=1) + self._row) if self._free else None
        end = self._start(index.samples)
        if end != shard.n_bytes:
            raise FrameError(f"samples of {end} bytes in a shard of {shard.n_bytes}")

    def pieces(self, sample: int) -> tuple[int, int, int]:
        """The chunk in which a sample begins, where in it, and the sample's bytes."""
        start = self._start(sample)
        chunk = int(np.searchsorted(self.chunk_starts, start, "right")) - 1
        return chunk, start - int(self.chunk_starts[chunk]), self._start(sample + 1) - start

    def cuts(self, sample: int) -> Sequence[int]:
        """Where each field of a sample begins, and where the last one ends, from the sample's first byte."""
        if not self._free:
            return self._cuts
        sizes = list(self._fixed)
        for number, length in zip(self._free, self.index.lengths[sample].tolist(), strict=True):
            sizes[number] = length
        cuts = [0]
        for size in sizes:
            cuts.append(cuts[-1] + size)
        return cuts

    def _start(self, sample: int) -> int:
        return sample * self._row if self._starts is None else int(self._starts[sample])


def _starts(lengths: Lengths) -> Lengths:
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts
