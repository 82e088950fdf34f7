"""What all living ranks do together, although any of them may die before, during or after it.

The helpers of ``collect`` and what is built on them need every rank of a ring or tree. Here they run over
a ``Group`` of those who live, and again without the dead if somebody dies on the way. Point-to-point
messages only: no MPI collective, no new communicator.

**One attempt.** The members run the work under a tag that no other attempt has, so that nothing of a
failed one is ever taken for part of the next. Whoever learns that a member is dead leaves the attempt
at its next wait. It relies on one property of the transport: every survivor is told of every death in the
end, and nobody is told of one that did not happen (``Transport.lost``); ``comm.watch`` has the argument why
that holds of ranks that only hang.

**The vote.** Everyone then proposes (has the work succeeded here, which members are dead) and the proposals
are flooded. What a member knows is its state: the proposals so far, and its view, which is the members that
neither it nor anybody it heard has missed. In every round it sends its state to all of its view and waits for
theirs, or for their death, and merges what it hears. It decides when all of its view have sent the very state
that it has sent itself, or when it hears a decision; its decision is the last message that it sends, and it
waits for that of all others who live, so that nothing is left behind. The attempt has succeeded if it has for
all whose proposals were flooded; the dead that they name leave the group.

*It ends*: without a death in between, one round brings all states together and the next is unanimous. So
there are at most two rounds more than two per death. A failed attempt was left by somebody who named a dead
member, so every attempt but the last shrinks the group.

*All survivors decide the same*: let p decide in round r, in the state (E, V). All of V sent (E, V) in that
round, and each of them listens to V only, so whatever they miss and hear from then on, they know E and
nothing but E. Who is not in V was missed by somebody, so it is dead. Hence every survivor knows E at the end
of round r, and decides nothing else, then or later. A decision that only the dead knew binds nobody.

So all survivors return the same participants with the same result, but for a further death, which the next
call finds. It does not matter that a message of the dead may reach one survivor and not another. Flooding is
that of Lynch, "Distributed Algorithms", 1996, section 6.2 (FloodSet); unanimity takes the place of its
count of rounds, because rounds here are not synchronous.

Cost where nobody dies: two small messages between every two members, and a copy of what is averaged. On
transports that do not outlive a death (``Transport.tolerant``) none of this happens: the work runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from pydec.comm.collect import broadcast, ring_mean
from pydec.comm.group import Group
from pydec.comm.transport import Stream, Transport
from pydec.errors import PeerLost, ProtocolError

T = TypeVar("T")
N = TypeVar("N", bound=np.generic)
Mean = Callable[[Transport, NDArray[np.generic]], None]
"""``comm.collect.ring_mean`` or ``comm.collect.exact_mean``."""

_TAGS = 7 << 20  # above all other tags of the COLLECT stream; two for every attempt
_ATTEMPTS = 1 << 18
_FINE, _DECIDED = 1, 2

_of: WeakKeyDictionary[Transport, Living] = WeakKeyDictionary()


def living(transport: Transport) -> Living:
    """The group of the living of a cluster, the same object for all streams of one rank."""
    link = transport.stream(Stream.COLLECT)
    if link not in _of:
        _of[link] = Living(link)
    return _of[link]


class Living:
    """The ranks that took part in the last common act of all who live, and the way to the next.

    All living ranks call ``run`` in the same order; see the module's text.

    Args:
        link: the COLLECT stream.

    Attributes:
        members: their ranks, in increasing order; the same on all of them.
        attempts: so far, the same on all of them.
    """

    def __init__(self, link: Transport) -> None:
        self._link = link
        self.members = tuple(range(link.size))
        self.attempts = 0

    @property
    def first(self) -> int:
        """The lowest member, which speaks for all."""
        return self.members[0]

    def leave_out(self, ranks: Collection[int]) -> None:
        """These ranks live, but take no part any more; all others call it between the same two acts."""
        self.members = tuple(member for member in self.members if member not in ranks)

    def run(self, work: Callable[[Group], T]) -> T:
        """Do something together with all living ranks; each gets the result of the attempt that succeeded.

        Args:
            work: called with the group, whose ``members`` take part; may be called several times and must
                change nothing outside before it returns.

        Raises:
            PeerTimeout: a living rank did not take part within the deadline.
            Exception: whatever else ``work`` raises; the others then wait for this rank in vain.
        """
        link = self._link
        if not link.tolerant or link.size == 1:
            return work(Group(link, self.members))
        while True:
            tag = _TAGS + 2 * (self.attempts % _ATTEMPTS)
            group = Group(link, self.members, tag=tag)
            results: list[T] = []
            dead: set[int] = set()
            try:
                group.check()
                results.append(work(group))
            except PeerLost as error:
                dead.add(error.peer)
            dead |= link.lost() & {*self.members}
            fine, gone = self._vote(tag + 1, bool(results), dead)
            self.attempts += 1
            self.members = tuple(member for member in self.members if member not in gone)
            if fine:
                return results[0]

    def _vote(self, tag: int, fine: bool, dead: set[int]) -> tuple[bool, set[int]]:
        """What all survivors decide: whether the attempt has succeeded, and who is dead."""
        me = self._link.rank
        state = _State(fine, frozenset(dead), frozenset(self.members))
        ended: set[int] = set()  # whose last message has been heard
        while not state.decided:
            self._send(tag, state)
            heard = {peer: self._receive(tag, peer) for peer in sorted(state.view - {me})}
            states = [theirs for theirs in heard.values() if theirs is not None]
            ended |= {peer for peer, theirs in heard.items() if theirs is not None and theirs.decided}
            state = state.merged(states, frozenset(peer for peer, theirs in heard.items() if theirs is None))
        self._send(tag, state)
        for peer in sorted(state.view - ended - {me}):
            while (theirs := self._receive(tag, peer)) is not None and not theirs.decided:
                pass  # slower by a round or two
        return state.fine, set(state.dead)

    def _send(self, tag: int, state: _State) -> None:
        note = state.pack(self._link.size)
        for peer in sorted(state.view - {self._link.rank}):
            self._link.isend(peer, tag, memoryview(note))  # so small that it leaves, or its peer is dead

    def _receive(self, tag: int, peer: int) -> _State | None:
        """One message of the vote, or None from the dead."""
        into = bytearray(1 + 2 * -(-self._link.size // 8))
        try:
            length = self._link.irecv(peer, tag, memoryview(into)).wait()
        except PeerLost:
            return None
        if length != len(into) or into[0] > _FINE | _DECIDED:
            raise ProtocolError(peer, f"sent a vote of {length} bytes that starts with {into[0]}")
        return _State.unpack(bytes(into))


@dataclass(frozen=True)
class _State:
    """What a member knows in a vote."""

    fine: bool
    dead: frozenset[int]
    view: frozenset[int]
    decided: bool = False

    def merged(self, others: Sequence[_State], missed: frozenset[int]) -> _State:
        """What it knows after a round."""
        decision = next((other for other in others if other.decided), None)
        if decision is not None:
            return replace(self, view=self.view - missed, decided=True)  # of what it knows as well
        if not missed and all(other == self for other in others):
            return replace(self, decided=True)
        return _State(
            self.fine and all(other.fine for other in others),
            self.dead.union(*(other.dead for other in others)),
            self.view.intersection(*(other.view for other in others)) - missed,
        )

    def pack(self, size: int) -> bytes:
        """Flags, and both sets as bits."""
        width = -(-size // 8)
        sets = (
            sum(1 << rank for rank in ranks).to_bytes(width, "little") for ranks in (self.dead, self.view)
        )
        return bytes([_FINE * self.fine | _DECIDED * self.decided]) + b"".join(sets)

    @classmethod
    def unpack(cls, note: bytes) -> _State:
        """See ``pack``."""
        width = (len(note) - 1) // 2
        dead, view = (_members(note[start : start + width]) for start in (1, 1 + width))
        return cls(bool(note[0] & _FINE), dead, view, bool(note[0] & _DECIDED))


def _members(data: bytes) -> frozenset[int]:
    bits = int.from_bytes(data, "little")
    return frozenset(rank for rank in range(8 * len(data)) if bits >> rank & 1)


def agree_who_lives(transport: Transport) -> tuple[int, ...]:
    """The living ranks, the same on all of them, who call it together; see ``Living``."""
    group = living(transport)
    group.run(lambda among: None)
    return group.members


def mean_of_living(transport: Transport, x: NDArray[np.generic], mean: Mean = ring_mean) -> None:
    """Replace ``x`` by its mean over all living ranks, the same on all; all of them call it together.

    Args:
        transport: any stream of the cluster.
        x: as ``mean`` takes it; overwritten.
        mean: how.

    Memory: a copy of ``x`` where ranks may die, so that a failed attempt leaves no trace.
    """
    _on_copy(transport, x, mean)


def broadcast_to_living(transport: Transport, data: NDArray[np.uint8]) -> None:
    """Give all living ranks the bytes of the first of them; all of them call it together.

    Args:
        transport: any stream of the cluster.
        data: uint8 array of shape (n,), the same n everywhere; overwritten on all others.
    """
    _on_copy(transport, data, broadcast)


def _on_copy(transport: Transport, data: NDArray[N], act: Callable[[Transport, NDArray[N]], None]) -> None:
    """Let all living ranks change their ``data`` together; a failed attempt has only changed a copy."""
    if not transport.tolerant:
        among = living(transport)
        act(transport if len(among.members) == transport.size else among.run(lambda group: group), data)
        return

    def work(group: Group) -> NDArray[N]:
        copy = data.copy()
        act(group, copy)
        return copy

    np.copyto(data, living(transport).run(work))
