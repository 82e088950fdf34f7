"""The account of one rank's data: how many noised steps they have been used for, on the disk before each.

One JSON object a line, only ever appended::

    {"pydec": "privacy account", "version": 1, "ranks": 4}      a process that begins
    {"noise": 1.1, "rate": 0.01, "steps": 16}                   so many steps may be taken from now on
    {"noise": 1.1, "rate": 0.01, "steps": -3}                   so many of them were not

Nothing of a step leaves the process before its line is on the disk, so a crash can only count steps that were
not taken, fewer than ``BLOCK``. A run that goes on from an older checkpoint takes steps again, with new
samples and new noise, and they count again. A line that a crash has cut short was not yet relied on.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from pydec.errors import ConfigError, SetupError
from pydec.privacy.accountant import Mechanism

BLOCK = 16
"""Steps that one write to the disk allows."""
_KIND, _VERSION = "privacy account", 1


class Account:
    """An account that this process holds; also a context manager.

    Args:
        path: its file; made if it is not there, with its directory.
        ranks: how many share the data of this job.

    Raises:
        ConfigError: it is no account, or damaged.
        SetupError: another process holds it, or it cannot be written.
    """

    def __init__(self, path: str | Path, ranks: int = 1) -> None:
        self.path = Path(path)
        self._left: dict[Mechanism, int] = {}  # of what was written, not yet taken
        self._broken = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._failure(error) from error
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise SetupError(
                    f"the privacy account {self.path} is held by another process that still trains on the "
                    "same data; wait for it or end it, or give each its own"
                ) from None
            self._written, _, whole = _parse(self.path, self._read())
            os.ftruncate(self._file, whole)
            self._append({"pydec": _KIND, "version": _VERSION, "ranks": ranks})
            _sync_directory(self.path.parent)
        except OSError as error:
            os.close(self._file)
            raise self._failure(error) from error
        except BaseException:
            os.close(self._file)
            raise

    @property
    def spent(self) -> dict[Mechanism, int]:
        """Steps taken, and those that a process which died may have taken."""
        return {key: steps - self._left.get(key, 0) for key, steps in self._written.items()}

    def spend(self, mechanism: Mechanism, most: int = BLOCK) -> None:
        """Count one step, before anything of it can be seen.

        Args:
            mechanism: of the step.
            most: steps that may be written ahead, this one among them.

        Raises:
            SetupError: the disk does not take it; the step must not be taken.
        """
        if not self._left.get(mechanism):
            ahead = min(BLOCK, most)
            self._write(mechanism, ahead)
            self._left[mechanism] = ahead
        self._left[mechanism] -= 1

    def at_least(self, spent: Mapping[Mechanism, int]) -> None:
        """Count as many steps as another account has, where that are more."""
        mine = self.spent
        for mechanism, steps in spent.items():
            if steps > mine.get(mechanism, 0):
                self._write(mechanism, steps - mine.get(mechanism, 0))

    def close(self) -> None:
        """Write down what was not taken, and let the file go; idempotent."""
        if self._file < 0:
            return
        try:
            for mechanism, left in self._left.items():
                if left and not self._broken:
                    self._write(mechanism, -left)
            self._left.clear()
        finally:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Account:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, mechanism: Mechanism, steps: int) -> None:
        if self._broken:
            raise SetupError(f"the privacy account {self.path} failed before; start again on a sound disk")
        try:
            self._append({"noise": mechanism.noise, "rate": mechanism.rate, "steps": steps})
        except OSError as error:
            self._broken = True  # after a failed sync nobody knows what the disk has
            raise self._failure(error) from error
        self._written[mechanism] = self._written.get(mechanism, 0) + steps

    def _append(self, entry: Mapping[str, object]) -> None:
        line = memoryview(json.dumps(entry).encode() + b"\n")
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)

    def _read(self) -> bytes:
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    def _failure(self, error: OSError) -> SetupError:
        return SetupError(
            f"the privacy account {self.path} cannot be written: {error.strerror}; no step is taken that is "
            "not counted; free some space, or put it on another disk"
        )


def read(path: str | Path) -> tuple[dict[Mechanism, int], int]:
    """What an account counts, whoever holds it, and the most ranks that its jobs had.

    Raises:
        ConfigError: it is no account, or damaged.
        SetupError: it cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SetupError(f"the privacy account {path} cannot be read: {error.strerror}") from error
    spent, ranks, _ = _parse(Path(path), content)
    return spent, ranks


def _parse(path: Path, content: bytes) -> tuple[dict[Mechanism, int], int, int]:
    """Steps by mechanism, the most ranks, and how many bytes are whole lines."""
    whole = content.rfind(b"\n") + 1
    spent: dict[Mechanism, int] = {}
    ranks = 0
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            entry = json.loads(line)
            if number == 1 or "pydec" in entry:
                if entry["pydec"] != _KIND:
                    raise ValueError
                if entry["version"] > _VERSION:
                    raise ConfigError(f"{path} is of a newer pydec; go on with the version that wrote it")
                ranks = max(ranks, int(entry["ranks"]))
                continue
            mechanism = Mechanism(float(entry["noise"]), float(entry["rate"]))
            spent[mechanism] = spent.get(mechanism, 0) + int(entry["steps"])
            if spent[mechanism] < 0:
                raise ValueError
        except ConfigError:
            raise
        except (ValueError, LookupError, TypeError):
            raise ConfigError(
                f"line {number} of {path} is not one of a privacy account: what was spent is unknown; bring "
                "back a sound copy, or start a new run on data that were not used"
            ) from None
    return spent, ranks, whole


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
