"""What ``pydec doctor`` finds, and what it looks at on the host itself: disk, locks, clock, network."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["ok", "note", "missing"]
SLOW_SYNC_S = 0.02  # a ledger syncs three times for a block
_SYNCS = 9
_NETWORKS = Path("/sys/class/net")
_TIME_ERROR = 5  # of adjtimex: the clock is not synchronised
_NTP = "run chrony or another NTP client on every host: keys' certificates expire by its clock"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        name: what was looked at.
        state: "ok"; "note" for something that works less well or is optional; "missing" for
            something without which pydec does not train.
        value: what was found.
        fix: what to do about it, or None.
    """

    name: str
    state: State
    value: str
    fix: str | None = None


def host(folder: Path) -> Iterator[Finding]:
    """What the host gives runs whose directories are in ``folder``."""
    yield disk(folder)
    yield locks(folder)
    yield clock()
    yield network()
    yield ports()


def disk(folder: Path) -> Finding:
    """How long it takes until a small write is on the disk."""
    seconds = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(_SYNCS):
                file.write(b"\0" * 4096)
                file.flush()
                begin = time.perf_counter()
                os.fsync(file.fileno())
                seconds.append(time.perf_counter() - begin)
    except OSError as error:
        fix = "run in a directory that can be written, or name one with --run-dir and --ledger"
        return Finding("disk", "note", f"{folder} cannot be written: {error.strerror}", fix)
    sync_s = statistics.median(seconds)
    free = os.statvfs(folder)
    value = (
        f"{folder}: a sync takes {1e3 * sync_s:.2g} ms, {free.f_bavail * free.f_frsize / 1e9:.1f} GB are free"
    )
    if sync_s > SLOW_SYNC_S:
        fix = "put --ledger DIR on a local disk: every block waits for three syncs"
        return Finding("disk", "note", value, fix)
    return Finding("disk", "ok", value)


def locks(folder: Path) -> Finding:
    """Whether a file that one open file has locked is locked for another."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as first, open(first.name, "rb") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                return Finding("file locks", "ok", "held by one process, refused to another")
    except OSError as error:
        why = f"{folder}: {error.strerror}"
    else:
        why = f"{folder}: two processes get one lock"
    fix = "put ledgers and stores on another file system: their locks keep two processes from using one key"
    return Finding("file locks", "note", why, fix)


def clock(adjtimex: Callable[[object], int] | None = None) -> Finding:
    """Whether the kernel knows that its clock follows others."""
    name = "clock"
    if adjtimex is None:
        adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return Finding(name, "note", "this system does not say whether it is synchronised", _NTP)
    state = adjtimex(ctypes.create_string_buffer(512))  # struct timex, all zero: only asks
    if state == _TIME_ERROR:
        return Finding(name, "note", "not synchronised", _NTP)
    if state < 0:
        return Finding(name, "note", "this system does not say whether it is synchronised", _NTP)
    return Finding(name, "ok", "synchronised")


def network(folder: Path = _NETWORKS) -> Finding:
    """Interfaces that are up, with the speed that they report."""
    found = []
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        if each.name != "lo" and _line(each / "operstate") in ("up", "unknown"):
            speed = _line(each / "speed")
            known = speed.isdecimal() and int(speed) > 0
            words = f"{int(speed) / 1000:g} Gbit/s" if known else "of unknown speed"
            found.append(f"{each.name} {words}")
    if not found:
        fix = "one host needs none; for several, bring an interface up"
        return Finding("network", "note", "no interface is up beside the loopback", fix)
    return Finding("network", "ok", ", ".join(found))


def ports() -> Finding:
    """Whether a TCP connection to this host by its own name gets through."""
    try:
        with socket.create_server(("", 0)) as server:
            server.settimeout(2.0)
            where = socket.gethostname(), server.getsockname()[1]
            with socket.create_connection(where, timeout=2.0):
                server.accept()[0].close()
    except OSError as error:
        fix = "let TCP through between the hosts, ports above 1023, and have their names in DNS or /etc/hosts"
        return Finding("ports", "note", f"no connection to {socket.gethostname()}: {error}", fix)
    return Finding("ports", "ok", f"TCP to {where[0]} gets through")


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # such as the speed of what has none
        return ""
