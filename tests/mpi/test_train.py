"""``pydec train`` under a real mpirun: the bits of the local cluster, and every way to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydec.cli.main import main as ledger_main
from pydec.cli.main import parser_of
from pydec.cli.train import config_of
from pydec.comm.local import LocalCluster
from pydec.gossip import algorithms
from pydec.launch.supervise import kill_session, sessions
from pydec.peer import Peer
from pydec.train import job
from pydec.train.checkpoint_files import Store
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from pydec.train.rundir import RunDir

PROGRAM = """
import os, sys
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from pydec.cli.main import main
from pydec.train import Defaults, Task

def blobs(bad_rank: int = -1) -> Task:
    random = torch.Generator().manual_seed(1)
    y = torch.arange(240) % 3
    x = torch.randn(240, 4, generator=random) + 2.0 * torch.eye(3, 4)[y]
    if int(os.environ.get("OMPI_COMM_WORLD_RANK", 0)) == bad_rank:
        x[:] = float("nan")
    data = TensorDataset(x, y)
    model = torch.nn.Linear(4, 3)
    return Task(model=model, train=data, loss=cross_entropy, validation=data, defaults=Defaults(batch_size=8))

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    with open("pid-" + os.environ["OMPI_COMM_WORLD_RANK"], "w") as file:
        file.write(str(os.getpid()))
    sys.exit(main(["train", *WORDS, "--threads", "1"]))
"""


def program(*words: str) -> str:
    return PROGRAM.replace("WORDS", repr(list(words)))


def losses(run):
    return {
        path.name: [json.loads(line)["loss"] for line in path.read_text().splitlines()]
        for path in (run / "metrics").iterdir()
    }


@pytest.mark.timeout(120)
def test_training_over_mpi_has_the_bits_of_the_local_cluster(mpirun, tmp_path, monkeypatch):
    done = mpirun(program("program:blobs", "--steps", "12", "--run-dir", "mpi", "--compare-solo"), 3)
    assert done.returncode == 0, done.stderr
    assert "run directory   mpi" in done.stdout
    summary = json.loads((tmp_path / "mpi/summary.json").read_text())
    assert (summary["status"], summary["ranks_finished"]) == ("done", 3)
    assert summary["bytes_sent"] > 0
    assert "loss" in summary["solo"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "program", raising=False)

    def locally(transport):
        with Peer(transport, signals=False) as peer:
            return job.run(
                peer, TrainConfig("program:blobs", steps=12, compare_solo=True), "local", quiet=True
            )

    LocalCluster(3).run(locally)
    assert losses(tmp_path / "mpi") == losses(tmp_path / "local")


MANY = """
if __name__ == "__main__":
    os.chdir(sys.argv[1])
    for number, words in enumerate(MANY_WORDS):
        status = main(["train", *words, "--run-dir", f"mpi-{number}", "--quiet"])
        if status:
            sys.exit(status)
