"""The events of a simulation: who computes, sends, waits, dies and joins, in the order of the virtual clock.

Every peer is a generator that does what a rank of ``pydec train`` does, in that order (``optim.Rounds`` in
``train.Loop``): it yields how long it computes, or None where it waits for its neighbours. No thread runs and
no clock of the machine is read, so equal seeds give equal bits.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

from pydec.gossip.streaming import HeldMixer
from pydec.optim.parts import take_step
from pydec.optim.plan import Plan
from pydec.simulate.crowd import Crowd, Era
from pydec.simulate.free import FreePeer, Mail, connect
from pydec.simulate.learner import Learners
from pydec.simulate.network import Network
from pydec.simulate.observer import Observer
from pydec.simulate.paces import Paces
from pydec.simulate.peers import FOREVER, Rules, VirtualPeer
from pydec.simulate.rounds import Bodies, PeerRounds

Pose = Callable[["Engine", VirtualPeer], Callable[[], None] | None]
"""What replaces a peer's model whenever it encodes; None where nothing does."""


class Engine:
    """Runs all peers to their end.

    Args:
        plan_of: how a peer gossips, by its number.
        learners: what they learn with; allocated.
        rules: what holds for all.
        crowd: who is there, and who leaves.
        network: the links.
        paces: how long steps take.
        observer: is told what happens.
        pose: makes a peer lie where its packets are not the model itself; None where nobody does so.
    """

    def __init__(
        self,
        plan_of: Callable[[int], Plan],
        learners: Learners,
        rules: Rules,
        crowd: Crowd,
        network: Network,
        paces: Paces,
        observer: Observer,
        pose: Pose = lambda engine, peer: None,
    ) -> None:
        self.plan_of, self.learners, self.rules, self.crowd = plan_of, learners, rules, crowd
        self.network, self.paces, self.observer = network, paces, observer
        self.now_s = self.ended_s = 0.0
        """Now, and when the latest peer to come to its end has done so."""
        self.peers: dict[int, VirtualPeer] = {}
        """The latest to take each place, dead or not."""
        self.mail = Mail(self)
        """Of asynchronous exchanges."""
        self._pose = pose
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self) -> None:
        """Until every living peer has taken its steps, and its last round is over.

        Raises:
            NonFiniteError: a gradient.
            PeerLost: the algorithm cannot go on without a peer that died.
        """
        era = self.crowd.first
        for rank in era.members:
            peer = VirtualPeer(rank, self.learners.make(rank), era)
            self._settle_in(peer)
        gc.freeze()  # all peers stay to the end: no collection needs to look through them
        try:
            for peer in list(self.peers.values()):
                self._resume(peer)
            while self._events:
                self.now_s, _, event = heapq.heappop(self._events)
                event()
                self.observer.look(self.now_s)
        finally:
            gc.unfreeze()

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        """Do something at a time; what is for the same time happens in the order in which it was asked."""
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def _settle_in(self, peer: VirtualPeer) -> None:
        """A peer takes its place."""
        self.peers[peer.rank] = peer
        self._connect(peer)
        peer.life = self._life(peer)
        peer.pose = self._pose(self, peer)
        self.observer.came(peer.steps)

    def _connect(self, peer: VirtualPeer) -> None:
        mixers = [mixer for part in peer.learner.parts for mixer in part.rule.mixers]
        mixers += peer.learner.beside
        plan = self.plan_of(peer.rank)
        if plan.algorithm.asynchronous:
            peer.rounds = connect(self.mail, plan, peer.rank, mixers, peer.era.seed)
            self.mail.looks[peer.rank] = partial(self._look, peer, peer.rounds)
        else:
            peer.rounds = PeerRounds(peer.rank, peer.era.topology, mixers, peer.era.seed)

    def _resume(self, peer: VirtualPeer) -> None:
        while True:
            wait = next(peer.life, FOREVER)
            if wait is FOREVER:
                peer.over, self.ended_s = True, self.now_s
                return
            if wait is not None:
                self.at(self.now_s + wait, lambda: self._wake(peer))
                return
            if peer.era.gone:  # known while it computed
                for rank in sorted(peer.era.gone & peer.rounds.missing):
                    peer.rounds.give_up(rank, dead=True)
            if peer.rounds.missing:
                peer.waiting, peer.waits_since_s = True, self.now_s
                if self.rules.late_s < math.inf:
                    late = partial(self._late, peer, (self.now_s, peer.rounds.round))
                    self.at(self.now_s + self.rules.late_s, late)
                return

    def _look(self, peer: VirtualPeer, rounds: FreePeer) -> None:
        """A message has moved: beside the program, or at the end, where nothing else is to do."""
        if peer.waiting:
            rounds.missing = set()
            self._heard_all(peer)
        else:
            rounds.transport.kick()

    def _wake(self, peer: VirtualPeer) -> None:
        if peer.living:
            self._resume(peer)

    def _heard_all(self, peer: VirtualPeer) -> None:
        """Go on if nobody is missing any more."""
        if peer.waiting and not peer.rounds.missing:
            peer.waiting = False
            peer.waited_s += self.now_s - peer.waits_since_s
            self._resume(peer)

    def _late(self, peer: VirtualPeer, since: tuple[float, int]) -> None:
        if peer.living and peer.waiting and since == (peer.waits_since_s, peer.rounds.round):
            for other in sorted(peer.rounds.missing):
                peer.rounds.give_up(other, dead=False)
                self.observer.dropped += 1
            self._heard_all(peer)

    # What a rank of a job does, from its first step to its last round.

    def _life(self, peer: VirtualPeer) -> Iterator[float | None]:
        plan, learner = self.plan_of(peer.rank), peer.learner
        algorithm = plan.algorithm
        if peer.newcomer:
            yield from self._send(peer, plan)
        while peer.steps < self.rules.steps:
            learner.ask(self.rules.rate(peer.steps))
            yield self._compute(peer)
            usable = learner.gradient()
            if algorithm.order == "cta" and not algorithm.windowed:
                if not peer.rounds.pending and peer.steps % plan.local_steps == 0:
                    self._begin(peer)
                if peer.rounds.pending:
                    if usable and algorithm.takes_step:
                        for part in learner.parts:
                            part.rule.arm(part.gradients, part.lr, part.weight_decay)
                    yield from self._finish(peer)
            self._local(peer, plan, usable)
            yield from self._send(peer, plan)
            learner.end_step()
            self.observer.stepped(peer.rank, peer.steps, learner)
        if peer.rounds.pending:
            yield from self._finish(peer)
        if isinstance(peer.rounds, FreePeer):
            yield from peer.rounds.ending()
            learner.store()
        self.observer.ended(peer.rank, learner)

    def _local(self, peer: VirtualPeer, plan: Plan, usable: bool) -> None:
        take_step(peer.learner, plan.algorithm, usable, peer.learner.step)
        peer.steps += 1

    def _send(self, peer: VirtualPeer, plan: Plan) -> Iterator[None]:
        learner, algorithm = peer.learner, plan.algorithm
        rules = [part.rule for part in learner.parts]
        if peer.steps % plan.local_steps:
            for rule in rules:
                rule.rest()
        else:
            if algorithm.windowed and peer.rounds.pending:
                yield from self._finish(peer)
            for rule in rules:
                rule.depart()
            if algorithm.order == "cta":
                learner.store()
                for mixer in learner.beside:
                    if isinstance(mixer, HeldMixer):
                        mixer.hold()
                self._begin(peer)
                return
            self._enter_era(peer)
            for _ in range(max(plan.control.most, algorithm.rounds(peer.era.topology))):
                self._open(peer)
                yield None
                peer.rounds.finish()
                peer.begun += 1
            for rule in rules:
                rule.arrive()
        learner.store()

    def _begin(self, peer: VirtualPeer) -> None:
        self._enter_era(peer)
        peer.learner.load()
        self._open(peer)
        peer.begun += 1

    def _finish(self, peer: VirtualPeer) -> Iterator[None]:
        yield None
        peer.learner.load_beside()
        peer.rounds.finish()
        for part in peer.learner.parts:
            part.rule.arrive()
        peer.learner.store()

    def _open(self, peer: VirtualPeer) -> None:
        rounds, key = peer.rounds, (peer.era.number, peer.begun)
        if isinstance(rounds, FreePeer):
            rounds.exchange.begin(peer.begun)
            return
        rounds.open(peer.begun, peer.era.gone, peer.early.pop(key, {}))
        if peer.pose is None:
            packets = rounds.encode()
        else:
            packets = self._posing(peer)
        for listener, bodies in packets.items():
            self._dispatch(peer, listener, bodies)

    def _posing(self, peer: VirtualPeer) -> dict[int, Bodies]:
        """Encode what a liar makes of its models, which are as before afterwards."""
        assert peer.pose is not None
        own = [part.rule.x.copy() for part in peer.learner.parts]
        peer.pose()
        try:
            return peer.rounds.encode()
        finally:
            for part, x in zip(peer.learner.parts, own, strict=True):
                part.rule.x[:] = x

    def _compute(self, peer: VirtualPeer) -> float:
        """How long the coming step takes; whoever dies in it is told when."""
        seconds = float(self.paces.seconds(peer.steps)[peer.rank])
        when = self.crowd.dies(peer.rank, peer.steps)
        if when is not None:
            self.at(self.now_s + when * seconds, lambda: self._die(peer))
        return seconds

    # Messages.

    def _dispatch(self, peer: VirtualPeer, listener: int, bodies: Bodies) -> None:
        era, round = peer.era, peer.rounds.round
        arrive = partial(self._deliver, listener, era, round, peer.rank, bodies)
        self.carry(peer.rank, listener, PeerRounds.wire_bytes(bodies), arrive)

    def carry(self, sender: int, listener: int, n_bytes: int, arrive: Callable[[], None]) -> None:
        """Send bytes, and do something when they have arrived; not if their sender died before they left."""
        self.observer.bytes_sent += n_bytes
        message = self.network.send(sender, n_bytes, self.now_s)
        peer = self.peers[sender]

        def done() -> None:
            if peer.died_s >= message.gone_s:
                arrive()

        if self.network.link.down_bytes_per_s == math.inf:
            self.at(message.tail_s, done)
        else:
            self.at(
                message.head_s,
                lambda: self.at(self.network.receive(listener, n_bytes, message), done),
            )

    def _deliver(self, listener: int, era: Era, round: int, sender: int, bodies: Bodies) -> None:
        peer = self.peers.get(listener)
        if peer is None or not peer.living:
            if era.expects(listener):
                era.mail.setdefault((listener, round), {})[sender] = bodies  # for who takes the place
            return
        rounds = peer.rounds
        if era is peer.era and round == rounds.round and rounds.pending:
            if rounds.take(sender, bodies):
                self._heard_all(peer)
        elif not peer.over and (era.number > peer.era.number or (era is peer.era and round >= peer.begun)):
            peer.early.setdefault((era.number, round), {})[sender] = bodies

    # Deaths and newcomers.

    def _die(self, peer: VirtualPeer) -> None:
        if not peer.living or peer.over:
            return
        peer.died_s = self.now_s
        peer.early.clear()
        self.learners.leave(peer.learner)
        self.observer.left(peer.steps)
        lost = self.crowd.lost(peer.rank, peer.era)
        eras = list(peer.era.later())
        self.at(self.now_s + self.rules.detect_s, lambda: self._notice(lost, eras))

    def _notice(self, lost: list[int], eras: list[Era]) -> None:
        """All others know that places are empty, in the eras of who was to be there."""
        for era in eras:
            era.gone.update(era.places.intersection(lost))
        for peer in list(self.peers.values()):
            if peer.rounds.missing.isdisjoint(lost):
                continue
            if peer.waiting and peer.living and peer.era in eras:
                for rank in lost:
                    peer.rounds.give_up(rank, dead=True)
                self._heard_all(peer)

    def _enter_era(self, peer: VirtualPeer) -> None:
        """Before a round: go on with the members that are there from it on."""
        era = self.crowd.era_at(peer.begun, peer.era)
        if era is peer.era:
            return
        peer.era = era
        for part in peer.learner.parts:
            part.rule.restart()
        self._connect(peer)
        for key in [key for key in peer.early if key[0] < era.number]:
            del peer.early[key]
        for rank in era.guests.pop(peer.rank, []):
            self._welcome(rank, peer)

    def _welcome(self, rank: int, sponsor: VirtualPeer) -> None:
        """A newcomer takes the model of a member, and its place when it has all of it."""
        learner = self.learners.make(rank, like=sponsor.learner, steps=sponsor.steps)
        peer = VirtualPeer(
            rank, learner, sponsor.era, steps=sponsor.steps, begun=sponsor.begun, newcomer=True
        )
        for part in learner.parts:
            part.rule.rebase()
        for where in [where for where in sponsor.era.mail if where[0] == rank]:
            peer.early[sponsor.era.number, where[1]] = sponsor.era.mail.pop(where)
        self.network.reset(rank, self.now_s)
        self._settle_in(peer)
        self.observer.joined += 1
        self.at(self.now_s + self.rules.handover_s, lambda: self._wake(peer))
