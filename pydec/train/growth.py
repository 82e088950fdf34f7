"""More ranks for a job that trains: newcomers start beside it, and all go on from one step, in memory.

``pydec run`` orders it (``comm.orders``). Rank 0 starts the newcomers while training goes on; when they have
loaded what they need, all ranks come to one step, keep what a checkpoint would hold, and leave their job for
one that has the newcomers in it (``comm.enlarge``). There every rank sets up as if it went on from that
checkpoint with another number of ranks: from the mean of the models and of the optimisers' states, which the
old ranks have in memory. No training step is lost, and no file is read.

Until all old ranks are set up they can go back, with their own states, as if nobody had been asked.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pydec.comm import words
from pydec.comm.living import living
from pydec.comm.orders import Newcomers, Orders
from pydec.errors import PeerLost, PydecError, Regroup
from pydec.peer import Peer
from pydec.train.checkpoint import Saver, Snapshot
from pydec.train.config import TrainConfig
from pydec.train.loop import Loop
from pydec.train.snapshot import snapshot
from pydec.train.task import Task
from pydec.train.together import table, texts

if TYPE_CHECKING:
    from pydec.train.ledger import RunLedger
    from pydec.train.prepare import Setup

_LATE = 16  # steps before the end of a run in which nobody is taken in, times local steps


@dataclass
class Kept:
    """What an old rank takes along; stands in for the checkpoint of ``step`` in a ``Store``.

    Args:
        step: steps done.
        rank, size: of the old job.
        members: old ranks that live.
        held: tensors by name, copied.
        body: the rest, see ``Snapshot``.
        counts: steps of the checkpoints that count.
        task: whose model is trained.
        initial: the model before training, where it is needed yet.
        orders: that this rank reads.
    """

    step: int
    rank: int
    size: int
    members: tuple[int, ...]
    held: Mapping[str, Tensor]
    body: dict[str, Any]
    counts: list[int]
    task: Task
    initial: nn.Module | None
    orders: Orders

    def tensors(self, step: int, rank: int) -> Mapping[str, Tensor]:
        """Of this rank."""
        return self.held

    def path(self, step: int, rank: int, kind: str = "") -> Path:
        """What to call it."""
        return Path(f"the state of rank {rank} after step {step}")


@dataclass
class Carried:
    """What a rank goes on with when the ranks of its job change.

    Args:
        words: arguments of ``pydec train``, to go on with; newcomers have theirs.
        kept: None on newcomers.
        task: built ahead by a newcomer.
        numbers: of the newcomers; () where the old ranks go back to their job.
        dead: old ranks that newcomers take the place of.
        spawning: of rank 0, see ``comm.enlarge``.
        trial: the new job, until it is confirmed.
        signum: that came while there was no job.
        leader: the old rank that has started the newcomers.
        why: the newcomers did not come in, if so.
        spoilt: whether MPI may not have survived that.
        left_s: when the old ranks stopped training, on ``time.monotonic``'s clock; None on newcomers.
    """

    words: tuple[str, ...]
    kept: Kept | None = None
    task: Task | None = None
    numbers: tuple[int, ...] = ()
    dead: frozenset[int] = frozenset()
    spawning: Any = None
    trial: Any = None
    signum: int | None = None
    leader: int = 0
    why: str = ""
    spoilt: bool = False
    left_s: float | None = None

    @property
    def first(self) -> int:
        """The lowest rank that has a state to go on from."""
        if self.trial is not None:
            return int(min(self.trial.members))
        assert self.kept is not None
        return self.kept.members[0]

    def confirm(self, config: TrainConfig) -> None:
        """All is set up: go on if all old ranks say so, who call it together with the newcomers.

        Raises:
            NotConfirmed: somebody could not go on.
        """
        if self.trial is None:
            self.kept = None
            return
        if not self.trial.vote(fine=True, timeout_s=config.deadline_s):
            raise NotConfirmed("another rank could not go on with the newcomers")
        if self.kept is not None and self.kept.rank == self.leader:
            words.say_growth(self.leader, words.JOINED, self.kept.step)
        self.trial = self.kept = self.task = None  # and the memory that they take

    def returned(self, error: BaseException) -> Carried:
        """The new job does not come about: with what the old ranks go on alone.

        Raises:
            PeerLost: they cannot, as some of them are dead; the checkpoint that they have written can.
        """
        assert self.kept is not None
        if not self.trial.over:
            self.trial.vote(fine=False, timeout_s=1.0)
        if self.dead:
            who = min(self.dead)
            raise PeerLost(who, f"is dead, and nobody could take its place: {error}") from None
        self.trial.back()
        spoilt = not self.trial.clean
        if self.kept.rank == self.leader and not spoilt:
            words.say_growth(self.leader, words.ALONE, self.kept.step, str(error))
        return replace(self, trial=None, numbers=(), spawning=None, why=str(error), spoilt=spoilt)

    def enlarged(self) -> Carried:
        """Leave the old job for one with the newcomers; all old ranks together, out of their transports.

        Raises:
            PeerLost: see ``returned``.
        """
        from pydec.comm.enlarge import enlarge

        if not self.numbers:
            return self
        self.trial = enlarge(self.numbers, self.dead, self.spawning, self.leader)
        self.spawning = None
        return self if self.trial.after is not None else self.returned(PydecError(self.trial.failure))


class NotConfirmed(PydecError):
    """The job with newcomers in it does not come about."""


class Growth:
    """Takes newcomers into a job; one on every rank, looked at after every step.

    Args:
        peer: this rank.
        loop: running.
        saver: of its checkpoints.
        take: its state between two steps.
        initial: the model before training, where it is needed yet.
        orders: that this rank reads.
        obstacle: why nobody can be taken in, or "".
        hearers: ranks that read orders; the lowest of them that lives takes newcomers in.
        owes: what this rank has yet to say of the newcomers of before, or "".
    """

    def __init__(
        self,
        peer: Peer,
        loop: Loop,
        saver: Saver,
        take: Callable[[], Snapshot],
        initial: nn.Module | None,
        orders: Orders,
        obstacle: str,
        hearers: Sequence[int],
        owes: str = "",
    ) -> None:
        self._peer, self._loop, self._saver, self._take = peer, loop, saver, take
        self._initial, self._orders, self._obstacle = initial, orders, obstacle
        self._hearers, self._owes = hearers, owes
        self._spawning: Any = None
        self._asked = False

    def look(self, step: int) -> None:
        """After a step: see whether somebody is to be taken in, or is ready."""
        if self._owes:
            self._owes = self._refuse(self._owes)
        if self._spawning is None:
            asked = self._orders.newcomers()
            if asked is not None and self._leads:
                self._begin(asked, step)
        elif self._spawning.failure:
            why = self._spawning.failure
            self.close()
            self._refuse(why)
        elif self._spawning.ready and not self._asked:
            if self._ends(step):
                self.close()
                self._refuse("the run is about to end")
            else:
                self._asked = self._peer.ask_to_meet()

    def meet(self, step: int) -> None:
        """All ranks have come to one step: leave, if that is to take newcomers in.

        Raises:
            Regroup: with what this rank takes along.
            PeerLost: somebody died on the way here.
        """
        from pydec.comm.mpi import move_on

        peer, loop, left_s = self._peer, self._loop, time.monotonic()
        if not peer.meets:
            return
        with peer.busy():
            shot = self._take()
            held = {name: tensor.detach().clone() for name, tensor in shot.tensors.items()}
            body = copy.deepcopy(dict(shot.body))  # its history grows no more
            asked = self._spawning.asked if self._spawning is not None else None
            told = {"words": list(asked.command), "numbers": list(asked.numbers)} if asked else None
            said = texts(peer, json.dumps(told) if told else "")
            leader = next((rank for rank, words in enumerate(said) if words), 0)
            found = json.loads(said[leader] or "{}")
            members = living(peer.transport).members
            dead = frozenset(range(peer.size)) - {*members}
            self._saver.wait()
            loop.optimizer.close()
            numbers = frozenset(found.get("numbers", ()))
            if dead or not numbers or not loop.config.checkpoint_every or not self._saver.counts:
                self._saver.now(step)  # MPI may not survive the death of a newcomer
            if dead != numbers & {*range(peer.size)} or not numbers:
                raise PeerLost(min(dead, default=0), "died when newcomers were about to join")
            counts = self._saver.counts
        where = peer.rank, peer.size, members
        kept = Kept(step, *where, held, body, counts, loop.task, self._initial, self._orders)
        command = found["words"]
        again = [word for word in command[command.index("train") + 1 :] if word != "--joins"]
        carried = Carried(tuple(again), kept, left_s=left_s, leader=leader)
        carried.numbers, carried.dead = tuple(found["numbers"]), dead
        carried.spawning, self._spawning = self._spawning, None
        carried.signum = peer.unheard
        move_on()
        raise Regroup(carried)

    def close(self) -> None:
        """Nobody is taken in any more."""
        if self._spawning is not None:
            self._spawning.stay()
            self._spawning = None

    @property
    def _leads(self) -> bool:
        """Whether newcomers are this rank's to take in."""
        lost = self._peer.transport.lost()
        return next((rank for rank in self._hearers if rank not in lost), -1) == self._peer.rank

    def _begin(self, asked: Newcomers, step: int) -> None:
        """Start the newcomers, or say why not."""
        from pydec.comm.enlarge import failed
        from pydec.comm.mpi import current_job
        from pydec.comm.spawning import Spawning

        job = current_job()
        lost = self._peer.transport.lost()
        why = self._obstacle
        if not why and (job is None or job.size != self._peer.size):
            why = "some ranks of the job do not train"
        if not why and self._ends(step):
            why = "the run is about to end"
        if not why and job is not None and not {*asked.numbers} & {*range(job.size)} == lost == failed(job):
            why = "MPI does not know the ranks to be dead that are to be replaced, or others are"
        if not why and job is not None and job.thread_level != job.mpi.THREAD_MULTIPLE:
            why = "this MPI lets only one thread call it"
        if why or job is None:
            self._refuse(why)
        else:
            self._spawning, self._asked = Spawning(job, asked), False

    def _refuse(self, why: str) -> str:
        words.say_growth(self._peer.rank, words.NOT_HERE, 0, why)
        return ""

    def _ends(self, step: int) -> bool:
        """Whether some rank may be in its last step already."""
        config = self._loop.config
        return step + max(_LATE, 2 * self._peer.size) * config.local_steps >= config.steps


