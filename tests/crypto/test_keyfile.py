"""Key files: what is refused, that nothing is overwritten or half-written, and that secrets stay in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError, SetupError

KEY = SigningKey(bytes(range(32)))


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch):
    monkeypatch.setattr(keyfile, "_LOG_N", 4)


@pytest.mark.parametrize("passphrase", [None, "correct horse", "h\u00e9"])
def test_a_key_comes_back(tmp_path, passphrase):
    path = tmp_path / "node.key"
    keyfile.create(path, KEY, passphrase)
    assert keyfile.load(path, passphrase) == KEY
    assert keyfile.public_of(path) == (KEY.public, passphrase is not None)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["node.key"]
    assert (KEY.seed.hex() in path.read_text()) == (passphrase is None)


def test_a_passphrase_typed_on_another_keyboard_is_the_same(tmp_path):
    keyfile.create(tmp_path / "k", KEY, "h\u00e9")
    assert keyfile.load(tmp_path / "k", "he\u0301") == KEY


def test_an_existing_file_is_never_replaced(tmp_path):
    path = tmp_path / "node.key"
    keyfile.create(path, KEY)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"node.key exists and is never replaced"):
        keyfile.create(path, SigningKey.generate())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["node.key"]


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_failing_disk_leaves_nothing(tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(SetupError, match="No space left on device"):
        keyfile.create(tmp_path / "node.key", KEY)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o010])
def test_others_must_not_read_it(tmp_path, mode):
    path = tmp_path / "node.key"
    keyfile.create(path, KEY)
    path.chmod(mode)
    with pytest.raises(SetupError, match=rf"has mode {mode:04o}.*chmod 600"):
        keyfile.load(path)


def test_passphrases_are_checked(tmp_path):
    sealed, bare = tmp_path / "sealed", tmp_path / "bare"
    keyfile.create(sealed, KEY, "yes")
    keyfile.create(bare, KEY)
    for path, phrase, message in [
        (sealed, "no", "wrong passphrase for key file"),
        (sealed, None, "is sealed; give its passphrase"),
        (sealed, "", "must not be empty"),
        (bare, "yes", "has no passphrase, but one was given"),
    ]:
        with pytest.raises(ConfigError, match=message):
            keyfile.load(path, phrase)


def rewrite(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    for name, value in changes.items():
        content[name] = value
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def test_what_stands_beside_a_sealed_seed_is_authenticated(tmp_path):
    path = tmp_path / "k"
    for changes in (
        {"public": "00" * 32},
        {"scrypt": {"log_n": 5, "r": 8, "p": 1, "salt": "00" * 16}},
        {"nonce": "00" * 12},
        {"sealed": "00" * 48},
    ):
        path.unlink(missing_ok=True)
        keyfile.create(path, KEY, "yes")
        rewrite(path, **changes)
        with pytest.raises(ConfigError, match="wrong passphrase for key file"):
            keyfile.load(path, "yes")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "pydec-key-2"},
        {"public": "00"},
        {"public": 3},
        {"seed": "zz" * 32},
        {"seed": "00" * 31},
        {"more": 1},
        {"seed": None},
        {"sealed": "00" * 48},
    ],
)
def test_damaged_files_are_refused(tmp_path, changes):
    path = tmp_path / "k"
    keyfile.create(path, KEY)
    rewrite(path, **changes)
    with pytest.raises(SetupError, match="is no key file of pydec"):
        keyfile.load(path)


@pytest.mark.parametrize("cost", [{"log_n": 40}, {"log_n": 0}, {"log_n": True}, {"r": 1 << 30}, {"p": "1"}])
def test_a_file_cannot_ask_for_any_amount_of_memory(tmp_path, cost):
    path = tmp_path / "k"
    keyfile.create(path, KEY, "yes")
    rewrite(path, scrypt={"log_n": 4, "r": 8, "p": 1, "salt": "00" * 16} | cost)
    with pytest.raises(SetupError, match="scrypt needs"):
        keyfile.load(path, "yes")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 3000, b"{}", b" " * 5000])
def test_any_other_bytes_are_refused(tmp_path, content):
    path = tmp_path / "k"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(SetupError, match="is no key file of pydec"):
        keyfile.load(path)


def test_another_keys_seed_is_refused(tmp_path):
    path = tmp_path / "k"
    keyfile.create(path, KEY)
    rewrite(path, seed="07" * 32)
    with pytest.raises(SetupError, match="its seed is not that of its public key"):
        keyfile.load(path)


def test_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("NODE", KEY.seed.hex())
    assert keyfile.from_source("env:NODE") == KEY
    out, into = os.pipe()
    os.write(into, KEY.seed.hex().encode() + b"\n")
    os.close(into)
    assert keyfile.from_source(f"fd:{out}") == KEY
    keyfile.create(tmp_path / "k", KEY)
    assert keyfile.from_source(str(tmp_path / "k")) == KEY
    monkeypatch.setenv("NODE", "secret")
    for source, message in [
        ("env:NODE", "must hold 64 hexadecimal digits"),
        ("env:NONE", "no environment variable 'NONE'"),
        ("fd:x", "no open file descriptor 'x'"),
        ("fd:991", "no open file descriptor '991'"),
    ]:
        with pytest.raises(ConfigError, match=message) as caught:
            keyfile.from_source(source)
        assert "secret" not in str(caught.value)
    with pytest.raises(SetupError, match="pydec keys new"):
        keyfile.from_source(str(tmp_path / "none"))