"""
SGD = ("--optimizer", "sgd", "--lr", "0.1")
TABLE = [
    ("--algorithm", "dpsgd:order=atc", "--mixing", "adaptive:rounds=3,early=2,after=2", "--merge"),
    ("--algorithm", "dpsgd", "--compressor", "auto"),
    ("--algorithm", "choco", "--topology", "ring", "--compressor", "randk:fraction=0.25"),
    ("--algorithm", "choco-peers", "--compressor", "topk:fraction=0.25"),
    ("--algorithm", "dsgdm", "--compressor", "none", *SGD),
    ("--algorithm", "qg-dsgdm", *SGD),
    ("--algorithm", "decentlam", "--topology", "ring", *SGD),
    ("--algorithm", "exact-diffusion", "--topology", "base-k", "--local-steps", "2"),
    ("--algorithm", "d2", "--topology", "ring", *SGD),
    ("--algorithm", "gradient-tracking", *SGD),
    ("--algorithm", "momentum-tracking", "--topology", "base-k", *SGD),
    ("--algorithm", "sgp:order=cta", "--topology", "exponential"),
    ("--algorithm", "diloco", "--topology", "base-k", "--local-steps", "3"),
    ("--algorithm", "gossip-diloco", "--local-steps", "3"),
    ("--algorithm", "gasloc", "--local-steps", "3"),
    ("--algorithm", "streaming-diloco:fragments=2", "--local-steps", "2"),
    ("--algorithm", "quorum-diloco", "--local-steps", "3"),
    ("--algorithm", "noloco", "--topology", "random-matching", "--local-steps", "3"),
    ("--algorithm", "sparseloco", "--topology", "complete", "--compressor", "int2", "--local-steps", "3"),
    ("--algorithm", "choco-diloco", "--compressor", "topk-int8:fraction=0.2", "--local-steps", "3"),
    ("--algorithm", "relaysgd", "--topology", "chain"),
    ("--algorithm", "beer", "--topology", "ring", "--compressor", "topk:fraction=0.25"),
    ("--algorithm", "powergossip", "--topology", "ring"),
    ("--algorithm", "k-gt", "--topology", "base-k", "--local-steps", "3", *SGD),
    ("--algorithm", "accum-adam", "--compressor", "int8", *SGD),
    ("--algorithm", "damsgrad", "--topology", "base-k", *SGD),
]


@pytest.mark.timeout(300)
def test_every_algorithm_has_the_same_bits_over_mpi(mpirun, tmp_path, monkeypatch):
    common = ("program:blobs", "--steps", "8", "--threads", "1", "--alpha", "1.0")
    lines = [list(common + words) for words in TABLE]
    start = PROGRAM[: PROGRAM.index("if __name__")]
    done = mpirun(start + MANY.replace("MANY_WORDS", repr(lines)), 3, timeout_s=180.0)
    assert done.returncode == 0, done.stderr

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "program", raising=False)
    for number, line in enumerate(lines):
        args = parser_of("train").parse_args(line)
        config = config_of(args)

        def locally(transport, config=config, number=number):
            with Peer(transport, signals=False) as peer:
                return job.run(peer, config, f"local-{number}", quiet=True)

        with reproducible(1):
            LocalCluster(3).run(locally)
        assert losses(tmp_path / f"mpi-{number}") == losses(tmp_path / f"local-{number}"), line


def test_the_table_above_names_every_algorithm():
    tested = {words[words.index("--algorithm") + 1].partition(":")[0] for words in TABLE}
    in_rounds = {name for name in algorithms if not algorithms.make(name).asynchronous}
    assert in_rounds - tested == {"allreduce"}  # which the first test here covers


@pytest.mark.timeout(120)
def test_a_signal_to_one_rank_stops_all_and_keeps_what_is_there(mpirun, tmp_path):
    def stop(process):
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s and not (tmp_path / "run/metrics/rank-1.jsonl").exists():
            time.sleep(0.1)
        time.sleep(0.5)
        os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGTERM)

    done = mpirun(program("program:blobs", "--steps", "1000000", "--run-dir", "run"), 2, act=stop)
    assert done.returncode == 143, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("stopped", "stopped by signal 15, received by rank 1")
    assert summary["steps"] > 0
    lengths = [len(rows) for rows in losses(tmp_path / "run").values()]
    assert abs(lengths[0] - summary["steps"]) <= 2
    assert abs(lengths[1] - lengths[0]) <= 2


@pytest.mark.timeout(120)
def test_one_rank_that_fails_ends_the_job_with_its_reason(mpirun, tmp_path):
    done = mpirun(program("program:blobs:bad_rank=1", "--steps", "20", "--run-dir", "run"), 2)
    assert done.returncode == 1, done.stderr
    assert "pydec: error: rank 1: " in done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["reason"].startswith("rank 1: the gradient of weight holds ")


@pytest.mark.timeout(120)
def test_ranks_of_different_speed_train_for_the_same_time(mpirun, tmp_path):
    """Rank 1 sleeps in every step; in the same time it takes fewer, and all end with one model."""
    slow = """
import time

if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    plain = cross_entropy
    cross_entropy = lambda a, b: (time.sleep(0.05), plain(a, b))[1]

