"""Copies of checkpoints on other disks: who gets them, what a loss costs, and what damage is noticed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError
from pydec.peer import Peer
from pydec.train import job
from pydec.train.checkpoint_files import Store
from pydec.train.config import TrainConfig
from pydec.train.replicas import holders
from pydec.train.rundir import RunDir

from .test_resume import config

_here = threading.local()


def on_own_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank's run directory lies below a directory of its own, as on disks that are not shared."""
    monkeypatch.setattr(job, "RunDir", lambda path: RunDir(Path(f"disk-{_here.rank}") / path))


def together(size: int, settings: TrainConfig, *, resume: bool = False, **cluster: Any) -> Any:
    def program(transport: Any) -> Any:
        _here.rank = transport.rank
        with Peer(transport, signals=False) as peer:
            try:
                return job.run(peer, settings, "run", quiet=True, resume=resume)
            except job.SharedError as error:
                shared = error
        raise shared.error

    return LocalCluster(size, **cluster).run(program)[0]


def held(rank: int, step: int) -> list[int]:
    return Store(RunDir(Path(f"disk-{rank}/run"))).ranks(step)


def test_other_nodes_come_first_and_every_disk_gets_one_copy():
    assert holders(0, range(4), [0, 1, 2, 3], [0, 0, 1, 1]) == [2, 3, 1]
    assert holders(3, range(4), [0, 1, 2, 3], [0, 0, 1, 1]) == [0, 1, 2]
    assert holders(1, range(4), [0, 0, 2, 2], [0, 0, 1, 1]) == [2]
    assert holders(1, [1, 3], [0, 0, 2, 2], [0, 0, 1, 1]) == [3]
    assert holders(1, range(4), [0, 0, 0, 0], [0, 0, 1, 1]) == []


def test_fewer_than_one_is_refused(toy):
    with pytest.raises(ConfigError, match="--replicas must be at least 1, got 0"):
        config(toy, replicas=0)


def test_each_file_is_on_two_disks_and_old_copies_go(toy, monkeypatch):
    on_own_disks(monkeypatch)
    together(3, config(toy, replicas=2, keep_last=1))
    for rank in range(3):
        assert held(rank, 12) == sorted([rank, (rank - 1) % 3])
        for copy in held(rank, 12):
            Store(RunDir(Path(f"disk-{rank}/run"))).verify(12, copy)
        assert held(rank, 4) == []
    assert not list(Path().glob("disk-*/run/checkpoints/step-*/.*"))
