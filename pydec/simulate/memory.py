"""How much memory a simulation takes, found before it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydec.errors import SetupError

_SHARE = 0.9  # of what is free that a simulation may take
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Budget:
    """What a simulation takes.

    Args:
        peers: how many.
        each: bytes of one peer, by what for.
        fixed: bytes that do not grow with the peers.
    """

    peers: int
    each: Mapping[str, int]
    fixed: int = 0

    @property
    def n_bytes(self) -> int:
        """All of it."""
        return self.fixed + self.peers * sum(self.each.values())

    def check(self, limit: int = 0, instead: str = "") -> None:
        """Refuse what does not fit.

        Args:
            limit: bytes that may be taken; 0 takes nine tenths of what is free.
            instead: what else to do, besides fewer peers.

        Raises:
            SetupError: it is more; the message has the numbers.
        """
        free = limit or round(_SHARE * free_bytes())
        if self.n_bytes <= free:
            return
        most = max(0, free - self.fixed) // max(1, sum(self.each.values()))
        parts = ", ".join(f"{name} {_words(n_bytes)}" for name, n_bytes in self.each.items() if n_bytes)
        raise SetupError(
            f"{self.peers:,} peers take {_words(self.n_bytes)} of memory ({parts} each), and {_words(free)} "
            f"may be used here: use --peers {most} or fewer{instead}"
        )

    def words(self) -> str:
        """For the terminal."""
        return f"{_words(self.n_bytes)}, {_words(sum(self.each.values()))} a peer"


def free_bytes() -> int:
    """Memory that is free on this machine, or in this container if that is less."""
    lines = _lines(Path("/proc/meminfo"))
    found = [1 << 62, *(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))]
    limit, used = (_lines(_CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit and used and limit[0].isdigit():
        found.append(max(0, int(limit[0]) - int(used[0])))
    return min(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(n_bytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes:.0f} B"
