"""The manifest of a data set: what its samples are made of, and which shards hold them; one encoding each.

The encoding is a head and one record for each shard. The root names the data set, and is what the ledger
commits: the Merkle tree hash (``crypto.hashing``) of these, the head first. A shard's record names its index
object, which names its chunks (``shard.py``), so that the root fixes every byte.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from pydec.codec import fields
from pydec.codec.fields import DIGEST, U8, U16, U32, Codec
from pydec.codec.wire import Reader, checked
from pydec.crypto.hashing import merkle_root
from pydec.errors import FrameError
from pydec.store.erasure import MOST_FRAGMENTS, Code
from pydec.store.objects import MOST_BYTES

FORMAT = 1
NO_DIGEST = bytes(32)
CHUNK_BYTES = 1 << 20
LEAST_CHUNK_BYTES = 4096
MOST_MANIFEST_BYTES = 1 << 26
_MAGIC = b"pydec.data"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_FIELDS, _MOST_CLASSES, _MOST_SOURCES, _MOST_SHARDS = 256, 1 << 16, 1 << 16, 1 << 20
_MOST_SAMPLES = 1 << 48

DTYPES = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "float16": 2, "uint32": 4, "int32": 4,
    "float32": 4, "uint64": 8, "int64": 8, "float64": 8,
}  # fmt: skip
"""Types of numbers, with their bytes; they are stored little-endian."""


class Kind(IntEnum):
    """What a field of a sample holds."""

    BYTES = 0
    """Any bytes, such as a file or an encoded image."""
    TEXT = 1
    """UTF-8."""
    ARRAY = 2
    """Numbers of one type; a shape that begins with 0 has a first dimension of any length."""


@dataclass(frozen=True)
class Field:
    """One field of every sample.

    Args:
        name: for those who read samples.
        kind: what it holds.
        dtype: one of ``DTYPES`` for arrays, else empty.
        shape: of an array; () for one number.

    Raises:
        ValueError: no such combination.
    """

    name: str
    kind: Kind
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a field has no name")
        if self.kind is Kind.ARRAY:
            if self.dtype not in DTYPES:
                raise ValueError(f"field {self.name}: dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
            if 0 in self.shape[1:] or math.prod(max(n, 1) for n in self.shape) > _MOST_SAMPLES:
                raise ValueError(f"field {self.name}: shape {self.shape} cannot be")
        elif self.dtype or self.shape:
            raise ValueError(f"field {self.name}: only arrays have a dtype and a shape")

    @property
    def n_bytes(self) -> int:
        """Bytes of the field in every sample; 0 if samples differ."""
        return 0 if self.kind is not Kind.ARRAY else math.prod(self.shape) * DTYPES[self.dtype]


@dataclass(frozen=True)
class Source:
    """A file that ``export`` makes again: a head, and one field of consecutive samples.

    Args:
        path: relative, in the bytes of its file system, / between its parts.
        head: bytes before the first sample's.
        field: number of the field.
        first, samples: which samples.
        n_bytes: length of the file.
        digest: BLAKE3 of its bytes.
        swapped: 1 if its numbers are big-endian.
    """

    path: bytes
    head: bytes
    field: int
    first: int
    samples: int
    n_bytes: int
    digest: bytes
    swapped: int = 0


@dataclass(frozen=True)
class Shard:
    """Consecutive samples, some 64 MiB of them.

    Args:
        samples: how many.
        n_bytes: of these samples, over all chunks.
        chunks: how many.
        index_bytes: length of the index object.
        index: its name; see ``shard.py``.
    """

    samples: int
    n_bytes: int
    chunks: int
    index_bytes: int
    index: bytes


@dataclass(frozen=True)
class Policy:
    """Who has to hold what, and who can read it.

    Args:
        replicas: copies of every object, on as many nodes; with ``parity`` the number of data fragments.
        parity: parity fragments of erasure coding; 0: plain copies.
        owner: public key of who added the data; zero: nobody said.
        parent: root of the data set that this one extends; zero: none.
        encryption: how chunks are sealed; empty: they are not.
    """

    replicas: int = 3
    parity: int = 0
    owner: bytes = NO_DIGEST
    parent: bytes = NO_DIGEST
    encryption: bytes = b""

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas must be at least 1, got {self.replicas}")
        if self.parity and self.replicas + self.parity > MOST_FRAGMENTS:
            raise ValueError(
                f"erasure coding has at most {MOST_FRAGMENTS} fragments, got {self.replicas}+{self.parity}"
            )

    @property
    def code(self) -> Code | None:
        """The code of each chunk's fragments; None: chunks are copied."""
        return Code(self.replicas, self.parity) if self.parity else None

    @property
    def fragments(self) -> int:
        """Objects that each chunk lies in, or copies of the one."""
        return self.replicas + self.parity

    def __str__(self) -> str:
        """For people."""
        return f"erasure {self.replicas}+{self.parity}" if self.parity else f"{self.replicas} replicas"


@dataclass(frozen=True)
class Head:
    """Everything of a manifest but its shards.

    Args:
        name: of the data set: letters, digits, ".", "_" and "-", at most 64.
        kind: what was added, such as "files" or "numpy"; ``export`` goes by it.
        fields: of every sample.
        classes: names of the numbers in a field called label; empty: they have none.
        samples, n_bytes: in all shards together.
        chunk_bytes: most bytes of a chunk.
        sources: files that the samples were taken from, where these are not samples themselves.
        policy: replicas, owner, encryption.

    Raises:
        ValueError: no such combination.
    """

    name: str
    kind: str
    fields: tuple[Field, ...]
    classes: tuple[str, ...]
    samples: int
    n_bytes: int
    chunk_bytes: int
    sources: tuple[Source, ...]
    policy: Policy

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.fields or len({field.name for field in self.fields}) != len(self.fields):
            names = [field.name for field in self.fields]
            raise ValueError(f"a data set needs at least 1 field, all of different names, got {names}")
        for source in self.sources:
            if source.field >= len(self.fields) or source.first + source.samples > self.samples:
                raise ValueError(f"source {source.path!r} has samples or a field that there are not")


