"""Parts of checkpoints as data sets of a content-addressed store: equal tensors are there once.

Every tensor of a part's safetensors file is a sample, and one that is larger than a chunk begins a new one.
So tensors that two ranks, rounds or runs have alike are the same objects, whatever else differs. The data
set gives two files back (``pydec data export``): the part as plain torch reads it, and its manifest beside
it. The ``rank-R.json`` in the run directory names the data set by its root, and is written last, as ever.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from blake3 import blake3
from torch import Tensor

from pydec.crypto.hashing import CHUNK_BYTES, merkle_root
from pydec.disk import Buffer
from pydec.errors import ChunkError, ConfigError, PydecError, SetupError, StoreError
from pydec.store.adding import Packer
from pydec.store.inputs.base import Sample
from pydec.store.journal import unfinished
from pydec.store.manifest import CHUNK_BYTES as STORED_BYTES
from pydec.store.manifest import Field, Head, Kind, Manifest, Policy, Shard, Source
from pydec.store.reading import Samples
from pydec.store.store import Store
from pydec.store.upkeep import objects_of, verify
from pydec.train.checkpoint_garbage import KIND, note_run
from pydec.train.checkpoint_vault import chunked

_FIELDS = (Field("content", Kind.BYTES),)
_MOST_LABEL = 30
_WAIT_S = 2.0  # for others that write into the store, before garbage is left for the next time
WRITE_WAIT_S = 60.0  # for who removes garbage from it

Pieces = Callable[[], Iterable[Buffer]]
"""The bytes of a file, header and tensors apart, as often as they are asked for."""


class Chunks:
    """The parts of a run in a store; from one thread at a time, but for ``forget``.

    Args:
        directory: of the store; None is the user's.
        run: directory of the run, which names its parts in the store.
        writes: whether new parts go there; else those that are there are read.

    Attributes:
        store: the store.
        writes: as given.

    Raises:
        ConfigError: there is no store, or something else.
        StoreError: it cannot be made or read.
    """

    def __init__(self, directory: Path | None, run: Path, *, writes: bool) -> None:
        self.store, self.writes = Store(directory, create=writes), writes
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", run.name).strip("-_") or "run"
        where = blake3(str(run.resolve()).encode()).hexdigest()[:8]
        self._label = f"{name[:_MOST_LABEL]}-{where}"
        if writes:
            note_run(self.store, self._label, run)
        self._freed: set[bytes] | None = None  # objects that may be garbage; None: any of the store may be

    def put(self, step: int, rank: int, pieces: Pieces, manifest: bytes) -> bytes:
        """Put a part into the store; on the disk when this returns.

        Args:
            step, rank: whose it is.
            pieces: of its safetensors file.
            manifest: the file beside it.

        Returns:
            The root of the data set that it is.

        Raises:
            SetupError: the disk is full or fails; nothing of this name is in the store then.
        """
        self.forget(step, rank)
        shards: list[Shard] = []
        name = f"rank-{rank}.safetensors"
        with _told(), self.store.writing(WRITE_WAIT_S):
            packer = Packer(self.store, _FIELDS, STORED_BYTES, shards.append)
            try:
                hasher, count, size = blake3(), 0, 0
                for piece in filter(len, pieces()):
                    packer.add(Sample((piece,)))
                    hasher.update(piece)
                    count, size = count + 1, size + len(piece)
                packer.add(Sample((manifest,)))
                packer.finish()
            finally:
                packer.close()
            sources = (
                Source(name.encode(), b"", 0, 0, count, size, hasher.digest()),
                Source(
                    f"rank-{rank}.json".encode(), b"", 0, count, 1, len(manifest), blake3(manifest).digest()
                ),
            )
            totals = sum(shard.samples for shard in shards), sum(shard.n_bytes for shard in shards)
            policy = Policy(replicas=1)
            head = Head(
                self._name(step, rank), KIND, _FIELDS, (), *totals, STORED_BYTES, sources, policy
            )  # fmt: skip
            made = Manifest(head, tuple(shards))
            self.store.add_manifest(made)
        return made.root

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Within, no part is taken for one that a run has left; see ``checkpoint_garbage``.

        Raises:
            SetupError: another process removes garbage, and does not end.
        """
        with _told(), self.store.writing(WRITE_WAIT_S):
            yield

    def space(self) -> tuple[int, int]:
        """Bytes of this run's parts here, and of the objects that they are made of; without damaged parts."""
        sizes: dict[bytes, int] = {}
        whole = 0
        for found in self.store.manifests().values():
            if not isinstance(found, Manifest) or not found.name.startswith(self._label + "."):
                continue
            with contextlib.suppress(StoreError):
                layouts = [self.store.layout(found, number) for number in range(len(found.shards))]
                for shard, layout in zip(found.shards, layouts, strict=True):
                    lengths = layout.index.object_lengths(layout.code)
                    here = dict(zip(layout.index.objects, lengths, strict=True))
                    whole += sum(layout.index.chunk_lengths.tolist()) + shard.index_bytes
                    sizes |= {shard.index: shard.index_bytes, **here}
        return whole, sum(sizes.values())

    def has(self, root: bytes) -> bool:
        """Whether a part is here, as far as the name of its manifest says."""
        return root in self.store.roots()

    def samples(self, root: bytes) -> Samples:
        """A part's tensors one by one, its header first and its manifest last.

        Raises:
            SetupError: it is not here, or damaged.
        """
        with _told():
            found = self.store.manifest(root)
            if found.head.kind != KIND or len(found.head.sources) != 2:
                raise StoreError(f"data set {found.name} is no part of a checkpoint")
            return Samples(found, self.store.objects, cache_bytes=STORED_BYTES)

    def pieces(self, root: bytes) -> Iterator[Buffer]:
        """The bytes of a part's safetensors file.

        Raises:
            SetupError: something is missing or damaged.
        """
        samples = self.samples(root)
        with _told():
            for number in range(len(samples) - 1):
                yield from samples.pieces(number, 0)

    def content(self, root: bytes) -> Tensor:
        """A part's safetensors file in memory, uint8 of shape (n,).

        Raises:
            SetupError: something is missing or damaged.
        """
        head = self.samples(root).manifest.head
        buffer = torch.empty(head.sources[0].n_bytes, dtype=torch.uint8)
        view, at = memoryview(buffer.numpy()), 0
        for piece in self.pieces(root):
            view[at : at + len(piece)] = piece
            at += len(piece)
        return buffer

    def manifest(self, root: bytes) -> bytes:
        """The file beside a part's.

        Raises:
            SetupError: it is missing or damaged.
        """
        samples = self.samples(root)
        with _told():
            return b"".join(bytes(piece) for piece in samples.pieces(len(samples) - 1, 0))

    def verify(self, root: bytes) -> None:
        """Compare every object of a part with its name.

        Raises:
            SetupError: one is missing or damaged.
        """
        manifest = self.samples(root).manifest
        with _told():
            report = verify(self.store, manifest)
        if not report.whole:
            raise SetupError(
                f"{manifest.name} in {self.store.directory} is damaged: {len(report.missing)} of its objects "
                f"are missing and {len(report.damaged)} are not what their names say"
            )

    def forget(self, step: int, rank: int, root: bytes = b"") -> None:
        """Remove a part, by its root or by the name that this run gives it; ``tidy`` frees its objects.

        Raises:
            SetupError: the disk does not let it.
        """
        with _told():
            for known, found in self.store.manifests().items():
                named = isinstance(found, Manifest) and found.name == self._name(step, rank)
                if known != root and not named:
                    continue
                if isinstance(found, Manifest) and self._freed is not None:
                    with contextlib.suppress(ChunkError, StoreError):
                        self._freed.update(objects_of(self.store, found))
                self.store.forget(known)

    def forget_others(self, manifest: Manifest) -> None:
        """Remove parts that have a part's name and are not it: of an earlier try, with other bytes.

        Raises:
            StoreError: the disk does not let it.
        """
        for root, found in self.store.manifests().items():
            if isinstance(found, Manifest) and found.name == manifest.name and root != manifest.root:
                self.store.forget(root)

    def tidy(self) -> None:
        """Free the objects that only removed parts needed; later, if another process keeps this one from it.

        The first time all garbage of the store goes, as a run that was killed may have left some.
        """
        if self._freed is not None and not self._freed:
            return
        with contextlib.suppress(PydecError), self.store.lock(_WAIT_S), self.store.alone(_WAIT_S):
            kept = (shard for shards in unfinished(self.store).values() for shard in shards)
            gone = self.store.unnamed(kept, self._freed)
            for digest in gone:
                self.store.objects.remove(digest)
            self._freed = set()

    def close(self) -> None:
        """End what runs; idempotent."""
        self.store.close()

    def _name(self, step: int, rank: int) -> str:
        return f"{self._label}.step-{step}.rank-{rank}"


def pieces_of(content: Tensor) -> Pieces:
    """Header and tensors of a whole safetensors file in memory, uint8 of shape (n,)."""
    view = memoryview(content.numpy())
    first = 8 + int.from_bytes(view[:8], "little")
    header = json.loads(bytes(view[8:first]))
    spans = sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
    return lambda: [view[:first], *(view[first + start : first + stop] for start, stop in spans)]


def root_of(pieces: Iterable[Buffer]) -> bytes:
    """What ``bytes_root`` gives for the pieces one after the other."""
    return merkle_root(chunked(pieces, CHUNK_BYTES))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What is wrong with the store is wrong with the checkpoint."""
    try:
        yield
    except (ConfigError, StoreError) as error:
        raise SetupError(str(error)) from error
