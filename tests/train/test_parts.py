"""A run goes on from copies on other disks: what comes from where, who is believed, and what is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pydec.comm.local import LocalCluster
from pydec.crypto.hashing import merkle_root
from pydec.errors import ConfigError, SetupError
from pydec.peer import Peer
from pydec.train.checkpoint_files import Store, digest_of
from pydec.train.handover import hand_over
from pydec.train.parts import Line, Parts, Roots
from pydec.train.replicas import Replicas
from pydec.train.resume import configuration
from pydec.train.rundir import RunDir

from .test_replicas import _here, held, on_own_disks, together
from .test_resume import config

MEMBERS = [0, 1, 2]


def store(disk: int) -> Store:
    return Store(RunDir(Path(f"disk-{disk}/run")))


def write(disk: int, part: int, *, step: int = 4, value: float = 0.0, history: int = 4) -> str:
    """A rank's part on a disk; its digest."""
    body = {"size": 3, "members": MEMBERS, "history": [[3, history]], "config": "c"}
    store(disk).write_tensors(step, part, {"x": torch.arange(50000.0) + part + value}, body)
    return digest_of(store(disk).manifest(step, part))


def damage(disk: int, part: int, step: int = 4) -> None:
    path = store(disk).path(step, part)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def on_disks(act: Callable[[Parts], Any], size: int = 3, copies: int = 2) -> list[Any]:
    """``act(parts)`` on ranks with a disk each."""

    def program(transport: Any) -> Any:
        _here.rank = transport.rank
        with Peer(transport, signals=False) as peer:
            return act(Parts(peer, store(transport.rank), copies))

    return LocalCluster(size).run(program)


def gathered(parts: Parts) -> tuple[str, list[str]]:
    """What comes of the newest checkpoint without a ledger."""
    line = parts.lines[0]
    digests, why = parts.choose(line, {})
    return why or parts.gather(line, digests), parts.said


def same_on_all(told: Sequence[Any]) -> Any:
    assert all(each == told[0] for each in told)
    return told[0]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_lost_disk_held_comes_from_others_and_has_its_copies_again(here):
    for disk, part in ((0, 0), (0, 2), (2, 2), (2, 1)):  # disk 1 is new
        write(disk, part)
    why, said = same_on_all(on_disks(gathered))
    assert why == ""
    assert said == ["checkpoint of step 4: what rank 1 had came from other disks and 1 copy was made again"]
    on = {part: [disk for disk in range(3) if part in held(disk, 4)] for part in MEMBERS}
    assert on == {0: [0, 1], 1: [1, 2], 2: [0, 2]}
    for part, disks in on.items():
        for disk in disks:
            store(disk).verify(4, part)


@pytest.mark.parametrize("size", [2, 4])
def test_other_ranks_get_the_parts_that_they_read(here, size):
    for disk, part in ((0, 0), (0, 2), (2, 2), (2, 1)):
        write(disk, part)
    if size == 2:  # the host of rank 1 is gone
        shutil.move("disk-2", "disk-1")
    assert same_on_all(on_disks(gathered, size))[0] == ""
    for place, part in enumerate(MEMBERS):
        assert part in held(place % size, 4)
        assert sum(part in held(disk, 4) for disk in range(size)) == 2


