"""What is here, whole or damaged; and plain files of sealed checkpoints, for who holds a rank's key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pydec.cli.main import main
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey
from pydec.train.checkpoint_files import Store
from pydec.train.checkpoint_vault import Vault, seal_model
from pydec.train.rundir import RunDir

KEY = SigningKey(bytes([1]) * 32)
WEIGHT = torch.arange(1000.0)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run directory with two sealed parts of step 4, one of step 8, and a sealed model; and key files."""
    monkeypatch.chdir(tmp_path)
    vault = Vault(KEY)
    entry = vault.draw([KEY.public])
    vault.use(entry, {KEY.public: vault.sign(entry)})
    store = Store(RunDir(tmp_path / "run"), vault)
    for step, rank in ((4, 0), (4, 1), (8, 0)):
        store.write_tensors(step, rank, {"w": WEIGHT + rank}, {"members": [0], "state": {}})
    torch.save({"w": WEIGHT}, "final.pt")
    with open("run/checkpoints/final.pt.sealed", "wb") as file:
        seal_model(file, Path("final.pt").read_bytes(), vault)
    keyfile.create(Path("mine.key"), KEY)
    keyfile.create(Path("other.key"), SigningKey(bytes([2]) * 32), "a phrase")
    return store


def test_all_that_is_here_is_shown(run, capsys):
    assert main(["checkpoint", "show", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["step", "8", "rank", "0"],
        ["step", "4", "rank", "0"],
        ["step", "4", "rank", "1"],
    ]
    assert all(f"whole, 0.0 MB, opens for {KEY.public.hex()[:16]}" in line for line in lines)
    run.vault = None
    run.write_tensors(8, 0, {"w": WEIGHT}, {"members": [0]})
    run.path(4, 1).write_bytes(b"something else")
    assert main(["checkpoint", "show", "run"]) == 1
    out = capsys.readouterr().out
    assert "not sealed" in out
    assert "rank-1.safetensors is damaged: it has 14 bytes" in out


def test_the_newest_and_the_model_are_opened_for_plain_torch(run, capsys):
    assert main(["checkpoint", "open", "run", "--key", "mine.key"]) == 0
    assert torch.equal(load_file("run/opened/step-8/rank-0.safetensors")["w"], WEIGHT)
    assert torch.equal(torch.load("run/opened/final.pt")["w"], WEIGHT)
    opened = [path for path in Path("run/opened").rglob("*") if path.is_file()]
    assert len(opened) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in opened)
    assert str(opened[0]) in capsys.readouterr().out


def test_one_part_is_opened_where_it_is_wanted(run):
    words = "checkpoint open run --key mine.key --step 4 --rank 1 --out here"
    assert main(words.split()) == 0
    assert torch.equal(load_file("here/step-4/rank-1.safetensors")["w"], WEIGHT + 1)
    assert len([path for path in Path("here").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        ("open run", 2, "name the identity key of a rank of the run with --key"),
        ("open run --key mine.key --step 5", 2, "no finished checkpoint of step 5; it has 8, 4"),
        ("open run --key mine.key --step 4 --rank 2", 2, "no part of rank 2 of step 4; it has those of 0, 1"),
        (
            "open run --key other.key --passphrase-from env:PHRASE",
            2,
            "rank-0.safetensors is sealed: it opens for",
        ),
        ("open run --key none.key", 1, "none.key cannot be read"),
        ("open none --key mine.key", 2, "none has no checkpoints"),
        ("show none", 2, "none has no checkpoints"),
    ],
)
def test_refusals_say_why(run, capsys, monkeypatch, words, status, reason):
    monkeypatch.setenv("PHRASE", "a phrase")
    assert main(["checkpoint", *words.split()]) == status
    assert reason in capsys.readouterr().err
    assert not Path("run/opened").exists()


def test_nothing_is_replaced_and_nothing_half_opened_stays(run, capsys):
    assert main(["checkpoint", "open", "run", "--key", "mine.key", "--step", "4", "--rank", "0"]) == 0
    assert main(["checkpoint", "open", "run", "--key", "mine.key", "--step", "4", "--rank", "0"]) == 2
    assert "exists and is not replaced" in capsys.readouterr().err
    path = Path("run/checkpoints/final.pt.sealed")
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["checkpoint", "open", "run", "--key", "mine.key", "--out", "here"]) == 1
    assert "final.pt.sealed was tampered with" in capsys.readouterr().err
    assert [file.name for file in Path("here").rglob("*") if file.is_file()] == ["rank-0.safetensors"]


def test_what_is_not_sealed_needs_no_opening(run, capsys):
    run.vault = None
    run.write_tensors(8, 0, {"w": WEIGHT}, {"members": [0]})
    assert main(["checkpoint", "open", "run", "--key", "mine.key"]) == 2
    assert "is not sealed; safetensors reads it as it is" in capsys.readouterr().err
