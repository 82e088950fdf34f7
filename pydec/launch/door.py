"""Where the supervisors of one user's jobs on this machine can be asked: a directory with a socket for each.

The directory (mode 0700) and the sockets (0600) are the user's own: who may ask is who may enter.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydec.errors import ConfigError, SetupError


def directory() -> Path:
    """The directory of this user's doors, ``pydec-UID`` where temporary files go (TMPDIR); made if missing.

    Raises:
        SetupError: it cannot be made, or others can enter it.
    """
    path = Path(tempfile.gettempdir()) / f"pydec-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise SetupError(
            f"{path} cannot be made: {error.strerror}; set TMPDIR to a directory of yours"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise SetupError(
            f"{path} is not a directory that only you can enter; remove it, or set another TMPDIR"
        )
    return path


class Door:
    """The socket of this process, listening, and what tells which job it is of.

    Raises:
        SetupError: it cannot be made.

    Attributes:
        orders: a file for what the job's ranks are told, see ``comm.orders``.
    """

    def __init__(self) -> None:
        base = directory()
        self._path, self._label = base / f"{os.getpid()}.sock", base / f"{os.getpid()}.json"
        self.orders = base / f"{os.getpid()}.orders"
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self._path.unlink(missing_ok=True)  # of a process that had this number and was killed
            self.socket.bind(str(self._path))
            self._path.chmod(0o600)
            self.orders.write_bytes(b"")
            self.orders.chmod(0o600)
            self.socket.listen(8)
        except OSError as error:
            self.socket.close()
            raise SetupError(f"{self._path} cannot be made: {error}; set TMPDIR to a shorter path") from None

    def tell(self, run_dir: str) -> None:
        """Write down which run the job is of; "" for none. A full disk leaves what was known."""
        temporary = self._label.with_suffix(".tmp")
        with suppress(OSError):
            temporary.write_text(json.dumps({"run_dir": run_dir and str(Path(run_dir).resolve())}))
            temporary.replace(self._label)

    def order(self, line: bytes) -> None:
        """Tell the ranks of this machine."""
        with suppress(OSError), self.orders.open("ab") as file:
            file.write(line)

    def close(self) -> None:
        """Nobody can ask any more."""
        self.socket.close()
        self.orders.unlink(missing_ok=True)
        self._label.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


def find(run_dir: str = "", pid: int = 0) -> Path:
    """The socket of the job that is meant, on this machine.

    Args:
        run_dir: of its run; "" for any.
        pid: process id of its ``pydec run``; 0 for any.

    Raises:
        ConfigError: there is none, or more than one.
        SetupError: see ``directory``.
    """
    jobs = {path: label for path in sorted(directory().glob("*.json")) if (label := _label(path)) is not None}
    wanted = run_dir and str(Path(run_dir).resolve())
    found = [
        path
        for path, label in jobs.items()
        if (not wanted or label == wanted) and (not pid or path.stem == str(pid))
    ]
    if len(found) == 1:
        return found[0].with_suffix(".sock")
    which = ", ".join(f"{path.stem} ({label or 'no run directory'})" for path, label in jobs.items())
    if found:
        raise ConfigError(f"several jobs run here: {which}; name one with --pid or --run-dir")
    meant = f" in {run_dir}" if run_dir else f" with process id {pid}" if pid else ""
    raise ConfigError(
        f"no job{meant} that pydec run started runs on {socket.gethostname()}"
        + (f"; there are {which}" if jobs else "; ask on the machine, and as the user, of its pydec run")
    )


def _label(path: Path) -> str | None:
    """The run directory of a job that lives; what a dead one has left is removed."""
    door = path.with_suffix(".sock")
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(door))
        return str(json.loads(path.read_bytes())["run_dir"])
    except (ConnectionRefusedError, FileNotFoundError):
        for left in (path, door, door.with_suffix(".orders")):
            left.unlink(missing_ok=True)
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None


def ask(
    door: Path,
    line: str,
    show: Callable[[str], None],
    prove: Callable[[dict[str, Any]], dict[str, str]] | None = None,
) -> bool:
    """Send one request and show the answers; returns whether the last one is good.

    Args:
        door: see ``find``.
        line: of JSON.
        show: called with the words of each answer but a bad one, which is raised if it is the first.
        prove: answers where the job wants to know who asks.

    Raises:
        ConfigError: the request is refused.
        SetupError: the job ends without an answer.
    """
    answers = 0
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(door))
            client.sendall(line.encode() + b"\n")
            for said in client.makefile("rb"):
                answer = json.loads(said)
                if "challenge" in answer:
                    if prove is None:
                        raise ConfigError("the job wants to know who asks; sign the request with a key")
                    client.sendall(json.dumps(prove(answer)).encode() + b"\n")
                    continue
                if answer["failed"] and not answers:
                    raise ConfigError(f"refused: {answer['words']}")
                show(str(answer["words"]))
                answers += 1
                if answer["last"]:
                    return not answer["failed"]
    except (ConfigError, SetupError):
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SetupError(f"the job of {door.stem} does not answer: {error}") from None
    raise SetupError(f"pydec run {door.stem} has ended without an answer")
