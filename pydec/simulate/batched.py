"""Thousands of peers whose gradients are one batch: ``torch.func`` differentiates all models at once.

The models are the rows of one matrix, laid out as in a rank's arena. Each peer's rules, mixers and local
optimiser work on its row. Gradients have the numbers of ``pydec train`` but for rounding: a product of many
matrices is not added up in the order of a product of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from pydec import kernels
from pydec.errors import ConfigError, NonFiniteError
from pydec.gossip.base import Mixer
from pydec.gossip.memory import aligned_floats
from pydec.optim.arena import Span, make_arenas
from pydec.optim.facts import float_buffers, trainable
from pydec.optim.local import describe
from pydec.optim.parts import Part, Piece, pieces_of, rule_of
from pydec.optim.plan import Plan
from pydec.simulate.learner import Learner, Vector
from pydec.train.batches import Batches, fetch
from pydec.train.config import TrainConfig
from pydec.train.evaluate import evaluate
from pydec.train.loop import local_optimizer
from pydec.train.split import Indices
from pydec.train.task import Task

_CHUNK_BYTES = 8 << 20  # of samples that are differentiated at once: they stay near the processor
_CLIP_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_ adds to a norm


class RowGradients:
    """A peer's gradients, in its row. See ``pydec.gossip.Gradients``.

    Args:
        row: shape (d,).
        spans: the tensors.
        start: where the rule's vector begins in the row.
    """

    def __init__(self, row: Vector, spans: Sequence[Span], start: int) -> None:
        self._row, self._start = row, start
        self._ends = [(span.start - start, span.start - start + span.tensor.numel()) for span in spans]

    def pieces(self, start: int, stop: int, *, write: bool = False) -> Iterator[tuple[int, int, Vector]]:
        """Every tensor's part of [start, stop); written where they lie."""
        for first, last in self._ends:
            low, high = max(first, start), min(last, stop)
            if low < high:
                yield low, high, self._row[self._start + low : self._start + high]


class RowLearner:
    """One peer's row. See ``Learner``.

    Args:
        of: all peers' rows.
        rank: its number.
        batches: its own.
    """

    def __init__(self, of: Batched, rank: int, batches: Batches) -> None:
        self.rank = rank
        self.loss = math.nan
        self.x: Vector = of.x[rank]
        self.g: Vector = of.g[rank]
        self.groups = [{**group} for group in of.groups]
        plan = of.plan_of(rank)
        self.parts = [
            Part(
                rule_of(plan, piece, self.x[piece.start : piece.stop], plan.compressor),
                piece.group,
                self.groups[piece.group],
                RowGradients(self.g, piece.spans, piece.start),
            )
            for piece in of.pieces
        ]
        self.beside: Sequence[Mixer] = ()
        self.rows = batches.rows()
        self.flipped = batches.flipped
        self.wanted: Indices | None = None
        self.finite = True
        self._of = of
        self._local = of.local(self)

    def ask(self, rate: float) -> None:
        """The batch is drawn; gradients come when somebody's is needed, all at once."""
        for group, lr in zip(self.groups, self._of.rates, strict=True):
            group["lr"] = lr * rate
        self.wanted = next(self.rows)
        self._of.asked[self.rank] = self

    def gradient(self) -> bool:
        """Whether it is finite, or does not have to be."""
        if self.wanted is not None:
            self._of.differentiate()
        if self.finite or self._of.policy == "continue":
            return True
        if self._of.policy == "skip":
            return False
        raise NonFiniteError(
            f"the gradient of peer {self.rank} holds NaN or infinite values; lower the learning rate, clip "
            "gradients, or choose --nan-policy skip"
        )

    def step(self) -> None:
        """The local optimiser's, on the row."""
        self._local()

    def end_step(self) -> None:
        """The next gradient overwrites this one."""

    def load(self) -> None:
        """The row is the model."""

    load_beside = store = load

    def numbers(self) -> Vector:
        """The row."""
        return self.x


