"""Checkpoints beside training: who waits, what is kept while a disk is slow, and what memory it takes."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from pydec.comm.faults import Death
from pydec.comm.local import LocalCluster, solo
from pydec.crypto.hashing import merkle_root
from pydec.errors import SetupError
from pydec.peer import Peer
from pydec.train import checkpoint
from pydec.train.checkpoint import Saver, Snapshot
from pydec.train.checkpoint_files import Store, digest_of
from pydec.train.rundir import RunDir


class Immediate:
    """A disk that is as quick as the program; stands for the thread that writes."""

    def __init__(self, *_: Any) -> None:
        pass

    def submit(self, work: Any, *args: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self, *, wait: bool) -> None:
        pass


class Later(Immediate):
    """A disk that writes when it is told to."""

    def __init__(self, *_: Any) -> None:
        self.waiting: list[tuple[Future[Any], Any, Any]] = []

    def submit(self, work: Any, *args: Any) -> Future[Any]:
        self.waiting.append((Future(), work, args))
        return self.waiting[-1][0]

    def write(self) -> None:
        for done, work, args in self.waiting:
            done.set_result(work(*args))
        self.waiting.clear()


def made(peer: Any, directory: Any, model: torch.Tensor, **options: Any) -> Saver:
    return Saver(
        peer, Store(RunDir(directory)), lambda: Snapshot({"x": model}, {"size": peer.size}), **options
    )


def test_a_slow_disk_makes_all_ranks_leave_one_out_and_loses_no_older_one(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Later)

    def program(transport):
        with Peer(transport, signals=False) as peer:
            model = torch.zeros(4)
            certified: list[int] = []
            saver = made(
                peer, tmp_path, model, every=2, keep=1, certify=lambda step, _: certified.append(step)
            )
            store = Store(RunDir(tmp_path))
            held = []
            for step in range(1, 15):
                model.fill_(step)
                saver.after(step)
                if peer.rank == 0 or step % 4 == 3:  # rank 1's disk takes longer than 2 steps
                    saver._thread.write()
                held.append([old for old in range(16) if peer.rank in store.ranks(old)])
            return saver.left_out, certified, held

    (left_out, certified, held), (_, _, slow) = LocalCluster(2).run(program)
    assert left_out == 3
    assert certified == [2, 4, 8]
    for step in range(3, 14):  # whatever happens now, both have one in common
        assert set(held[step]) & set(slow[step])
    assert 2 not in held[-1]


def test_what_is_written_is_the_state_of_its_step_in_one_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Later)
    with Peer(solo(), signals=False) as peer:
        model = torch.zeros(1000)
        saver = made(peer, tmp_path, model, every=1, keep=3)
        buffers = set()
        for step in range(1, 6):
            model.fill_(step)
            saver.after(step)
            model.fill_(-1.0)
            saver._thread.write()
            assert saver._buffer is not None
            buffers.add(saver._buffer.data_ptr())
        assert len(buffers) == 1
        saver.now(5)
        assert saver.complete(5) is None
        store = Store(RunDir(tmp_path))
        assert store.steps() == [5, 4, 3]
        for step in store.steps():
            store.verify(step, 0)
            assert torch.equal(store.tensors(step, 0)["x"], torch.full((1000,), float(step)))


def test_the_root_is_of_all_ranks_manifests(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Immediate)

    def program(transport):
        with Peer(transport, signals=False) as peer:
            roots: dict[int, bytes] = {}
            saver = made(
                peer, tmp_path, torch.full((2,), float(peer.rank)), every=1, keep=5, certify=roots.__setitem__
            )
            saver.after(1)
            saver.now(2)
            return roots

    results = LocalCluster(3).run(program)
    store = Store(RunDir(tmp_path))

    digests = [json.loads(store.path(2, rank, "json").read_text())["digest"] for rank in range(3)]
    assert results == [results[0]] * 3
    assert results[0][2] == merkle_root(bytes.fromhex(digest) for digest in digests)


def test_a_rank_that_cannot_write_is_named_and_stops_nobody(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Immediate)
    real = RunDir.write_with

    def write(self, name, fill):
        if "step-4/rank-1" in name or "step-6/rank-1" in name:
            raise SetupError("the disk is full")
        real(self, name, fill)

    monkeypatch.setattr(RunDir, "write_with", write)

    def program(transport):
        with (
            Peer(transport, signals=False) as peer,
            made(peer, tmp_path, torch.zeros(2), every=2, keep=1) as saver,
        ):
            for step in range(1, 7):
                saver.after(step)
            saver.now(6)
            return str(saver.complete(6))

    results = LocalCluster(2).run(program)
    assert "rank 1 could not write its part (the disk is full)" in results[1]
    assert "can go on from step 2" in results[0]
    assert "rank 1: the checkpoint of step 4 could not be written, training goes on: the disk is full" in (
        capsys.readouterr().err
    )
    store = Store(RunDir(tmp_path))
    assert store.ranks(2) == [0, 1]


def test_an_error_of_the_writer_that_nobody_foresaw_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "write_buffer", lambda *_: 1 / 0)
    with Peer(solo(), signals=False) as peer, made(peer, tmp_path, torch.zeros(2), every=1, keep=1) as saver:
        saver.after(1)
        with pytest.raises(ZeroDivisionError):
            saver.wait()


def test_the_thread_writes_while_the_program_goes_on(tmp_path, monkeypatch):
    gate, entered = threading.Event(), threading.Event()
    real = Store.write_buffer

    def slow(self, *args):
        entered.set()
        assert gate.wait(20)
        return real(self, *args)

    monkeypatch.setattr(Store, "write_buffer", slow)
    with Peer(solo(), signals=False) as peer, made(peer, tmp_path, torch.ones(8), every=1, keep=2) as saver:
        saver.after(1)
        assert entered.wait(20)
        saver.after(2)  # returns, and leaves this one out
        assert saver.left_out == 1
        gate.set()
        saver.now(3)
        assert saver.newest == 3
    assert Store(RunDir(tmp_path)).steps() == [3, 1]


@pytest.mark.parametrize("written", [True, False])
def test_a_rank_that_dies_before_all_know_what_it_wrote_is_part_of_that_checkpoint(
    tmp_path, monkeypatch, written
):
    """Its digest comes from whoever's disk holds its part; where none does the checkpoint does not count."""
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Immediate)

    def program(transport):
        with Peer(transport, signals=False) as peer:
            found: list[tuple[int, bytes]] = []
            saver = made(
                peer, tmp_path, torch.ones(4), every=2, keep=9, certify=lambda *what: found.append(what)
            )
            with saver:
                for step in range(1, 7):
                    if step == 3 and peer.rank == 2:
                        if not written:
                            saver._store.remove(2, 2)
                        peer.transport.irecv(0, 1, memoryview(bytearray(1))).wait()  # until it dies
                    saver.after(step)
            return found

    cluster = LocalCluster(3, deaths={2: Death(0.2, (0.0, 1e-3))}, delay_s=1e-4)
    first, second, _ = cluster.run(program)
    store = Store(RunDir(tmp_path))

    def root(step: int, ranks: list[int]) -> bytes:
        return merkle_root(bytes.fromhex(digest_of(store.manifest(step, rank))) for rank in ranks)

    assert first == second == [*([(2, root(2, [0, 1, 2]))] if written else []), (4, root(4, [0, 1]))]


def test_a_checkpoint_counts_before_the_next_one_is_due(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Immediate)

    def program(transport):
        with Peer(transport, signals=False) as peer:
            found: list[int] = []
            saver = made(
                peer, tmp_path, torch.ones(4), every=8, keep=9, certify=lambda step, _: found.append(step)
            )
            counted = []
            with saver:
                for step in range(1, 20):
                    saver.after(step)
                    counted.append(list(found))
            return counted

    for counted in LocalCluster(3).run(program):
        assert counted == [[]] * 9 + [[8]] * 8 + [[8, 16]] * 2
