"""Verify what a store holds, repair it from another one, and say how much of a data set is here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from pydec.errors import ChunkError, ConfigError
from pydec.store.fragments import gather, remade
from pydec.store.manifest import Manifest, Shard
from pydec.store.objects import Reader
from pydec.store.shard import Layout
from pydec.store.store import Store, layout_of

THREADS = 4  # hashing and the disk both let others run


@dataclass
class Report:
    """What was found of a data set.

    Attributes:
        objects: that were looked at, indices among them.
        n_bytes: of those that are right.
        missing, damaged: names of those that are not here, or are not what their name says.
        unknown: shards whose index is not here, so that nobody knows which chunks they need.
        repaired: names of objects that have come back.
        lost: names of chunks with fewer fragments here than they are made of.
    """

    objects: int = 0
    n_bytes: int = 0
    missing: list[bytes] = field(default_factory=list)
    damaged: list[bytes] = field(default_factory=list)
    unknown: int = 0
    repaired: list[bytes] = field(default_factory=list)
    lost: list[bytes] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether all of the data set is here."""
        return not (self.missing or self.damaged or self.unknown)


def verify(
    store: Store, manifest: Manifest, *, progress: Callable[[int], None] = lambda n_bytes: None
) -> Report:
    """Read every object of a data set and compare it with its name; what is damaged goes to quarantine.

    Args:
        store: where they are.
        manifest: of the data set.
        progress: called with the bytes that were read so far.

    Raises:
        StoreError: the disk does not give what it has, or the data set was wrong from its making.
    """
    report, once = Report(), partial(store.objects.get, again=False)
    with ThreadPoolExecutor(THREADS, "pydec-verify") as pool:
        for shard in manifest.shards:
            layout = _layout(store.objects, manifest, shard, report)
            if layout is None:
                continue
            wrong: dict[bytes, ChunkError] = {}
            for found in pool.map(lambda name: _look(once, name), layout.index.objects):
                report.objects += 1
                if isinstance(found, int):
                    report.n_bytes += found
                else:
                    wrong[found.digest] = found
            _tell(layout, wrong, report)
            progress(report.n_bytes)
    return report


def repair(
    store: Store,
    manifest: Manifest,
    others: Sequence[Reader],
    *,
    progress: Callable[[int], None] = lambda n_bytes: None,
) -> Report:
    """Verify a data set, and bring back what is missing or damaged.

    Args:
        store: where it is to be whole.
        manifest: of the data set.
        others: where objects may come from, asked in order.
        progress: called with the bytes that were read so far.

    Returns:
        What is still missing or damaged, and what has come back.

    Raises:
        StoreError: a disk is full or fails.
    """
    report = Report()
    reader, once = Mending(store, others, report), partial(store.objects.get, again=False)
    with ThreadPoolExecutor(THREADS, "pydec-repair") as pool:
        for shard in manifest.shards:
            layout = _layout(reader, manifest, shard, report)
            if layout is None:
                continue
            names, wrong = layout.index.objects, dict[bytes, ChunkError]()
            for name, found in zip(names, pool.map(lambda name: _look(once, name), names), strict=True):
                size = found if isinstance(found, int) else _look(reader.get, name)
                report.objects += 1
                if isinstance(size, int):
                    report.n_bytes += size
                elif isinstance(found, ChunkError):
                    wrong[name] = found
            if wrong and layout.code is not None:
                _remake(store, reader, layout, wrong)
            _tell(layout, wrong, report)
            progress(report.n_bytes)
    return report


def _remake(store: Store, reader: Mending, layout: Layout, wrong: dict[bytes, ChunkError]) -> None:
    """Make fragments from others of their chunks; those that were made are no longer ``wrong``."""
    index, code = layout.index, layout.code
    assert code is not None
    for name, size, names in zip(
        index.names, index.chunk_lengths.tolist(), index.fragment_names, strict=True
    ):
        wanted = [fragment for fragment in names if fragment in wrong]
        if not wanted:
            continue
        try:
            chunk = gather(reader, code, names, name, size)
        except ChunkError:
            continue
        for fragment, data in remade(code, chunk, names, wanted).items():
            store.objects.adopt(fragment, data)
            reader.report.repaired.append(fragment)
            reader.report.n_bytes += len(data)
            del wrong[fragment]


