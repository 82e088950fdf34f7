"""What README and the examples show runs, alone and under mpirun."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MINIMAL = ROOT / "examples" / "minimal.py"

RESULT = re.compile(r"^(\d+) peers: loss (\S+), consensus distance (\S+)$", flags=re.MULTILINE)


def environment() -> dict[str, str]:
    """One thread a rank, root allowed as in a container, nothing left of a job around these tests."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_", "PMIX_", "PRTE_"))}
    return {
        **env,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMP_NUM_THREADS": "1",
    }


def run(*command: str, timeout_s: float = 100.0) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        check=False,
        env=environment(),
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def mpirun() -> str:
    found = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, "no mpirun: pip install 'pydec-train[mpi]'"
    return found


def test_readme_shows_the_minimal_example():
    assert f"```python\n{MINIMAL.read_text(encoding='utf-8')}```\n" in README


def test_minimal_example_is_short_and_marks_three_lines():
    lines = MINIMAL.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 30
    assert [line.split("# ")[1][0] for line in lines if re.search(r"  # \d", line)] == ["1", "2", "3"]


def test_minimal_example_runs_alone():
    (result,) = RESULT.findall(run(sys.executable, str(MINIMAL)))
    assert result[0] == "1"
    assert float(result[1]) < 2.0
    assert float(result[2]) == 0.0


@pytest.mark.parametrize("ranks", [2, 4])
def test_minimal_example_runs_under_mpirun(ranks):
    out = run(mpirun(), "--oversubscribe", "-n", str(ranks), sys.executable, str(MINIMAL))
    (result,) = RESULT.findall(out)
    assert int(result[0]) == ranks
    assert float(result[1]) < 2.0
    assert 0.0 < float(result[2]) < 1.0


@pytest.mark.timeout(240)  # most of it goes to importing
@pytest.mark.parametrize(
    ("example", "needs", "loss"),
    [
        ("huggingface_trainer", ("transformers", "accelerate"), 3.2),
        ("lightning_module", ("lightning",), 2.0),
        ("accelerate_loop", ("accelerate",), 2.0),
    ],
)
def test_integrations_train_under_mpirun(example, needs, loss):
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'pydec-train[integrations]'")
    program = str(ROOT / "examples" / f"{example}.py")
    (result,) = RESULT.findall(
        run(mpirun(), "--oversubscribe", "-n", "2", sys.executable, program, timeout_s=200.0)
    )
    assert result[0] == "2"
    assert float(result[1]) < loss
    assert 0.0 < float(result[2]) < 1.0


@pytest.mark.timeout(240)  # most of it goes to importing
def test_private_example_learns_and_counts(tmp_path, monkeypatch):
    if importlib.util.find_spec("opacus") is None:
        pytest.skip("opacus is not installed: pip install 'pydec-train[privacy]'")
    monkeypatch.setenv("ACCOUNTS", str(tmp_path))
    program = str(ROOT / "examples" / "private.py")
    out = run(mpirun(), "--oversubscribe", "-n", "2", sys.executable, program, timeout_s=200.0)
    (result,) = RESULT.findall(out)
    assert result[0] == "2"
    assert float(result[1]) < 4.0  # of 6.9 without training
    assert re.search(r"^epsilon \d+\.?\d* at delta \S+ for each peer's samples$", out, flags=re.MULTILINE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank-0.jsonl", "rank-1.jsonl"]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_says_what_it_is(example):
    assert example.read_text(encoding="utf-8").startswith('"""')
