"""The round rules as a model for spin: all interleavings of four validators, one of them Byzantine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("model") / "rounds.pml"
TOOLS = [name for name in ("spin", "gcc") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(TOOLS), reason=f"not installed: {', '.join(TOOLS)}"),
]


def check(folder, *defines):
    """What the verifier says about the model, with these parts of the rules left out."""
    flags = [f"-D{name}" for name in defines]
    for command in (
        ["spin", *flags, "-a", str(MODEL)],
        ["gcc", "-O2", "-w", "-DSAFETY", "-o", "pan", "pan.c"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    done = subprocess.run(
        ["./pan", "-m100000", "-w24"], cwd=folder, capture_output=True, check=True, text=True
    )
    assert "max search depth too small" not in done.stdout
    return done.stdout


def test_no_interleaving_decides_two_values(tmp_path):
    assert "errors: 0" in check(tmp_path)


@pytest.mark.parametrize("part", ["FORGETS_THE_LOCK", "COMMITS_AFTER_TIMEOUT", "SKIPS_JUSTIFICATION"])
def test_each_rule_is_needed(tmp_path, part):
    said = check(tmp_path, part)
    assert "assertion violated" in said
    assert "errors: 1" in said
