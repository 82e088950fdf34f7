from __future__ import annotations

import getpass
import json
import os

import pytest

from pydec.cli.main import main
from pydec.crypto import keyfile


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch):
    monkeypatch.setattr(keyfile, "_LOG_N", 4)


def test_new_and_show_agree(tmp_path, capsys):
    path = tmp_path / "node.key"
    assert main(["keys", "new", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": str(path), "public": keyfile.load(path).public.hex(), "sealed": False}
    assert main(["keys", "show", str(path)]) == 0
    out = capsys.readouterr().out
    assert out == f"public key    {told['public']}\nfile          {path}, not sealed, mode 0600\n"


def test_a_passphrase_comes_from_a_descriptor_or_the_terminal(tmp_path, capsys, monkeypatch):
    path = tmp_path / "node.key"
    out, into = os.pipe()
    os.write(into, b"open sesame\n")
    os.close(into)
    assert main(["keys", "new", str(path), "--passphrase-fd", str(out)]) == 0
    assert "sealed by a passphrase" in capsys.readouterr().out
    assert main(["keys", "show", str(path)]) == 0
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "open sesame")
    assert main(["keys", "show", str(path), "--passphrase"]) == 0
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "shut")
    capsys.readouterr()
    assert main(["keys", "show", str(path), "--passphrase"]) == 2
    assert "wrong passphrase" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "answers", "message", "status"),
    [
        (
            "show {}/none",
            [],
            "none cannot be read: No such file or directory; make one with pydec keys new",
            1,
        ),
        ("new {}/none/k", [], "cannot be written: No such file", 1),
        ("new {}/k --passphrase", ["a", "b"], "the two passphrases differ; nothing was written", 2),
        ("new {}/k --passphrase", ["", ""], "must not be empty", 2),
        ("new {}/k --passphrase-fd 991", [], "--passphrase-fd 991 cannot be read", 2),
        ("drop {}/k", [], "invalid choice: 'drop'", 2),
        ("new", [], "FILE", 2),
    ],
)
def test_mistakes_cost_one_line(words, answers, message, status, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(getpass, "getpass", lambda prompt: answers.pop(0))
    assert main(["keys", *words.format(tmp_path).split()]) == status
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "k").exists()


def test_a_passphrase_comes_from_the_environment(tmp_path, capsys, monkeypatch):
    path = tmp_path / "node.key"
    monkeypatch.setenv("PHRASE", "open sesame")
    assert main(["keys", "new", str(path), "--passphrase-from", "env:PHRASE"]) == 0
    assert main(["keys", "show", str(path), "--passphrase-from", "env:PHRASE"]) == 0
    assert "sesame" not in capsys.readouterr().out
    assert main(["keys", "show", str(path), "--passphrase-from", "open sesame"]) == 2
    assert "a secret comes from env:NAME or fd:NUMBER" in capsys.readouterr().err
