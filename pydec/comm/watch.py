"""When a rank that does not answer counts as dead, and how it learns that it does.

Nothing tells a rank that hangs (SIGSTOP, a kernel that never ends) from one that is slow, so time decides;
how much of it follows from what is measured.

**Silence** of a peer is time that this rank has spent waiting for it since the peer last did anything: a
message of it was taken, it took one, it answered. Time counts from one look to the next, at most an eighth
of the grace in one: a rank that was stopped itself, or computes, or is starved of processor time, blames
nobody for that. A peer that itself waits for somebody answers questions (``_ASK``) from inside its wait and
is not silent, so that one rank that hangs does not make a row of its neighbours look dead.

**The grace**, the silence that a peer is allowed: ``_MULTIPLE`` times the longest silence of it that has
ended with a sign of life, which counts less and less (by 1/e in ``_MEMORY_S``); at least ``_LEAST_S``, at
most the deadline or three times what was measured. The deadline until ``_WARM`` steps are done, in which
anything may be compiled or loaded. A longest value, not a mean and a deviation as in RFC 6298 or the
phi-accrual detector (Hayashibara, Defago, Yared, Katayama, SRDS 2004), because pauses have heavy tails, for
which a deviation is no bound; the rule is that of Fetzer, Raynal, Tronel, "An Adaptive Failure Detection
Protocol", PRDC 2001, with a margin. Where rounds can do without a neighbour it is *late* for one after
``_LATE`` times that longest silence.

**Out.** Who finds a peer silent for longer tells all ranks, the peer as well, and holds it for dead
(``Transport.expel``); who is told does the same, and tells all in turn, once. What a rank says that is out
is ignored; who hears that it is out itself stops (``LeftOut``) at its next step or wait.

*Agreement* (the property that ``comm.living`` rests on): call a rank a survivor if nobody ever declares it
out and it does not die. If one survivor holds x for dead, all survivors do in the end: x has died, or the
one that holds it so has told everybody, and a message between survivors arrives. If a survivor holds x for
dead, x is no survivor: it was declared out, and stops when it hears of it. So a suspicion is a death that
comes true, and the argument for deaths holds word by word: it never uses that the dead are silent, only
that survivors listen to nobody they have missed. What x decides before it stops binds nobody. This makes a
perfect detector of an unreliable one, by force (Chandra, Toueg, JACM 1996, section 2).

*No two groups*: where the network is cut, each part holds the other for silent. A part goes on only if it
is more than half of the ranks that are not known to have ended, or half of them with the lowest; the other
raises ``CutOff``. Two parts cannot both be. With a ledger its quorum decides besides (``train.membership``).
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pydec.comm.team import rank_of
from pydec.comm.transport import Stream, Transport
from pydec.comm.words import say_out
from pydec.errors import ConfigError, CutOff, LeftOut, PeerLost, PeerTimeout, PydecError

_MULTIPLE = 10.0
_LATE = 4.0
_LEAST_S = 10.0
_LEAST_LATE_S = 1.0
_MEMORY_S = 600.0
_WARM = 16
_LOOKS = 8
_MARK = b"live"
_ASK, _ANSWER, _OUT, _BYE, _BUSY = range(5)
_NOTE = struct.Struct("<4sBIId")  # mark, kind, about whom, who said it first, seconds


@dataclass
class _Peer:
    """What is measured of one peer, in seconds."""

    quiet_s: float = 0.0
    looked_s: float = math.nan
    asked_s: float = math.nan  # silence when it was last asked
    first_asked_s: float = math.nan  # the same, when it was first
    longest_s: float = 0.0
    longest_at_s: float = 0.0
    busy_until_s: float = -math.inf


def grace_of(word: str | float) -> float:
    """Seconds that "auto" (0), or a number above 0, stands for.

    Raises:
        ConfigError: it is neither.
    """
    try:
        grace_s = 0.0 if word == "auto" else float(word)
    except ValueError:
        grace_s = -1.0
    if not 0.0 <= grace_s < math.inf or (word != "auto" and not grace_s):
        raise ConfigError(f"--grace must be 'auto' or seconds above 0, got {word!r}")
    return grace_s


class Watch:
    """One rank's judgement of all others; a ``Watcher``. Made where ranks may outlive others.

    One thread waits, is told and judges; signs of life may come from others.

    Args:
        transport: any stream of the cluster; notes are posted on CONTROL, and whoever polls that gives
            them to ``hear``.
        grace_s: silence that a peer is allowed once training is warm; 0 follows what is measured.

    Attributes:
        silent: by rank that is out, why.
    """

    def __init__(self, transport: Transport, grace_s: float = 0.0) -> None:
        self._link = transport.stream(Stream.CONTROL)
        self.given_s = grace_s
        self._peers = [_Peer() for _ in range(transport.size)]
        self._left: set[int] = set()  # ranks that are out and have said that they go
        self._gossip = transport.stream(Stream.GOSSIP)
        self._moved = self._bytes()
        self._steps = 0
        self._verdict: PydecError | None = None
        self._thread = threading.get_ident()
        self.silent: dict[int, str] = {}

    def step(self) -> None:
        """This rank may have come to a step: it counts if there was gossip since the last."""
        moved = self._bytes()
        if moved != self._moved:
            self._moved = moved
            self._steps += 1

    def _bytes(self) -> int:
        return self._gossip.bytes_sent + self._gossip.bytes_received

    def check(self) -> None:
        """Raise what this rank has come to know of itself.

        Raises:
            LeftOut: the others hold it for dead.
            CutOff: most of the others are silent.
        """
        if self._verdict is not None:
            raise self._verdict

    def longest_s(self, peer: int) -> float:
        """Longest silence of a peer that has ended, as much as it counts now."""
        of = self._peers[peer]
        return of.longest_s * math.exp((of.longest_at_s - self._link.now()) / _MEMORY_S)

    def grace_s(self, peer: int) -> float:
        """Silence that a peer is allowed now."""
        deadline_s, longest_s = self._link.deadline_s, self.longest_s(peer)
        if self._steps < _WARM:
            return max(self.given_s, deadline_s)
        return self.given_s or min(max(_LEAST_S, _MULTIPLE * longest_s), max(deadline_s, 3 * longest_s))

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """See ``Watcher.limit_s``: the deadline, or as long as a row of ranks takes that hang one by one."""
        grace_s = self.grace_s(peer)
        if late and self._steps >= _WARM:
            return min(grace_s, max(_LEAST_LATE_S, _LATE * self.longest_s(peer)))
        busy_s = max(0.0, self._peers[peer].busy_until_s - self._link.now())
        return max(self._link.deadline_s, busy_s + (2 + self._link.size // 2) * grace_s)

    def enters(self, peer: int) -> None:
        """See ``Watcher.enters``."""
        self._peers[peer].looked_s = self._link.now()

    def waits(self, peer: int) -> None:
        """See ``Watcher.waits``: one more look that has found nothing."""
        of, now_s = self._peers[peer], self._link.now()
        since_s, of.looked_s = now_s - of.looked_s, now_s
        if peer in self.silent or not since_s > 0.0 or threading.get_ident() != self._thread:
            return
        if now_s < of.busy_until_s:
            return
        grace_s = self.grace_s(peer)
        of.quiet_s += min(since_s, grace_s / _LOOKS)
        if of.quiet_s > grace_s:
            self._declare(peer, self._link.rank, of.quiet_s)
        elif of.quiet_s - (0.0 if math.isnan(of.asked_s) else of.asked_s) > grace_s / _LOOKS:
            of.asked_s = of.quiet_s
            if math.isnan(of.first_asked_s):
                of.first_asked_s = of.quiet_s
            self._say([peer], _ASK, peer)

    def heard(self, peer: int) -> None:
        """See ``Watcher.heard``."""
        self._ends(peer, self._peers[peer].quiet_s)

    def _ends(self, peer: int, silence_s: float) -> None:
        """A silence has ended; it is remembered once training has begun."""
        of = self._peers[peer]
        if of.quiet_s:
            if self._steps and silence_s > self.longest_s(peer):
                of.longest_s, of.longest_at_s = silence_s, self._link.now()
            of.quiet_s, of.asked_s, of.first_asked_s = 0.0, math.nan, math.nan

    @contextmanager
    def busy(self, most_s: float) -> Iterator[None]:
        """Within, this rank does something long in which it answers nobody, and is not silent for that.

        Args:
            most_s: seconds after which it is.
        """
        others = self._others()
        self._say(others, _BUSY, self._link.rank, most_s)
        try:
            yield
        finally:
            self._say(others, _BUSY, self._link.rank, 0.0)

    def bye(self) -> None:
        """This rank is out and goes: nobody needs to reckon with it."""
        self._say(self._others(), _BYE, self._link.rank)

    def hears(self, data: bytes) -> bool:
        """Whether a posted message is for ``hear``."""
        return len(data) == _NOTE.size and data[:4] == _MARK

    def hear(self, sender: int, data: bytes) -> None:
        """A note of another rank."""
        _, kind, about, first, seconds = _NOTE.unpack(data)
        if kind == _BYE:
            self._left.add(sender)
        if sender in self.silent:
            return
        if kind == _ASK:
            self._say([sender], _ANSWER, sender)
        elif kind == _ANSWER:
            of = self._peers[sender]
            # It was asked because it had been silent already: only what came after that was up to it.
            self._ends(sender, of.quiet_s - of.first_asked_s if of.first_asked_s > 0.0 else 0.0)
        elif kind == _BUSY:
            self._peers[sender].busy_until_s = self._link.now() + seconds
        elif kind == _OUT and about == self._link.rank:
            self._verdict = LeftOut(about, first, seconds)
        elif kind == _OUT and about < self._link.size:
            self._declare(about, first, seconds)

    def _declare(self, peer: int, first: int, silent_s: float) -> None:
        """A rank is out: tell all, once, and hold it for dead."""
        if peer in self.silent:
            return
        self.silent[peer] = f"silent: rank {first} waited for it for {silent_s:.3g} s"
        self._say([*self._others(), peer], _OUT, peer, silent_s, first)
        self._link.expel(peer)
        say_out(rank_of(self._link, peer))
        self._judge()

    def _judge(self) -> None:
        """Stop if those who are left may be the smaller part of two."""
        dead = (self._link.lost() - self.silent.keys()) | self._left
        base = [rank for rank in range(self._link.size) if rank not in dead]
        silent = tuple(rank for rank in base if rank in self.silent)
        left = len(base) - len(silent)
        if self._verdict is None and (
            2 * left < len(base) or (2 * left == len(base) and base[0] in self.silent)
        ):
            self._verdict = CutOff(silent, len(base))

    def _others(self) -> list[int]:
        gone = self._link.lost()
        return [rank for rank in range(self._link.size) if rank != self._link.rank and rank not in gone]

    def _say(
        self, peers: list[int], kind: int, about: int, seconds: float = 0.0, first: int | None = None
    ) -> None:
        note = _NOTE.pack(_MARK, kind, about, self._link.rank if first is None else first, seconds)
        for peer in dict.fromkeys(peers):
            with suppress(PeerTimeout, PeerLost):  # a peer that takes nothing cannot be told
                self._link.post(peer, note)