def growth_of(
    peer: Peer,
    setup: Setup,
    loop: Loop,
    saver: Saver,
    orders: Orders,
    ledger: RunLedger | None,
    carried: Carried | None,
) -> Growth:
    """What takes newcomers in, put to work in a loop that makes checkpoints; all ranks together."""
    config = setup.config
    why = owes = ""
    if carried is not None and carried.spoilt:
        why = f"newcomers could not be merged with the ranks: {carried.why}"
        owes = why if peer.rank == carried.leader else ""
    elif ledger is not None and ledger.admission.outside:
        why = "some ranks of the job do not train"
    elif config.audit:
        why = "auditors take steps again from checkpoints"
    elif any(source.startswith("fd:") for source in (config.key, config.passphrase_from)):
        why = "newcomers cannot read a key from fd:"
    hear = table(peer, [float(orders.heard)])[:, 0]
    hearers = [rank for rank in range(peer.size) if hear[rank]]
    take = partial(snapshot, peer, config, loop, setup.point)
    growth = Growth(peer, loop, saver, take, setup.initial, orders, why, hearers, owes)
    loop.growth = growth if loop.saver is not None else None
    return growth


def orders_of(peer: Peer, ledger: RunLedger | None, carried: Carried | None) -> Orders:
    """What this rank hears orders with."""
    if carried is not None and carried.kept is not None:
        return carried.kept.orders
    return Orders(ledger.admission.rank if ledger else peer.rank, joins=carried is not None)


def heed(peer: Peer, carried: Carried | None) -> None:
    """Before the first step: a signal that came while the ranks changed stops them after it."""
    if carried is not None and carried.signum is not None:
        peer.heed(carried.signum)
