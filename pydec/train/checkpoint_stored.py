"""Checkpoints of a run whose tensors lie in a content-addressed store, beside older ones that are files."""

from __future__ import annotations

import json
import os
import platform
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pydec.comm.living import living
from pydec.errors import ConfigError
from pydec.train.checkpoint_chunks import Chunks, Pieces, pieces_of, root_of
from pydec.train.checkpoint_files import DamagedPart, Store, digest_of
from pydec.train.checkpoint_layout import Layout, tensors_in
from pydec.train.checkpoint_vault import Vault
from pydec.train.rundir import RunDir
from pydec.train.stores import directory_of
from pydec.train.together import table

if TYPE_CHECKING:
    from pydec.train.config import TrainConfig
    from pydec.train.together import Member


class StoredParts(Store):
    """See ``Store``; a part whose manifest says "stored" is in a store, under that root.

    Args:
        directory: of the run.
        chunks: the store; parts that are written go there if it takes them.
        vault: see ``Store``; what goes into the store is not sealed.
    """

    chunks: Chunks

    def __init__(self, directory: RunDir, chunks: Chunks, vault: Vault | None = None) -> None:
        super().__init__(directory, vault)
        self.chunks = chunks

    @property
    def home(self) -> Path:
        """See ``Store.home``."""
        return self.chunks.store.directory / "adding" if self.chunks.writes else super().home

    def ranks(self, step: int) -> list[int]:
        """See ``Store.ranks``; only those whose tensors the store has.

        So ranks that share a run directory, and have stores of their own, each see what is in theirs.
        """
        here = super().ranks(step)
        return [rank for rank in here if not (root := self.stored(step, rank)) or self.chunks.has(root)]

    def write_buffer(self, step: int, rank: int, buffer: Tensor, body: Mapping[str, Any]) -> bytes:
        """See ``Store.write_buffer``."""
        if not self.chunks.writes:
            return super().write_buffer(step, rank, buffer, body)
        return self._put(step, rank, pieces_of(buffer), len(buffer), body)

    def write_tensors(
        self, step: int, rank: int, tensors: Mapping[str, Tensor], body: Mapping[str, Any]
    ) -> bytes:
        """See ``Store.write_tensors``."""
        if not self.chunks.writes:
            return super().write_tensors(step, rank, tensors, body)
        layout = Layout(tensors)

        def pieces() -> Iterator[memoryview]:
            return (piece.data for piece in layout.pieces(tensors))

        return self._put(step, rank, pieces, layout.nbytes, body)

    def verify(self, step: int, rank: int) -> dict[str, Any]:
        """See ``Store.verify``."""
        root = self.stored(step, rank)
        if not root:
            return super().verify(step, rank)
        manifest = self.manifest(step, rank)
        self.chunks.verify(root)
        return manifest

    def adopt_stored(self, step: int, rank: int, root: bytes, digest: str = "") -> None:
        """Let a copy count that has come into the store.

        Args:
            step, rank: whose it is.
            root: of the data set that it is.
            digest: that its manifest must have, in hexadecimal; "" takes any.

        Raises:
            DamagedPart: it is something else.
            SetupError: it cannot be written.
        """
        try:
            said = json.loads(self.chunks.manifest(root))
            whole = said.pop("digest") == digest_of(said) and (said["step"], said["rank"]) == (step, rank)
        except (ValueError, LookupError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise DamagedPart(f"what arrived is not rank {rank}'s checkpoint of step {step}")
        said["stored"] = root.hex()
        if digest not in ("", digest_of(said)):
            raise DamagedPart(
                f"what arrived of rank {rank}'s checkpoint of step {step} has digest {digest_of(said)[:16]}, "
                f"and {digest[:16]} was asked for"
            )
        self._make_folder(step, rank)
        self._write_manifest(step, rank, said)

    def clear(self, step: int, rank: int) -> Iterator[memoryview]:
        """See ``Store.clear``; also of a part in the store."""
        root = self.stored(step, rank)
        return map(memoryview, self.chunks.pieces(root)) if root else super().clear(step, rank)

    def tensors(self, step: int, rank: int) -> dict[str, Tensor]:
        """See ``Store.tensors``."""
        root = self.stored(step, rank)
        return tensors_in(self.chunks.content(root)) if root else super().tensors(step, rank)

    def remove(self, step: int, rank: int) -> None:
        """See ``Store.remove``; objects that nothing else needs go with ``tidy``."""
        root = self.stored(step, rank)
        super().remove(step, rank)
        self.chunks.forget(step, rank, root)

    def close(self) -> None:
        """See ``Store.close``."""
        if self.chunks.writes:
            self.chunks.tidy()
        self.chunks.close()

    def _put(self, step: int, rank: int, pieces: Pieces, size: int, body: Mapping[str, Any]) -> bytes:
        """A part, with the manifest that it would have as a file, and then its manifest."""
        self._make_folder(step, rank)
        said = self._said(step, rank, root_of(pieces()), size, body)
        whole = json.dumps({**said, "digest": digest_of(said)}).encode()
        with self.chunks.writing():
            root = self.chunks.put(step, rank, pieces, whole)
            digest = self._write_manifest(step, rank, {**said, "stored": root.hex()})
        self.chunks.tidy()
        return digest


def space(peer: Member, store: Store) -> dict[str, Any] | None:
    """What the checkpoints that a run keeps take in the stores of its ranks; all ranks together.

    Returns:
        ``bytes`` of all parts and their copies, ``stored_bytes`` of the objects that they are made of, and
        ``deduplication``, the one over the other; None of checkpoints that are files.
    """
    if not (isinstance(store, StoredParts) and store.chunks.writes):
        return None
    whole, kept = store.chunks.space()
    where = os.stat(store.chunks.store.directory)
    name = f"{platform.node()} {where.st_dev} {where.st_ino}"
    disk = zlib.crc32(name.encode())  # ranks may share a store, which counts once
    rows = table(peer, [float(disk), float(whole), float(kept)])[list(living(peer.transport).members)]
    by_disk = {row[0]: row[1:] for row in rows}
    whole, kept = (round(float(sum(row[place] for row in by_disk.values()))) for place in (0, 1))
    return {"bytes": whole, "stored_bytes": kept, "deduplication": round(whole / kept, 3) if kept else 1.0}


def store_of(
    peer: Member,
    config: TrainConfig,
    directory: RunDir,
    vault: Vault | None = None,
    *,
    going_on: bool = False,
) -> Store:
    """Where this rank's checkpoints are, and go.

    Args:
        peer: this rank.
        config: of the run.
        directory: of the run.
        vault: seals them; None does not.
        going_on: read what an earlier start has put into a store, also if new ones do not go there.

    Raises:
        ConfigError, StoreError: the store cannot be used.
    """
    where = directory_of(peer, config)
    if config.store_checkpoints:
        return StoredParts(directory, Chunks(where, directory.path, writes=True), vault)
    if going_on:
        try:
            return StoredParts(directory, Chunks(where, directory.path, writes=False), vault)
        except ConfigError:
            pass  # there is none, so that none of them is in it
    return Store(directory, vault)
