"""A whole job on one rank and on several: what it writes, what it repeats, how it ends early."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pydec.comm.local import LocalCluster, solo
from pydec.errors import ConfigError, NonFiniteError, Stopped
from pydec.peer import Peer
from pydec.train import job
from pydec.train.config import TrainConfig

KEYS = {"step", "time_s", "loss", "bytes_sent", "bytes_received", "step_s", "wait_s", "kind", "lr"}


def alone(config: TrainConfig, run_dir: str = "run") -> dict:
    with Peer(solo(), signals=False) as peer:
        return job.run(peer, config, run_dir, quiet=True)


def together(size: int, config: TrainConfig, run_dir: str = "run") -> dict:
    def program(transport):
        with Peer(transport, signals=False) as peer:
            try:
                return job.run(peer, config, run_dir, quiet=True)
            except job.SharedError as error:  # as the command does: leave first, then raise
                shared = error
        raise shared

    return LocalCluster(size).run(program)[0]


def test_one_peer_alone_writes_a_run_directory(toy, records):
    result = alone(TrainConfig(f"{toy}:blobs", epochs=2, seed=3, log_every=5))
    run = Path("run")
    assert result == json.loads((run / "summary.json").read_text())
    assert result["status"] == "done"
    assert result["accuracy"] > 0.8
    assert result["worst_rank"]["rank"] == 0
    assert (result["steps"], result["epochs"], result["bytes_sent"]) == (50, 2.0, 0)
    assert (result["ranks_started"], result["ranks_finished"]) == (1, 1)
    config = json.loads((run / "config.json").read_text())
    assert config["seed"] == 3
    assert config["command"][:3] == ["pydec", "train", f"{toy}:blobs"]
    steps = [row for row in records(run, 0) if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 51))
    assert all(set(row) >= KEYS for row in steps)
    assert [row["step"] for row in steps if "consensus_distance" in row] == list(range(5, 51, 5))
    evaluations = [row for row in records(run, 0) if row["kind"] == "evaluation"]
    assert [row["step"] for row in evaluations] == [10, 20, 30, 40, 50]
    assert evaluations[-1]["accuracy"] == result["accuracy"]
    state = torch.load(run / "checkpoints" / "final.pt")
    assert set(state) == {"weight", "bias"}


def test_several_ranks_learn_together_and_send(toy, records):
    result = together(4, TrainConfig(f"{toy}:blobs", epochs=6, compressor="none", compare_solo=True))
    assert result["accuracy"] > 0.7
    assert result["loss"] <= result["worst_rank"]["loss"] + 0.05
    assert result["ranks_finished"] == 4
    assert result["solo"]["accuracy"] > 0.7
    assert set(result["solo"]) == {"loss", "accuracy", "train_loss", "wall_s"}
    sent = [records(Path("run"), rank)[-1]["bytes_sent"] for rank in range(4)]
    assert 0 < sum(sent) <= result["bytes_sent"]
    assert sum(records(Path("run"), rank)[-1]["kind"] == "evaluation" for rank in range(4)) == 1


def test_a_merge_leaves_one_model_on_all_ranks(toy):
    config = TrainConfig(f"{toy}:blobs", steps=5, local_steps=2, algorithm="gossip-diloco", merge=True)
    result = together(3, config)
    assert result["consensus_distance"] < 1e-6
    assert result["worst_rank"]["loss"] == pytest.approx(result["loss"], abs=1e-5)


@pytest.mark.parametrize("algorithm", ["dpsgd:order=cta", "dpsgd:order=atc", "choco:gamma=0.5", "allreduce"])
def test_the_seed_decides_every_bit(toy, records, algorithm):
    def losses(name: str, seed: int) -> list[float]:
        topology = "ring" if algorithm.startswith("choco") else "one-peer-exponential"
        config = TrainConfig(
            f"{toy}:blobs", steps=6, seed=seed, algorithm=algorithm, topology=topology, alpha=0.5
        )
        together(3, config, name)
        return [row["loss"] for rank in range(3) for row in records(Path(name), rank)]

    first = losses("a", 1)
    assert first == losses("b", 1)
    assert first != losses("c", 2)


def test_a_run_that_is_stopped_writes_what_is_there(toy, records):
    class Interrupted(Peer):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks > 20:
                raise Stopped(15, 0)

    with pytest.raises(Stopped), Interrupted(solo(), signals=False) as peer:
        job.run(peer, TrainConfig(f"{toy}:blobs", steps=100), "run", quiet=True)
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "stopped"
    assert "signal 15" in summary["reason"]
    assert 0 < summary["steps"] < 20
    assert len([row for row in records(Path("run"), 0) if row["kind"] == "step"]) in (
        summary["steps"],
        summary["steps"] - 1,
    )


def test_a_run_that_fails_says_why(toy):
    with pytest.raises(NonFiniteError):
        alone(TrainConfig(f"{toy}:blobs:bad=true"))
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["reason"].startswith("rank 0: the gradient of weight holds 12 NaN")


def test_bad_gradients_can_be_skipped(toy):
    result = alone(TrainConfig(f"{toy}:blobs:bad=true", steps=3, nan_policy="skip"))
    assert result["steps"] == 3
    assert json.loads(Path("run/summary.json").read_text())["loss"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topology": "rings"}, "unknown topology 'rings'"),
        ({"compressor": "int7"}, "unknown compressor 'int7'"),
        ({"algorithm": "gossip"}, "unknown algorithm 'gossip'"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'"),
        ({"batch_size": 500}, "--batch-size 500 is more than the 100 samples"),
        ({"task": "pydec_toy:blobs:frozen=true"}, "no trainable parameter"),
    ],
)
def test_what_cannot_work_stops_all_ranks_before_any_work(toy, options, message):
    with pytest.raises(job.SharedError, match=message) as caught:
        together(2, TrainConfig(**{"task": f"{toy}:blobs", **options}))
    assert isinstance(caught.value.error, ConfigError)
    assert not Path("run").exists()


def test_a_loss_that_is_no_number_is_refused(toy):
    with pytest.raises(ConfigError, match=r"Task.loss must return one number as a tensor.*got \(8,\)"):
        alone(TrainConfig(f"{toy}:blobs:vector=true"))


def test_a_failure_of_one_rank_reaches_all(toy, monkeypatch):
    def program(transport):
        with Peer(transport, signals=False) as peer:
            config = TrainConfig(f"{toy}:blobs" if peer.rank != 1 else "fashion-mnist", data="/nowhere")
            with pytest.raises(job.SharedError, match="rank 1: Fashion-MNIST is not in /nowhere"):
                job.run(peer, config, "run", quiet=True)
            return True

    assert LocalCluster(3).run(program) == [True] * 3


def test_ranks_that_were_told_different_things_stop(toy):
    def program(transport):
        with Peer(transport, signals=False) as peer:
            with pytest.raises(job.SharedError, match=r"--lr"):
                job.run(peer, TrainConfig(f"{toy}:blobs", lr=0.1 + peer.rank), "run", quiet=True)
            return True

    assert LocalCluster(2).run(program) == [True] * 2


def test_a_directory_that_holds_a_run_is_refused_by_all(toy):
    alone(TrainConfig(f"{toy}:blobs", steps=1))
    with pytest.raises(job.SharedError, match="run directory run already holds a run"):
        together(2, TrainConfig(f"{toy}:blobs", steps=1))


def test_a_run_directory_is_named_after_task_and_time(toy):
    alone(TrainConfig(f"{toy}:blobs", steps=1), "")
    (made,) = Path("runs").iterdir()
    assert made.name.startswith("pydec-toy-blobs-20")


@pytest.mark.parametrize("length", [{"steps": 40}, {"duration_s": 0.15}])
def test_an_asynchronous_job_reports_alone_and_ends_together(toy, records, length):
    config = TrainConfig(
        f"{toy}:blobs", algorithm="adsgd", topology="ring", merge=True, log_every=5, **length
    )
    result = together(3, config)
    assert result["status"] == "done"
    assert result["consensus_distance"] < 1e-5
    assert len(result["steps_by_rank"]) == 3
    if "steps" in length:
        assert result["steps_by_rank"] == [40] * 3
    for rank in range(3):
        rows = records(Path("run"), rank)
        steps = [row for row in rows if row["kind"] == "step"]
        assert len(steps) == result["steps_by_rank"][rank]
        assert not any("consensus_distance" in row for row in steps)
        assert [row["kind"] for row in rows].count("evaluation") == (rank == 0)
    assert result["bytes_sent"] > 0