def blobs"""
    gossip = ["--algorithm", "adsgd", "--topology", "ring", "--merge"]
    words = ["program:blobs", *gossip, "--duration", "2", "--run-dir", "timed"]
    done = mpirun(program(*words).replace("def blobs", slow), 3)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "timed/summary.json").read_text())
    steps = summary["steps_by_rank"]
    assert (summary["status"], summary["ranks_finished"]) == ("done", 3)
    assert 0 < steps[1] < min(steps[0], steps[2])
    assert summary["consensus_distance"] < 1e-5
    assert {f"rank-{rank}.jsonl" for rank in range(3)} == set(losses(tmp_path / "timed"))


# Ranks that die, under Open MPI's fault tolerance.

FLAGS = ["--with-ft", "ulfm", "--mca", "async_mpi_finalize", "1", "--prtemca", "state_base_recoverable", "1"]


def kill(folder, ranks, after=5):
    """An ``act`` that kills ranks once rank 1 has written so many rows."""

    def act(process):
        rows = folder / "run/metrics/rank-1.jsonl"
        until_s = time.monotonic() + 100.0
        while time.monotonic() < until_s and not (rows.exists() and rows.read_text().count("\n") > after):
            time.sleep(0.05)
        for rank in ranks:
            os.kill(int((folder / f"pid-{rank}").read_text()), signal.SIGKILL)

    return act


def gone(folder):
    """That no process of the ranks is left, a moment after the launcher's end."""
    pids = [int(path.read_text()) for path in folder.glob("pid-*")]
    until_s = time.monotonic() + 10.0
    while left := [pid for pid in pids if pid in sessions()]:
        assert time.monotonic() < until_s, left
        time.sleep(0.05)
    return True


def summary(folder):
    return json.loads((folder / "run/summary.json").read_text())


WORDS = ("program:blobs", "--steps", "300", "--run-dir", "run", "--log-every", "20", "--topology", "complete")


def slowly(*words, sleep_s=0.01):
    """The program, with steps that take some time; metrics are written at every row."""
    plain = program(*words)
    patch = f"loss=lambda a, b: (time.sleep({sleep_s}), cross_entropy(a, b))[1]"
    return plain.replace("import os, sys", "import os, sys, time").replace("loss=cross_entropy", patch)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "ranks", [pytest.param([2], marks=pytest.mark.slow), [0, 3]], ids=["one", "two, rank 0 among them"]
)
def test_killed_ranks_do_not_end_the_training(mpirun, tmp_path, ranks):
    done = mpirun(slowly(*WORDS), 4, flags=FLAGS, act=kill(tmp_path, ranks), timeout_s=200.0)
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path)
    assert (found["status"], found["ranks_started"], found["ranks_finished"]) == ("done", 4, 4 - len(ranks))
    assert sorted(row["rank"] for row in found["lost"]) == ranks
    assert all(0 < row["step"] < 300 for row in found["lost"])
    assert found["steps"] == 300
    assert found["loss"] < 0.35  # 0.2 undisturbed; log(3) = 1.1 at the start


@pytest.mark.timeout(240)
def test_a_rank_that_fails_by_itself_dies_alone_with_its_reason(mpirun, tmp_path):
    words = ("program:blobs:bad_rank=1", *WORDS[1:])
    done = mpirun(program(*words), 3, flags=FLAGS, timeout_s=200.0)
    assert done.returncode == 0, done.stderr
    assert "pydec: error: rank 1: the gradient of weight holds" in done.stderr
    found = summary(tmp_path)
    assert (found["status"], found["ranks_finished"]) == ("done", 2)
    (lost,) = found["lost"]
    assert lost["rank"] == 1
    assert lost["reason"].startswith("NonFiniteError: the gradient of weight holds")


@pytest.mark.timeout(240)
def test_an_error_that_all_ranks_have_ends_the_job(mpirun, tmp_path):
    code = program(*WORDS).replace("loss=cross_entropy", "loss=lambda a, b: 1 / 0")
    done = mpirun(code, 3, flags=FLAGS, timeout_s=200.0)
    assert done.returncode == 1, done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.timeout(400)  # two jobs
