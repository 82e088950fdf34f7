"""README and the pages of docs: every block of code in them runs, or is a command that is understood.

Blocks of Python run in a directory of their own, after what their page presupposes (``BEFORE``); those that
show places in other programs are run whole in test_examples.py. Of shell blocks every ``pydec`` command is
parsed by its own parser, so that no option goes out of date, and those that take a moment run. What trains or
measures for minutes is run by the tests of its command.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pydec.cli.main import COMMANDS, parser_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PARTS = "DistributedDataParallel, any process group"  # of other people's programs: examples/ has them whole
BEFORE = {
    "docs/data.md": """
import pathlib, torch, pydec, pydec.store
from pydec.cli.main import main
for name in ("cat/1.png", "dog/2.png"):
    pathlib.Path("photos", name).parent.mkdir(parents=True)
    pathlib.Path("photos", name).write_bytes(bytes(8))
assert main(["data", "add", "photos", "--name", "photos"]) == 0
peer, decode = pydec.init(), None
""",
    "docs/robust.md": """
import numpy as np, pydec
vectors, mine = [np.full(8, float(i), np.float32) for i in range(8)], np.zeros(8, np.float32)
""",
}
RUNS = {"list", "topology", "keys"}  # commands that take a moment and need no run


def blocks(language: str) -> list:
    found = []
    for page in PAGES:
        texts = [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]
        name = str(page.relative_to(ROOT))
        found += [pytest.param(text, id=f"{name}-{number}") for number, text in enumerate(texts)]
    return found


def commands() -> list:
    found = {}
    for block in blocks("sh"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and words[0] != "pydec":
                words = words[1:]
            if len(words) > 1 and words[1] in COMMANDS:
                found.setdefault(shlex.join(words), words[1:])
    return [pytest.param(words, id=name[:80]) for name, words in found.items()]


@pytest.mark.parametrize("text", blocks("python"))
def test_python_blocks_run(tmp_path, request, text):
    if PARTS in text:
        compile(text, "README", "exec")
        pytest.skip("parts of other programs; tests/test_examples.py runs them whole")
    text = BEFORE.get(request.node.callspec.id.rpartition("-")[0], "") + text
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", commands())
def test_commands_are_understood(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    understood(words)
    if words[0] in RUNS:
        from pydec.cli.main import main

        assert main(words) == 0, capsys.readouterr().err


def understood(words: list[str]) -> None:
    args = parser_of(words[0]).parse_args(words[1:])
    inner = getattr(args, "command", None)
    if words[0] == "run" and isinstance(inner, list) and inner and inner[0] in COMMANDS:
        understood(inner)


EXTRA = re.compile(r"\[([\w,]+)\]")
TOOLS = {"apptainer", "apt-get", "module", "salloc", "sbatch", "source", "srun"}  # of the machine


@pytest.mark.parametrize("text", blocks("sh"))
def test_other_shell_lines_name_what_there_is(text):
    """Targets of make, extras of pip, files; ``pydec`` lines have a test of their own."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2]
    extras = re.findall(r"^(\w+) = ", section.partition("\n[")[0], re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and "=" in words[0] and not words[0].startswith("-"):
            words = words[1:]
        assert all((ROOT / word).exists() for word in words if word.startswith("examples/"))
        if not words or words[0] in TOOLS or "pydec" in words:
            continue
        match words[0]:
            case "make":
                assert {word for word in words[1:] if "=" not in word} <= targets
            case "pip":
                assert {extra for found in EXTRA.findall(line) for extra in found.split(",")} <= {*extras}
            case "mpirun" | "bash" | "pytest" | "python":
                paths = [word for word in words[1:] if "/" in word]
                assert all((ROOT / path).exists() for path in paths)
            case other:
                raise AssertionError(f"{other} of {line!r} is not tested: name it here")


def test_every_algorithm_has_its_equation_its_source_and_when_not_to_use_it():
    from pydec.compress import compressors
    from pydec.gossip import algorithms, robust_rules

    text = (ROOT / "docs" / "algorithms.md").read_text()
    cells = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    named, instead = ([name for row in cells for name in re.findall(r"`([\w-]+)`", row[at])] for at in (1, 3))
    assert sorted(named) == sorted([*algorithms, *robust_rules])
    for name in algorithms:
        words = algorithms.get(name).__doc__
        assert "Source" in words, name
        assert re.search(r"<-|\+ = |-= |mean gradient", words), name
    assert {*instead} <= {*algorithms, *robust_rules, *compressors}


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False, capture_output=True, text=True,
        timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site/algorithms.html").read_text().count("arXiv") > 10
