"""A job's door is its user's alone, and is found by run directory, process or because it is the only one."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from pydec.errors import ConfigError, SetupError
from pydec.launch.door import Door, ask, find

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def door(tmp_path, monkeypatch):
    """Below a directory of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = Door()
    yield made
    made.close()


def test_the_door_is_the_user_s_alone_and_is_found(door, tmp_path):
    door.tell(str(tmp_path))
    path = find(str(tmp_path))
    assert path == find(pid=os.getpid()) == find()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(ConfigError, match="no job in elsewhere"):
        find("elsewhere")
    with pytest.raises(ConfigError, match="no job with process id 1 "):
        find(pid=1)
    (path.parent / "7.json").write_text('{"run_dir": "gone"}')  # its process was killed
    assert find() == path
    assert not (path.parent / "7.json").exists()
    door.close()
    with pytest.raises(ConfigError, match="no job that pydec run started runs on"):
        find()


def test_one_of_several_jobs_must_be_named(door, monkeypatch):
    door.tell("runs/a")
    monkeypatch.setattr(os, "getpid", lambda: 7)
    other = Door()
    other.tell("")
    with pytest.raises(ConfigError, match=r"several jobs run here: .*7 \(no run directory\).*name one"):
        find()
    assert find(pid=7).stem == "7"
    other.close()


def test_a_directory_that_others_can_enter_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"pydec-{os.getuid()}").mkdir(mode=0o755)
    (tmp_path / f"pydec-{os.getuid()}").chmod(0o755)
    with pytest.raises(SetupError, match="only you can enter"):
        Door()


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        (b'{"words": "no", "failed": true, "last": true}\n', ConfigError, "refused: no"),
        (b"", SetupError, "has ended without an answer"),
        (b"[]\n", SetupError, "does not answer"),
    ],
)
def test_an_answer_that_is_none_is_one_clear_error(door, answers, error, words):
    def answer():
        client, _ = door.socket.accept()
        with client:
            client.recv(100)
            client.sendall(answers)

    door.tell("")
    path = door.socket.getsockname()
    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(error, match=words):
        ask(Path(path), "{}", print)
    thread.join()
