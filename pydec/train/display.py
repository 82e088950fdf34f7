"""What rank 0 shows while a run goes: one calm bar in a terminal, one plain line an interval elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from pydec.comm import detect

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_REFRESH_S = 0.25
_LINE_S = 5.0


class Display(Protocol):
    """Where a run's progress goes."""

    def step(self, done: int) -> None:
        """``done`` steps are done."""

    def report(self, done: int, figures: Mapping[str, float]) -> None:
        """New figures, see ``words``."""

    def say(self, text: str) -> None:
        """One or more whole lines."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Silent:
    """Shows nothing: ranks other than 0, and ``--quiet``."""

    def step(self, done: int) -> None:
        """Nothing."""

    def report(self, done: int, figures: Mapping[str, float]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines(Silent):
    """Plain lines for logs and pipes, at most one every few seconds, and the last.

    Args:
        title: first word of every line.
        total: steps of the run; 0 if nobody knows.
    """

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._started_s = time.monotonic()
        self._shown_s = -_LINE_S

    def report(self, done: int, figures: Mapping[str, float]) -> None:
        """Print a line unless the last one is too young."""
        now_s = time.monotonic()
        if now_s - self._shown_s < _LINE_S and (done < self._total or not self._total):
            return
        self._shown_s = now_s
        rate = done / max(1e-9, now_s - self._started_s)
        of = f"{done:{len(str(self._total))}d}/{self._total}" if self._total else str(done)
        self.say(f"{self._title}  step {of}  {words(figures)}  {rate:.1f} steps/s")

    def say(self, text: str) -> None:
        """Print at once, also into a pipe."""
        print(text, flush=True)


class Bar(Silent):
    """A bar on a terminal, redrawn by the steps themselves: no thread.

    Args:
        title: what the bar is about.
        total: steps of the run; 0 if nobody knows.
        columns: width of the terminal.
    """

    def __init__(self, title: str, total: int, columns: int) -> None:
        self._title = title
        self._total = total
        self._columns = columns
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._drawn_s = 0.0

    def __enter__(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=max(8, min(30, self._columns - 130))),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=Console(force_terminal=True, width=self._columns, highlight=False),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._progress.start()
        self._task = self._progress.add_task(self._title, total=self._total or None, figures="", rate="")
        self._started_s = time.monotonic()
        return self

    def step(self, done: int) -> None:
        """Move the bar; redraw a few times a second."""
        assert self._progress is not None
        assert self._task is not None
        now_s = time.monotonic()
        if now_s - self._drawn_s >= _REFRESH_S or 0 < self._total <= done:
            self._drawn_s = now_s
            rate = done / max(1e-9, now_s - self._started_s)
            self._progress.update(self._task, completed=done, rate=f"{rate:.1f}/s", refresh=True)

    def report(self, done: int, figures: Mapping[str, float]) -> None:
        """Take over new figures; shown at the next redraw."""
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, figures=words(figures))

    def say(self, text: str) -> None:
        """Print above the bar, or where it was."""
        if self._progress is not None and not self._progress.finished:
            self._progress.console.print(text, markup=False)
        else:
            print(text, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


def make(title: str, total: int, *, quiet: bool) -> Display:
    """The display that suits where the output goes; only rank 0 calls it without ``quiet``."""
    if quiet:
        return Silent()
    columns = terminal_columns()
    return Bar(title, total, columns) if columns else Lines(title, total)


def words(figures: Mapping[str, float]) -> str:
    """Figures of a report in one line; ``mb`` are megabytes sent, ``waiting`` a share."""
    parts: list[str] = []
    for key, value in figures.items():
        if key == "loss":
            parts.append(f"loss {value:.3f}")
        elif key == "bits_per_byte":
            parts.append(f"{value:.3f} bits/byte")
        elif key == "consensus_distance":
            parts.append(f"apart {value:.2g}")
        elif key == "mb":
            parts.append(f"{value:.1f} MB sent")
        elif key == "mb_per_s":
            parts.append(f"{value:.1f} MB/s")
        elif key == "waiting":
            parts.append(f"{100 * value:.0f} % waiting")
        elif key == "ranks":
            parts.append(f"{value:.0f} ranks")
        elif key == "accuracy":
            parts.append(f"{100 * value:.2f} % right")
        else:
            parts.append(f"{key} {value:.4g}")
    return "  ".join(parts)


def terminal_columns() -> int:
    """Width of the terminal that shows standard output, or 0 if none does.

    Under mpirun every rank writes to a pseudo-terminal, wherever mpirun's own output goes; so there
    the launcher's standard output decides.
    """
    if not sys.stdout.isatty():
        return 0
    launched = detect.launch() is not None
    try:
        if not launched:
            return os.get_terminal_size(sys.stdout.fileno()).columns or 80
        target = os.open(f"/proc/{os.getppid()}/fd/1", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            return (os.get_terminal_size(target).columns or 80) if os.isatty(target) else 0
        finally:
            os.close(target)
    except (OSError, ValueError):
        return 0 if launched else 80
