"""Everything that decides a rank's next step, taken between two steps, and what writes it."""

from __future__ import annotations

import json
from collections.abc import Callable

from pydec.comm.living import living
from pydec.crypto.hashing import sha256
from pydec.train.checkpoint import Saver, Snapshot
from pydec.train.checkpoint_files import OWN, Store
from pydec.train.checkpoint_state import flatten, model_tensors, random_state
from pydec.train.config import TrainConfig, versions
from pydec.train.loop import Loop
from pydec.train.replicas import disks
from pydec.train.replicas_chunks import replicas as made
from pydec.train.resume import Point, data_facts, decided
from pydec.train.together import Member


def saver_of(
    peer: Member,
    config: TrainConfig,
    loop: Loop,
    store: Store,
    point: Point | None,
    certify: Callable[[int, bytes], None] | None,
) -> Saver:
    """What writes this rank's checkpoints, put to work in its loop if there are to be any.

    Args:
        peer: this rank.
        config: resolved.
        loop: not yet running; goes on where the checkpoint was, if there is one.
        store: where checkpoints go.
        point: where the run goes on, if it does.
        certify: see ``Saver``.
    """
    replicas = None
    if config.replicas > 1:
        disk = disks(peer, store.home)
        there = len(set(disk))
        if there < config.replicas:
            loop.display.say(
                f"replicas        {there} of the {config.replicas} asked for: the ranks write to {there} "
                f"disk{'s' if there > 1 else ''} (a shared file system counts as one)"
            )
        replicas = made(peer, store, config.replicas, disk)
    saver = Saver(
        peer,
        store,
        lambda: snapshot(peer, config, loop, point),
        every=config.checkpoint_every,
        keep=config.keep_last,
        certify=certify,
        replicas=replicas,
    )
    if config.keep_last:
        loop.saver = saver
    if point is not None:
        loop.load_state(point.loop)
        saver.go_on(point.step, point.counts)
    return saver


def snapshot(peer: Member, config: TrainConfig, loop: Loop, point: Point | None) -> Snapshot:
    """A rank's state between two steps; see ``saver_of``.

    The position of its data is the number of steps taken, with the number of ranks that took them.
    """
    history = list(point.history) if point else []
    before = sum(taken for _, taken in history)
    if history and history[-1][0] == peer.size:
        before -= history.pop()[1]
    tensors = model_tensors(loop.task.model)
    layout = [[name, str(t.dtype), list(t.shape)] for name, t in tensors.items()]
    state = {
        "optimizer": loop.optimizer.state_dict(copy=False),
        "random": random_state(),
        "loop": loop.state(),
    }
    body = {
        "size": peer.size,
        "members": list(living(peer.transport).members),
        "epoch": loop.optimizer.peer.view.epoch,
        "steps": config.steps,
        "history": [*history, (peer.size, loop.progress.step - before)],
        "model": sha256(json.dumps(layout).encode()).hex(),
        "config": sha256(json.dumps(decided(config), sort_keys=True).encode()).hex(),
        "options": decided(config),
        "data": data_facts(loop.task),
        "versions": versions(),
        "state": {name: flatten(tree, OWN + name, tensors) for name, tree in state.items()},
    }
    return Snapshot(tensors, body)
