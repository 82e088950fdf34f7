"""Copies of checkpoints on other disks: who gets them, what a loss costs, and what damage is noticed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from pydec.comm.faults import Death
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Stream
from pydec.errors import ConfigError, PeerTimeout, SetupError
from pydec.peer import Peer
from pydec.train import checkpoint, job
from pydec.train.checkpoint_files import Store
from pydec.train.config import TrainConfig
from pydec.train.replicas import Replicas, holders
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


def made(rank: int) -> Store:
    """A rank's store on a disk of its own, with a checkpoint of step 4."""
    store = Store(RunDir(Path(f"disk-{rank}/run")))
    store.write_tensors(4, rank, {"x": torch.arange(50000.0) + rank}, {"members": [0, 1]})
    return store


def exchange(act: Any, *, size: int = 2, **cluster: Any) -> list[Any]:
    """``act(peer, replicas)`` on ranks with a disk each."""

    def program(transport: Any) -> Any:
        store = made(transport.rank)
        with Peer(transport, signals=False) as peer, Replicas(peer, store, 2, range(size)) as replicas:
            return act(peer, replicas)

    return LocalCluster(size, **cluster).run(program)


def test_fewer_disks_than_copies_are_said_once_and_nothing_is_certified(toy, monkeypatch, capsys):
    certified: list[int] = []
    settle = checkpoint.Saver.__init__

    def watched(self: Any, *given: Any, **named: Any) -> None:
        settle(self, *given, **{**named, "certify": lambda step, root: certified.append(step)})

    monkeypatch.setattr(checkpoint.Saver, "__init__", watched)
    together(2, config(toy, replicas=2, keep_last=2))  # both on one disk
    said = capsys.readouterr().err
    assert said.count("has 1 of the 2 copies asked for") == said.count("warning") == 1
    assert "the checkpoint of step 4 has" in said
    assert not certified
    on_own_disks(monkeypatch)
    together(2, config(toy, replicas=2, keep_last=2))
    assert certified.count(4) == certified.count(12) == 2
    assert {*certified} <= {4, 8, 12}  # a disk that is still busy leaves out what lies between


def test_a_receiver_that_dies_without_a_spare_leaves_one_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def act(peer: Any, replicas: Replicas) -> tuple[int, str]:
        if peer.rank == 0:
            replicas.begin(4)
        while replicas.busy or peer.rank == 1:
            replicas.turn()
            peer.transport.stream(Stream.STORE).poll()
        return replicas.there, replicas.failure

    assert exchange(act, delay_s=1e-3, deaths={1: Death(2e-3)})[0] == (1, "")


def test_what_a_dead_sender_left_half_sent_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen: list[bool] = []

    def act(peer: Any, replicas: Replicas) -> None:
        folder = replicas._store.path(4, 0).parent
        if peer.rank == 0:
            link = replicas._link
            half = replicas._send

            def first(other: int, leaving: Any) -> bool:
                return not leaving.sent and half(other, leaving)

            monkeypatch.setattr("pydec.train.replicas.WINDOW_BYTES", 1)
            replicas._send = first  # type: ignore[method-assign]
            replicas.begin(4)
            while not link.lost():
                replicas.turn()
        while not peer.transport.lost():
            replicas.turn()
            seen.append(any(folder.glob(".*.tmp")))
        replicas.turn()
        assert not list(folder.glob(".*.tmp"))

    exchange(act, delay_s=1e-3, deaths={0: Death(0.05)})
    assert any(seen)
    assert held(1, 4) == [1]


def test_a_hung_sender_ends_no_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def act(peer: Any, replicas: Replicas) -> int:
        if peer.rank == 1:
            link, full = replicas._link, [True] * 3
            post = link.post

            def refuse(other: int, data: bytes) -> None:
                if full:
                    full.pop()
                    raise PeerTimeout(other, "its queue is full")
                post(other, data)

            monkeypatch.setattr(link, "post", refuse)
        else:
            replicas.begin(4)
        replicas.finish()
        return replicas.there

    assert exchange(act) == [2, 1]
    assert held(1, 4) == [0, 1]


def test_messages_cut_short_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def act(peer: Any, replicas: Replicas) -> tuple[int, str]:
        if peer.rank == 0:
            post = replicas._link.post
            monkeypatch.setattr(replicas._link, "post", lambda other, data: post(other, data[:-1]))
            replicas.begin(4)
        replicas.finish()
        return replicas.there, replicas.failure

    there, why = exchange(act)[0]
    assert there == 1
    assert "rank 1 could not keep a copy: the piece at byte 0 is not what follows" in why
    assert held(1, 4) == [1]


def test_what_a_killed_receiver_left_is_swept_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = made(0)
    folder = store.path(4, 0).parent
    left = [".rank-1.safetensors.77-0.tmp", "..rank-1.safetensors.77-0.json.tmp.77.tmp"]
    other = ".rank-1.safetensors.77-10.tmp"  # of a rank that shares the disk
    for name in [*left, other]:
        (folder / name).write_bytes(b"half")
    exchange(lambda peer, replicas: None)
    assert [path.name for path in folder.glob(".*")] == [other]


def test_a_copy_whose_manifest_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine, other = made(0), made(1)
    arrived = other.path(4, 1).parent / ".rank-0.safetensors.1-1.tmp"
    for blocked in (False, True):
        arrived.write_bytes(mine.path(4, 0).read_bytes())
        manifest = mine.path(4, 0, "json").read_bytes()
        if blocked:
            monkeypatch.setattr(RunDir, "write_with", full_disk)
            with pytest.raises(SetupError, match="full"):
                other.adopt(4, 0, arrived, manifest)
        else:
            other.adopt(4, 0, arrived, manifest)
        other.verify(4, 0)


def full_disk(*given: Any) -> None:
    raise SetupError("the disk is full")


def test_more_copies_than_ranks_are_refused_on_all_ranks_alike(toy, monkeypatch):
    on_own_disks(monkeypatch)

    def program(transport: Any) -> str:
        _here.rank = transport.rank
        with Peer(transport, signals=False) as peer, pytest.raises(job.SharedError) as caught:
            job.run(peer, config(toy, replicas=4), "run", quiet=True)
        return str(caught.value)

    said = LocalCluster(3).run(program)
    assert said == ["--replicas 4 is more than the 3 ranks of this job"] * 3
