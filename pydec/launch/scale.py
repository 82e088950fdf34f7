"""Requests to a running job for more or fewer ranks: what is granted, and the door at which they come in.

Where they can, newcomers join while the job runs (see ``train.growth``). Else the job's ranks write a
checkpoint at one step and leave, as at a signal; others go on from it. The door is a
Unix socket of the supervisor, in a directory that only its user can enter (see ``door``). A request and each
answer are one line of JSON.
"""

from __future__ import annotations

import json
import random
import re
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydec.comm.orders import growth
from pydec.comm.words import ALONE, JOINED, NOT_HERE
from pydec.errors import ConfigError
from pydec.launch.change import Change, newcomers
from pydec.launch.door import Door
from pydec.launch.hosts import known, parse
from pydec.launch.permit import Permit
from pydec.launch.relaunch import MOST_S, Place, delay_s
from pydec.launch.relaunch import place as next_place
from pydec.launch.supervise import Signals, write

_COUNT = re.compile(r"([+=-])(\d{1,9})")
_MOST = 65_536  # bytes of a request
_NEW_HOST = "mpirun 5.0 with fault tolerance ends a job that hosts are added to"
LONG_S = 600.0  # a job that ran for so long begins a new row of replacements
_PROOF_S = 5.0  # for the proof of who asks, which may have a key file to open
_JOIN_S = 300.0  # for newcomers to start, load what they need and be set up
_READ_S = 1.0  # for a request to arrive whole; the job's output waits meanwhile


@dataclass(frozen=True)
class Request:
    """What ``pydec scale`` asks for.

    Args:
        count: "+2", "-2" or "=6".
        hosts: "HOST:SLOTS,..." to add to those of the job; "" adds none.
        oversubscribe: whether hosts may get more ranks than they have slots.

    Raises:
        ConfigError: of another form.
    """

    count: str
    hosts: str = ""
    oversubscribe: bool = False

    def __post_init__(self) -> None:
        if not _COUNT.fullmatch(self.count):
            raise ConfigError(f"scale: expected +N, -N or =N ranks, such as +2, got {self.count!r}")
        parse(self.hosts, "--host")

    def ranks(self, now: int) -> int:
        """How many ranks there are to be.

        Args:
            now: how many there are.
        """
        sign, number = self.count[0], int(self.count[1:])
        return number if sign == "=" else now + number if sign == "+" else now - number


def grant(place: Place, request: Request, is_known: Callable[[str], bool] = known) -> Place:
    """Where a job runs once a request is met.

    Args:
        place: where it runs now.
        request: what is asked for.
        is_known: whether a host can be reached at all.

    Raises:
        ConfigError: the request cannot be met; says why.
    """
    plan, now = place.plan, place.ranks
    ranks, more = request.ranks(now), parse(request.hosts, "--host")
    if ranks < 1:
        raise ConfigError(f"a job needs at least 1 rank, and {request.count} leaves {ranks} of {now}")
    if ranks == now:
        raise ConfigError(f"the job has {now} ranks already")
    if ranks < plan.min_ranks:
        raise ConfigError(f"{ranks} ranks are fewer than --min-ranks {plan.min_ranks} of pydec run")
    if more and ranks < now:
        raise ConfigError(f"--host names where new ranks run, and {request.count} starts none; leave it out")
    for host in more:
        if not is_known(host):
            raise ConfigError(f"--host {host}: the job's machine knows no such host; correct the name")
    slots = dict(place.hosts) if place.hosts or not more else {"localhost": now}
    for host, count in more.items():
        slots[host] = slots.get(host, 0) + count
    for host, count in plan.spares.items():
        if slots and sum(slots.values()) < ranks:
            slots.setdefault(host, count)
    if slots and ranks > max(now, sum(slots.values())) and not request.oversubscribe:
        raise ConfigError(
            f"{ranks} ranks need as many slots, and {', '.join(slots)} have {sum(slots.values())}; name more "
            "with --host HOST:SLOTS, or add --oversubscribe"
        )
    kept = {host: count for host, count in slots.items() if host in more or host not in plan.spares}
    hosts = {**plan.hosts, **kept}
    spares = {host: count for host, count in plan.spares.items() if host not in hosts}
    return Place(replace(plan, ranks=ranks, hosts=hosts, spares=spares), ranks, slots)


