"""Which hosts a job may use: from the command line, a hostfile, or a Slurm allocation."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydec.errors import ConfigError

Slots = dict[str, int]
"""Slots by host, in the order in which they are filled."""

_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")
_MOST = 65_536  # hosts in one expression: a range is not to fill the memory by a slip


def parse(text: str, option: str = "--hosts") -> Slots:
    """``host:slots,host:slots``; slots default to 1, and a host that comes twice has both.

    Raises:
        ConfigError: another form.
    """
    slots: Slots = {}
    for item in text.split(",") if text else []:
        host, colon, count = item.strip().rpartition(":")
        if not colon:
            host, count = count, "1"
        if not host or not count.isdigit() or int(count) < 1:
            raise ConfigError(f"{option} must read host:slots,host:slots, got {item!r} in {text!r}")
        slots[host] = slots.get(host, 0) + int(count)
    return slots


def render(slots: Mapping[str, int]) -> str:
    """What ``parse`` reads."""
    return ",".join(f"{host}:{count}" for host, count in slots.items())


def known(host: str) -> bool:
    """Whether this machine can find a host's address."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def read_hostfile(path: Path, is_known: Callable[[str], bool] = known) -> Slots:
    """Hosts of a file with ``host``, ``host slots=N`` or ``host:N`` on a line, and comments after ``#``.

    Args:
        path: of the file.
        is_known: whether a host can be reached at all.

    Raises:
        ConfigError: the file cannot be read, or a line of it; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--hostfile {path} cannot be read: {error}") from None
    slots: Slots = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        host, colon, count = words[0].rpartition(":")
        if not colon:
            host, count = count, "1"
        for word in words[1:]:
            name, _, value = word.partition("=")
            if name == "slots":
                count = value
            elif name != "max_slots" and name != "max-slots":
                count = ""
        if not host or not count.isdigit() or int(count) < 1:
            raise ConfigError(
                f"--hostfile {path}, line {number}: expected host, host slots=N or host:N with N at least 1, "
                f"got {line.strip()!r}"
            )
        if not is_known(host):
            raise ConfigError(
                f"--hostfile {path}, line {number}: this machine knows no host {host!r}; correct the name or "
                "add it to /etc/hosts"
            )
        slots[host] = slots.get(host, 0) + int(count)
    if not slots:
        raise ConfigError(f"--hostfile {path} names no host")
    return slots


def of_slurm(env: Mapping[str, str]) -> Slots:
    """Hosts and tasks of the Slurm allocation that this process is in; empty outside of one.

    Raises:
        ConfigError: Slurm's variables are not of the form that Slurm documents.
    """
    names = env.get("SLURM_JOB_NODELIST", "")
    if not names:
        return {}
    nodes = list(expand_nodes(names))
    tasks = env.get("SLURM_TASKS_PER_NODE", "") or f"1(x{len(nodes)})"
    counts: list[int] = []
    for item in tasks.split(","):
        match = _TASKS.fullmatch(item.strip())
        if match is None:
            raise ConfigError(f"SLURM_TASKS_PER_NODE should read like 2(x3),1, got {tasks!r}")
        counts += [int(match[1])] * min(int(match[2] or 1), _MOST)
    if len(counts) != len(nodes) or min(counts) < 1:
        raise ConfigError(
            f"SLURM_TASKS_PER_NODE={tasks} gives {len(counts)} counts for the {len(nodes)} nodes of "
            f"SLURM_JOB_NODELIST={names}; name the hosts with --hosts"
        )
    return dict(zip(nodes, counts, strict=True))


def expand_nodes(text: str) -> Iterator[str]:
    """The nodes of Slurm's compressed form, such as ``n[001-003,7],login`` or ``r[1-2]n[1-4]``.

    Source: Slurm's manual page of scontrol, "show hostnames": ranges keep their leading zeros.

    Raises:
        ConfigError: another form.
    """
    made = 0
    for item in _split(text):
        parts = [""]
        for piece in re.split(r"(\[[^\[\]]*\])", item):
            choices = list(_range(piece[1:-1], text)) if piece.startswith("[") else [piece]
            if len(parts) * len(choices) + made > _MOST:
                raise ConfigError(f"SLURM_JOB_NODELIST={text} names more than {_MOST} nodes")
            parts = [left + right for left in parts for right in choices]
        if not all(parts) or any(mark in parts[0] for mark in "[]"):
            raise ConfigError(f"SLURM_JOB_NODELIST should read like n[01-04,7],login, got {text!r}")
        made += len(parts)
        yield from parts


def _split(text: str) -> list[str]:
    """At commas outside of brackets."""
    return re.split(r",(?![^\[\]]*\])", text)


def _range(inside: str, text: str) -> Iterator[str]:
    for item in inside.split(","):
        first, dash, last = item.partition("-")
        last = last if dash else first
        if (
            not (first.isdigit() and last.isdigit())
            or int(last) < int(first)
            or int(last) - int(first) > _MOST
        ):
            raise ConfigError(f"SLURM_JOB_NODELIST should read like n[01-04,7],login, got {text!r}")
        for number in range(int(first), int(last) + 1):
            yield str(number).zfill(len(first))
