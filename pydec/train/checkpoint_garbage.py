"""Checkpoints in a store that no run directory names: of processes that died before they had written that.

A part of a checkpoint is in the store before the ``rank-R.json`` that makes it count (``checkpoint_stored``).
The store remembers where the directory of each run is, so that garbage collection can look:

    DIR/runs/LABEL/HOST  the path of a run's directory on a host; its parts are called LABEL.step-S.rank-R
"""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path

from pydec.disk import create_whole, naming
from pydec.errors import StoreError
from pydec.store.manifest import Manifest
from pydec.store.store import Store

KIND = "checkpoint"
"""Kind of the data sets that parts of checkpoints are."""
_NAME = re.compile(r"(.+)\.step-(\d+)\.rank-(\d+)")
_MOST_PATH_BYTES = 1 << 16


def note_run(store: Store, label: str, directory: Path) -> None:
    """Remember where the directory of a run is.

    Raises:
        StoreError: the disk is full or fails.
    """
    path = _runs(store) / label / _host()
    if store.disk.exists(path):
        return
    with naming(path, "written", StoreError):
        store.disk.make_directory(path.parent.parent)
        store.disk.make_directory(path.parent)
        create_whole(store.disk, path, os.fsencode(directory.resolve()))


def orphans(store: Store) -> list[bytes]:
    """Roots of parts of checkpoints whose run has a directory that does not name them; who calls is alone.

    Parts of a run whose directory is not there stay, as its disk may be away for a while; and those of a run
    that used this store from several hosts, as each may have a directory of its own.

    Raises:
        StoreError: the disk does not give what it has.
    """
    found = []
    for root, manifest in store.manifests().items():
        match = _NAME.fullmatch(manifest.name) if isinstance(manifest, Manifest) else None
        if match is None or not isinstance(manifest, Manifest) or manifest.head.kind != KIND:
            continue
        run = _directory(store, match[1])
        if run is not None and run.is_dir():
            said = run / "checkpoints" / f"step-{match[2]}" / f"rank-{match[3]}.json"
            if _named(said) != root.hex():
                found.append(root)
    return found


def _named(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["stored"])
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError):
        return ""


def _directory(store: Store, label: str) -> Path | None:
    """The directory of a run that this host alone had with this store."""
    path = _runs(store) / label / _host()
    if not store.disk.exists(path) or len(store.disk.names(path.parent)) > 1:
        return None
    with naming(path, "read", StoreError):
        return Path(os.fsdecode(store.disk.read_whole(path, _MOST_PATH_BYTES)))


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "host"


def _runs(store: Store) -> Path:
    return store.directory / "runs"