def test_a_damaged_copy_is_named_and_replaced(here):
    for disk, part in ((0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (0, 2)):
        write(disk, part)
    damage(0, 2)
    damage(1, 1)
    why, said = same_on_all(on_disks(gathered))
    assert why == ""
    assert [words.split("/run/")[0] for words in said[:2]] == [
        "rank 0's disk: disk-0",
        "rank 1's disk: disk-1",
    ]
    assert "rank-2.safetensors is damaged" in said[0]
    assert "what rank 1 had came from other disks and 1 copy was made again" in said[2]
    store(0).verify(4, 2)
    store(1).verify(4, 1)


def test_a_holder_that_sends_another_part_than_it_said_is_named_and_another_asked(here, monkeypatch):
    for disk, part in ((0, 0), (0, 1), (1, 0), (2, 1), (2, 2), (1, 2)):
        write(disk, part)
    damage(0, 1)
    verify = Store.verify

    def lie(self: Store, step: int, part: int) -> dict[str, Any]:
        lies = _here.rank == 0 and part == 1
        return self.manifest(step, part) if lies else verify(self, step, part)

    monkeypatch.setattr(Store, "verify", lie)
    why, said = same_on_all(on_disks(gathered))
    assert why == ""
    words = "rank 0's disk: what arrived of rank 1's checkpoint of step 4 is damaged; another holder is asked"
    assert said[0] == words
    monkeypatch.setattr(Store, "verify", verify)
    for disk in (1, 2):
        store(disk).verify(4, 1)


def test_a_part_that_no_disk_holds_whole_is_said(here):
    for disk, part in ((0, 0), (1, 1), (1, 2)):
        write(disk, part)
    damage(1, 2)
    why, said = same_on_all(on_disks(gathered))
    assert why.startswith("rank 1's disk: disk-1/run/checkpoints/step-4/rank-2.safetensors is damaged")
    assert said == []
    store(1).remove(4, 2)
    missing = same_on_all(on_disks(lambda parts: parts.missing(parts.lines[0]).partition("run/")[2]))
    assert missing == "checkpoints/step-4/rank-2.json is missing on every rank's disk"


def test_most_disks_are_believed_then_ones_own_and_two_that_differ_are_not(here):
    right = [write(part, part) for part in MEMBERS]
    write(1, 0, value=1.0)
    assert same_on_all(on_disks(lambda parts: parts.choose(parts.lines[0], {}))) == (right, "")
    other = write(2, 0, value=1.0)
    assert same_on_all(on_disks(lambda parts: parts.choose(parts.lines[0], {})))[0][0] == other
    store(0).remove(4, 0)
    write(1, 0)
    why = same_on_all(on_disks(gathered))[0]
    assert "hold different parts of rank 0, and nothing says which is right" in why


def test_the_ledger_says_which_parts_are_right(here):
    right = [write(part, part) for part in MEMBERS]
    for disk in (0, 1, 2):
        write(disk, 0, value=1.0)
    write(1, 0)
    root = merkle_root(map(bytes.fromhex, right)).hex()

    def choose(known: Roots) -> Any:
        return same_on_all(on_disks(lambda parts: parts.choose(parts.lines[0], known)))

    assert choose({4: frozenset([root])}) == (right, "")
    assert "have not the root that the ledger certified" in choose({4: frozenset(["00" * 32])})[1]
    assert "are not certified" in choose({3: frozenset([root])})[1]


def test_parts_of_another_past_do_not_belong_to_a_checkpoint(here):
    for part in MEMBERS:
        write(part, part)
    write(2, 2, history=3)  # of a run that went another way to step 4
    lines = same_on_all(on_disks(lambda parts: [(line, bool(parts.missing(line))) for line in parts.lines]))
    assert len(lines) == 2
    assert all(isinstance(line, Line) and lacks for line, lacks in lines)


def test_a_disk_that_cannot_take_what_its_rank_needs_ends_it_with_one_error(here, monkeypatch):
    for disk, part in ((0, 0), (0, 1), (2, 2)):
        write(disk, part)
    real = RunDir.write_with

    def full(self: RunDir, name: str, fill: Any) -> None:
        if _disk_of(self) == 1:
            raise SetupError("the disk is full")
        real(self, name, fill)

    monkeypatch.setattr(RunDir, "write_with", full)
    with pytest.raises(SetupError, match="rank 1 cannot keep rank 1's part: the disk is full"):
        on_disks(gathered)


def _disk_of(directory: RunDir) -> int:
    return int(directory.path.parent.name[5:])


def test_any_part_can_be_sent_to_any_rank(here):
    write(0, 2)

    def program(transport: Any) -> tuple[int, set[tuple[int, int]]]:
        with (
            Peer(transport, signals=False) as peer,
            Replicas(peer, store(transport.rank), 1, range(3)) as replicas,
        ):
            if transport.rank == 0:
                replicas.begin(4, 2, [2, 1])
            replicas.finish()
            return replicas.there, replicas.arrived

    assert LocalCluster(3).run(program) == [(3, set()), (1, {(4, 2)}), (1, {(4, 2)})]
    for disk in (1, 2):
        store(disk).verify(4, 2)


@pytest.mark.parametrize("ranks", [3, 2])
def test_a_run_goes_on_without_one_of_its_disks(toy, monkeypatch, capsys, ranks):
    on_own_disks(monkeypatch)
    settings = config(toy, replicas=2)
    together(3, settings)
    shutil.copytree("disk-2", "whole")
    shutil.rmtree("disk-1")
    if ranks == 2:
        shutil.move("disk-2", "disk-1")
    for disk in Path().glob("disk-*/run"):
        shutil.rmtree(disk / "checkpoints/step-12")
        (disk / "summary.json").unlink(missing_ok=True)
    step = max(store(0).folders())  # a disk that is slow leaves one out

    def program(transport: Any) -> Any:
        from pydec.train import job

        _here.rank = transport.rank
        with Peer(transport, signals=False) as peer:
            path = Path(f"disk-{transport.rank}/run")
            hand_over(peer, path)
            return job.run(peer, configuration(str(path), {}), "run", quiet=transport.rank > 0, resume=True)

    result = LocalCluster(ranks).run(program)[0]
    assert (result["steps"], result["ranks_finished"]) == (12, ranks)
    out = capsys.readouterr().out
    assert f"going on from step {step}" in out
    assert "made again" in out
    assert json.loads(Path("disk-1/run/config.json").read_text())["options"]["replicas"] == 2
    if ranks == 3:  # the same bits
        for part in held(2, 12):
            mine, theirs = (
                load_file(f"{disk}/run/checkpoints/step-12/rank-{part}.safetensors")
                for disk in ("disk-2", "whole")
            )
            assert [
                name for name in mine if "random" not in name and not torch.equal(mine[name], theirs[name])
            ] == []


def test_a_configuration_is_handed_over_and_two_runs_are_not_mixed(here):
    def write_config(disk: int, started: str, steps: int, task: str = "t") -> None:
        directory = RunDir(Path(f"disk-{disk}/run"))
        directory.join()
        directory.write(
            "config.json", {"task": task, "seed": 0, "started": started, "options": {"steps": steps}}
        )

    def program(transport: Any) -> int:
        path = Path(f"disk-{transport.rank}/run")
        with Peer(transport, signals=False) as peer:
            hand_over(peer, path)
        return int(json.loads((path / "config.json").read_text())["options"]["steps"])

    write_config(0, "2026-01-01T00:00:00", 10)
    write_config(2, "2026-01-02T00:00:00", 20)
    assert LocalCluster(3).run(program) == [20, 20, 20]
    write_config(1, "2026-01-03T00:00:00", 10, task="other")
    with pytest.raises(ConfigError, match="rank 1 has a run of other with seed 0 there, rank 0 one of t"):
        LocalCluster(3).run(program)
