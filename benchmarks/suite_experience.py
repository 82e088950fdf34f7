"""What a user waits for: importing pydec, help, a report of a long run; with --only clone, the first step."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydec.errors import SetupError

from .harness import Options, Row

ROOT = Path(__file__).resolve().parents[1]
RANKS, STEPS = 4, 10_000
CLONE_S = 240.0  # from git clone to the first step, downloads included
_COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import pydec": ["-c", "import pydec, sys; assert 'torch' not in sys.modules"],
    "pydec --help": ["-m", "pydec", "--help"],
    "pydec train --help": ["-m", "pydec", "train", "--help"],
}


def rows(options: Options) -> Iterator[Row]:
    """Each of the commands in turn; a report of 4 ranks of 10,000 steps.

    With ``--only clone`` what a new user waits for instead, which downloads and compiles for minutes.
    """
    if options.only:
        yield from _clone() if options.only == "clone" else ()
        return
    rounds = options.rounds or (2 if options.quick else 15)
    taken: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(rounds):
        for name, words in _COMMANDS.items():
            taken[name].append(_seconds(words))
    alone = statistics.median(taken.pop("python -c pass"))
    for name, seconds in taken.items():
        value = statistics.median(seconds)
        yield Row("experience", name, {"rounds": rounds, "python_s": round(alone, 3)}, value, "s")
    steps = 200 if options.quick else STEPS
    with tempfile.TemporaryDirectory() as folder:
        run = _run(Path(folder) / "run", steps)
        found = [_seconds(["-m", "pydec", "report", str(run)]) for _ in range(min(rounds, 5))]
        n_bytes = (run / "report.html").stat().st_size
    params = {"ranks": RANKS, "steps": steps}
    yield Row("experience", "pydec report", params, statistics.median(found), "s")
    yield Row("experience", "size of the report", params, n_bytes / 1e6, "MB")


def _seconds(words: Sequence[str]) -> float:
    """Wall time of one command of this Python, its start included."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _run(path: Path, steps: int) -> Path:
    """A run directory as training leaves it."""
    (path / "metrics").mkdir(parents=True)
    config = {"pydec": 1, "task": "made", "ranks": RANKS, "options": {"topology": "ring"}}
    (path / "config.json").write_text(json.dumps(config))
    for rank in range(RANKS):
        with (path / "metrics" / f"rank-{rank}.jsonl").open("w") as file:
            for step in range(1, steps + 1):
                row = {
                    "kind": "step", "step": step, "time_s": 0.05 * step, "lr": 0.1,
                    "loss": 3.0 / (1.0 + step / 500) + 1e-3 * rank, "bytes_sent": 400_000 * step,
                    "bytes_received": 400_000 * step,
                    "step_s": 0.05, "wait_s": 1e-3 * (step % 7), "consensus_distance": 1.0 / step,
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")
                if rank == 0 and step % (steps // 10) == 0:
                    scored = {"loss": 1.0 / step, "accuracy": step / steps}
                    row = {"kind": "evaluation", "step": step, "time_s": 0.05 * step, **scored}
                    file.write(json.dumps(row))
                    file.write("\n")
    return path


def _clone() -> Iterator[Row]:
    """From ``git clone`` to the end of a run of one step, with nothing compiled before.

    Raises:
        SetupError: this is no source checkout, or one of the commands failed.
    """
    if not (ROOT / ".git").exists():
        raise SetupError(f"{ROOT} is no clone of the repository, which --only clone makes another of")
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "pydec"
        commands = [
            ["git", "clone", "--quiet", str(ROOT), str(clone)],
            ["make", "-C", str(clone), "install"],
            [str(clone / ".venv/bin/pydec"), "run", "-n", str(RANKS), "train", "stdlib-lm", "--steps", "1",
             "--quiet", "--run-dir", str(Path(folder) / "run")],
        ]  # fmt: skip
        environment = {**os.environ, "CCACHE_DISABLE": "1"}
        seconds = []
        for words in commands:
            begin = time.perf_counter()
            done = subprocess.run(words, check=False, env=environment, stdout=subprocess.DEVNULL, cwd=folder)
            if done.returncode:
                raise SetupError(f"{' '.join(words)} ended with status {done.returncode}")
            seconds.append(time.perf_counter() - begin)
    params = {"ranks": RANKS, "install_s": round(seconds[1], 1)}
    total = sum(seconds)
    yield Row(
        "experience", "git clone to the first step", params, total, "s", "target", CLONE_S, CLONE_S / total
    )
