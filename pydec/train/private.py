"""Training with private gradients: the options ``--dp-...``, and what takes the place of batches and losses.

Every rank has an account in the run directory, ``privacy/rank-N.jsonl``. A run that goes on begins with the
largest of all ranks' accounts, wherever their files lie: after a change of the number of ranks a sample is in
another rank's share, and what was spent on it must not be forgotten.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pydec.errors import BudgetSpent, ConfigError, PydecError
from pydec.privacy import PrivateGradients
from pydec.privacy.account import read
from pydec.privacy.accountant import (
    Mechanism,
    Spent,
    affordable,
    default_delta,
    epsilon,
    noise_for,
    version,
)
from pydec.trace import traced
from pydec.train.batches import Batch, fetch
from pydec.train.split import Indices
from pydec.train.task import Task
from pydec.train.together import Member, settle, texts

if TYPE_CHECKING:
    from pydec.train.config import TrainConfig
    from pydec.train.resume import Point

_CLIP = 1.0
_FOLDER = "privacy"


def check(config: TrainConfig) -> None:
    """Raise ConfigError if the options of privacy are out of range, or go with others that break it."""
    for name in ("dp_noise", "dp_epsilon", "dp_clip"):
        value = getattr(config, name)
        if not (value >= 0.0 and math.isfinite(value)):
            raise ConfigError(f"--{name.replace('_', '-')} must be above 0 and finite, got {value}")
    if not 0.0 <= config.dp_delta < 1.0:
        raise ConfigError(f"--dp-delta must be in (0, 1), got {config.dp_delta}")
    if not config.private:
        if config.dp_clip or config.dp_delta:
            raise ConfigError("--dp-clip and --dp-delta need noise: give --dp-noise or --dp-epsilon")
        return
    if config.compare_solo:
        raise ConfigError(
            "--compare-solo trains one peer on all samples without noise, and writes down how well: that "
            "breaks what --dp-noise and --dp-epsilon promise; make a run of one rank of its own"
        )
    if config.byzantine:
        raise ConfigError(
            "--byzantine has ranks lie, some by changing their data or gradients, which "
            "private gradients replace; rehearse without --dp-noise and --dp-epsilon"
        )
    if config.clip_norm:
        raise ConfigError(
            "--clip-norm would clip what is mostly noise; give --dp-clip, the norm of one sample's"
        )
    if config.dp_epsilon and config.duration_s:
        raise ConfigError(
            "--dp-epsilon needs a number of steps and --duration has none; give --dp-noise, and read what it "
            "spent in summary.json"
        )


def check_data(stored: bool) -> None:
    """Raise ConfigError if the data are in the store: who asks its peers for samples tells who was drawn."""
    if stored:
        raise ConfigError(
            "data of the store are fetched from other ranks as batches need them, which tells those who was "
            "drawn, and the noise is only enough while nobody knows; give --data a directory of its own"
        )


def resolved(config: TrainConfig, share: int, batch_size: int, steps: int) -> tuple[float, float, float]:
    """Noise, clipping norm and delta, with what the options leave open; zeros without privacy.

    Args:
        config: checked.
        share: samples of the smallest share.
        batch_size, steps: of the run.

    Raises:
        ConfigError: no noise keeps the budget.
        SetupError: opacus is not installed.
    """
    if not config.private:
        return 0.0, 0.0, 0.0
    delta = config.dp_delta or default_delta(share)
    noise = config.dp_noise or noise_for(config.dp_epsilon, delta, batch_size / share, steps)
    return noise, config.dp_clip or _CLIP, delta


def mechanism(config: TrainConfig, task: Task, size: int) -> Mechanism:
    """Of every step of a resolved run; one for all ranks, whose shares differ by one sample at most."""
    return Mechanism(config.dp_noise, config.batch_size / (task.samples // size))


def spent_before(peer: Member, run_dir: Path) -> Spent:
    """What a run has spent on any sample until now, as all disks know it; all ranks together.

    Raises:
        ConfigError: a rank's account is damaged, or on no disk; all ranks raise.
    """
    error: PydecError | None = None
    mine: list[Any] = []
    try:
        for path in sorted((run_dir / _FOLDER).glob("rank-*.jsonl")):
            spent, ranks = read(path)
            mine.append([path.stem, ranks, [[key.noise, key.rate, n] for key, n in spent.items()]])
    except PydecError as caught:
        error = caught
    settle(peer, error)
    most: dict[Mechanism, int] = {}
    found, needed = set(), 0
    for words in texts(peer, json.dumps(mine) if mine else ""):
        for name, ranks, entries in json.loads(words) if words else []:
            found.add(name)
            needed = max(needed, ranks)
            for noise, rate, steps in entries:
                key = Mechanism(noise, rate)
                most[key] = max(most.get(key, 0), steps)
    missing = [name for rank in range(needed) if (name := f"rank-{rank}") not in found]
    if missing or not needed:
        name = missing[0] if missing else "rank-0"
        raise ConfigError(
            f"--resume {run_dir}: {_FOLDER}/{name}.jsonl is on no rank's disk, so nobody knows what was "
            "spent on its samples; bring the file back, or start a new run"
        )
    return most


def within_budget(
    config: TrainConfig, task: Task, size: int, point: Point | None, spent: Spent
) -> TrainConfig:
    """The same run with as many steps as its budget allows.

    Args:
        config: resolved.
        task: whose samples are counted.
        size: number of ranks.
        point: where the run goes on, which is told what changes; None if it begins.
        spent: before, see ``spent_before``.

    Raises:
        ConfigError: a run that begins asks for more.
        BudgetSpent: a run that goes on has nothing left.
    """
    if not config.dp_epsilon:
        return config
    step, done = mechanism(config, task, size), point.step if point else 0
    left = affordable(config.dp_epsilon, config.dp_delta, step, spent)
    if done + left >= config.steps:
        return config
    if point is None:
        spends = epsilon({step: config.steps}, config.dp_delta)
        raise ConfigError(
            f"{config.steps} steps with --dp-noise {step.noise:g} come to epsilon {spends:.4g} at delta "
            f"{config.dp_delta:g}, more than --dp-epsilon {config.dp_epsilon:g}; leave one of the two out, "
            f"or take at most {left} steps"
        )
    if not left:
        raise BudgetSpent(
            f"the run has come to epsilon {epsilon(spent, config.dp_delta):.4g} of --dp-epsilon "
            f"{config.dp_epsilon:g}, and one more step would be more; its newest checkpoint is what it gives"
        )
    point.said.append(
        f"steps count again when they are taken again: --dp-epsilon {config.dp_epsilon:g} allows {left} "
        f"more, so the run ends at step {done + left}, not {config.steps}"
    )
    return replace(config, steps=done + left)


class PrivateSteps:
    """One rank's batches and gradients; a context manager that holds its account.

    Iterating gives the batches, which are drawn in secret; an empty one has no inputs. Losses of training
    samples are not covered by the guarantee, so there are none: reports show epsilon.

    Args:
        config: resolved.
        task: model, loss and data.
        share: numbers of this rank's samples.
        size, rank: of the job.
        run_dir: where the account is.
        spent: before, see ``spent_before``.

    Raises:
        ConfigError, SetupError: see ``PrivateGradients``.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        share: Indices,
        size: int,
        rank: int,
        run_dir: Path,
        spent: Spent,
    ) -> None:
        self._dataset, self._share = task.train, share
        step = mechanism(config, task, size)
        self._private = PrivateGradients(
            task.model,
            task.loss,
            samples=len(share),
            batch_size=config.batch_size,
            noise=step.noise,
            account=run_dir / _FOLDER / f"rank-{rank}.jsonl",
            clip=config.dp_clip,
            delta=config.dp_delta,
            rate=step.rate,
            ranks=size,
        )
        self._private.account.at_least(spent)
        self._clip = config.dp_clip

    def __iter__(self) -> Iterator[Batch]:
        while True:
            chosen = self._private.draw()
            yield fetch(self._dataset, self._share[chosen]) if len(chosen) else ((), None)

    @traced("compute")
    def backward(self, batch: Batch) -> Tensor:
        """See ``PrivateGradients.backward``; the loss is NaN: nobody is to know it."""
        self._private.backward(*batch)
        return torch.tensor(math.nan)

    def figures(self) -> dict[str, float]:
        """What this rank has spent."""
        return {"epsilon": self._private.epsilon()}

    def facts(self, epsilons: Sequence[float | None]) -> dict[str, Any]:
        """What ``summary.json`` says.

        Args:
            epsilons: of every rank; None of those that are dead.
        """
        known = [value for value in epsilons if value is not None]
        return {
            "epsilon": max(known),
            "epsilon_by_rank": list(epsilons),
            "delta": self._private.delta,
            "noise": self._private.mechanism.noise,
            "clip": self._clip,
            "sample_rate": self._private.mechanism.rate,
            "neighbours": "one sample of a rank's share added or removed",
            "accountant": f"RDP, opacus {version()}",
        }

    def plan(self, steps: int) -> str:
        """What a run of so many more steps will spend, in words."""
        mine = self._private
        words = f"privacy         noise {mine.mechanism.noise:g}, clip {self._clip:g}"
        if not steps:
            return f"{words}: epsilon at delta {mine.delta:g} grows with every step"
        spends = mine.epsilon_after(steps)
        return f"{words}: {steps} steps come to epsilon {spends:.4g} at delta {mine.delta:g}"

    def __enter__(self) -> PrivateSteps:
        return self

    def __exit__(self, *error: object) -> None:
        self._private.close()


def words_of(privacy: Mapping[str, Any]) -> str:
    """``facts`` in one line."""
    return (
        f"epsilon {privacy['epsilon']:.4g} at delta {privacy['delta']:g} for each rank's samples "
        f"(noise {privacy['noise']:g}, clip {privacy['clip']:g})"
    )