@dataclass(frozen=True)
class Manifest:
    """A data set.

    Args:
        head: what it is.
        shards: in the order of their samples.

    Raises:
        ValueError: shards that do not add up to the head.
    """

    head: Head
    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        found = sum(shard.samples for shard in self.shards), sum(shard.n_bytes for shard in self.shards)
        if found != (self.head.samples, self.head.n_bytes):
            raise ValueError(
                f"shards hold {found[0]} samples and {found[1]} bytes, the head says {self.head.samples} and "
                f"{self.head.n_bytes}"
            )

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.head.name

    @cached_property
    def root(self) -> bytes:
        """What names the data set, 32 bytes."""
        return merkle_root(self._leaves())

    def encode(self) -> bytes:
        """The canonical bytes.

        Raises:
            FrameError: a value out of its range.
        """
        head, *shards = self._leaves()
        return b"".join([_MAGIC, FORMAT.to_bytes(2, "big"), U32.encode(len(head)), head, *shards])

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The manifest of exactly these bytes.

        Raises:
            FrameError: they are none, or of another format.
        """
        what = "a manifest"
        if len(data) > MOST_MANIFEST_BYTES:
            raise FrameError(f"{what} has {len(data)} bytes, at most {MOST_MANIFEST_BYTES} are allowed")
        reader = Reader(data, what)
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise FrameError(f"{what} does not begin with {_MAGIC.decode()}")
        if (found := reader.u16()) != FORMAT:
            raise FrameError(
                f"{what} has format {found}, this pydec reads format {FORMAT}; use the other pydec"
            )
        head = _HEAD.decode(reader.blob(MOST_MANIFEST_BYTES), "the head of a manifest")
        at = len(_MAGIC) + 6 + len(_HEAD.encode(head))
        count, rest = divmod(len(data) - at, _SHARD.size)
        if rest or count > _MOST_SHARDS:
            raise FrameError(
                f"{what} has {len(data) - at} bytes of shards, not up to {_MOST_SHARDS} whole ones"
            )
        shards = tuple(_shard(*fields_) for fields_ in _SHARD.iter_unpack(data[at:]))
        return checked(what, cls, head, shards)

    def _leaves(self) -> Iterator[bytes]:
        yield _HEAD.encode(self.head)
        for shard in self.shards:
            yield pack_shard(shard)


def check_name(name: str) -> None:
    """Whether a data set may be called so.

    Raises:
        ValueError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a data set: use up to 64 letters, digits, '.', '_' and '-', the first "
            "of them a letter or digit"
        )


_SHARD = struct.Struct(">QQII32s")
SHARD_RECORD_BYTES = _SHARD.size


def pack_shard(shard: Shard) -> bytes:
    """The record of a shard."""
    fields_ = shard.samples, shard.n_bytes, shard.chunks, shard.index_bytes, shard.index
    _shard(*fields_)
    return _SHARD.pack(*fields_)


def unpack_shard(data: bytes) -> Shard:
    """The shard of exactly these bytes.

    Raises:
        FrameError: they are none.
    """
    if len(data) != _SHARD.size:
        raise FrameError(f"the record of a shard has {_SHARD.size} bytes, got {len(data)}")
    return _shard(*_SHARD.unpack(data))


def _shard(samples: int, n_bytes: int, chunks: int, index_bytes: int, index: bytes) -> Shard:
    if not (0 < samples <= _MOST_SAMPLES and n_bytes <= _MOST_SAMPLES and 0 < index_bytes <= MOST_BYTES):
        raise FrameError(
            f"a shard of {samples} samples, {n_bytes} bytes, and {index_bytes} of index cannot be"
        )
    if (chunks == 0) != (n_bytes == 0):
        raise FrameError(f"a shard of {n_bytes} bytes in {chunks} chunks cannot be")
    return Shard(samples, n_bytes, chunks, index_bytes, index)


def _kind() -> Codec[Kind]:
    return Codec(U8.write, lambda reader: checked("a field", Kind, U8.read(reader)))


def _utf8(most: int) -> Codec[str]:
    """Text of people, such as the name of a class."""
    inner = fields.blob(most)
    return Codec(
        lambda out, value: inner.write(out, value.encode()),
        lambda reader: checked("a text", bytes.decode, inner.read(reader)),
    )


_COUNT = fields.integer(8, 0, _MOST_SAMPLES)
_FIELD = fields.record(Field, name=_utf8(256), kind=_kind(), dtype=fields.text(8), shape=fields.many(U32, 16))
_SOURCE = fields.record(
    Source, path=fields.blob(4096), head=fields.blob(1 << 16), field=U16, first=_COUNT, samples=_COUNT,
    n_bytes=_COUNT, digest=DIGEST, swapped=fields.integer(1, 0, 1),
)  # fmt: skip
_POLICY = fields.record(
    Policy, replicas=U8, parity=U8, owner=DIGEST, parent=DIGEST, encryption=fields.blob(4096)
)
_HEAD = fields.record(
    Head, name=fields.text(64), kind=fields.text(16), fields=fields.many(_FIELD, _MOST_FIELDS),
    classes=fields.many(_utf8(1024), _MOST_CLASSES), samples=_COUNT, n_bytes=_COUNT,
    chunk_bytes=fields.integer(4, LEAST_CHUNK_BYTES, MOST_BYTES), sources=fields.many(_SOURCE, _MOST_SOURCES),
    policy=_POLICY,
)  # fmt: skip
