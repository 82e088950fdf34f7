"""Garbage: what lies in a store and no manifest needs, and which ledgers forbid that a data set is removed.

Objects without a manifest come from adds and copies that were given up, and from removals that crashed; files
besides, from writers that were killed, and from damage. A data set goes in this order: its manifest, then the
objects that no other one needs. So whatever a crash leaves is a whole data set, or garbage.

    DIR/ledgers/HASH     the path of a ledger that knows data sets of this store; one file for each
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from pydec.disk import create_whole, naming
from pydec.errors import StoreError
from pydec.store.journal import unfinished
from pydec.store.store import Store

_MOST_PATH_BYTES = 1 << 16


@dataclass(frozen=True)
class Garbage:
    """What ``collect`` removes, or has removed.

    Args:
        objects, n_bytes: that no manifest needs, and their bytes on the disk.
        files: beside objects: temporary ones of writers that are gone, and damaged ones in quarantine.
        data_sets: that nobody needs, see ``orphans``.
    """

    objects: int
    n_bytes: int
    files: int
    data_sets: int = 0


def collect(
    store: Store, *, dry_run: bool = False, orphans: Callable[[Store], Collection[bytes]] = lambda store: ()
) -> Garbage:
    """Remove garbage: objects that neither a manifest nor an interrupted add needs, and files of the dead.

    Args:
        store: its lock is taken.
        dry_run: remove nothing, and say what would be.
        orphans: roots of data sets that are garbage as well; called when nobody else writes into the store.

    Raises:
        StoreError: another process writes into the store, or a manifest or index is damaged, so that nobody
            can say what is needed: nothing was removed. Or the disk fails; what is left is still garbage.
    """
    with store.lock(), store.alone():
        left = orphans(store)
        kept = (shard for shards in unfinished(store).values() for shard in shards)
        needed = store.named(kept, [root for root in store.roots() if root not in left])
        gone, files = [name for name in store.objects.names() if name not in needed], _files(store)
        found = Garbage(len(gone), sum(map(store.objects.size, gone)), len(files), len(left))
        if not dry_run:
            for root in left:
                store.forget(root)
            for digest in gone:
                store.objects.remove(digest)
            for path in files:
                with naming(path, "removed", StoreError):
                    store.disk.remove(path)
    return found


def note_ledger(store: Store, directory: Path) -> None:
    """Remember a ledger that knows, or will know, data sets of this store.

    Raises:
        StoreError: the disk is full or fails.
    """
    words = os.fsencode(directory.resolve())
    path = _ledgers(store) / blake3(words).hexdigest()[:32]
    if store.disk.exists(path):
        return
    with naming(path, "written", StoreError):
        store.disk.make_directory(path.parent)
        create_whole(store.disk, path, words)


def ledgers(store: Store) -> list[Path]:
    """The ledgers that ``note_ledger`` was told, those that are gone too.

    Raises:
        StoreError: the disk does not give them.
    """
    found = []
    for name in store.disk.names(_ledgers(store)):
        if not name.startswith("."):
            path = _ledgers(store) / name
            with naming(path, "read", StoreError):
                found.append(Path(os.fsdecode(store.disk.read_whole(path, _MOST_PATH_BYTES))))
    return sorted(found)


def _ledgers(store: Store) -> Path:
    return store.directory / "ledgers"


def _files(store: Store) -> list[Path]:
    """Files beside objects that nobody needs; the caller holds the lock, and is alone."""
    adding = store.directory / "adding"
    begun = [adding / name for name in store.disk.names(adding) if name.startswith(".")]
    return [*store.objects.leftovers(), *begun]
