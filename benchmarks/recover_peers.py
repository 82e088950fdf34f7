"""What torchft and torchrun make of the same deaths: beside what ``recover_kills`` has found for pydec.

torchft goes on in the job, as pydec does: its survivors' next round without the dead, with its lighthouse's
defaults and tuned, and a replica that comes back. torchrun starts all workers again; see ``recover_hosts``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO

from .harness import Options, Row
from .libraries import library
from .recover_kills import RANKS, SIZES

KILLS = 6
_WARM_UP = 10
_LIMIT_S = 120.0
DEFAULTS = ("lighthouse's defaults, timeout 30 s", (), 100)
TUNED = (
    "tuned, timeout 30 s",
    ("--heartbeat_timeout_ms", "500", "--join_timeout_ms", "100", "--quorum_tick_ms", "10"),
    50,
)
"""Name, words of the lighthouse, and milliseconds between heartbeats."""

Moment = tuple[float, int]
"""When a round ended, and how many took part."""


@dataclass
class Found:
    """Seconds: from a kill to the survivors' next round, from a start to its first, and their pause then."""

    kill_s: list[float] = field(default_factory=list)
    join_s: list[float] = field(default_factory=list)
    pause_s: list[float] = field(default_factory=list)


def rows(options: Options, ours: Mapping[str, float]) -> Iterator[Row]:
    """The same kills for torchft.

    Args:
        options: of the user.
        ours: values of our rows, by name.
    """
    kills = 2 if options.quick else min(options.rounds or KILLS, KILLS)
    why = _missing()
    for size, elements in SIZES.items():
        name = f"kill to the next round of both neighbours, {size}"
        for label, words, heartbeat_ms in (DEFAULTS, TUNED):
            peer = f"torchft, {label}"
            params = {"model": size, "ranks": RANKS, "kills": kills}
            if not why:
                params["torchft"] = metadata.version("torchft")
            if not why:
                try:
                    found = killed(elements, words, heartbeat_ms, kills)
                except RuntimeError as error:
                    why = str(error)
            if why:
                yield Row(
                    "recover", f"{name}: median", params, ours[f"{name}: median"], "ms", f"{peer}: {why}"
                )
                continue
            for what, of in (("median", statistics.median), ("worst", max)):
                theirs = 1e3 * float(of(found.kill_s))
                mine = ours[f"{name}: {what}"]
                yield Row("recover", f"{name}: {what}", params, mine, "ms", peer, theirs, theirs / mine)
            joined = {key: value for key, value in ours.items() if key.endswith(f"first step, {size}")}
            for key, value in joined.items():
                theirs = statistics.median(found.join_s)
                more = {**params, "survivors_pause_s": statistics.median(found.pause_s)}
                peer = f"torchft, {label}: start of a replica to its first round"
                yield Row("recover", key, more, value, "s", peer, theirs, theirs / value)


def _missing() -> str:
    found = library("torchft")
    if isinstance(found, str):
        return found
    return "" if _lighthouse() else "torchft_lighthouse is not beside this Python"


def _lighthouse() -> str | None:
    beside = Path(sys.executable).with_name("torchft_lighthouse")
    return str(beside) if beside.exists() else shutil.which("torchft_lighthouse")


def killed(elements: int, words: tuple[str, ...], heartbeat_ms: int, kills: int) -> Found:
    """Kill one of the replicas, start it again, and so on.

    Args:
        elements: float32 of the vector.
        words: options of the lighthouse.
        heartbeat_ms: between heartbeats of a replica.
        kills: how often.

    Raises:
        RuntimeError: the replicas did not get going again in time.
    """
    drawn, found = random.Random(elements), Found()
    with tempfile.TemporaryDirectory() as name, _Job(Path(name), elements, words, heartbeat_ms) as job:
        for number in range(RANKS):
            job.start(number)
        job.until(lambda: all(job.rounds(number, RANKS) >= _WARM_UP for number in range(RANKS)))
        for _ in range(kills):
            time.sleep(drawn.uniform(0.0, 0.5))
            victim = drawn.randrange(RANKS)
            others = [number for number in range(RANKS) if number != victim]
            moment_s = job.kill(victim)
            ends = [job.next(number, moment_s, RANKS - 1) for number in others]
            found.kill_s.append(max(ends) - moment_s)
            time.sleep(1.0)
            began_s = time.monotonic()
            job.start(victim)
            joined_s = job.next(victim, began_s, RANKS)
            found.join_s.append(joined_s - began_s)
            job.until(lambda others=others, s=joined_s: all(job.last(n) > s for n in others))  # type: ignore[misc]
            found.pause_s.append(max(job.pause(number, began_s, joined_s) for number in others))
    return found


class _Job:
    """Replicas and their lighthouse; a context manager that leaves none of them."""

    def __init__(self, folder: Path, elements: int, words: tuple[str, ...], heartbeat_ms: int) -> None:
        self._folder, self._elements, self._heartbeat_ms = folder, elements, heartbeat_ms
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        self._words = [str(_lighthouse()), "--min_replicas", "1", "--bind", f"127.0.0.1:{port}", *words]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._said: IO[bytes] = (folder / "said").open("wb")

    def __enter__(self) -> _Job:
        self._start(-1, self._words)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._said.close()

    def _start(self, number: int, words: list[str]) -> None:
        self._processes[number] = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, env=environment()
        )

    def start(self, number: int) -> None:
        """Start a replica, for the first time or again."""
        program = Path(__file__).with_name("recover_torchft.py")
        options = [
            str(number),
            str(self._elements),
            str(self._folder),
            self._address,
            str(self._heartbeat_ms),
        ]
        self._start(number, [sys.executable, str(program), *options])

    def kill(self, number: int) -> float:
        """Kill a replica; the moment."""
        self._processes[number].send_signal(signal.SIGKILL)
        moment_s = time.monotonic()
        self._processes[number].wait()
        return moment_s

    def rounds(self, number: int, ranks: int) -> int:
        """Rounds of a replica that so many took part in."""
        return sum(count == ranks for _, count in moments(self._folder / f"moments-{number}"))

    def next(self, number: int, from_s: float, ranks: int) -> float:
        """When a replica's next round with so many ended, once it has."""
        found: list[float] = []

        def there() -> bool:
            found[:] = [
                s for s, n in moments(self._folder / f"moments-{number}") if s >= from_s and n == ranks
            ]
            return bool(found)

        self.until(there)
        return found[0]

    def last(self, number: int) -> float:
        """When a replica's last round ended."""
        return moments(self._folder / f"moments-{number}")[-1][0]

    def pause(self, number: int, from_s: float, to_s: float) -> float:
        """The longest time between the ends of two rounds that touches an interval."""
        ends = [s for s, _ in moments(self._folder / f"moments-{number}")]
        return max(b - a for a, b in itertools.pairwise(ends) if b >= from_s and a <= to_s)

    def until(self, what: Callable[[], bool]) -> None:
        """Wait."""
        until_s = time.monotonic() + _LIMIT_S
        while not what():
            if time.monotonic() > until_s:
                ended = [number for number, process in self._processes.items() if process.poll() is not None]
                who = f"; replicas {', '.join(map(str, ended))} have ended" if ended else ""
                raise RuntimeError(f"no next round within {_LIMIT_S:g} s{who}")
            time.sleep(0.02)


def environment() -> dict[str, str]:
    """One thread each, as our ranks have here."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def moments(path: Path) -> list[Moment]:
    """What a replica or worker has written so far; a last line that is not whole is left out."""
    found: list[Moment] = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text().split("\n")[:-1]:
            at, count = line.split()
            found.append((float(at), int(count)))
    return found
