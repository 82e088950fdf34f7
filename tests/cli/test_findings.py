"""What `pydec doctor` finds on a host, well and badly equipped."""

from __future__ import annotations

import errno
import fcntl

import pytest

from pydec.cli import findings


def test_a_usual_folder_is_fine(tmp_path):
    assert "a sync takes" in findings.disk(tmp_path).value
    assert findings.locks(tmp_path).state == "ok"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path):
    for look in (findings.disk, findings.locks):
        found = look(tmp_path / "gone")
        assert (found.state, "gone" in found.value, bool(found.fix)) == ("note", True, True)


def test_a_slow_disk_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "SLOW_SYNC_S", 0.0)
    assert "local disk" in findings.disk(tmp_path).fix


@pytest.mark.parametrize("raises", [False, True])
def test_locks_that_hold_nobody_off_are_told(tmp_path, monkeypatch, raises):
    def flock(file, how):
        if raises:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    found = findings.locks(tmp_path)
    assert found.state == "note"
    assert ("No locks available" if raises else "two processes get one lock") in found.value


@pytest.mark.parametrize(("answer", "state"), [(0, "ok"), (5, "note"), (-1, "note")])
def test_a_clock_that_follows_nobody_is_told(answer, state):
    assert findings.clock(lambda _: answer).state == state


def test_interfaces_that_are_up_are_listed(tmp_path):
    for name, state, speed in (
        ("eth0", "up", "25000"),
        ("eth1", "down", "1000"),
        ("ib0", "up", "-1"),
        ("lo", "up", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(state + "\n")
        (tmp_path / name / "speed").write_text(speed + "\n")
    assert findings.network(tmp_path).value == "eth0 25 Gbit/s, ib0 of unknown speed"
    assert findings.network(tmp_path / "none").state == "note"


def test_a_port_that_is_closed_is_told(monkeypatch):
    def refused(where, timeout):
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(findings.socket, "create_connection", refused)
    assert findings.ports().state == "note"
