"""Peers that learn one by one, as ranks of ``pydec train`` do: the same modules, optimisers and bits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from pydec import compress, gossip
from pydec.gossip.base import Mixer
from pydec.gossip.streaming import HeldMixer
from pydec.optim.arena import make_arenas
from pydec.optim.facts import float_buffers, trainable
from pydec.optim.gradients import look_at
from pydec.optim.parts import let_judge, make_parts
from pydec.optim.plan import Plan
from pydec.simulate.learner import Learner, Vector
from pydec.train.batches import Batches
from pydec.train.config import TrainConfig
from pydec.train.evaluate import evaluate
from pydec.train.gradients import PlainGradients, loss_of
from pydec.train.loop import local_optimizer
from pydec.train.split import Indices
from pydec.train.task import Task


class EachLearner:
    """One peer with a module and an optimiser of its own. See ``Learner``.

    Args:
        config: resolved.
        plan: how the peers gossip, with this peer's algorithm.
        task: with a model of its own.
        batches: its own.
        rank: its number.
    """

    def __init__(self, config: TrainConfig, plan: Plan, task: Task, batches: Batches, rank: int) -> None:
        self.loss = float("nan")
        self.task = task
        self.optimizer = local_optimizer(config, task, task.model)
        self._named = trainable(self.optimizer, task.model)
        self._arenas, self._buffers = make_arenas(self._named), make_arenas(float_buffers(task.model))
        self.parts = make_parts(plan, self._arenas, self.optimizer.param_groups)
        self.beside: list[Mixer] = []
        for arena in self._buffers:
            of = arena.vector, compress.make("none"), plan.topology.degree
            kind = HeldMixer if plan.algorithm.windowed else gossip.AverageMixer
            self.beside.append(plan.algorithm.beside(*of) or kind(*of))
        self.batches = iter(batches)
        self._gradients = PlainGradients(task, config.clip_norm)
        self._policy, self._rank = config.nan_policy, rank
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._judged = plan.algorithm.asks_loss
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed * 65536 + rank + 1)  # as a rank of a job does, for dropout
            self._random = torch.get_rng_state()

    def ask(self, rate: float) -> None:
        """The batch is drawn, and differentiated at once: nothing changes the model before it is used."""
        self.task.model.train()
        for group, lr in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = lr * rate
        batch = next(self.batches)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            loss = self._gradients.backward(batch)
            self._random = torch.get_rng_state()
        self.loss = loss.item()
        if self._judged:
            mixers = [mixer for part in self.parts for mixer in part.rule.mixers]
            let_judge(self, [*mixers, *self.beside], partial(loss_of, self.task, batch))

    def gradient(self) -> bool:
        """Look at it, as the optimiser of a rank does."""
        usable, error = look_at(self._named, self._policy, None, None, f"on peer {self._rank}")
        if error is not None:
            raise error
        return usable

    def step(self) -> None:
        """The torch optimiser's."""
        self.optimizer.step()

    def load(self) -> None:
        """See ``Learner.load``."""
        for arena in (*self._arenas, *self._buffers):
            arena.load()

    def load_beside(self) -> None:
        """See ``Learner.load_beside``."""
        for arena in self._buffers:
            arena.load()

    def store(self) -> None:
        """See ``Learner.store``."""
        for arena in (*self._arenas, *self._buffers):
            arena.store()

    def end_step(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()

    def numbers(self) -> Vector:
        """See ``Learner.numbers``."""
        self.load()
        found = [arena.vector for arena in (*self._arenas, *self._buffers)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def take(self, numbers: Vector) -> None:
        """Replace all that is averaged, in the order of ``numbers``."""
        start = 0
        for arena in (*self._arenas, *self._buffers):
            arena.vector[:] = numbers[start : start + len(arena.vector)]
            start += len(arena.vector)
        self.store()


class Each:
    """See ``Learners``.

    Args:
        config: resolved.
        plan_of: how a peer gossips, by its number: liars otherwise than honest ones.
        task: what all train.
        shares: of the data, by number of the peer.
        flipped: classes whose labels a peer turns round, by its number; 0 for honest ones.
    """

    def __init__(
        self,
        config: TrainConfig,
        plan_of: Callable[[int], Plan],
        task: Task,
        shares: Sequence[Indices],
        flipped: Callable[[int], int],
    ) -> None:
        self._config, self._plan_of, self._task = config, plan_of, task
        self._shares, self._flipped = shares, flipped
        self._scratch = self._learner(0, 0)
        self.parameters = sum(len(part.rule.x) for part in self._scratch.parts)
        self._numbers = len(self._scratch.numbers())
        self._state = sum(parameter.numel() for parameter in task.model.parameters())

    def allocate(self) -> None:
        """Every peer allocates its own."""

    def _learner(self, rank: int, steps: int) -> EachLearner:
        task = replace(self._task, model=copy.deepcopy(self._task.model))
        whose = self._shares[rank], self._config.batch_size, self._config.seed, rank
        batches = Batches(task.train, *whose)
        batches.flipped = self._flipped(rank)
        batches.skip(steps)
        return EachLearner(self._config, self._plan_of(rank), task, batches, rank)

    def make(self, rank: int, *, like: Learner | None = None, steps: int = 0) -> EachLearner:
        """See ``Learners.make``."""
        made = self._learner(rank, steps)
        if like is not None:
            made.take(like.numbers())
        return made

    def leave(self, learner: Learner) -> None:
        """Nothing is under way."""

    def evaluate(self, numbers: Vector) -> dict[str, float]:
        """See ``Learners.evaluate``."""
        self._scratch.take(numbers)
        return evaluate(self._scratch.task, self._scratch.task.model)

    @property
    def peer_bytes(self) -> int:
        """See ``Learners.peer_bytes``: the model, its gradient and two states of an optimiser at most."""
        return 4 * (self._numbers + 3 * self._state)
