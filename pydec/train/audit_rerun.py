"""A step of any rank, run again: from the state that it began with, on its data, with the packets it heard.

The very optimiser of the run does it, over a transport that plays the packets back (``comm.tape``). The same
state, data, seeds and packets give the same bits where libraries, threads and kind of processor are the same.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pydec.comm.frames import HEADER_BYTES, unpack
from pydec.comm.tape import TapeTransport
from pydec.comm.transport import Transport
from pydec.comm.view import View
from pydec.crypto.claims import payload_digest
from pydec.crypto.hashing import sha256
from pydec.errors import HeterogeneityWarning, RobustnessWarning
from pydec.gossip.base import Algorithm
from pydec.gossip.packets import packet_tag
from pydec.gossip.witness import Slot
from pydec.optim import DecentralizedOptimizer
from pydec.topology.base import Topology
from pydec.train.audit_record import State, Step
from pydec.train.batches import Batch, Batches
from pydec.train.config import TrainConfig
from pydec.train.gradients import Gradients, PlainGradients
from pydec.train.loop import local_optimizer, steps
from pydec.train.task import Task


def seed_step(seed: int, rank: int, number: int) -> None:
    """Make the random numbers of a step, such as dropout's, follow from the run's seed.

    Args:
        seed: of the run.
        rank: whose step it is.
        number: steps done before it.
    """
    drawn = int.from_bytes(sha256(b"pydec.audit.seed.v1", b"%d %d %d" % (seed, rank, number))[:4], "big")
    torch.manual_seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002  # the one that data sets use without asking
    random.seed(drawn)


class SeededGradients:
    """Gradients whose random numbers anybody can draw again; see ``Gradients``.

    Args:
        inner: gives the gradients.
        seed, rank, number: see ``seed_step``; of the first step.
    """

    def __init__(self, inner: Gradients, seed: int, rank: int, number: int) -> None:
        self._inner, self._seed, self._rank, self._number = inner, seed, rank, number

    def backward(self, batch: Batch) -> Tensor:
        """As ``inner``'s, with the random numbers of the next step."""
        seed_step(self._seed, self._rank, self._number)
        self._number += 1
        return self._inner.backward(batch)

    def figures(self) -> Mapping[str, float] | None:
        """As ``inner``'s."""
        return self._inner.figures()


@dataclass(frozen=True)
class Outcome:
    """What came of a step: digests of its packets, and the state after it."""

    packets: Mapping[Slot, bytes]
    state: State


class _Player:
    """The rank that is played; see ``PeerLike``."""

    def __init__(self, transport: Transport, view: View) -> None:
        self.rank, self.size = transport.rank, transport.size
        self.transport, self.view = transport, view

    def check(self) -> None:
        """Nobody stops it."""

    def agree(self, facts: Mapping[str, str]) -> None:
        """There is nobody to agree with."""


class Rerun:
    """Runs single steps again; holds one more model.

    Args:
        config: resolved.
        task: of this rank.
        algorithm: as honest ranks run it.
        batches_of: a rank's batches from the first step of this start on.
        first: number of that step.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        algorithm: Algorithm,
        batches_of: Callable[[int], Batches],
        first: int = 0,
    ) -> None:
        self._config, self._algorithm, self._batches_of, self._first = config, algorithm, batches_of, first
        self._task = replace(task, model=copy.deepcopy(task.model))

    def __call__(self, rank: int, step: Step, topology: Topology, view: View) -> Outcome:
        """Run a step of ``rank`` again.

        Args:
            rank: whose.
            step: with its state and what was heard in it.
            topology, view: that the ranks were in.

        Raises:
            Exception: the state is of another model, or whatever the step raises.
        """
        config, task = self._config, self._task
        tape = {(h.peer, packet_tag(h.slot.round, h.slot.number)): h.message for h in step.heard}
        transport = TapeTransport(rank, topology.size, tape)
        with warnings.catch_warnings():  # this rank has had them
            warnings.simplefilter("ignore", HeterogeneityWarning)
            warnings.simplefilter("ignore", RobustnessWarning)
            optimizer = DecentralizedOptimizer(
                local_optimizer(config, task, task.model),
                _Player(transport, view),
                topology=topology,
                compressor=config.compressor,
                algorithm=self._algorithm,
                local_steps=config.local_steps,
                mixing=config.mixing,
                model=task.model,
                nan_policy=config.nan_policy,
                init="keep",
                late="drop",
            )
        step.state.load(task.model, optimizer)
        optimizer.zero_grad()
        batches = self._batches_of(rank)
        batches.skip(step.number - self._first)
        plain = PlainGradients(task, config.clip_norm)
        gradients = SeededGradients(plain, config.seed, rank, step.number)
        next(steps(config, task, batches, gradients, optimizer, lambda take: take(), step.number))
        packets: dict[Slot, bytes] = {}
        for message in transport.sent.values():
            frame = unpack(message)
            packets[Slot(frame.epoch, frame.round, frame.bucket)] = payload_digest(message[HEADER_BYTES:])
        return Outcome(packets, State.of(task.model, optimizer))
