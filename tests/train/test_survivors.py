"""Ranks that die while a job trains in the local cluster: the others finish, the summary names the dead."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pydec.comm.faults import Death, Killed
from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError
from pydec.peer import Peer
from pydec.train import job
from pydec.train.config import TrainConfig

SIZE = 4


def train(toy, name, deaths, seed=0, size=SIZE, **options):
    """Results by rank, None of the dead; a step takes about 2 ms of virtual time."""
    config = TrainConfig(f"{toy}:blobs", threads=1, **{"steps": 60, "log_every": 10, **options})

    def program(transport):
        with Peer(transport, signals=False) as peer:
            return job.run(peer, config, name, quiet=True)

    cluster = LocalCluster(size, seed, delay_s=(5e-4, 2e-3), deaths=deaths)
    return cluster, cluster.run(program)


def summary(name):
    return json.loads((Path(name) / "summary.json").read_text())


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "dpsgd", "topology": "ring", "merge": True},
        {"algorithm": "dpsgd:order=atc", "eval_every": 7},
        {"algorithm": "sgp", "topology": "exponential", "compressor": "none"},
        {"algorithm": "choco", "topology": "ring"},
        {"algorithm": "exact-diffusion", "topology": "ring"},
        {"algorithm": "gradient-tracking", "topology": "base-k"},
        {"algorithm": "relaysgd", "topology": "chain"},
        {"algorithm": "gossip-diloco", "local_steps": 3},
        {"algorithm": "adsgd", "topology": "complete"},
    ],
    ids=lambda options: options["algorithm"],
)
def test_the_others_train_to_the_end(toy, options):
    _, calm = train(toy, "calm", None, **options)
    dead = len(options["algorithm"]) % SIZE  # another one for every algorithm, rank 0 for some
    deaths = {dead: Death((0.05, 0.09), noticed_s=(0.0, 2e-3))}
    cluster, results = train(toy, "run", deaths, **options)
    assert isinstance(cluster.errors[dead], Killed)
    found = summary("run")
    assert results[1 if dead == 0 else 0] == found
    assert (found["status"], found["ranks_started"], found["ranks_finished"]) == ("done", SIZE, SIZE - 1)
    (lost,) = found["lost"]
    assert (lost["rank"], lost["reason"]) == (dead, "it died without a word")
    assert 0 < lost["step"] <= 60
    assert found["loss"] < calm[0]["loss"] + 0.15


def test_deaths_in_set_up_reports_evaluation_and_at_the_end_leave_a_summary(toy):
    """Moments all over the run, most of them in what ranks do together: reports come at every step."""
    statuses = []
    for seed in range(8):
        at_s = 0.03 + 0.03 * seed
        deaths = {seed % SIZE: Death(at_s, noticed_s=(0.0, 3e-3))}
        options = {"steps": 6, "log_every": 1, "eval_every": 2, "merge": True, "topology": "complete"}
        cluster, _ = train(toy, f"run-{seed}", deaths, seed, **options)
        died = isinstance(cluster.errors[seed % SIZE], Killed)
        found = summary(f"run-{seed}")
        statuses.append((found["status"], died))
        assert found["ranks_finished"] >= SIZE - died
        assert found["loss"] == pytest.approx(found["loss"])
    assert {status for status, _ in statuses} == {"done"}
    assert sum(died for _, died in statuses) >= 4


def test_too_few_ranks_are_one_error_on_all_and_what_there_is_is_written(toy):
    deaths = {1: Death(0.05), 2: Death(0.07)}

    def program(transport):
        config = TrainConfig(f"{toy}:blobs", steps=200, log_every=5, min_ranks=3)
        with Peer(transport, signals=False) as peer:
            try:
                job.run(peer, config, "few", quiet=True)
            except job.SharedError as error:
                return str(error)
        return ""

    results = LocalCluster(SIZE, delay_s=1e-3, deaths=deaths).run(program)
    assert results[0] == results[3]
    assert results[0].startswith("2 of 4 ranks are left, fewer than --min-ranks 3: lost 1, 2")
    found = summary("few")
    assert found["status"] == "failed"
    assert "fewer than --min-ranks 3" in found["reason"]
    assert sorted(row["rank"] for row in found["lost"]) == [1, 2]
    assert found["steps"] > 0


def test_more_ranks_than_there_are_cannot_be_the_least(toy):
    with pytest.raises(ConfigError, match="--min-ranks must be at least 1, got 0"):
        TrainConfig(f"{toy}:blobs", min_ranks=0)
    with pytest.raises(job.SharedError, match="--min-ranks 5 is more than the 4 ranks of this job"):
        train(toy, "run", None, min_ranks=5)


def test_the_next_rank_shows_progress_when_rank_0_is_dead(toy, capsys):
    config = TrainConfig(f"{toy}:blobs", steps=60, log_every=10, threads=1)

    def program(transport):
        with Peer(transport, signals=False) as peer:
            return job.run(peer, config, "shown")

    LocalCluster(3, delay_s=1e-3, deaths={0: Death(0.06)}).run(program)
    out, err = capsys.readouterr()
    assert "faults          a rank that dies is left out" in out
    assert "pydec: lost rank 0 (step " in err
    assert "2 of 3 ranks go on" in err
    assert "step 60/60" in out  # of rank 1, as are the closing words
    assert "run directory   shown" in out


def test_the_survivors_of_the_recursion_agree_in_the_end(toy):
    """Exact diffusion restarts: its survivors end as near to one another as without a death."""
    options = {"algorithm": "exact-diffusion", "topology": "complete", "steps": 120}
    train(toy, "calm", None, **options)
    train(toy, "rough", {2: Death(0.1)}, **options)
    apart = [summary(name)["consensus_distance"] for name in ("calm", "rough")]
    assert np.isfinite(apart).all()
    assert apart[1] < 2 * apart[0] + 1e-3
