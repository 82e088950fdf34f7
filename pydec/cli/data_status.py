"""How much of a data set is here, and with all peers of the job that read it last or reads it now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydec.store.manifest import Manifest
    from pydec.store.store import Store


def status(store: Store, manifest: Manifest, size: Callable[[float], str]) -> tuple[dict[str, Any], str]:
    """What there is to say of a data set, as numbers and in words.

    Args:
        store: this one.
        manifest: of the data set.
        size: a number of bytes in words.
    """
    from pydec.store.standing import read
    from pydec.store.upkeep import presence

    here, whole, unknown, missing = presence(store, manifest)
    found: dict[str, Any] = {
        "objects_here": here,
        "objects": whole,
        "shards_unknown": unknown,
        "bytes_missing": missing,
        "peers": read(store, manifest),
    }
    words = f"{here} of {whole} objects here" if not unknown else f"{unknown} shards without an index"
    words += f", {size(missing)} missing" if missing else ""
    lines = [f"{manifest.name:<24}{words}; {manifest.head.policy} wanted"]
    if found["peers"] is not None:
        lines.append(" " * 24 + _of_peers(found["peers"], bool(manifest.head.policy.parity), size))
    return found, "\n".join(lines)


def _of_peers(peers: dict[str, Any], coded: bool, size: Callable[[float], str]) -> str:
    """One line about all peers."""
    count = peers["peers"] - len(peers["gone"])
    what = "fragments" if coded else "replicas"
    have = 100 * peers["replicas_mean"] if coded else peers["replicas_mean"]
    words = f"{have:.3g} % of the {what}" if coded else f"{have:.4g} of {peers['replicas_wanted']} {what}"
    if not coded and peers["replicas_mean"] < peers["replicas_wanted"]:
        words += f", at least {peers['replicas_least']}"
    words += f" on {count} peers"
    words += f", {len(peers['gone'])} gone" if peers["gone"] else ""
    words += f", {len(peers['unknown'])} that said nothing" if peers["unknown"] else ""
    if peers["under_replicated_bytes"]:
        words += f"; {size(peers['under_replicated_bytes'])} under-replicated, "
        words += f"{peers['repair_s']:.3g} s to repair at {size(peers['bytes_per_s'])}/s for each peer"
    if peers["lost_objects"]:
        words += f"; {peers['lost_objects']} objects that nobody gives, or a disk does not take"
    if not peers["complete"]:
        words += "; not all of it is looked at yet"
    when = "the job runs" if peers["running"] else "as the last job left it"
    return f"{words} ({when}, {_ago(peers['age_s'])})"


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
