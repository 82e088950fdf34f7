"""The training loop of one rank, and the same loop for one peer alone."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from pydec.comm.words import say_stepped
from pydec.errors import ConfigError
from pydec.trace import traced
from pydec.train import optimizers
from pydec.train.batches import Batch, Batches
from pydec.train.checkpoint import Saver
from pydec.train.config import TrainConfig
from pydec.train.display import Display
from pydec.train.evaluate import Score, evaluate, evaluate_together
from pydec.train.gradients import Gradients, PlainGradients, loss_of
from pydec.train.progress import Progress
from pydec.train.rundir import Metrics
from pydec.train.survivors import Survivors, TooFewRanks
from pydec.train.task import Task
from pydec.train.together import Member, speaks, table
from pydec.train.traffic import Traffic

if TYPE_CHECKING:
    from pydec.optim import DecentralizedOptimizer
    from pydec.train.growth import Growth


class Optimizer(Protocol):
    """What a loop asks of an optimiser; torch's have it."""

    def step(self) -> object:
        """Use the gradients."""

    def zero_grad(self) -> None:
        """Forget them."""


class Loop:
    """Trains this rank's model together with the others.

    Evaluations and reports need all living ranks and come at the same steps on all; with an asynchronous
    algorithm a rank reports its own loss, and nothing is evaluated before the end. The bytes counted are
    those of ``opt.step`` and of gossip beside it; what evaluations and reports send is left out.

    Args:
        config: resolved.
        task: model, data and loss.
        peer: this rank.
        optimizer: the decentralised optimiser of the task's model.
        batches: this rank's batches.
        metrics: this rank's record.
        display: where progress goes; silent on ranks other than 0.
        gradients: of a batch; None takes those of its mean loss.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        peer: Member,
        optimizer: DecentralizedOptimizer,
        batches: Iterable[Batch],
        metrics: Metrics,
        display: Display,
        gradients: Gradients | None = None,
    ) -> None:
        self.config = config
        self.task = task
        self.peer = peer
        self.optimizer = optimizer
        self.metrics = metrics
        self.display = display
        self.gradients = gradients or PlainGradients(task, config.clip_norm)
        self.progress = Progress()
        self.keep: Callable[[], None] | None = (
            None  # called with the averaged model at evaluations on the way
        )
        self.saver: Saver | None = None
        self.growth: Growth | None = None
        self.left_s: float | None = None  # when this rank left its job for the one it is in now
        self.parting: Callable[[], None] | None = None  # called when all ranks end at one step, by a signal
        self.align: Callable[[], None] | None = None  # called where all living ranks report
        self.between: Callable[[int], None] | None = None  # called before the first step and after each
        self.under_way = 0  # step that this rank is in
        self.survivors = Survivors(peer, config.min_ranks)
        self.successor: Callable[[], Display] | None = None  # shows progress once rank 0 is dead
        self._batches = batches
        self.traffic = Traffic(peer.transport)
        self._losses: list[float] = []
        self._started_s = 0.0
        self._reported = (0.0, 0, 0.0)

    def run(self) -> None:
        """Train for ``config.steps`` steps or ``config.duration_s`` seconds, and finish what is under way.

        Raises:
            Stopped: a signal stopped the job.
            PydecError: what ``DecentralizedOptimizer.step`` raises; too few ranks are left.
            SetupError: the disk is full.
        """
        before_s, before_wait_s = time.perf_counter(), self.optimizer.wait_s
        self._started_s += before_s
        self._reported = before_s, self.progress.bytes_sent, before_wait_s
        done = self.progress.step
        self.under_way = done + 1
        alone = self.optimizer.algorithm.asynchronous
        if self.between is not None:
            self.between(done)
        taken = self._batches, self.gradients, self.optimizer, self.traffic.counted, done
        for step, loss, rate in steps(self.config, self.task, *taken):
            self.peer.check()
            self.progress.step = self.under_way = step
            if self.between is not None:
                self.between(step)
            if step == done + 1:
                say_stepped(self.peer.rank)
            now_s, wait_s = time.perf_counter(), self.optimizer.wait_s
            self.survivors.look(step, now_s - self._started_s)
            row: dict[str, float | int | str | None] = {
                "kind": "step",
                "step": step,
                "time_s": now_s - self._started_s,
                "loss": loss,
                "lr": rate,
                "bytes_sent": self.traffic.bytes_sent,
                "bytes_received": self.traffic.bytes_received,
                "step_s": now_s - before_s,
                "wait_s": wait_s - before_wait_s,
            }
            if step % self.config.eval_every == 0 or step == self.config.steps:
                row |= {f"sent_to_{rank}": count for rank, count in self.traffic.sent_to.items()}
            if self.left_s is not None:
                row["pause_s"], self.left_s = time.monotonic() - self.left_s, None
            if self.task.loss_is_nats_per_byte:
                row["bits_per_byte"] = loss / math.log(2.0)
            self._losses.append(loss)
            if step % self.config.log_every == 0 or step == self.config.steps:
                try:
                    self._report(alone)
                except TooFewRanks:  # on all of them, after this step
                    self.survivors.look(step, time.perf_counter() - self._started_s)  # some died meanwhile
                    if self.saver is not None:
                        self.saver.now(step)
                    raise
                if not alone:
                    row["consensus_distance"] = self.progress.consensus_distance
                row.update(self.gradients.figures() or {})
            self.metrics.add(row)
            if not alone and step % self.config.eval_every == 0 and step < self.config.steps:
                self.evaluate(self.keep)
            self.display.step(step)
            if self.saver is not None:
                self._checkpoint(self.saver, step)
            self.under_way = step + 1
            before_s, before_wait_s = time.perf_counter(), self.optimizer.wait_s
        if alone and self._losses:
            self._report(alone)
        self.traffic.counted(self.optimizer.close)

    def _checkpoint(self, saver: Saver, step: int) -> None:
        """After a step: begin a checkpoint if it is time, and write one if all ranks stop here.

        The last one waits for a busy disk: a longer run goes on from it as if it had never ended.
        """
        saver.after(step)
        if self.growth is not None:
            self.growth.look(step)
        if step == self.config.steps:
            with self.peer.busy():
                saver.now(step)
        elif self.peer.reached(step):
            if self.growth is not None:
                self.growth.meet(step)
            saver.now(step)
            if self.parting is not None:
                self.parting()
            self.peer.check()

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the reports of this rank."""
        return {
            "progress": asdict(self.progress),
            "losses": list(self._losses),
            **self.traffic.state(),
            "elapsed_s": time.perf_counter() - self._started_s,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``, before ``run``."""
        self.progress = Progress(**state["progress"])
        self._losses = list(state["losses"])
        self.traffic.load_state(state)
        self._started_s = -state["elapsed_s"]

    def merge(self) -> None:
        """Give all ranks the exact mean of their models; counted as training's communication."""
        self.traffic.counted(self.optimizer.merge)

    @traced("evaluate")
    def evaluate(self, also: Callable[[], None] | None = None) -> Score:
        """Score of the exact average of all living ranks' models; all of them call it together.

        Args:
            also: called while the model is that average.
        """
        with self.optimizer.averaged():
            score = evaluate_together(self.task, self.task.model, self.peer)
            if also is not None:
                also()
        self.progress.score, self.progress.score_step = score, self.progress.step
        if speaks(self.peer) and score:
            self.metrics.add(
                {
                    "kind": "evaluation",
                    "step": self.progress.step,
                    "time_s": time.perf_counter() - self._started_s,
                    **score,
                    "consensus_distance": self.progress.consensus_distance,
                    "bytes_sent": self.traffic.bytes_sent,
                    "bytes_received": self.traffic.bytes_received,
                }
            )
        return score

    @traced("report")
    def _report(self, alone: bool) -> None:
        """Figures since the last report: of all ranks, or of this one, which then waits for nobody."""
        if not alone:
            self.survivors.check(self.optimizer.heal())
            if self.align is not None:
                self.align()
            if self.successor is not None and self.peer.rank and speaks(self.peer):
                self.display, self.successor = self.successor(), None
        counts = self.optimizer.honest is not False  # what a liar says of itself does not
        known = [loss for loss in self._losses if math.isfinite(loss) and counts]
        self._losses.clear()
        mine = [sum(known), len(known), self.traffic.bytes_sent]
        total, count, sent = np.array(mine) if alone else table(self.peer, mine).sum(axis=0)
        progress = self.progress
        progress.loss = float(total / count) if count else math.nan
        progress.bytes_sent = round(float(sent))
        if not alone:
            progress.measured(self.optimizer.consensus_distance())
        instead = self.gradients.figures()
        figures = {"loss": progress.loss} if instead is None else dict(instead)
        if self.task.loss_is_nats_per_byte and instead is None:
            figures["bits_per_byte"] = progress.loss / math.log(2.0)
        elif self.task.metric is not None and self.task.metric_name in progress.score:
            figures[self.task.metric_name] = progress.score[self.task.metric_name]
        if not alone:
            figures["consensus_distance"] = progress.consensus_distance
        figures["mb"] = progress.bytes_sent / 1e6
        figures |= self._pace()
        self.display.report(progress.step, figures)

    def _pace(self) -> dict[str, float]:
        """Since the last report: megabytes a second of all ranks, the share of waits of this rank."""
        now = time.perf_counter(), self.progress.bytes_sent, self.optimizer.wait_s
        elapsed_s, sent, wait_s = (new - old for new, old in zip(now, self._reported, strict=True))
        self._reported = now
        alive = self.peer.size - len(self.peer.transport.lost())
        pace = {"mb_per_s": sent / 1e6 / max(elapsed_s, 1e-9), "waiting": wait_s / max(elapsed_s, 1e-9)}
        return {**pace, "ranks": alive} if self.peer.size > 1 else {}


def steps(
    config: TrainConfig,
    task: Task,
    batches: Iterable[Batch],
    gradients: Gradients,
    optimizer: Optimizer,
    around: Callable[[Callable[[], object]], object],
    done: int = 0,
) -> Iterator[tuple[int, float, float]]:
    """Take the steps of a run and yield (steps done, loss of the batch, learning rate) after each.

    There are ``config.steps`` of them; or none begins after ``config.duration_s`` seconds.

    Args:
        config: resolved.
        task: whose model is trained.
        batches: what to train on.
        gradients: of a batch.
        optimizer: of the model's parameters; its groups' learning rates follow ``config``.
        around: called with ``optimizer.step``; must call it.
        done: steps that were taken before, of which ``batches`` knows.

    Raises:
        PydecError: what ``gradients`` raises.
    """
    groups = getattr(optimizer, "param_groups", [])
    algorithm = getattr(optimizer, "algorithm", None)
    asks = getattr(optimizer, "judge") if getattr(algorithm, "asks_loss", False) else None  # noqa: B009
    base = [group.setdefault("initial_lr", group["lr"]) for group in groups]  # a checkpoint keeps it
    task.model.train()
    counted = itertools.count() if config.duration_s else range(done, config.steps)
    started_s = time.perf_counter()
    for step, batch in zip(counted, batches, strict=False):
        elapsed_s = time.perf_counter() - started_s
        if config.duration_s and elapsed_s >= config.duration_s:
            return
        rate = config.rate(step, elapsed_s)
        factor = rate / config.lr
        for group, lr in zip(groups, base, strict=True):
            group["lr"] = lr * factor
        loss = gradients.backward(batch)
        if asks is not None:
            asks(partial(loss_of, task, batch))
        around(optimizer.step)
        optimizer.zero_grad()
        yield step + 1, loss.item(), rate


def local_optimizer(config: TrainConfig, task: Task, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that a rank uses on its own gradients.

    Raises:
        ConfigError: unknown name or option, no trainable parameter, or a task's factory that returns
            something else.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError(
            "the model has no trainable parameter; set requires_grad on some, or check the model"
        )
    if task.optimizer is None:
        return optimizers.make(config.optimizer, parameters, config.lr)
    made: Any = task.optimizer(parameters)
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(f"Task.optimizer must return a torch.optim.Optimizer, got {type(made).__name__}")
    return made


def train_solo(
    config: TrainConfig, task: Task, peer: Member, model: nn.Module, display: Display
) -> dict[str, float]:
    """Train one peer alone on all the data, for as many steps of the same batch size.

    Args:
        config: resolved, as for the ranks.
        task: data and loss; its model is replaced by ``model``.
        peer: only asked whether the job is being stopped.
        model: with the initial values that the ranks started from; trained in place.
        display: where progress goes.

    Returns:
        The score of the model, and ``wall_s``, the seconds that its training took.
    """
    task.model = model
    optimizer = local_optimizer(config, task, model)
    everything = np.arange(task.samples, dtype=np.int64)
    batches = Batches(task.train, everything, config.batch_size, config.seed, rank=0)
    torch.manual_seed(config.seed)
    started_s = time.perf_counter()
    losses: list[float] = []
    gradients = PlainGradients(task, config.clip_norm)
    for step, loss, _ in steps(config, task, batches, gradients, optimizer, lambda take: take()):
        peer.check()
        losses.append(loss)
        if step % config.log_every == 0 or step == config.steps:
            mean = sum(losses) / len(losses)
            losses.clear()
            figures = {"loss": mean}
            if task.loss_is_nats_per_byte:
                figures["bits_per_byte"] = mean / math.log(2.0)
            display.report(step, figures)
        display.step(step)
    wall_s = time.perf_counter() - started_s
    return {**evaluate(task, model), "train_loss": loss, "wall_s": wall_s}
