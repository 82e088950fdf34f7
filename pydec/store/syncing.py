"""Wait for the disk once for many files, where the file system can, and else for several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from pydec.disk import Disk

T = TypeVar("T")
Submit = Callable[..., Future[Any]]
"""Does something in a thread; see ``Objects.submit``."""
_FEW = 2
_MANY = 16  # fewer wait less by themselves: the file system may have more to write that is not ours


def sync_files(disk: Disk, descriptors: Sequence[int], submit: Submit) -> None:
    """Return when data and length of all these files of one file system are on the disk.

    Raises:
        OSError: the first failure, once nothing is under way.
    """
    if len(descriptors) < _MANY or not disk.sync_file_system(descriptors[0]):
        _each(disk.sync, descriptors, submit)


def sync_names(disk: Disk, base: Path, directories: Sequence[Path], submit: Submit) -> None:
    """Return when the names in all these directories are on the disk; ``base`` is on their file system.

    Raises:
        OSError: the first failure, once nothing is under way.
    """
    if len(directories) >= _MANY:
        descriptor = disk.open_directory(base)
        try:
            if disk.sync_file_system(descriptor):
                return
        finally:
            disk.close(descriptor)
    _each(disk.sync_directory, directories, submit)


def _each(action: Callable[[T], None], items: Sequence[T], submit: Submit) -> None:
    """Do something to all, several at a time.

    A few are done here: who commits one object may itself be a thread that the others would wait for.
    """
    if len(items) <= _FEW:
        for item in items:
            action(item)
        return
    errors = [future.exception() for future in [submit(action, item) for item in items]]
    for error in errors:
        if error is not None:
            raise error


def at_once(action: Callable[..., T], *values: object) -> Future[T]:
    """What a pool without threads does: an error is the future's, and what stops the program stops it."""
    future: Future[T] = Future()
    try:
        future.set_result(action(*values))
    except Exception as error:
        future.set_exception(error)
    return future