class Batched:
    """See ``Learners``.

    Args:
        config: resolved.
        plan_of: how a peer gossips, by its number.
        task: what all train.
        shares: of the data, by number of the peer.
        flipped: classes whose labels a peer turns round, by its number; 0 for honest ones.

    Raises:
        ConfigError: the model cannot be batched: it has numbers that are no float32, or BatchNorm's buffers.
    """

    def __init__(
        self,
        config: TrainConfig,
        plan_of: Callable[[int], Plan],
        task: Task,
        shares: Sequence[Indices],
        flipped: Callable[[int], int],
    ) -> None:
        self.plan_of, self.policy = plan_of, config.nan_policy
        self.asked: dict[int, RowLearner] = {}
        self._config, self._task, self._shares, self._flipped = config, task, shares, flipped
        self.optimizer = local_optimizer(config, task, task.model)
        named = trainable(self.optimizer, task.model)
        arenas = make_arenas(named)
        if len(arenas) > 1 or arenas[0].dtype is not torch.float32 or float_buffers(task.model):
            raise ConfigError(
                "models of more than 16 peers are batched, which takes float32 parameters and no buffers "
                "such as BatchNorm's; use another model, or 16 peers at most"
            )
        self._arena = arenas[0]
        self.groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        self.rates = [group["lr"] for group in self.groups]
        every = self.optimizer.param_groups
        self.pieces = pieces_of(self._arena, every, by_group=plan_of(0).algorithm.needs_lr)
        self._grouped = pieces_of(self._arena, every, by_group=True)
        self._plain = describe(self.optimizer).sgd
        names = {id(p): name for name, p in task.model.named_parameters()}
        self._spans = [(names[id(span.tensor)], span) for span in self._arena.spans]
        self.parameters = len(self._arena.vector)
        self._derive = vmap(grad_and_value(self._loss), randomness="different")

    def allocate(self) -> None:
        """See ``Learners.allocate``."""
        size = len(self._shares)
        self.x, self.g = (aligned_floats(size * self.parameters).reshape(size, -1) for _ in range(2))
        self._x, self._g = torch.from_numpy(self.x), torch.from_numpy(self.g)

    def local(self, learner: RowLearner) -> Callable[[], object]:
        """The local optimiser's step on a row: by kernels for SGD, else torch's own on its groups."""
        if self._plain:
            return _Sgd(learner.x, learner.g, learner.groups, self._grouped).step
        parameters = []
        for piece in self._grouped:
            flat = torch.nn.Parameter(self._x[learner.rank, piece.start : piece.stop])
            flat.grad = self._g[learner.rank, piece.start : piece.stop]
            parameters.append(flat)
        groups: list[dict[str, Any]] = [{**group, "params": []} for group in learner.groups]
        for piece, flat in zip(self._grouped, parameters, strict=True):
            groups[piece.group]["params"].append(flat)
        made: Any = type(self.optimizer)
        optimizer: torch.optim.Optimizer = made(groups, lr=self.rates[0])
        learner.groups[:] = optimizer.param_groups
        for part in learner.parts:
            part.group = optimizer.param_groups[part.number]
        return optimizer.step

    def make(self, rank: int, *, like: Learner | None = None, steps: int = 0) -> RowLearner:
        """See ``Learners.make``."""
        self.x[rank] = self._arena.vector if like is None else like.numbers()
        self.g[rank] = 0.0
        return RowLearner(self, rank, self.batches(rank, steps))

    def batches(self, rank: int, steps: int = 0) -> Batches:
        """A peer's, after as many."""
        whose = self._shares[rank], self._config.batch_size, self._config.seed, rank
        found = Batches(self._task.train, *whose)
        found.flipped = self._flipped(rank)
        found.skip(steps)
        return found

    def leave(self, learner: Learner) -> None:
        """See ``Learners.leave``."""
        for rank in [rank for rank, asked in self.asked.items() if asked is learner]:
            del self.asked[rank]

    def differentiate(self) -> None:
        """Find the gradient and loss of all who have asked."""
        waiting = [self.asked[rank] for rank in sorted(self.asked)]
        self.asked.clear()
        for start in range(0, len(waiting), self.chunk):
            self._differentiate(waiting[start : start + self.chunk])

    @property
    def uniform(self) -> bool:
        """Whether one call of ``descend`` takes a step on all rows at once."""
        return self._plain and len(self._grouped) == 1

    @property
    def initial(self) -> Vector:
        """The model that all begin with."""
        return self._arena.vector

    @property
    def chunk(self) -> int:
        """Peers that are differentiated at once."""
        return max(1, _CHUNK_BYTES // max(1, self._config.batch_size * self._sample_bytes))

    def _differentiate(self, learners: Sequence[RowLearner]) -> None:
        rows = np.concatenate([learner.wanted for learner in learners if learner.wanted is not None])
        flipped = [learner.flipped for learner in learners]
        first, last = learners[0].rank, learners[-1].rank + 1
        if len(learners) == last - first:  # neighbouring rows are used where they are
            losses = self.derive(self._x[first:last], self._g[first:last], rows, flipped)
        else:
            ranks = torch.tensor([learner.rank for learner in learners])
            gradients = torch.zeros(len(ranks), self.parameters)
            losses = self.derive(self._x.index_select(0, ranks), gradients, rows, flipped)
            self._g.index_copy_(0, ranks, gradients)
        finite = not kernels.count_nonfinite(self.g[first:last].reshape(-1))
        for learner, loss in zip(learners, losses, strict=True):
            learner.wanted, learner.loss = None, loss
            learner.finite = finite or not kernels.count_nonfinite(learner.g)

    def derive(self, models: Tensor, gradients: Tensor, rows: Indices, flipped: Sequence[int]) -> list[float]:
        """Gradients of models, each on its batch; the losses there.

        Args:
            models: shape (k, d).
            gradients: shape (k, d), overwritten where there are parameters.
            rows: numbers of all batches' samples, one batch after the other.
            flipped: see ``Batches``, for every model.
        """
        inputs, target = fetch(self._task.train, rows)
        shape = len(models), self._config.batch_size
        target = target.unflatten(0, shape)
        for number, classes in enumerate(flipped):
            if classes:
                target[number] = classes - 1 - target[number]
        parameters = {
            name: models[:, span.start : span.start + span.tensor.numel()].view(-1, *span.tensor.shape)
            for name, span in self._spans
        }
        found, losses = self._derived(parameters, tuple(part.unflatten(0, shape) for part in inputs), target)
        for name, span in self._spans:
            into = gradients[:, span.start : span.start + span.tensor.numel()]
            into.copy_(found[name].reshape(len(models), -1))
        if self._config.clip_norm:
            norms = gradients.square().sum(1, keepdim=True).sqrt()
            gradients *= (self._config.clip_norm / (norms + _CLIP_EPSILON)).clamp(max=1.0)
        return list(losses.tolist())

    def _derived(self, parameters: dict[str, Tensor], inputs: tuple[Tensor, ...], target: Tensor) -> Any:
        self._task.model.train()
        try:
            return self._derive(parameters, target, *inputs)
        except RuntimeError as error:
            raise ConfigError(
                f"the model cannot be batched over peers by torch.func: {str(error).splitlines()[0]}; use "
                "another model, or 16 peers at most, which are differentiated one by one"
            ) from error

    def _loss(self, parameters: dict[str, Tensor], target: Tensor, *inputs: Tensor) -> Tensor:
        loss: Tensor = self._task.loss(functional_call(self._task.model, parameters, inputs), target)
        return loss

    @cached_property
    def _sample_bytes(self) -> int:
        inputs, _ = fetch(self._task.train, self._shares[0][:1])
        return sum(int(part.numel() * part.element_size()) for part in inputs)

    def evaluate(self, numbers: Vector) -> dict[str, float]:
        """See ``Learners.evaluate``."""
        own = self._arena.vector.copy()
        self._arena.vector[:] = numbers
        try:
            return evaluate(self._task, self._task.model)
        finally:
            self._arena.vector[:] = own

    @property
    def peer_bytes(self) -> int:
        """See ``Learners.peer_bytes``."""
        states = sum(bool(group.get("momentum")) for group in self.groups[:1]) if self._plain else 2
        return 4 * self.parameters * (2 + states)


class _Sgd:
    """torch.optim.SGD on a row.

    Args:
        x, g: the row of the model and that of its gradient, which is lost.
        groups: their options.
        pieces: which parts of the row are whose.
    """

    def __init__(
        self, x: Vector, g: Vector, groups: Sequence[dict[str, Any]], pieces: Sequence[Piece]
    ) -> None:
        self._parts = [
            (x[piece.start : piece.stop], g[piece.start : piece.stop], groups[piece.group])
            for piece in pieces
        ]
        self._velocity = [aligned_floats(len(x) if group["momentum"] else 0) for x, _, group in self._parts]

    def step(self) -> None:
        """Of all parts."""
        for (x, g, group), velocity in zip(self._parts, self._velocity, strict=True):
            descend(x, g, velocity, group)


def descend(x: Vector, g: Vector, velocity: Vector, group: Mapping[str, Any]) -> None:
    """A step of torch.optim.SGD without dampening, Nesterov and maximize, in one or two passes.

    v <- momentum v + (g + decay x); x <- x - lr v.

    Args:
        x, velocity: shape (d,), updated; the velocity is empty without momentum.
        g: shape (d,), lost.
        group: the options.
    """
    if group["weight_decay"]:
        kernels.mix([g, x], [1.0, group["weight_decay"]], out=g)
    if group["momentum"]:
        kernels.momentum_mix([x], [1.0], g, velocity, x, momentum=group["momentum"], lr=group["lr"])
    else:
        kernels.mix([x, g], [1.0, -group["lr"]], out=x)
