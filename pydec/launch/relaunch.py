"""Starts a job again after a host or all its ranks were lost: where, with how many ranks, and until when.

What to do is decided by pure functions; ``Relauncher`` runs them with the clock, the network and mpirun
passed in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydec.errors import ConfigError
from pydec.launch.hosts import Slots
from pydec.launch.supervise import Outcome, Signals, conclude, write

if TYPE_CHECKING:
    from pydec.launch.scale import Desk

FIRST_S = 1.0  # before the second start in a row that did not help
MOST_S = 60.0  # between starts; a host that reboots takes longer, and the next try finds it
_SEALING = ("--secure", "--key", "--peers", "--passphrase-from", "--ledger")
_SEALING_FLAGS = ("--pad",)


@dataclass(frozen=True)
class Plan:
    """What a job asks for.

    Args:
        ranks: at the first start; later as many as there are slots, at most.
        hosts: slots by host; empty for this machine alone.
        spares: the same of hosts that are used when others are gone.
        min_ranks: fewer are not started.
        max_restarts: starts in a row without progress before it gives up; 0 never starts again.
        seed: of the jitter between starts.

    Raises:
        ConfigError: numbers that cannot be met.
    """

    ranks: int
    hosts: Slots = field(default_factory=dict)
    spares: Slots = field(default_factory=dict)
    min_ranks: int = 1
    max_restarts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_ranks <= self.ranks:
            raise ConfigError(f"--min-ranks must be from 1 to -n {self.ranks}, got {self.min_ranks}")
        if self.max_restarts < 0:
            raise ConfigError(f"--max-restarts must be at least 0, got {self.max_restarts}")
        if self.spares and not self.hosts:
            raise ConfigError("--spare names hosts to use in place of others; name these with --hosts")
        if twice := sorted(self.spares.keys() & self.hosts.keys()):
            raise ConfigError(f"--spare {twice[0]} is among the hosts of the job already; leave it out")


@dataclass(frozen=True)
class Place:
    """What a job asks for, and where it runs: ``ranks`` ranks on ``hosts``."""

    plan: Plan
    ranks: int
    hosts: Slots


def place(plan: Plan, answering: Collection[str]) -> tuple[int, Slots]:
    """Ranks and hosts of the next start.

    Args:
        plan: what is asked for.
        answering: hosts and spare hosts that answer.

    Returns:
        At most as many ranks as there are slots, on the hosts that answer and on the first spare ones that
        are needed, each in the place of a host that does not: the ranks of the others keep their numbers,
        under which their disks hold a ledger. 0 ranks if there are fewer slots than the least.
    """
    if not plan.hosts:
        return plan.ranks, {}
    slots = sum(count for host, count in plan.hosts.items() if host in answering)
    used: list[str] = []
    for host, count in plan.spares.items():
        if slots < plan.ranks and host in answering:
            used.append(host)
            slots += count
    hosts: Slots = {}
    for host, count in plan.hosts.items():
        if host in answering:
            hosts[host] = count
        elif used:
            spare = used.pop(0)
            hosts[spare] = plan.spares[spare]
    hosts |= {host: plan.spares[host] for host in used}
    ranks = min(plan.ranks, sum(hosts.values()))
    return (ranks if ranks >= plan.min_ranks else 0), hosts


def delay_s(restart: int, rng: random.Random) -> float:
    """Seconds before the ``restart``-th start in a row (from 1): 0, 1, 2, 4, ..., 60, each 25 % more or less.

    Jitter keeps many jobs that lost the same switch from coming back at one moment, again and again.
    """
    if restart <= 1:
        return 0.0
    return float(min(FIRST_S * 2.0 ** min(restart - 2, 30), MOST_S) * rng.uniform(0.75, 1.25))


def resumed(command: Sequence[str], run_dir: str) -> tuple[str, ...]:
    """The command that goes on with a run of ``pydec train`` from its newest checkpoint.

    All that was asked for is in the run directory; what is shown is not, and how messages are sealed a rank
    must know before it meets those who have that directory.

    Args:
        command: ``[python, -m, pydec,] train ...`` as it was first started.
        run_dir: of the run.
    """
    at = list(command).index("train") + 1
    return (*command[:at], "--resume", run_dir, *_words_of(sealing(command)), *_quiet(command[at:]))


def sealing(command: Sequence[str]) -> dict[str, str]:
    """What a command says about how messages are sealed, by option; "" for those that take no value."""
    found = {name: option(command, name) for name in _SEALING}
    return {name: value for name, value in found.items() if value} | {
        name: "" for name in _SEALING_FLAGS if name in command
    }


def with_sealing(command: Sequence[str], options: Mapping[str, object]) -> tuple[str, ...]:
    """A command that resumes a run, with what the run's ``config.json`` says about sealing and it does not.

    Args:
        command: with ``--resume``.
        options: of the run, by the names of ``TrainConfig``.
    """
    given = sealing(command)
    saved = {name: options.get(name[2:].replace("-", "_")) for name in (*_SEALING, *_SEALING_FLAGS)}
    more = {name: "" if value is True else str(value) for name, value in saved.items() if value}
    return (*command, *_words_of({name: value for name, value in more.items() if name not in given}))


def _words_of(options: Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (name, value) if word]


def _quiet(words: Sequence[str]) -> list[str]:
    return ["--quiet"] if "--quiet" in words else []


def option(command: Sequence[str], name: str) -> str:
    """The value of an option among words, ``--name value`` or ``--name=value``; "" without it."""
    value = ""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == name:
            value = following
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
    return value


class Relauncher:
    """Runs a job until it ends for good.

    Args:
        plan: what is asked for.
        start: runs the job once: number of the start from 0, ranks, hosts.
        answering: which of these hosts answer now.
        progress: a number that grows when there is a newer checkpoint.
        desk: where requests for another number of ranks come in; None takes none.
    """

    def __init__(
        self,
        plan: Plan,
        start: Callable[[int, int, Slots, Signals], Outcome],
        answering: Callable[[Sequence[str], Signals], Collection[str]],
        progress: Callable[[], int] = lambda: 0,
        desk: Desk | None = None,
    ) -> None:
        self._desk = desk
        self._plan = plan
        self._start = start
        self._answering = answering
        self._progress = progress
        self._rng = random.Random(plan.seed)

    def run(self) -> int:
        """Run to the end and return the exit status, with the reason as the last line on standard error.

        SIGINT and SIGTERM end it at any moment, between starts too.
        """
        with Signals() as signals:
            return conclude(self._run(signals))

    def _run(self, signals: Signals) -> Outcome:
        plan = self._plan
        ranks, hosts = plan.ranks, plan.hosts
        restarts, starts, reached = 0, 0, self._progress()
        while True:
            if self._desk is not None:
                self._desk.starts(Place(plan, ranks, hosts))
            outcome = self._start(starts, ranks, hosts, signals)
            starts += 1
            if self._desk is not None and (there := self._desk.place) is not None:  # others may have joined
                plan, ranks, hosts = there.plan, there.ranks, there.hosts
            if signals.received:
                return outcome if outcome.status > 128 else signals.stopped()
            if changed := self._scaled(outcome):
                plan, ranks, hosts = changed.plan, changed.ranks, changed.hosts
                reached = self._progress()
                continue
            if not outcome.fault or not plan.max_restarts:
                return outcome
            if (now := self._progress()) > reached:
                restarts, reached = 0, now
            restarts += 1
            reason = outcome.reason.removeprefix("pydec: error: ")
            if restarts > plan.max_restarts:
                return Outcome(
                    1,
                    f"pydec: error: gave up after {plan.max_restarts} restarts without a newer checkpoint: "
                    f"{reason}",
                )
            pause_s = delay_s(restarts, self._rng)
            when = f"in {pause_s:.1f} s" if pause_s else "at once"
            write(f"pydec: {reason}; starting again {when}\n".encode())
            signals.sleep(pause_s)
            if signals.received:
                return signals.stopped()
            asked = [*plan.hosts, *plan.spares]
            found = self._answering(asked, signals) if asked else ()
            if signals.received:
                return signals.stopped()
            ranks, hosts = place(plan, found)
            if not ranks:
                silent = ", ".join(host for host in asked if host not in found)
                return Outcome(
                    1,
                    f"pydec: error: {sum(hosts.values())} slots are left, fewer than --min-ranks "
                    f"{plan.min_ranks}: no answer from {silent or 'no host'} ({reason})",
                )
            write(f"pydec: start {starts + 1} with {_words(ranks, hosts)}\n".encode())

    def _scaled(self, outcome: Outcome) -> Place | None:
        """Where to start at once because another number of ranks was asked for, if that is why it ended."""
        if self._desk is None:
            return None
        if outcome.left:
            return self._desk.left()
        found = self._desk.back(outcome.reason) if outcome.status else None
        self._desk.finish(outcome.reason or "the job has ended", failed=True)
        return found


def _words(ranks: int, hosts: Mapping[str, int]) -> str:
    return f"{ranks} rank{'s' if ranks > 1 else ''}" + (f" on {', '.join(hosts)}" if hosts else "")
