"""The keys of a data set that one reader holds, and what its manifest says about them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pydec.crypto.vault import CHECK_BYTES, ID_BYTES, DatasetKey, generation_of
from pydec.errors import AccessDenied, FrameError

MOST_GENERATIONS = 112  # so that a lock fits the 4 KiB that a manifest has for it
_VERSION = 1
_HEAD = struct.Struct(f"<B{ID_BYTES}sI")
_ENTRY = struct.Struct(f"<I{CHECK_BYTES}s")


@dataclass(frozen=True)
class Lock:
    """What a manifest says about the encryption of its chunks; no secret is in it.

    Args:
        dataset: 32 bytes under which chunks are sealed; appended data keeps it.
        checks: the ``DatasetKey.check`` of every generation that seals a chunk, by generation. Under the
            manifest's root they commit its owner: all readers have the same keys, and so the same data.
    """

    dataset: bytes
    checks: Mapping[int, bytes]

    @classmethod
    def of(cls, keys: Iterable[DatasetKey]) -> Lock:
        """That of the given keys of one data set, at least one.

        Raises:
            ValueError: they are of several data sets, or two of one generation.
        """
        keys = list(keys)
        checks = {key.generation: key.check for key in keys}
        if len({key.dataset for key in keys}) != 1 or len(checks) != len(keys):
            raise ValueError(f"a lock is of one data set and has one key a generation, got {keys}")
        return cls(keys[0].dataset, checks)

    def encode(self) -> bytes:
        """The bytes that ``decode`` reads: version, data set, how many; generation and check of each."""
        head = _HEAD.pack(_VERSION, self.dataset, len(self.checks))
        return head + b"".join(_ENTRY.pack(*entry) for entry in sorted(self.checks.items()))

    @classmethod
    def decode(cls, data: bytes) -> Lock:
        """A lock from its bytes.

        Raises:
            FrameError: they are not the one encoding of a lock.
        """
        if len(data) < _HEAD.size:
            raise FrameError(f"a lock has at least {_HEAD.size} bytes, got {len(data)}")
        version, dataset, count = _HEAD.unpack_from(data)
        if version != _VERSION:
            raise FrameError(f"a lock has version {_VERSION}, got {version}")
        if not 1 <= count <= MOST_GENERATIONS or len(data) != _HEAD.size + count * _ENTRY.size:
            raise FrameError(f"{len(data)} bytes are no lock of {count} keys")
        entries = list(_ENTRY.iter_unpack(data[_HEAD.size :]))
        generations = [generation for generation, _ in entries]
        if generations != sorted(set(generations)):
            raise FrameError(f"the generations of a lock increase, got {generations[:8]}")
        return cls(dataset, dict(entries))


class Keyring:
    """One reader's keys of a data set, by generation; lives in memory only. Any thread may use it.

    Args:
        root: 32 bytes that name the data set on the ledger.
        identity: public key of the reader.
        lock: of the manifest with that root.
        keys: those that the reader was granted.

    Raises:
        FrameError: a key is not that of the manifest.
    """

    def __init__(self, root: bytes, identity: bytes, lock: Lock, keys: Iterable[DatasetKey]) -> None:
        self.root, self.identity, self.lock = root, identity, lock
        self._keys = {key.generation: key for key in keys}
        for generation, key in self._keys.items():
            if generation in lock.checks and lock.checks[generation] != key.check:
                raise FrameError(
                    f"the key of data set {root.hex()[:16]}, generation {generation}, that "
                    f"{identity.hex()[:16]} was granted is not the one that its chunks are sealed with; its "
                    "owner must grant the right one"
                )

    def __getitem__(self, generation: int) -> DatasetKey:
        """The key of a generation.

        Raises:
            AccessDenied: the reader was not granted it.
        """
        if generation not in self._keys:
            needed = f"its owner's grant of the key of generation {generation}"
            raise AccessDenied(self.identity, "read the data set", self.root, needed)
        return self._keys[generation]

    def __iter__(self) -> Iterator[int]:
        """The generations whose keys are here, in order."""
        return iter(sorted(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    def check_complete(self) -> None:
        """See that every chunk can be opened, before any is fetched.

        Raises:
            AccessDenied: the key of a generation that seals chunks was not granted.
        """
        for generation in sorted(self.lock.checks):
            self[generation]

    def decrypt_chunk(self, index: int, sealed: Any) -> bytes:
        """Open a chunk with the key of the generation that it names; see ``DatasetKey.decrypt_chunk``.

        Raises:
            AccessDenied: the reader was not granted that key.
            BadChunk: it is not what was sealed for this place.
        """
        return self[generation_of(sealed)].decrypt_chunk(index, sealed)

    def decrypt_chunk_into(self, index: int, sealed: Any, out: Any) -> int:
        """The same to where it is wanted; see ``DatasetKey.decrypt_chunk_into``.

        Raises:
            AccessDenied, BadChunk: as ``decrypt_chunk``.
            ValueError: ``out`` is too short.
        """
        return self[generation_of(sealed)].decrypt_chunk_into(index, sealed, out)

    def __repr__(self) -> str:
        return f"Keyring(root={self.root.hex()[:16]}, generations={list(self)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are neither copied nor stored; unwrap them again from their grants")
