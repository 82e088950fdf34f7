"""What data is in my store, is it whole, and how does more get in?

    pydec data add PATH --name N      cut files, arrays, tables or text into chunks; begun again, it goes on
    pydec data add PATH --name N2 --append N    all of N, and what is at PATH after it
    pydec data add MODULE:FUNCTION --name N     what a function returns, such as a torch Dataset
    pydec data list                   data sets, and adds that were interrupted
    pydec data status [N]             how much of each is here, and with all peers of the last job
    pydec data verify [N]             read every byte and compare it with its name
    pydec data repair N --from DIR    bring what is missing or damaged back from another store
    pydec data repair N               or from other fragments, where it was added with --erasure
    pydec data export N DIR           the original bytes, verified
    pydec data grant N PUBLIC-KEY     let another identity read a private data set
    pydec data revoke N PUBLIC-KEY    take that back, and make a new key for what is added from now on
    pydec data remove N               the data set, and every chunk that no other one needs
    pydec data gc [--dry-run]         what crashes and interrupted adds have left, and nothing needs

N is a name, or 8 or more digits of a root. Who reads private data is on the ledger that --ledger DIR names;
without one in files beside the data, which whoever writes them can change. Without --store the store is in
~/.local/share/pydec/store.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydec.cli import data_access, data_adding, data_garbage, data_status
from pydec.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from pydec.store.manifest import Manifest
    from pydec.store.store import Store
    from pydec.store.upkeep import Report

ACTIONS = ("add", "list", "status", "verify", "repair", "export", "grant", "revoke", "remove", "gc")
_SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("what", nargs="?", metavar="PATH|N", help="add: what; else a data set's name or root")
    parser.add_argument(
        "target",
        nargs="?",
        metavar="DIR|KEY",
        help="export: a folder that does not exist; grant, revoke: a public key, or rank:N of the ledger",
    )
    parser.add_argument("--store", metavar="DIR", type=Path, help="the store's directory")
    data_adding.configure(parser)
    parser.add_argument(
        "--from", dest="others", metavar="DIR", type=Path, action="append", default=[],
        help="repair: a store that may have what is missing; several are asked in order",
    )  # fmt: skip
    data_access.configure(parser)
    data_garbage.configure(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Do one thing with the store.

    Raises:
        ConfigError: arguments that do not go together, or no such data set.
        StoreError: something cannot be read or written, or is damaged.
    """
    from pydec.store.store import Store

    needs = args.action in ("add", "repair", "export", "grant", "revoke", "remove")
    if needs and args.what is None:
        raise ConfigError(f"data {args.action}: {'PATH' if args.action == 'add' else 'N'} is missing")
    if (args.target is not None) != (args.action in ("export", "grant", "revoke")):
        missing = "DIR is missing" if args.action == "export" else "the public key is missing"
        raise ConfigError(f"data {args.action}: " + (missing if args.target is None else "too many words"))
    data_adding.check(args)
    if args.others and args.action != "repair":
        raise ConfigError("--from DIR is for data repair; nothing else takes it")
    data_access.check(args)
    data_garbage.check(args)
    with Store(args.store, create=args.action == "add" or bool(args.others)) as store:
        action: Callable[[argparse.Namespace, Store], tuple[dict[str, Any], int]] = globals()[
            f"_{args.action}"
        ]
        found, status = action(args, store)
    if args.json:
        print(json.dumps(found, indent=2))
    return status


