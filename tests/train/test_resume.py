"""A run that goes on: the same bits on as many ranks, the mean on others, and every reason to refuse."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pydec.cli.main import main, parser_of
from pydec.cli.train import config_of
from pydec.comm.faults import Death, Killed
from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError, PydecError, SetupError, Stopped
from pydec.peer import Peer
from pydec.train import checkpoint, job, prepare
from pydec.train.checkpoint_files import Store
from pydec.train.config import TrainConfig
from pydec.train.resume import _check_options, configuration, decided
from pydec.train.rundir import RunDir

from .test_checkpoint import Immediate


class Asked(Peer):
    """A peer of which one rank receives SIGTERM while it is in a step."""

    rank_asked, step_asked = 1, 6

    def __init__(self, transport: Any) -> None:
        super().__init__(transport, signals=False)
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        if self.rank == self.rank_asked and self.checks == 2 * self.step_asked:
            self._guard.request(15)
        super().check()


def together(size: int, config: TrainConfig, run_dir: str, *, peer: type[Peer] = Peer, **how: Any) -> Any:
    def program(transport):
        made = peer(transport) if peer is not Peer else Peer(transport, signals=False)
        with made:
            try:
                return job.run(made, config, run_dir, quiet=True, **how)
            except job.SharedError as error:
                shared = error
        raise shared.error

    return LocalCluster(size).run(program)[0]


def go_on(size: int, run_dir: str, *, resume_step: int | None = None, **given: Any) -> Any:
    return together(size, configuration(run_dir, given), run_dir, resume=True, resume_step=resume_step)


def config(toy: str, **more: Any) -> TrainConfig:
    options = {"steps": 12, "seed": 3, "checkpoint_every": 4, "keep_last": 9, "log_every": 3, **more}
    return TrainConfig(f"{toy}:{options.pop('task', 'mixed')}", **options)


def tensors(run_dir: str, step: int, rank: int) -> dict[str, torch.Tensor]:
    """What decides a rank's next step; the ranks of a local cluster share torch's generator."""
    found = load_file(f"{run_dir}/checkpoints/step-{step}/rank-{rank}.safetensors")
    return {name: tensor for name, tensor in found.items() if not name.startswith("pydec/random")}


def losses(records: Any, run_dir: str, ranks: int) -> list[list[tuple[int, float]]]:
    return [
        [(row["step"], row["loss"]) for row in records(Path(run_dir), rank) if row["kind"] == "step"]
        for rank in range(ranks)
    ]


def cut(run_dir: str, step: int, into: str) -> None:
    """A copy of a run as a power loss right after a checkpoint would have left it, records and all."""
    shutil.copytree(run_dir, into)
    for folder in Path(into, "checkpoints").glob("step-*"):
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)
    Path(into, "summary.json").unlink()


ALGORITHMS = [
    {"algorithm": "dpsgd:order=cta"},
    {"algorithm": "dpsgd:order=atc", "optimizer": "adamw", "schedule": "cosine"},
    {"algorithm": "choco:gamma=0.5", "topology": "ring", "compressor": "topk:fraction=0.3"},
    {"algorithm": "gradient-tracking", "optimizer": "sgd", "topology": "base-k"},
    {"algorithm": "diloco", "topology": "base-k", "local_steps": 3, "optimizer": "adamw"},
    {"algorithm": "streaming-diloco:fragments=2", "local_steps": 2},
    {"algorithm": "sgp:order=cta", "topology": "exponential"},
    {"algorithm": "qg-dsgdm", "optimizer": "sgd", "alpha": 1.0},
    {"algorithm": "dpsgd:order=atc", "mixing": "adaptive:rounds=3,early=2,after=2", "clip_norm": 1.0},
    {"algorithm": "dpsgd:order=cta", "background": True, "compressor": "int8:rounding=stochastic"},
    {"algorithm": "allreduce", "optimizer": "sgd:momentum=0.9"},
]


@pytest.mark.parametrize("options", ALGORITHMS, ids=lambda options: options["algorithm"])
def test_as_many_ranks_go_on_with_the_same_bits(toy, records, options):
    whole = together(3, config(toy, **options), "whole")
    assert whole["status"] == "done"
    cut("whole", 8, "cut")
    with open("cut/metrics/rank-1.jsonl", "ab") as record:
        record.write(b'{"step": 13, "lo')
    result = go_on(3, "cut")
    for rank in range(3):
        mine, theirs = tensors("cut", 12, rank), tensors("whole", 12, rank)
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert losses(records, "cut", 3) == losses(records, "whole", 3)
    for key in ("loss", "accuracy", "train_loss", "consensus_distance", "steps"):
        assert result[key] == whole[key]
    if "order=cta" in options["algorithm"]:  # a round under way is sent again
        assert result["bytes_sent"] >= whole["bytes_sent"]
    else:
        assert result["bytes_sent"] == whole["bytes_sent"]
    final = torch.load("cut/checkpoints/final.pt")
    assert all(
        torch.equal(value, final[name]) for name, value in torch.load("whole/checkpoints/final.pt").items()
    )


def test_checkpoints_change_no_bit_and_the_last_ones_are_kept(toy, records):
    together(3, config(toy, checkpoint_every=0), "plain")
    together(3, config(toy, checkpoint_every=2, keep_last=2), "often")
    assert losses(records, "plain", 3) == losses(records, "often", 3)
    names = sorted(path.name for path in Path("often/checkpoints").iterdir())
    assert names[0] == "final.pt"
    assert "step-12" in names
    assert len(names) <= 4  # a disk that is slow makes fewer
    assert sorted(path.name for path in Path("plain/checkpoints").iterdir()) == ["final.pt", "step-12"]
    together(3, config(toy, checkpoint_every=0, keep_last=0), "none")
    assert [path.name for path in Path("none/checkpoints").iterdir()] == ["final.pt"]


def test_a_cosine_that_ends_later_is_said(toy, capsys):
    together(2, config(toy, steps=6, schedule="cosine"), "run")

    def program(transport):
        with Peer(transport, signals=False) as peer:
            job.run(peer, configuration("run", {"steps": 20}), "run", resume=True)

    LocalCluster(2).run(program)
    assert (
        "the cosine now ends at step 20, not 6: from step 6 the learning rate is" in capsys.readouterr().out
    )


def test_a_raised_number_of_steps_is_the_longer_run(toy, records):
    together(2, config(toy, steps=16), "whole")
    together(2, config(toy), "run")
    with pytest.raises(
        ConfigError, match=r"has done 12 steps and is asked for 12.*more than 12 with --steps"
    ):
        go_on(2, "run")
    result = go_on(2, "run", steps=16)
    assert result["steps"] == 16
    assert losses(records, "run", 2) == losses(records, "whole", 2)
    said = json.loads(Path("run/config.json").read_text())
    assert (said["options"]["steps"], said["resumed"]) == (16, 12)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_signal_writes_one_step_on_all_ranks_and_the_run_goes_on(toy, records, monkeypatch, rank):
    monkeypatch.setattr(Asked, "rank_asked", rank)
    together(3, config(toy, checkpoint_every=0), "whole")
    with pytest.raises(Stopped, match="signal 15"):
        together(3, config(toy, checkpoint_every=0), "run", peer=Asked)
    (folder,) = [path for path in Path("run/checkpoints").iterdir() if path.is_dir()]
    assert 5 <= int(folder.name[5:]) <= 8
    assert len(list(folder.iterdir())) == 6
    assert json.loads(Path("run/summary.json").read_text())["status"] == "stopped"
    go_on(3, "run")
    assert losses(records, "run", 3) == losses(records, "whole", 3)


@pytest.mark.parametrize("ranks", [2, 5])
@pytest.mark.parametrize("options", [{"optimizer": "sgd:momentum=0.9"}, ALGORITHMS[2], ALGORITHMS[3]])
def test_other_ranks_start_from_the_mean(toy, ranks, options):
    together(3, config(toy, steps=8, **options), "run")
    before = [tensors("run", 8, rank) for rank in range(3)]
    made: dict[int, Any] = {}

    real = prepare._optimizer

    def look(config, task, peer, *rest):
        optimizer = real(config, task, peer, *rest)
        made[peer.rank] = (
            {name: value.clone() for name, value in task.model.state_dict().items()},
            copy.deepcopy(optimizer.optimizer.state_dict()),
        )
        return optimizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "_optimizer", look)
        result = together(ranks, configuration("run", {"steps": 12}), "run", resume=True)
    assert (result["status"], result["steps"], result["ranks_finished"]) == ("done", 12, ranks)
    assert result["accuracy"] > 0.5
    assert len(made) == ranks
    for model, state in made.values():
        for name, value in model.items():
            saved = torch.stack([mine[name].double() for mine in before])
            exact = saved.mean(0) if value.dtype.is_floating_point else saved[0]
            torch.testing.assert_close(value, exact.to(value.dtype), rtol=0, atol=1e-7)
        if options.get("optimizer") == "sgd:momentum=0.9":
            momenta = [mine["pydec/optimizer/optimizer/state/0/momentum_buffer"] for mine in before]
            torch.testing.assert_close(
                state["state"][0]["momentum_buffer"], sum(momenta) / 3, rtol=0, atol=1e-7
            )
    last = json.loads(Path("run/checkpoints/step-12/rank-0.json").read_text())
    assert last["history"] == [[3, 8], [ranks, 4]]
    assert go_on(ranks, "run", steps=13)["steps"] == 13


def test_survivors_wrote_a_checkpoint_of_their_own(toy):
    together(3, config(toy, steps=8, optimizer="sgd"), "run")
    for rank in (0, 2):  # as two of three ranks write it, once rank 1 is dead
        folder = Path("run/checkpoints/step-8")
        manifest = json.loads((folder / f"rank-{rank}.json").read_text())
        body = {key: manifest[key] for key in manifest if key not in ("digest", "tensors", "pydec")}
        store = Store(RunDir(Path("run")))
        store.write_tensors(
            8, rank, load_file(folder / f"rank-{rank}.safetensors"), {**body, "members": [0, 2]}
        )
    (folder / "rank-1.json").unlink()
    for ranks, steps in ((2, 9), (3, 10)):
        shutil.copytree("run", f"run-{ranks}")
        assert go_on(ranks, f"run-{ranks}", steps=steps)["steps"] == steps
    last = json.loads(Path("run-3/checkpoints/step-10/rank-2.json").read_text())
    assert (last["history"], last["members"]) == ([[3, 10]], [0, 1, 2])


@pytest.mark.parametrize("dead", [0, 2])
def test_a_rank_that_dies_is_in_no_later_checkpoint(toy, monkeypatch, dead):
    monkeypatch.setattr(checkpoint, "ThreadPoolExecutor", Immediate)
    settings = config(toy, steps=40, checkpoint_every=5, keep_last=2, topology="ring")

    def program(transport):
        with Peer(transport, signals=False) as peer:
            return job.run(peer, settings, "run", quiet=True)

    deaths = {dead: Death((0.04, 0.05), noticed_s=(0.0, 2e-3))}
    cluster = LocalCluster(4, 1, delay_s=(5e-4, 2e-3), deaths=deaths)
    cluster.run(program)
    assert isinstance(cluster.errors[dead], Killed)
    assert json.loads(Path("run/summary.json").read_text())["ranks_finished"] == 3
    living = [rank for rank in range(4) if rank != dead]
    folder = Path("run/checkpoints/step-40")
    assert sorted(folder.glob("*.json")) == [folder / f"rank-{rank}.json" for rank in living]
    for rank in living:
        assert json.loads((folder / f"rank-{rank}.json").read_text())["members"] == living
    folders = sorted(path.name for path in Path("run/checkpoints").glob("step-*"))
    assert folders == ["step-35", "step-40"]  # those from before are gone, with the part of the dead rank
    shutil.copytree("run", "fewer")
    assert go_on(3, "fewer", steps=44)["steps"] == 44
    assert go_on(4, "run", steps=44)["ranks_finished"] == 4


def damage(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 4
    Path(path).write_bytes(data)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(toy, records, capsys):
    together(3, config(toy), "whole")
    cut("whole", 8, "run")
    damage("run/checkpoints/step-8/rank-2.safetensors")
    said: list[str] = []

    def program(transport):
        with Peer(transport, signals=False) as peer:
            job.run(peer, configuration("run", {}), "run", resume=True)

    LocalCluster(3).run(program)
    out = capsys.readouterr().out
    assert "the checkpoint of step 8 is left out: run/checkpoints/step-8/rank-2.safetensors is damaged" in out
    assert "going on from step 4" in out
    assert losses(records, "run", 3) == losses(records, "whole", 3)
    assert said == []


def test_half_written_ones_do_not_count_and_none_at_all_is_said(toy):
    together(2, config(toy, keep_last=1), "run")
    Path("run/summary.json").unlink()
    Path("run/checkpoints/step-12/rank-1.json").unlink()
    with pytest.raises(
        ConfigError, match=r"no checkpoint in run/checkpoints can be used; .*rank-1.json is missing"
    ):
        go_on(2, "run")
    shutil.rmtree("run/checkpoints/step-12")
    with pytest.raises(ConfigError, match=r"run/checkpoints holds no checkpoint: .*--checkpoint-every N"):
        go_on(2, "run")


def edited(path: str, *keys: str, value: Any) -> None:
    found = json.loads(Path(path).read_text())
    inner = found
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    Path(path).write_text(json.dumps(found))


def test_what_does_not_belong_together_is_refused(toy):
    together(2, config(toy, steps=4, checkpoint_every=0), "run")
    edited("run/config.json", "options", "steps", value=9)
    shutil.copytree("run", "other")
    edited("other/config.json", "options", "lr", value=0.5)
    with pytest.raises(
        ConfigError, match=r"rank-0.json is of another run: --lr was 0.1 there, config.json says 0.5"
    ):
        go_on(2, "other")
    source = Path("pydec_toy.py")
    source.write_text(source.read_text().replace("width: int = 8", "width: int = 7"))
    for ranks in (2, 3):
        sys.modules.pop("pydec_toy")
        with pytest.raises(
            ConfigError,
            match=r"of another model: 0.bias is float32 of shape \(8,\) in the checkpoint and .* \(7,\)",
        ):
            go_on(ranks, "run")
    edited("run/checkpoints/step-4/rank-1.json", "pydec_checkpoint", value=7)
    with pytest.raises(ConfigError, match=r"rank 1: .*rank-1.json has format 7"):
        go_on(2, "run")


def test_options_that_decide_bits_are_refused_and_others_taken(toy, monkeypatch):
    together(1, config(toy, steps=4), "run")
    parser = parser_of("train")

    def asked(words: str) -> TrainConfig:
        return config_of(parser.parse_args(["--resume", "run", *words.split()]))

    assert asked("--steps 20 --checkpoint-every 7 --deadline 5 --keep-last 1").steps == 20
    assert asked(f"{toy}:mixed --seed 3").checkpoint_every == 4
    for words, message in (
        ("--lr 0.3", r"--lr 0.3 cannot be changed by --resume: the run in run has 0.1"),
        ("--algorithm sgp", "--algorithm sgp cannot be changed"),
        ("--seed 0", "--seed 0 cannot be changed"),
        (f"{toy}:blobs", "--task .*:blobs cannot be changed"),
        ("--epochs 3", "give the new length of the run as --steps"),
        ("--run-dir x", "leave --run-dir out"),
    ):
        with pytest.raises(ConfigError, match=message):
            asked(words)
    with pytest.raises(ConfigError, match=r"--resume nowhere: there is no config.json"):
        configuration("nowhere", {})
    edited("run/config.json", "options", "hyperdrive", value=1)
    with pytest.raises(ConfigError, match="has option 'hyperdrive', which this pydec does not know"):
        configuration("run", {})
    assert main(["train"]) == 2


def test_a_disk_that_fills_up_costs_checkpoints_and_the_exit_status_only(toy, monkeypatch, capsys):
    real, full = RunDir.write_with, threading.Event()
    full.set()

    def write(self, name, fill):
        if full.is_set() and name.endswith("rank-1.safetensors"):
            raise SetupError("run directory run: the disk is full")
        real(self, name, fill)

    monkeypatch.setattr(RunDir, "write_with", write)
    with pytest.raises(PydecError, match=r"training is done.*checkpoint of step 12 is not complete: rank 1"):
        together(2, config(toy), "run")
    assert json.loads(Path("run/summary.json").read_text())["status"] == "done"
    assert Path("run/checkpoints/final.pt").exists()
    err = capsys.readouterr().err
    for step in (4, 8, 12):
        assert f"pydec: warning: rank 1: the checkpoint of step {step} could not be written, training" in err
    full.clear()
    assert together(2, config(toy), "fine")["status"] == "done"


def test_a_run_that_died_in_its_last_evaluation_is_finished(toy, monkeypatch):
    together(2, config(toy), "run")
    Path("run/summary.json").unlink()
    Path("run/checkpoints/final.pt").rename("final.pt")
    assert go_on(2, "run")["steps"] == 12
    final = torch.load("final.pt")
    assert all(torch.equal(value, final[n]) for n, value in torch.load("run/checkpoints/final.pt").items())


def test_an_option_that_is_younger_than_a_checkpoint_was_at_its_default():
    mine = decided(TrainConfig("t"))
    _check_options(Path("m"), {name: mine[name] for name in mine if name != "mixing"}, mine)
    with pytest.raises(ConfigError, match=r"--mixing was 'fixed' there, config.json says 'adaptive'"):
        _check_options(Path("m"), mine, {**mine, "mixing": "adaptive"})
