"""A run on the ledger: what is committed, what is verified, and which directories are refused."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from pydec.cli.main import main
from pydec.comm.faults import Death
from pydec.comm.local import LocalCluster, solo
from pydec.consensus.file_storage import read_blocks, read_genesis
from pydec.consensus.replay import Replay
from pydec.crypto import keyfile
from pydec.crypto.hashing import file_root, merkle_root
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError, Stopped
from pydec.peer import Peer
from pydec.train import checkpoint, job
from pydec.train.checkpoint_files import Store
from pydec.train.config import TrainConfig
from pydec.train.ledger import digest
from pydec.train.resume import configuration
from pydec.train.rundir import RunDir
from pydec.train.sealing import KEY_FILE

from .test_checkpoint import Immediate


def together(size: int, config: TrainConfig, run_dir: str) -> dict:
    def program(transport):
        with Peer(transport, signals=False) as peer:
            try:
                return job.run(peer, config, run_dir, quiet=True)
            except job.SharedError as error:
                shared = error
        raise shared.error

    return LocalCluster(size).run(program)[0]


def replayed(directory: Path) -> Replay:
    genesis = read_genesis(directory)
    replay = Replay(genesis)
    with read_blocks(directory, genesis) as blocks:
        for _, record in blocks.records():
            replay.add(record)
    return replay


def config(toy: str, **more) -> TrainConfig:
    return TrainConfig(f"{toy}:blobs", steps=6, eval_every=2, seed=3, ledger="ledger", **more)


@pytest.mark.parametrize("size", [1, 4])
def test_a_run_commits_its_config_data_models_and_end_and_the_next_goes_on(toy, size, capsys):
    first = together(size, config(toy), "first")
    said = json.loads(Path("first/summary.json").read_text())["ledger"]
    assert said == first["ledger"]
    assert said["checkpoints"] == [2, 4, 6]
    assert said["uncertified"] == []
    for rank in range(size):
        replay = replayed(Path(f"ledger/rank-{rank}"))
        state = replay.state
        assert (state.height, replay.head.hex()) == (said["height"], said["head"])
        assert state.run.config == sha256(Path("first/config.json").read_bytes()).digest()
        assert dict(state.run.options)["topology"] == "one-peer-exponential"
        assert len(state.table) == size
        assert len(state.datasets) == 1
        assert state.run.checkpoints[-1].root == file_root(Path("first/checkpoints/final.pt"))
        assert (state.run.end_round, state.run.end_root) == (6, state.run.checkpoints[-1].root)
    assert sorted(path.name for path in Path("first/checkpoints").glob("*.pt")) == ["final.pt", "step-4.pt"]
    second = together(size, config(toy), "second")
    assert second["ledger"]["chain_id"] == said["chain_id"]
    assert second["ledger"]["height"] > said["height"]
    assert len(replayed(Path("ledger/rank-0")).state.datasets) == 1  # the same data, registered once
    assert main(["ledger", "verify", "ledger/rank-0"]) == 0
    assert second["ledger"]["head"] in capsys.readouterr().out


def test_what_all_ranks_hold_of_a_checkpoint_is_committed(toy, monkeypatch):
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Immediate)
    said = together(3, config(toy, checkpoint_every=2, keep_last=9), "run")["ledger"]
    assert (said["checkpoints"], said["uncertified"]) == ([2, 4, 6], [])
    records = {record.round: record.root for record in replayed(Path("ledger/rank-2")).state.run.checkpoints}
    for step in (2, 4):
        manifests = [
            json.loads(Path(f"run/checkpoints/step-{step}/rank-{r}.json").read_text()) for r in range(3)
        ]
        assert records[step] == merkle_root(bytes.fromhex(manifest["digest"]) for manifest in manifests)
    assert records[6] == file_root(Path("run/checkpoints/final.pt"))
    again = configuration("run", {"steps": 10})

    def go_on(transport):
        with Peer(transport, signals=False) as peer:
            return job.run(peer, again, "run", quiet=True, resume=True)

    assert LocalCluster(3).run(go_on)[0]["ledger"]["checkpoints"] == [8, 10]


def test_a_run_that_was_put_back_to_an_older_checkpoint_is_noticed(toy, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Immediate)

    def go_on(steps: int, **options):
        again = configuration("run", {"steps": steps})

        def program(transport):
            with Peer(transport, signals=False) as peer:
                return job.run(peer, again, "run", resume=True, **options)

        return LocalCluster(2).run(program)[0]

    together(2, config(toy, checkpoint_every=2, keep_last=9), "run")
    shutil.copytree("run", "older")
    assert go_on(8)["ledger"]["checkpoints"] == [8]
    for step in (6, 8):
        shutil.rmtree(f"run/checkpoints/step-{step}")
    newer = r"has come to a checkpoint of step 8, and the newest that is whole here is of step"
    with pytest.raises(job.SharedError, match=rf"{newer} 4\..*; or say --resume-step 4 to go on"):
        go_on(10)
    shutil.rmtree("run")
    shutil.copytree("older", "run")  # with the config.json of an earlier start
    with pytest.raises(
        job.SharedError, match=rf"{newer} 6\..*; if that was another run, say --resume-step 6"
    ):
        go_on(10)
    with pytest.raises(
        job.SharedError, match="--resume-step 3: run has no checkpoint of that step; it has 2, 4"
    ):
        go_on(10, resume_step=3)
    capsys.readouterr()
    assert go_on(10, resume_step=2)["ledger"]["checkpoints"] == [4, 6, 8, 10]
    out = capsys.readouterr().out
    assert "step 2 was asked for; the ledger knows a checkpoint of step 8" in out
    assert "going on from step 2" in out
    assert go_on(12)["steps"] == 12  # what was asked for is the run's past from now on


def test_a_run_that_was_cut_short_is_ended_by_the_next(toy, monkeypatch):
    with monkeypatch.context() as cut:
        cut.setattr(job, "_finish", lambda *_: (_ for _ in ()).throw(Stopped(15, 0)))
        with pytest.raises(Stopped):
            together(2, config(toy), "first")
    state = replayed(Path("ledger/rank-1")).state
    assert state.run.running
    cut_id = state.run.run_id
    together(2, config(toy), "second")
    state = replayed(Path("ledger/rank-1")).state
    assert state.run.run_id != cut_id
    assert not state.run.running


def test_a_run_without_a_ledger_says_nothing_of_one(toy):
    with Peer(solo(), signals=False) as peer:
        result = job.run(peer, TrainConfig(f"{toy}:blobs", steps=4, seed=3), "run", quiet=True)
    assert "ledger" not in result
    assert [path.name for path in Path("run/checkpoints").glob("*.pt")] == ["final.pt"]


def test_what_entry_costs_is_chosen_with_the_run(toy):
    together(2, config(toy, admission="pow", puzzle="scrypt"), "first")
    state = replayed(Path("ledger/rank-1")).state
    assert (dict(state.run.options)["admission"], state.rules.puzzle) == ("pow", "scrypt")
    together(2, config(toy, admission="invite"), "second")
    assert dict(replayed(Path("ledger/rank-1")).state.run.options)["admission"] == "invite"
    with pytest.raises(ConfigError, match="--puzzle sha256: the ledger in ledger was made with scrypt"):
        together(2, config(toy, puzzle="sha256"), "third")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"admission": "luck", "ledger": "L"}, "--admission must be one of pow, stake, invite, got 'luck'"),
        ({"puzzle": "sudoku", "ledger": "L"}, "--puzzle must be one of sha256, scrypt, got 'sudoku'"),
        ({"admission": "pow"}, "--admission is a rule of the ledger; name its directory with --ledger"),
    ],
)
def test_rules_that_are_none_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig("stdlib-lm", **options)


def refused(size: int, toy: str) -> str:
    with pytest.raises(ConfigError) as error:
        together(size, config(toy), "refused")
    shutil.rmtree("refused", ignore_errors=True)
    return str(error.value)


def test_directories_that_do_not_belong_together_are_refused_by_all(toy):
    together(3, config(toy), "first")
    assert "is of 3 ranks, this job has 2; start 3 ranks" in refused(2, toy)
    Path("ledger/rank-1").rename("kept")
    assert "rank 1 has no ledger in rank-1" in refused(3, toy)
    shutil.rmtree("ledger/rank-1")
    Path("ledger/rank-2").rename("ledger/rank-1")
    Path("kept").rename("ledger/rank-2")
    assert "the directories have changed places" in refused(3, toy)
    Path(f"ledger/rank-0/{KEY_FILE}").unlink()
    keyfile.create(Path(f"ledger/rank-0/{KEY_FILE}"), SigningKey.generate())
    assert "rank 0 has key" in refused(3, toy)
    Path("taken").write_text("")
    with pytest.raises(Exception, match=r"taken/rank-0 cannot be made.*--ledger"):
        together(1, TrainConfig(f"{toy}:blobs", steps=2, ledger="taken"), "third")


def test_two_ranks_with_one_key_are_refused(toy):
    key = SigningKey.generate()
    for rank in range(2):
        Path(f"ledger/rank-{rank}").mkdir(parents=True)
        keyfile.create(Path(f"ledger/rank-{rank}/{KEY_FILE}"), key)
    assert "ranks 0 and 1 have the same key" in refused(2, toy)


def test_the_order_of_facts_does_not_matter():
    assert digest({"a": 1, "b": "x"}) == digest({"b": "x", "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_a_rank_that_dies_is_evicted_by_the_run_and_comes_back_in_the_next(toy):
    """Rank 0 dies: the others commit the end without it, and the next run begins with all four again."""

    def run(name: str, deaths: dict[int, Death] | None, seed: int) -> list[dict]:
        long = TrainConfig(
            f"{toy}:blobs", steps=80, eval_every=40, log_every=20, seed=3, ledger="ledger", threads=1
        )

        def program(transport):
            with Peer(transport, signals=False) as peer:
                return job.run(peer, long, name, quiet=True)

        return LocalCluster(4, seed, delay_s=(5e-4, 2e-3), deaths=deaths).run(program)

    run("first", {0: Death(0.4, (0.0, 2e-3))}, 0)
    said = json.loads(Path("first/summary.json").read_text())
    assert (said["status"], said["ranks_finished"]) == ("done", 3)
    assert [gone["rank"] for gone in said["ledger"]["evicted"]] == [0]
    first, second = said["ledger"]["epochs"]
    assert (first["members"], second["members"]) == ([0, 1, 2, 3], [1, 2, 3])
    state = replayed(Path("ledger/rank-1")).state
    assert len(state.table) == 3
    assert not state.run.running
    assert state.run.end_round == 80
    run("second", None, 1)
    said = json.loads(Path("second/summary.json").read_text())["ledger"]
    assert [view["members"] for view in said["epochs"]] == [[0, 1, 2, 3]]
    assert len(replayed(Path("ledger/rank-0")).state.table) == 4
    assert main(["ledger", "verify", "ledger"]) == 0


def test_a_minority_stops_with_one_error_that_all_have_alike(toy):
    long = TrainConfig(f"{toy}:blobs", steps=2000, log_every=1000, seed=3, ledger="ledger", threads=1)
    said = []

    def program(transport):
        with Peer(transport, signals=False) as peer:
            with pytest.raises(job.SharedError) as error:
                job.run(peer, long, "first", quiet=True)
            said.append(str(error.value))

    deaths = {rank: Death(0.4, (0.0, 2e-3)) for rank in (2, 3)}
    LocalCluster(4, 1, delay_s=(5e-4, 2e-3), deaths=deaths).run(program)
    assert len(said) == 2
    for words in said:
        assert "2 of 4 members are gone (ranks 2, 3), the ledger needs 3" in words
    summary = json.loads(Path("first/summary.json").read_text())
    assert summary["status"] == "failed"
    assert "the ledger needs 3" in summary["reason"]
    assert summary["ranks_finished"] == 2
    store = Store(RunDir(Path("first")))  # of the step that both came to
    assert store.steps() == [summary["steps"]]
    assert store.ranks(summary["steps"]) == store.members(summary["steps"]) == [0, 1]
