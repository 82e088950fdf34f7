"""Spans of this process's time, as events of a Chrome trace: what it computes, sends, waits for.

``span`` and ``traced`` stand where the work is done. They cost one comparison while nothing records, and
about a microsecond while ``Recorder`` does, which ``pydec.init(trace=...)`` and ``pydec train --trace``
open. A process has one recorder at a time, since it is one rank.

Each rank writes a file of its own, line by line, and one of them is made of all at the end (``trace.merge``).

Format: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU,
complete events ("X"), times in microseconds; pid is the rank, tid a thread of it.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from pydec.errors import SetupError

P = ParamSpec("P")
R = TypeVar("R")

MOST_EVENTS = 1_000_000
"""Of one rank; what comes later is left out, and the trace says so."""
FLUSH_S = 2.0  # a rank that is killed loses at most so much
_FLUSH_EVENTS = 4096  # bounds the memory
_NOTHING = nullcontext()

_recorder: Recorder | None = None


def span(kind: str, **facts: int | str) -> AbstractContextManager[object]:
    """What happens within is a span of that kind, if this process records.

    Args:
        kind: the span's name, such as "encode".
        facts: shown with the span.
    """
    recorder = _recorder
    return _NOTHING if recorder is None else _Span(recorder, kind, facts)


def traced(kind: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make every call of a function a span of that kind, if this process records."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if _recorder is None:
                return function(*args, **kwargs)
            with _Span(_recorder, kind, {}):
                return function(*args, **kwargs)

        return call

    return wrap


def ended(kind: str, start_ns: int) -> None:
    """A span that began at that ``time.perf_counter_ns()`` ends now, if this process records."""
    if _recorder is not None:
        _recorder.add(kind, start_ns, time.perf_counter_ns(), {})


class Recorder:
    """Writes the spans of this process to a file; a context manager that ends with the recording.

    Nothing here may end a run: where the file cannot be written, that is said once and recording ends.

    Args:
        path: of this rank's lines; appended to, so that a run that goes on has one trace.
        rank: the events' pid.
        shift_ns: what is added to ``time.perf_counter_ns()``, so that all ranks have one clock.
        facts: shown with the rank, such as how well the clocks agree.
        between: the kind of span that lies between two spans of kind "step"; "" where the program itself
            says what it does there.

    Raises:
        SetupError: the file cannot be opened.
        RuntimeError: this process records already.
    """

    def __init__(
        self,
        path: Path,
        rank: int,
        *,
        shift_ns: int = 0,
        facts: dict[str, Any] | None = None,
        between: str = "",
    ) -> None:
        self.path = path
        if _recorder is not None:
            raise RuntimeError(f"this process records to {_recorder.path} already; close that recorder first")
        self._rank, self._shift_ns, self._between = rank, shift_ns, between
        self._events: list[tuple[str, int, int, int, dict[str, int | str]]] = []
        self._turn = threading.Lock()
        self._threads: dict[int, int] = {}
        self._count = 0
        self._stepped_ns = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  # lives as long as this object
            if self._file.tell():
                self._file.write(b"\n")  # ends a line that a killed process has left
        except OSError as error:
            raise SetupError(
                f"the trace {path} cannot be written: {error.strerror or error}; choose another directory, "
                "or leave the trace out"
            ) from error
        name = f"rank {rank} ({socket.gethostname()})"
        self._write(
            [_about(rank, "process_name", name=name), _about(rank, "process_sort_index", sort_index=rank)]
        )
        self._write(
            [_about(rank, "process_labels", labels=", ".join(f"{k} {v}" for k, v in (facts or {}).items()))]
        )
        self._flushed_s = time.monotonic()

    def add(self, kind: str, start_ns: int, end_ns: int, facts: dict[str, int | str]) -> None:
        """Record one span; from any thread."""
        if kind == "step" and self._between:
            if self._stepped_ns:
                self._keep((self._between, threading.get_ident(), self._stepped_ns, start_ns, {}))
            self._stepped_ns = end_ns
        self._keep((kind, threading.get_ident(), start_ns, end_ns, facts))

    def _keep(self, event: tuple[str, int, int, int, dict[str, int | str]]) -> None:
        self._count += 1
        if self._count > MOST_EVENTS:
            return
        if self._count == MOST_EVENTS:
            event = ("the trace is full", event[1], event[2], event[2], {"events": MOST_EVENTS})
        self._events.append(event)
        if event[1] not in self._threads:
            self._threads[event[1]] = len(self._threads)
            name = threading.current_thread().name
            self._write([_about(self._rank, "thread_name", self._threads[event[1]], name=name)])
        if len(self._events) >= _FLUSH_EVENTS or time.monotonic() - self._flushed_s >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._flushed_s = time.monotonic()
        events, self._events = self._events, []
        self._write([self._line(*event) for event in events])

    def _line(self, kind: str, thread: int, start_ns: int, end_ns: int, facts: dict[str, int | str]) -> str:
        where = f'"pid":{self._rank},"tid":{self._threads[thread]}'
        when = f'"ts":{(start_ns + self._shift_ns) / 1e3:.3f},"dur":{(end_ns - start_ns) / 1e3:.3f}'
        args = f',"args":{json.dumps(facts)}' if facts else ""
        return f'{{"ph":"X","name":{json.dumps(kind)},{where},{when}{args}}}'

    def _write(self, lines: list[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        with self._turn:
            if self._file.closed:
                return
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError as error:
                self._file.close()
                self._count = MOST_EVENTS
                print(
                    f"pydec: the trace {self.path} ends here: {error.strerror}", file=sys.stderr, flush=True
                )

    def close(self) -> None:
        """End the recording, with everything in the file; idempotent."""
        global _recorder
        if _recorder is self:
            _recorder = None
        self.flush()
        with self._turn:
            self._file.close()

    def __enter__(self) -> Recorder:
        global _recorder
        _recorder = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Span:
    def __init__(self, recorder: Recorder, kind: str, facts: dict[str, int | str]) -> None:
        self._recorder, self._kind, self._facts = recorder, kind, facts

    def __enter__(self) -> None:
        self._start_ns = time.perf_counter_ns()

    def __exit__(self, *error: object) -> None:
        self._recorder.add(self._kind, self._start_ns, time.perf_counter_ns(), self._facts)


def _about(rank: int, what: str, thread: int = 0, **facts: int | str) -> str:
    """A line of metadata."""
    return json.dumps({"ph": "M", "name": what, "pid": rank, "tid": thread, "args": facts})


def _forget() -> None:
    """A child of this process, such as a loader of data, is no rank."""
    global _recorder
    _recorder = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