def _add(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    from pydec.store.adding import add
    from pydec.store.inputs import FORMATS, open_input
    from pydec.store.manifest import CHUNK_BYTES

    if args.format and args.format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got {args.format!r}")
    policy, began_s = data_adding.policy(args), time.perf_counter()
    key = data_access.identity(args) if args.private else None
    owner = None if key is None else data_access.Owner(args, store, key)
    extends = None if owner is None else owner.extended()
    try:
        given = open_input(args.what, args.format, ragged=args.ragged)
        with _progress(args, f"add {args.name}", given.n_bytes) as shown:
            manifest = add(
                store, given, args.name, policy=policy,
                chunk_bytes=args.chunk_bytes or CHUNK_BYTES, progress=shown,
                private=key, extends=extends, onto=store.find(args.append) if args.append else None,
            )  # fmt: skip
    except StoreError as error:
        raise StoreError(f"{error}; nothing was added") from error
    except KeyboardInterrupt:
        print(
            f"interrupted; the same command goes on: pydec data add ... --name {args.name}", file=sys.stderr
        )
        raise
    found = {**_facts(manifest), "seconds": round(time.perf_counter() - began_s, 3)}
    if owner is not None:
        found |= owner.added(manifest)
    if not args.json:
        _show(found)
    return found, 0


def _list(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    from pydec.store.journal import unfinished
    from pydec.store.manifest import Manifest

    found: dict[str, Any] = {"store": str(store.directory), "data": [], "unfinished": [], "damaged": []}
    for root, manifest in sorted(store.manifests().items()):
        if isinstance(manifest, Manifest):
            found["data"].append(_facts(manifest))
        else:
            found["damaged"].append({"root": root.hex(), "error": str(manifest)})
    found["data"].sort(key=lambda facts: facts["name"])
    names = {facts["name"] for facts in found["data"]}
    for name, shards in unfinished(store).items():
        if name not in names:
            found["unfinished"].append({"name": name, "bytes": sum(shard.n_bytes for shard in shards)})
    if not args.json:
        for facts in found["data"]:
            print(
                f"{facts['name']:<24}{facts['samples']:>12} samples {_size(facts['bytes']):>10}  "
                f"{facts['kind']:<8}{facts['root'][:16]}"
            )
        for item in found["unfinished"]:
            print(f"{item['name']:<24}interrupted after {_size(item['bytes'])}; the same add goes on")
        for item in found["damaged"]:
            print(f"{item['root'][:16]:<24}{item['error']}")
        if not any(found[key] for key in ("data", "unfinished", "damaged")):
            print(f"{store.directory} is empty; pydec data add PATH --name N adds to it")
    return found, 1 if found["damaged"] else 0


def _status(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    rows = []
    for manifest in _chosen(args, store):
        found, words = data_status.status(store, manifest, _size)
        rows.append({**_facts(manifest), **found})
        if not args.json:
            print(words)
    return {"store": str(store.directory), "data": rows}, 0


def _verify(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    from pydec.store.upkeep import verify

    rows = []
    for manifest in _chosen(args, store):
        began_s = time.perf_counter()
        with _progress(args, f"verify {manifest.name}", manifest.head.n_bytes) as shown:
            report = verify(store, manifest, progress=shown)
        rows.append(_reported(args, manifest, report, time.perf_counter() - began_s))
    return {"store": str(store.directory), "data": rows}, 0 if all(row["whole"] for row in rows) else 1


def _repair(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    from pydec.store.store import Store
    from pydec.store.upkeep import copy, find_in, repair

    with ExitStack() as stack:
        others = [stack.enter_context(Store(path)) for path in args.others]
        began_s = time.perf_counter()
        try:
            manifest = store.find(args.what)
        except ConfigError:
            if not others:
                raise
            manifest = find_in(others, args.what)
            report = copy(store, manifest, [other.objects for other in others])
        else:
            if not others and not manifest.head.policy.parity:
                raise ConfigError(
                    "data repair needs --from DIR, a store that has what is missing: "
                    f"{manifest.name} has no fragments to make it from"
                )
            with _progress(args, f"repair {manifest.name}", manifest.head.n_bytes) as shown:
                report = repair(store, manifest, [other.objects for other in others], progress=shown)
        row = _reported(args, manifest, report, time.perf_counter() - began_s)
    return row, 0 if report.whole else 1


def _export(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    from pydec.store.export import export
    from pydec.store.reading import Samples

    manifest = store.find(args.what)
    keys = data_access.keyring(args, store, manifest, data_access.identity(args))
    with _progress(args, f"export {manifest.name}", manifest.head.n_bytes) as shown:
        files = export(Samples(manifest, store.objects, keys=keys), Path(args.target), progress=shown)
    found = {"name": manifest.name, "directory": args.target, "files": files}
    if not args.json:
        _show(found)
    return found, 0


def _grant(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    found = data_access.change(args, store)
    if not args.json:
        _show(found)
    return found, 0


_revoke = _grant


def _remove(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    found = data_garbage.remove(args, store)
    if not args.json:
        _show(found)
    return found, 0


def _gc(args: argparse.Namespace, store: Store) -> tuple[dict[str, Any], int]:
    found = data_garbage.gc(args, store)
    if not args.json:
        _show(found)
    return found, 0


def _chosen(args: argparse.Namespace, store: Store) -> list[Manifest]:
    if args.what is not None:
        return [store.find(args.what)]
    return sorted((store.manifest(root) for root in store.roots()), key=lambda manifest: manifest.name)


def _reported(args: argparse.Namespace, manifest: Manifest, report: Report, seconds: float) -> dict[str, Any]:
    row = {
        "name": manifest.name,
        "root": manifest.root.hex(),
        "whole": report.whole,
        "objects": report.objects,
        "bytes": report.n_bytes,
        "seconds": round(seconds, 3),
        "missing": [name.hex() for name in report.missing],
        "damaged": [name.hex() for name in report.damaged],
        "repaired": len(report.repaired),
        "lost": [name.hex() for name in report.lost],
    }
    if not args.json:
        mended = f", {len(report.repaired)} brought back" if report.repaired else ""
        words = "whole" if report.whole else f"{len(report.missing)} missing, {len(report.damaged)} damaged"
        if report.lost:
            words += f", {len(report.lost)} chunks with fewer than {manifest.head.policy.replicas} fragments"
        elif manifest.head.policy.parity and not (report.whole or report.unknown):
            words += ", every chunk can be decoded"
        rate = f"{1e-9 * report.n_bytes / max(seconds, 1e-9):.2f} GB/s"
        print(
            f"{manifest.name:<24}{words}{mended}; {report.objects} objects, {_size(report.n_bytes)}, {rate}"
        )
        for name in (report.missing + report.damaged)[:_SHOWN]:
            print(f"  {name.hex()}")
    return row


def _facts(manifest: Manifest) -> dict[str, Any]:
    head = manifest.head
    return {
        "name": head.name,
        "root": manifest.root.hex(),
        "kind": head.kind,
        "samples": head.samples,
        "bytes": head.n_bytes,
        "fields": [
            {"name": f.name, "kind": f.kind.name.lower(), "dtype": f.dtype, "shape": list(f.shape)}
            for f in head.fields
        ],
        "shards": len(manifest.shards),
        "replicas": head.policy.replicas if not head.policy.parity else 1,
        **({"erasure": str(head.policy.code)} if head.policy.parity else {}),
        "private": bool(head.policy.encryption),
        **({"parent": head.policy.parent.hex()} if any(head.policy.parent) else {}),
    }


def _show(found: dict[str, Any]) -> None:
    for key, value in found.items():
        if key == "fields":
            value = ", ".join(
                f["name"] + (f" {f['dtype']}{f['shape'] or ''}" if f["dtype"] else "") for f in value
            )
        elif key == "bytes":
            value = _size(value)
        print(f"{key.replace('_', ' '):<14}{value}")


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}" if unit != "B" else f"{n_bytes} B"
        n_bytes /= 1000
    return f"{n_bytes:.4g} TB"


@contextmanager
def _progress(args: argparse.Namespace, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's standard error, and nothing elsewhere."""
    if args.quiet or args.json or not sys.stderr.isatty():
        yield lambda n_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda n_bytes: bar.update(task, completed=n_bytes)
