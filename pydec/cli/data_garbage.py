"""What leaves a store: data sets that are removed, and garbage; never what a ledger still names."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.store.store import Store


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``gc`` and ``remove``; ``--ledger`` is of private data, too."""
    parser.add_argument(
        "--ledger", metavar="DIR", type=Path, action="append", default=[], dest="ledgers",
        help="remove: a ledger to ask beside those that jobs with this store had; add --private, export, "
        "grant, revoke: the one that says who reads",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="remove: also a data set that a ledger still names"
    )
    parser.add_argument("--dry-run", action="store_true", help="gc: remove nothing, say what would be")


def check(args: argparse.Namespace) -> None:
    """Raise ConfigError unless the options are of this action."""
    if args.force and args.action != "remove":
        raise ConfigError("--force needs data remove")
    if args.dry_run and args.action != "gc":
        raise ConfigError("--dry-run needs data gc")
    if args.action == "gc" and args.what is not None:
        raise ConfigError("data gc: too many words; it looks at the whole store")


def gc(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Remove garbage; what was found.

    Raises:
        StoreError: see ``collecting.collect``.
    """
    from pydec.store.collecting import collect
    from pydec.train.checkpoint_garbage import orphans

    found = collect(store, dry_run=args.dry_run, orphans=orphans)
    return {
        "store": str(store.directory),
        "objects": found.objects,
        "bytes": found.n_bytes,
        "other_files": found.files,
        "checkpoint_parts": found.data_sets,
        "removed": not args.dry_run,
    }


def remove(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Remove a data set, or an interrupted add, and the objects that nothing else needs.

    Raises:
        ConfigError: there is none of that name, or a ledger names it.
        LedgerError: a ledger that may name it is damaged.
        StoreError: a job reads it, or the disk does not let it.
    """
    from pydec.store import keys
    from pydec.store.collecting import ledgers
    from pydec.store.journal import forget, unfinished

    with store.lock():
        begun = unfinished(store)
        if args.what in begun:
            forget(store, args.what)
            keys.forget(store, args.what)
        try:
            root = store.find(args.what).root
        except ConfigError:
            if args.what not in begun:
                raise
        else:
            if not args.force:
                _check_unnamed(args.what, root, [*args.ledgers, *filter(Path.exists, ledgers(store))])
            store.forget(root)
            keys.forget(store, args.what, root)
        left = (shard for shards in unfinished(store).values() for shard in shards)
        freed = store.collect(left)
    return {"name": args.what, "objects_freed": freed}


def _check_unnamed(name: str, root: bytes, directories: Iterable[Path]) -> None:
    from pydec.consensus.replay import replayed

    for directory in directories:
        if root in replayed(directory).state.datasets:
            raise ConfigError(
                f"data set {name} ({root.hex()[:16]}) is registered on the ledger in {directory}, so that "
                "peers count on who holds it; --force removes what is here all the same"
            )
