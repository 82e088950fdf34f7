"""An account never counts less than was taken, whatever ends the process, and knows what is none."""

from __future__ import annotations

import errno
import json
import os

import pytest

from pydec.errors import ConfigError, SetupError
from pydec.privacy.account import BLOCK, Account, read
from pydec.privacy.accountant import Mechanism

ONE, OTHER = Mechanism(1.1, 0.01), Mechanism(0.7, 1 / 3)


def test_what_was_spent_is_known_again(tmp_path):
    path = tmp_path / "deep" / "account.jsonl"
    with Account(path, ranks=4) as account:
        for _ in range(BLOCK + 3):
            account.spend(ONE)
        account.spend(OTHER)
        assert account.spent == {ONE: BLOCK + 3, OTHER: 1}
    assert read(path) == ({ONE: BLOCK + 3, OTHER: 1}, 4)
    with Account(path, ranks=2) as account:
        account.spend(ONE)
        assert account.spent == {ONE: BLOCK + 4, OTHER: 1}
    assert read(path) == ({ONE: BLOCK + 4, OTHER: 1}, 4)


def test_every_step_is_on_the_disk_before_it_is_taken(tmp_path, monkeypatch):
    path = tmp_path / "account.jsonl"
    synced = []
    real = os.fsync

    def sync(file):
        real(file)
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", sync)
    account = Account(path)
    for step in range(1, 3 * BLOCK):
        account.spend(ONE)
        on_disk = tmp_path / "as-after-a-crash"
        on_disk.write_bytes(synced[-1])
        assert step <= read(on_disk)[0][ONE] < step + BLOCK
    account.close()


def test_a_crash_counts_what_may_have_been_taken(tmp_path):
    path = tmp_path / "account.jsonl"
    account = Account(path)
    account.spend(ONE)
    os.close(account._file)  # as the end of a process: nothing is put right
    account._file = -1
    with Account(path) as again:
        assert again.spent == {ONE: BLOCK}
        again.spend(ONE)
    assert read(path)[0] == {ONE: BLOCK + 1}


def test_no_more_is_allowed_ahead_than_asked_for(tmp_path):
    path = tmp_path / "account.jsonl"
    with Account(path) as account:
        account.spend(ONE, most=2)
        assert read(path)[0] == {ONE: 2}
        account.spend(ONE, most=1)
        account.spend(ONE, most=3 * BLOCK)
        assert read(path)[0] == {ONE: 2 + BLOCK}
    assert read(path)[0] == {ONE: 3}


def test_two_processes_do_not_share_an_account(tmp_path):
    with (
        Account(tmp_path / "account.jsonl"),
        pytest.raises(SetupError, match="is held by another process"),
    ):
        Account(tmp_path / "account.jsonl")
    Account(tmp_path / "account.jsonl").close()


def test_it_takes_over_what_another_has_more(tmp_path):
    with Account(tmp_path / "account.jsonl") as account:
        account.spend(ONE)
        account.at_least({ONE: 5, OTHER: 2})
        account.at_least({ONE: 3})
        assert account.spent == {ONE: 5, OTHER: 2}
        account.spend(ONE)
        assert account.spent == {ONE: 6, OTHER: 2}
    assert read(tmp_path / "account.jsonl")[0] == {ONE: 6, OTHER: 2}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_was_cut_was_not_relied_on(tmp_path, cut):
    path = tmp_path / "account.jsonl"
    with Account(path) as account:
        account.at_least({ONE: 7})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"noise": 1.1, "rate": 0.01, "steps": 16}\n'[:-cut])
    with Account(path) as account:
        assert account.spent == {ONE: 7}
    assert path.read_bytes().startswith(whole + b'{"pydec"')


def lines(*entries):
    return b"".join(
        entry if isinstance(entry, bytes) else json.dumps(entry).encode() + b"\n" for entry in entries
    )


HEAD = {"pydec": "privacy account", "version": 1, "ranks": 1}


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (lines({"noise": 1.0, "rate": 0.1, "steps": 3}), 1),
        (lines({"pydec": "something else", "version": 1, "ranks": 1}), 1),
        (lines(HEAD, {"noise": 1.0, "rate": 0.1, "steps": -1}), 2),
        (lines(HEAD, {"noise": 1.0, "steps": 1}), 2),
        (lines(HEAD, b"\0\0\0\0\n", {"noise": 1.0, "rate": 0.1, "steps": 3}), 2),
        (lines(HEAD, [1, 2]), 2),
    ],
)
def test_what_is_no_account_is_refused_and_left_alone(tmp_path, content, number):
    path = tmp_path / "account.jsonl"
    path.write_bytes(content)
    for open_it in (Account, read):
        with pytest.raises(ConfigError, match=f"line {number} of .*account.jsonl is not one of a privacy"):
            open_it(path)
    assert path.read_bytes() == content


def test_a_newer_account_and_a_missing_one_are_named(tmp_path):
    (tmp_path / "newer").write_bytes(lines({**HEAD, "version": 2}))
    with pytest.raises(ConfigError, match="newer is of a newer pydec"):
        Account(tmp_path / "newer")
    with pytest.raises(SetupError, match="missing cannot be read"):
        read(tmp_path / "missing")


def test_a_disk_that_fails_stops_every_further_step(tmp_path, monkeypatch):
    account = Account(tmp_path / "account.jsonl")
    for _ in range(BLOCK):
        account.spend(ONE)

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            SetupError, match=r"cannot be written: No space left.*no step is taken that is not"
        ):
            account.spend(ONE)
    with pytest.raises(SetupError, match="failed before"):
        account.spend(ONE)
    account.close()
    assert read(tmp_path / "account.jsonl")[0][ONE] >= BLOCK
