"""When a decentralised optimiser mixes, and what its algorithm does around each local step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from pydec import compress, gossip
from pydec.aggregate import Counts
from pydec.comm.view import View
from pydec.errors import ConfigError
from pydec.gossip import Asynchronous, Exchange
from pydec.gossip.consensus import Estimator, NumbersMixer
from pydec.gossip.control import Adaptive, Controller
from pydec.gossip.robust import RobustMixer
from pydec.gossip.streaming import HeldMixer
from pydec.gossip.switch import Switch
from pydec.gossip.witness import Witness
from pydec.optim.arena import Arena
from pydec.optim.exchanges import AnyExchange, end, leave, make_exchange, quiet
from pydec.optim.facts import PeerLike
from pydec.optim.parts import let_judge, make_parts, take_step
from pydec.optim.places import compressor_at
from pydec.optim.plan import Plan
from pydec.optim.views import Views
from pydec.topology.base import Topology
from pydec.topology.members import Members
from pydec.trace import traced


class Rounds:
    """Runs an algorithm's rules and rounds around the local steps of one rank.

    Args:
        peer: this rank.
        plan: checked.
        arenas: of the parameters.
        buffers: arenas that are averaged plainly beside them.
        groups: the wrapped optimiser's parameter groups.
        views: changes of who gossips.
    """

    def __init__(
        self,
        peer: PeerLike,
        plan: Plan,
        arenas: Sequence[Arena],
        buffers: Sequence[Arena],
        groups: Sequence[dict[str, Any]],
        views: Views,
    ) -> None:
        self.plan = plan
        self.steps = 0
        """Local steps taken."""
        self.rounds = 0
        """Rounds begun."""
        self._peer, self._views = peer, views
        self._waited_s = 0.0
        self._arenas, self._buffer_arenas, self.place = [*arenas, *buffers], list(buffers), arenas[0].place
        self._versioned = [span.tensor for arena in arenas for span in arena.spans]
        for arena in self._arenas:
            arena.load()
        self.parts = make_parts(plan, arenas, groups)
        degree = plan.topology.degree
        kind = HeldMixer if plan.algorithm.windowed else gossip.AverageMixer
        self._buffers: list[gossip.Mixer] = []
        for arena in buffers:
            of = arena.vector, compressor_at(arena.place, compress.make("none")), degree
            self._buffers.append(plan.algorithm.beside(*of) or kind(*of))
        for mixer in self._buffers:
            mixer.move_scale = 0.0  # the consensus distance is that of the parameters
        self._witness: Witness | None = None
        self._numbers = NumbersMixer() if plan.measures else None
        self.estimator: Estimator | None = None
        self.controller: Controller | None = None
        self._measure()
        self.exchange = self._connect(plan.topology)

    def _measure(self) -> None:
        """Begin to estimate, and to control, on the plan's topology."""
        if self._numbers is not None:
            self._numbers.average = 0.0
            self.estimator = Estimator(self.plan.topology, self._numbers)
            if isinstance(self.plan.control, Adaptive):
                self.controller = Controller(self.plan.control, self.plan.topology, self._numbers)

    def _connect(self, topology: Topology) -> AnyExchange:
        """An exchange of all mixers in the peer's view."""
        mixers = self.mixers
        if self._numbers is not None:
            mixers.append(self._numbers)
        return make_exchange(self._peer, self.plan, topology, mixers, self.place, self._witness)

    def hold_to_account(self, witness: Witness) -> None:
        """Sign from now on; see ``accountable.hold_to_account``."""
        before, begun = self.exchange, self.exchange.pending
        assert isinstance(before, Exchange)
        leave(before)
        before.close()
        self._witness = witness
        self.exchange = self._connect(before.topology)
        if begun:
            self.exchange.begin(self.rounds - 1)

    @property
    def mixers(self) -> list[gossip.Mixer]:
        """Of all vectors."""
        return [mixer for part in self.parts for mixer in part.rule.mixers] + self._buffers

    @property
    def wait_s(self) -> float:
        """Seconds spent waiting for peers so far."""
        return self._waited_s + self.exchange.wait_s

    @property
    def _switch(self) -> Switch | None:
        return getattr(self.exchange, "switch", None)

    @property
    def compressing(self) -> bool:
        """Whether packets between the trials of compressor ``auto`` are compressed; of others, always."""
        return self._switch.packed if self._switch else not self.plan.compressor.lossless

    @property
    def buffer_bytes(self) -> int:
        """Bytes of rules, mixers, outbox and inbox."""
        return self.exchange.buffer_bytes + sum(part.rule.state_bytes for part in self.parts)

    def receive(self, usable: bool) -> None:
        """Before the local step: finish the round that travelled during the gradient, if there is one.

        Args:
            usable: whether the gradients may be used; a rule that takes the step itself may do so here.
        """
        if self.plan.algorithm.order != "cta" or self.plan.algorithm.windowed:
            return
        if not self.exchange.pending and self.steps % self.plan.local_steps == 0:
            self.begin()
        if self.exchange.pending:
            if usable and self.plan.algorithm.takes_step:
                for part in self.parts:
                    part.rule.arm(part.gradients, part.lr, part.weight_decay)
            self.finish()

    def count(self, samples: float) -> None:
        """See ``DecentralizedOptimizer.count``."""
        for part in self.parts:
            part.rule.count(samples)

    def judge(self, loss: Callable[[], float]) -> None:
        """See ``DecentralizedOptimizer.judge``."""
        let_judge(self, self.mixers, loss)

    def counts(self) -> Counts:
        """What robust rules have left out so far."""
        total = Counts()
        for mixer in self.mixers:
            if isinstance(mixer, RobustMixer):
                total.add(mixer.counts)
        return total

    @traced("update")
    def local(self, usable: bool, step: Callable[[], float | None]) -> float | None:
        """The local step, by the rule or by ``step``, with what the algorithm does around it.

        Args:
            usable: False leaves the step out, because of its gradients.
            step: the wrapped optimiser's.
        """
        loss = take_step(self, self.plan.algorithm, usable, step)
        self.steps += 1
        return loss

    def send(self) -> None:
        """After the local step: mix, or begin to, if it is time."""
        rules = [part.rule for part in self.parts]
        if self.steps % self.plan.local_steps:
            for rule in rules:
                rule.rest()
        else:
            if self.plan.algorithm.windowed and self.exchange.pending:
                self.finish()
            for rule in rules:
                rule.depart()
            if self.plan.algorithm.order == "cta":
                self.store()
                for mixer in self._buffers:
                    if isinstance(mixer, HeldMixer):
                        mixer.hold()
                self.begin()
                return
            self._enter_views()
            for _ in range(self._wanted()):
                self.exchange.run(self.rounds)
                self._count()
            for rule in rules:
                rule.arrive()
        self.store()

    def _wanted(self) -> int:
        if self.controller is not None:
            lr = max((part.lr for part in self.parts), default=0.0)
            assert self.estimator is not None
            rounds = self.controller.rounds
            self.controller.step(self.steps, lr, self.estimator.distance)
            return rounds
        return max(self.plan.control.most, self.plan.algorithm.rounds(self.plan.topology))

    def _count(self) -> None:
        """A round has been run."""
        if self.estimator is not None:
            self.estimator.update(self.exchange.moved)
        if self.controller is not None:
            self.controller.round(self.rounds)
        self.rounds += 1

    def begin(self) -> None:
        """Start a round that ``finish`` will end."""
        self._enter_views()
        self.load()
        self.exchange.begin(self.rounds)
        self.rounds += 1

    def finish(self) -> None:
        """End the round under way."""
        for arena in self._buffer_arenas:  # the forward pass has changed them since the round began
            arena.load()
        self.exchange.finish()
        if self.estimator is not None:
            self.estimator.update(self.exchange.moved)
        for part in self.parts:
            part.rule.arrive()
        self.store()

    def close(self) -> None:
        """Finish what is under way and wait until everything has been sent; all ranks together."""
        if self.exchange.pending:
            self.finish()
        self.exchange.flush()
        self.store()

    def load(self) -> None:
        """Bring the vectors up to date with the tensors."""
        for arena in self._arenas:
            arena.load()

    def store(self) -> None:
        """Bring the tensors up to date with the vectors."""
        for arena in self._arenas:
            if self.plan.algorithm.robust:
                arena.clear_gaps()
            arena.store()
        torch.autograd.graph.increment_version(self._versioned)

    def rebase(self) -> None:
        """The models have been replaced by their mean: all rules start from there."""
        self.load()
        for part in self.parts:
            part.rule.rebase()

    def _enter_views(self) -> None:
        """Before a round: go on in the views that begin with it."""
        for view, plan in self._views.due(self.rounds, at_once=self.plan.algorithm.asynchronous):
            self._waited_s += self.exchange.wait_s
            end(self.exchange, view.members)
            self._enter(view, plan)

    def _enter(self, view: View, plan: Plan) -> None:
        """Every rule restarts its recursion, and the schedule begins anew, alike on all members."""
        self.plan, self._peer.view = plan, view
        in_a_row = plan.algorithm.rounds(plan.topology)  # exact if they begin with the schedule's first
        self.rounds += (view.start_round - self.rounds) % in_a_row
        for part in self.parts:
            part.rule.restart()
        self._measure()
        self.exchange = self._connect(
            Members(plan.topology, view.members, self._peer.transport.size, view.start_round)
        )

    def restart(self, living: Collection[int]) -> None:
        """Ranks have died; all survivors call it in the same step, with the same set.

        The round under way is finished first, so that nothing of before is mixed into what begins here.
        """
        if isinstance(self.exchange, Asynchronous):
            return  # its sums are those of two, and whoever is gone is left out at once
        if self.exchange.pending:
            self.finish()
        self.exchange.restart(living)
        if self.plan.algorithm.after_death == "restart":
            self.load()
            for part in self.parts:
                part.rule.restart()
            self.store()

    def state(self, *, copy: bool = True) -> dict[str, Any]:
        """What a checkpoint must hold of this rank; a round under way counts as not begun.

        Args:
            copy: whether its vectors stay as they are when training goes on.
        """
        begun = self.exchange.pending
        return {
            "name": repr(self.plan.algorithm),
            "steps": self.steps,
            "rounds": self.rounds - begun,
            "begun": begun,  # begun again by ``load_state``, with the same bits
            "vectors": self._copies() if copy else _tensors(self._vectors()),
            "numbers": [part.rule.numbers() for part in self.parts],
            "estimator": self.estimator.numbers() if self.estimator else [],
            "controller": self.controller.numbers() if self.controller else [],
            "switch": self._switch.numbers() if self._switch else [],
        }

    def check_state(self, saved: dict[str, Any]) -> None:
        """Raise ConfigError unless ``load_state`` can take it."""
        shapes = {name: tuple(vector.shape) for name, vector in saved["vectors"].items()}
        if shapes != {name: tuple(vector.shape) for name, vector in self._vectors().items()}:
            raise ConfigError(
                f"the state's vectors {shapes} do not fit this model; load the state of the same model"
            )
        measuring = {"estimator": self.estimator, "controller": self.controller, "switch": self._switch}
        for name, part in measuring.items():
            if len(saved[name]) != (len(part.numbers()) if part else 0):
                raise ConfigError(
                    f"the state's {name} does not fit this optimiser's topology and options; make it "
                    "with those that the state was made with"
                )

    def load_state(self, saved: dict[str, Any], groups: Sequence[dict[str, Any]]) -> None:
        """Continue from a checked ``state()``; the models have been loaded.

        Args:
            saved: what ``state`` gave.
            groups: the wrapped optimiser's parameter groups, which loading its state has replaced.
        """
        for part in self.parts:
            part.group = groups[part.number]
        leave(self.exchange)
        vectors = self._vectors()
        for name, vector in saved["vectors"].items():
            torch.as_tensor(vectors[name]).copy_(vector)
        self.load()
        for part, numbers in zip(self.parts, saved["numbers"], strict=True):
            part.rule.load_numbers(numbers)
        if self.estimator is not None:
            self.estimator.load_numbers(saved["estimator"])
        if self.controller is not None:
            self.controller.load_numbers(saved["controller"])
        if self._switch is not None:
            self._switch.load_numbers(saved["switch"])
        self.steps, self.rounds = saved["steps"], saved["rounds"]
        if saved["begun"]:
            self.begin()

    def _copies(self) -> dict[str, torch.Tensor]:
        with quiet(self.exchange):
            return {name: tensor.clone() for name, tensor in _tensors(self._vectors()).items()}

    def _vectors(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, part in enumerate(self.parts):
            found.update({f"{number}.{name}": vector for name, vector in part.rule.state().items()})
        for number, mixer in enumerate(self._buffers):
            found.update({f"buffers.{number}.{name}": vector for name, vector in mixer.state().items()})
        return found


def _tensors(vectors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The same memory as tensors."""
    return {name: torch.as_tensor(vector) for name, vector in vectors.items()}
