"""What a rank needs for its part of a job: task, batches and optimiser, seen to be alike on all ranks."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import nn

from pydec.optim import DecentralizedOptimizer
from pydec.peer import Peer
from pydec.privacy.accountant import Spent
from pydec.privacy.clipping import check_model
from pydec.train import private, split, tasks
from pydec.train.batches import Batches, batches_after, labels_of
from pydec.train.byzantine import Byzantine, robustness
from pydec.train.checkpoint_files import Store
from pydec.train.checkpoint_keys import vault_of
from pydec.train.checkpoint_vault import Vault
from pydec.train.config import TrainConfig, versions
from pydec.train.growth import Carried, Kept
from pydec.train.loop import local_optimizer
from pydec.train.restoring import read_mean, restore
from pydec.train.resume import Point, find, in_memory
from pydec.train.rollback import Wanted
from pydec.train.split import Indices
from pydec.train.stored import Stored
from pydec.train.task import Task
from pydec.train.together import jointly

# torch's random state is one for all threads; a local cluster has many ranks in one
_BUILDING = threading.Lock()


@dataclass
class Setup:
    """What one rank needs for its part of the job."""

    config: TrainConfig
    task: Task
    batches: Batches
    optimizer: DecentralizedOptimizer
    initial: nn.Module | None
    split: str
    vault: Vault | None
    share: Indices
    point: Point | None = None
    byzantine: Byzantine | None = None
    spent: Spent = field(default_factory=dict)
    batches_of: Callable[[int], Batches] | None = None  # of any rank, from the first step of this start on


def prepare(
    peer: Peer,
    config: TrainConfig,
    store: Store | None = None,
    data: Stored | None = None,
    wanted: Wanted = Wanted(),  # noqa: B008  # frozen
    carried: Carried | None = None,
    run_dir: Path = Path(),
) -> Setup:
    """Build the task, this rank's batches and the optimiser, and see that all ranks have the same.

    Args:
        peer: this rank.
        config: as the user gave it.
        store: checkpoints to go on from; None begins.
        data: the data set of the store that ``config.data`` names, if it does.
        wanted: which of the checkpoints may be gone on from.
        carried: in place of checkpoints, where the ranks of the job have changed under way.
        run_dir: of the run, if it goes on.

    Raises:
        SharedError: something of this failed on some rank.
    """
    point: Point | None = None
    source: Store | Kept | None = store
    if carried is not None:
        source = kept = carried.kept
        point = jointly(peer, lambda: in_memory(peer, kept, config, carried.first), settled=False)
    elif store is not None:
        store.vault = vault_of(peer, config)
        point = jointly(peer, lambda: find(peer, store, config, wanted), settled=False)
    built = jointly(peer, lambda: _build(config, peer, point, data, carried))
    resolved, task, batches_of, shares = built
    batches = batches_of(peer.rank)
    spent: Spent = {}
    if resolved.private:
        if point is not None:
            spent = jointly(peer, lambda: private.spent_before(peer, run_dir), settled=False)
        resolved = jointly(peer, lambda: private.within_budget(resolved, task, peer.size, point, spent))
    name = split.digest(shares)
    jointly(
        peer,
        lambda: peer.agree({**resolved.shared(), "split of the data": name, **_facts(task)}),
        settled=False,
    )
    vault = vault_of(peer, config) if store is None or carried is not None else store.vault
    if carried is not None and carried.kept is not None:
        initial = carried.kept.initial
    else:
        initial = copy.deepcopy(task.model) if resolved.compare_solo and peer.rank == 0 else None
    byzantine = jointly(peer, lambda: robustness(resolved, peer))
    optimizer = jointly(
        peer, lambda: _optimizer(resolved, task, peer, source, point, byzantine), settled=False
    )
    if byzantine is not None:
        jointly(peer, lambda: byzantine.mark(optimizer, batches, task, peer.rank))
    torch.manual_seed(config.seed * 65536 + peer.rank + 1)  # dropout and the like differ between ranks
    if point is not None and source is not None and point.same(peer.size):
        jointly(peer, lambda: restore(source, point, peer.rank, task.model, optimizer))
    mine, found = shares[peer.rank], (point, byzantine, spent, batches_of)
    return Setup(resolved, task, batches, optimizer, initial, name, vault, mine, *found)


def _build(
    config: TrainConfig, peer: Peer, point: Point | None, data: Stored | None, carried: Carried | None
) -> tuple[TrainConfig, Task, Callable[[int], Batches], list[Indices]]:
    make = None if data is None else data.dataset
    had = None if carried is None else carried.kept.task if carried.kept is not None else carried.task
    if data is not None or config.private:  # it is tied to the job of before
        had = None
    with _BUILDING:
        task = had or tasks.make(config.task, data=config.data or None, seed=config.seed, stored=make)
    if data is not None:
        task.facts["data_root"] = data.manifest.root.hex()
    resolved = config.resolve(task, peer.size)
    if resolved.private:
        private.check_data(data is not None)
        check_model(task.model)

    @cache
    def shares(size: int) -> list[Indices]:
        if resolved.alpha:
            labels = labels_of(task.train, task.labels)
            return split.dirichlet(labels, size, resolved.alpha, resolved.seed)
        return split.iid(task.samples, size, resolved.seed)

    def batches_of(rank: int) -> Batches:
        history = point.history if point else []
        facts = resolved.batch_size, resolved.seed, rank, peer.size
        return batches_after(task.train, task.samples, shares, history, *facts)

    batches_of(peer.rank)  # else its errors would be this rank's alone
    local_optimizer(resolved, task, task.model)
    if point is not None:
        point.check_data(task)
    return resolved, task, batches_of, shares(peer.size)


def _optimizer(
    config: TrainConfig,
    task: Task,
    peer: Peer,
    source: Store | Kept | None,
    point: Point | None,
    byzantine: Byzantine | None,
) -> DecentralizedOptimizer:
    local = local_optimizer(config, task, task.model)
    if point is not None and not point.same(peer.size):
        read_mean(peer, source, point, task.model, local)
    return DecentralizedOptimizer(
        local,
        peer,
        topology=config.topology,
        compressor=config.compressor,
        algorithm=config.algorithm if byzantine is None else byzantine.algorithm_of(peer.rank),
        local_steps=config.local_steps,
        mixing=config.mixing,
        iid=not config.alpha,
        model=task.model,
        nan_policy=config.nan_policy,
        background=config.background,
        late="drop" if byzantine is not None and byzantine.algorithm.robust else "raise",
    )


def _facts(task: Task) -> dict[str, str]:
    facts = {f"data: {key}": str(value) for key, value in task.facts.items() if key != "data"}
    return {**facts, **{f"version of {name}": version for name, version in versions().items()}}