def test_a_killed_rank_is_evicted_by_the_ledger_and_the_others_enter_a_graph_without_it(mpirun, tmp_path):
    chosen = ("--ledger", "L", "--algorithm", "gradient-tracking", "--optimizer", "sgd", "--lr", "0.1")
    words = (*WORDS[:-1], "ring", *chosen)
    code = slowly(*words, sleep_s=0.02)
    done = mpirun(code, 4, flags=FLAGS, act=kill(tmp_path, [0]), timeout_s=200.0)
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path)
    assert (found["status"], found["ranks_finished"], found["steps"]) == ("done", 3, 300)
    said = found["ledger"]
    assert [gone["rank"] for gone in said["evicted"]] == [0]
    before, after = said["epochs"]
    assert (before["members"], after["members"]) == ([0, 1, 2, 3], [1, 2, 3])
    assert 5 < after["start_round"] < 300
    assert said["checkpoints"][-1] == 300
    assert found["loss"] < 0.35
    assert found["consensus_distance"] < 0.05
    assert ledger_main(["ledger", "verify", str(tmp_path / "L/rank-1")]) == 0
    done = mpirun(program(*words[:1], "--steps", "10", "--run-dir", "next", *chosen), 4, timeout_s=100.0)
    assert done.returncode == 0, done.stderr
    (again,) = json.loads((tmp_path / "next/summary.json").read_text())["ledger"]["epochs"]
    assert again["members"] == [0, 1, 2, 3]


def pydec_run(code, size, folder, act):
    """The program under ``pydec run``, which starts the job again after a fault, but not after a reason."""
    script = folder / "program.py"
    script.write_text(code)
    words = ["run", "-n", str(size), "--", sys.executable, str(script), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen(
        [sys.executable, "-m", "pydec", *words], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        act(job)
        out, err = job.communicate(timeout=150.0)
    finally:
        kill_session(job.pid)
        job.communicate()
    return subprocess.CompletedProcess(words, job.returncode, out, err)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("launcher", "size", "dead"),
    [
        ("mpirun", 5, [2, 3, 4]),
        pytest.param("mpirun", 4, [0, 3], marks=pytest.mark.slow),
        pytest.param("pydec run", 4, [0, 3], marks=pytest.mark.slow),
    ],
)
def test_a_minority_stops_with_one_error_and_what_was_saved(mpirun, tmp_path, launcher, size, dead):
    words = (*WORDS[:2], "100000", *WORDS[3:6], "1000", *WORDS[-2:], "--ledger", "L")
    code = slowly(*words, "--checkpoint-every", "2", sleep_s=0.02)
    act = kill(tmp_path, dead)
    if launcher == "mpirun":
        done = mpirun(code, size, flags=FLAGS, act=act, timeout_s=150.0)
    else:
        done = pydec_run(code, size, tmp_path, act)
    assert done.returncode == 1, done.stderr
    ranks, needed = ", ".join(map(str, dead)), 2 * size // 3 + 1
    why = f"{len(dead)} of {size} members are gone (ranks {ranks}), the ledger needs {needed}: training has "
    errors = [line for line in done.stderr.splitlines() if "pydec: error: " in line]
    assert len(errors) == 1, done.stderr
    assert why in errors[0]
    assert done.stderr.splitlines()[-1] == errors[0] or launcher == "mpirun"  # which adds words of its own
    assert "starting again" not in done.stderr
    found = summary(tmp_path)
    assert found["status"] == "failed"
    assert why in found["reason"]
    assert sorted(row["rank"] for row in found["lost"]) == dead
    assert gone(tmp_path)
    assert found["ranks_finished"] == size - len(dead)
    store = Store(RunDir(tmp_path / "run"))
    assert max(store.steps()) == found["steps"] > 0
    assert {*store.members(found["steps"])} == {*range(size)} - {*dead}
    for rank in set(range(size)) - {*dead}:
        assert ledger_main(["ledger", "verify", str(tmp_path / f"L/rank-{rank}")]) == 0
    assert "go on with      pydec train --resume run" in done.stdout