def obstacle(run_dir: str, ranks: int, done: int) -> str:
    """Why a job cannot go on with another number of ranks; "" if it can.

    Args:
        run_dir: of its run; "" if it is not of ``pydec train``.
        ranks: how many there are to be.
        done: steps up to its newest checkpoint.
    """
    if not run_dir:
        return "the command is not pydec train, so there is no checkpoint that other ranks could go on from"
    try:
        options: dict[str, Any] = json.loads((Path(run_dir) / "config.json").read_bytes())["options"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"the configuration in {run_dir} cannot be read ({error})"
    if not options.get("keep_last"):
        return "the run makes no checkpoints (--keep-last 0, or an asynchronous algorithm)"
    if ranks < options.get("min_ranks", 1):
        return f"{ranks} ranks are fewer than --min-ranks {options['min_ranks']} of pydec train"
    if options.get("steps") and done >= options["steps"]:
        return "the run has taken its last step"
    return ""


@dataclass
class Desk:
    """Takes requests while the job runs, and sees one at a time through.

    Args:
        door: open.
        run_dir: of the job at this moment, "" if it has none.
        answering: which of these hosts answer.
        progress: steps up to the newest checkpoint, plus one; 0 without one.
        replaces: whether ranks that died while others go on are replaced, where there is a slot.
        permit: decides who may ask; None: whoever comes in at the door.
        onward: the command of newcomers that join the run while it goes on.
        hindrance: why nobody can join it, whatever is asked for, or "".

    Attributes:
        change: what is under way.
        scaled: what was done: step, from, to, time_s (seconds from the request to the first new step),
            restarted (whether all ranks started again), replaced (ranks).
    """

    door: Door
    run_dir: Callable[[], str]
    answering: Callable[[Sequence[str], Signals], Collection[str]]
    progress: Callable[[], int]
    replaces: bool = False
    permit: Permit | None = None
    onward: Callable[[], tuple[str, ...]] = tuple
    hindrance: str = "no command is known for newcomers"
    change: Change | None = None
    scaled: list[dict[str, Any]] = field(default_factory=list)
    _place: Place | None = None
    _stepped: bool = False
    _stepped_s: float = 0.0
    _dead: frozenset[int] = frozenset()
    _replacements: int = 0  # in a row
    _replace_at_s: float = 0.0
    _no_slot: bool = False  # and it has been said

    def fileno(self) -> int:
        """Readable when somebody asks."""
        return self.door.socket.fileno()

    @property
    def leaving(self) -> bool:
        """Whether the ranks are to leave now."""
        return self.change is not None and self.change.step < 0 and self.change.newcomers is None

    @property
    def growing(self) -> bool:
        """Whether newcomers are to join while the ranks go on."""
        return self.change is not None and self.change.step < 0 and self.change.newcomers is not None

    @property
    def place(self) -> Place | None:
        """Where the job runs."""
        return self._place

    def order(self) -> bytes:
        """What the ranks are to know of newcomers now; once, else empty."""
        change = self.change
        if change is None or change.newcomers is None or change.ordered:
            return b""
        change.ordered = True
        return growth(change.newcomers)

    def hear(self, what: str, step: int, reason: str) -> None:
        """What the ranks say of the newcomers, see ``comm.words.say_growth``.

        If none can join while the job runs, its ranks are to leave, and all start from a checkpoint.
        """
        change = self.change
        if change is None or change.newcomers is None or change.step >= 0:
            return
        if what == JOINED:
            change.step, self._place, self._stepped = step, change.after, False
            self._dead = frozenset()
            self._say(change, f"{change.words}, continuing from step {step}; newcomers have joined")
        elif what == ALONE:
            self._say(change, change.failed(reason, step))
            self._replace_at_s = time.monotonic() + MOST_S
            self.finish("the job goes on as before", failed=True)
        else:
            change.newcomers, change.why = None, reason
            self._say(change, f"nobody can join while the ranks train ({reason}); all start again")

    def overdue(self) -> None:
        """Newcomers that nobody has heard of for too long are not waited for."""
        change = self.change
        if self.growing and change is not None and time.monotonic() > change.asked_s + _JOIN_S:
            self.hear(NOT_HERE, 0, f"they did not join within {_JOIN_S:g} s")

    def starts(self, place: Place) -> None:
        """A start of the job follows."""
        self._place, self._stepped, self._no_slot = place, False, False
        self._dead = frozenset()
        self.door.tell(self.run_dir())

    def stepped(self) -> None:
        """A rank has taken its first step since the start; a change is then complete."""
        if self._stepped:
            return
        self._stepped, self._stepped_s = True, time.monotonic()
        count = self._replacements
        self._replace_at_s = self._stepped_s + (delay_s(count, random.Random(count)) if count else 0.0)
        self.door.tell(self.run_dir())  # it is another one if the run has begun anew
        if (change := self.change) is not None and change.step >= 0:
            time_s = time.monotonic() - change.asked_s
            ranks = {"from": change.before.ranks, "to": change.after.ranks}
            row: dict[str, Any] = {"step": change.step, **ranks, "time_s": round(time_s, 3)}
            row["restarted"] = change.newcomers is None
            self.scaled.append({**row, "replaced": list(change.replaced)} if change.replaced else row)
            self.finish(f"{change.words}: first step {time_s:.1f} s after the request", failed=False)

    def serve(self, signals: Signals) -> None:
        """Take one request: refuse it, or have the ranks leave.

        Args:
            signals: a signal ends the waiting for hosts.
        """
        client, _ = self.door.socket.accept()
        client.settimeout(_READ_S)
        try:
            reader = client.makefile("rb")
            line = reader.readline(_MOST)
            if not line:
                raise OSError  # it only looked whether somebody is here
            words = json.loads(line)
            request = Request(str(words["count"]), str(words["hosts"]), words["oversubscribe"] is True)
            if self.permit is not None:
                self.permit.check(line, lambda question: _asked(client, reader, question))
            change = self._granted(request, client, signals)
        except ConfigError as error:
            _answer(client, str(error), failed=True, last=True)
        except (ValueError, LookupError, TypeError):
            _answer(client, "this pydec run does not understand the request", failed=True, last=True)
        except OSError:
            client.close()
        else:
            self.change = change

    def replace_lost(self, dead: Collection[int], signals: Signals) -> None:
        """Have the ranks leave if some are dead and there is a slot for others in their place.

        A job whose ranks die again and again soon after its start pauses before each replacement, for longer
        and longer. Where there is no slot, it looks again now and then.

        Args:
            dead: ranks that the others go on without.
            signals: a signal ends the waiting for hosts.
        """
        now_s, where = time.monotonic(), self._place
        self._dead = frozenset(dead)
        if not self.replaces or not dead or where is None or self.change is not None or signals.received:
            return
        if not self._stepped or now_s < self._replace_at_s:
            return
        hosts = [*where.plan.hosts, *where.plan.spares]
        ranks, slots = next_place(where.plan, self.answering(hosts, signals) if hosts else ())
        now = self._living(where)
        free = ranks > now.ranks
        reason = obstacle(self.run_dir(), ranks, self.progress() - 1) if free else "no slot is free"
        if reason:
            self._replace_at_s = now_s + MOST_S
            if not self._no_slot:
                self._no_slot = True
                who = ", ".join(map(str, sorted(dead)))
                write(f"pydec: rank {who} is not replaced now: {reason}\n".encode())
            return
        self._replacements = self._replacements + 1 if now_s - self._stepped_s < LONG_S else 1
        self.change = self._planned(where, Place(where.plan, ranks, slots), None, tuple(sorted(dead)))

    def left(self) -> Place | None:
        """The ranks have left: where others go on, or None if they left no checkpoint."""
        change, done = self.change, self.progress()
        if change is None or not done:
            return None
        change.step = done - 1
        self._say(change, f"{change.words}, continuing from step {change.step}")
        return change.after

    def back(self, reason: str) -> Place | None:
        """The start that a change asked for failed: where the ranks of before go on, None if not so."""
        change = self.change
        if change is None or change.step < 0 or change.newcomers is not None:
            return None
        words = change.failed(reason.removeprefix("pydec: error: "), change.step)
        write(f"pydec: {words}\n".encode())
        self.finish(words, failed=True)
        return change.before

    def finish(self, words: str, *, failed: bool) -> None:
        """Give the last answer to whoever waits."""
        if self.change is not None:
            _answer(self.change.client, words, failed=failed, last=True)
            self.change = None

    @staticmethod
    def _say(change: Change, words: str) -> None:
        write(f"pydec: {words}\n".encode())
        _answer(change.client, words, failed=False, last=False)

    def _granted(self, request: Request, client: socket.socket, signals: Signals) -> Change:
        if self.change is not None:
            raise ConfigError(
                f"another request is under way ({self.change.words}); ask again when it is done"
            )
        if self._place is None or signals.received:
            raise ConfigError("the job is about to end")
        now = self._living(self._place)
        after = grant(now, request)
        if self.run_dir() and not self._stepped:
            raise ConfigError("the job has taken no step since its start; ask again when it has")
        if reason := obstacle(self.run_dir(), after.ranks, self.progress() - 1):
            raise ConfigError(reason)
        added = [host for host in after.hosts if host not in self._place.hosts and host != "localhost"]
        if silent := set(added) - set(self.answering(added, signals) if added else ()):
            raise ConfigError(f"no answer from host {min(silent)}; start it, or name another with --host")
        return self._planned(self._place, after, client, hosts=request.hosts)

    def _planned(
        self,
        where: Place,
        after: Place,
        client: socket.socket | None,
        replaced: tuple[int, ...] = (),
        hosts: str = "",
    ) -> Change:
        """A change, and how it comes about, which it says."""
        who = self.hindrance or (_NEW_HOST if hosts else newcomers(where, self._dead, after, self.onward()))
        change = Change(self._living(where), after, client, time.monotonic(), replaced)
        if isinstance(who, str):
            change.why = who
            self._say(change, f"{change.words}: all start again from a checkpoint ({who})")
        else:
            change.newcomers = who
            self._say(change, f"{change.words}: newcomers start beside the ranks, which train on")
        return change

    def _living(self, where: Place) -> Place:
        return Place(where.plan, where.ranks - len(self._dead), where.hosts)


def _asked(client: socket.socket, reader: BinaryIO, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask back; what the client says."""
    client.settimeout(_PROOF_S)
    client.sendall(json.dumps(question).encode() + b"\n")
    said = json.loads(reader.readline(_MOST))
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    return said


def _answer(client: socket.socket | None, words: str, *, failed: bool, last: bool) -> None:
    """Tell who asked, if anybody did and still listens."""
    if client is None:
        return
    with suppress(OSError):
        client.sendall(json.dumps({"words": words, "failed": failed, "last": last}).encode() + b"\n")
    if last:
        client.close()