def _tell(layout: Layout, wrong: dict[bytes, ChunkError], report: Report) -> None:
    for name, error in wrong.items():
        (report.missing if error.missing else report.damaged).append(name)
    if wrong and layout.code is not None:
        report.lost += [
            name
            for name, names in zip(layout.index.names, layout.index.fragment_names, strict=True)
            if sum(fragment not in wrong for fragment in names) < layout.code.data
        ]


def copy(store: Store, manifest: Manifest, others: Sequence[Reader]) -> Report:
    """Bring a data set that another store has into this one; it is in it once it is whole.

    Raises:
        StoreError: a disk is full or fails.
        ConfigError: another data set has its name.
    """
    with store.lock():
        store.check_free(manifest.name)
        report = repair(store, manifest, others)
        if report.whole:
            store.add_manifest(manifest)
    return report


class Mending:
    """Reads from a store, and puts into it what only others have.

    Args:
        store: the store.
        others: where objects may come from, asked in order.
        report: counts what has come back.
    """

    def __init__(self, store: Store, others: Sequence[Reader], report: Report | None = None) -> None:
        self._store, self._others, self.report = store, others, report or Report()

    def get(self, digest: bytes) -> bytes:
        """See ``Reader.get``."""
        try:
            return self._store.objects.get(digest)
        except ChunkError as error:
            last = error
        for other in self._others:
            try:
                data = other.get(digest)
            except ChunkError:
                continue
            self._store.objects.adopt(digest, data)
            self.report.repaired.append(digest)
            return data
        raise last


def presence(store: Store, manifest: Manifest) -> tuple[int, int, int, int]:
    """How much of a data set is here by its names, unread.

    Returns:
        Objects that are here, objects that there are by the indices here, shards whose index is not, and
        bytes of objects that are not here.
    """
    here = whole = unknown = missing = 0
    for shard in manifest.shards:
        whole += 1
        if not store.objects.has(shard.index):
            unknown += 1
            missing += shard.index_bytes
            continue
        report = Report()
        layout = _layout(store.objects, manifest, shard, report)
        if layout is None:
            unknown += 1
            continue
        names = layout.index.objects
        whole += len(names)
        found = [store.objects.has(name) for name in names]
        here += 1 + sum(found)
        sizes = layout.index.object_lengths(layout.code)
        missing += sum(size for size, is_here in zip(sizes, found, strict=True) if not is_here)
    return here, whole, unknown, missing


def find_in(others: Sequence[Store], name: str) -> Manifest:
    """The data set of that name in the first of some stores that has it.

    Raises:
        ConfigError: none has.
        StoreError: its manifest is damaged.
    """
    for other in others:
        try:
            return other.find(name)
        except ConfigError:
            continue
    raise ConfigError(
        f"none of {', '.join(str(other.directory) for other in others)} has a data set {name!r}"
    )


def objects_of(store: Store, manifest: Manifest) -> Iterator[bytes]:
    """Names of all objects of a data set, each index before its chunks.

    Raises:
        ChunkError: an index is not here.
    """
    for number, shard in enumerate(manifest.shards):
        yield shard.index
        yield from store.layout(manifest, number).index.objects


def _layout(reader: Reader, manifest: Manifest, shard: Shard, report: Report) -> Layout | None:
    """What a shard is made of, its index counted; None if it is not to be had."""
    report.objects += 1
    try:
        data = reader.get(shard.index)
    except ChunkError as error:
        report.unknown += 1
        (report.missing if error.missing else report.damaged).append(error.digest)
        return None
    report.n_bytes += len(data)
    return layout_of(manifest, shard, data)


def _look(get: Callable[[bytes], bytes], name: bytes) -> int | ChunkError:
    """The length of an object that is right, or what is wrong."""
    try:
        return len(get(name))
    except ChunkError as error:
        return error
