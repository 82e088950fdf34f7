"""Metrics where people already look: TensorBoard's event files, and a page that Prometheus reads.

Both take the rows of one rank's record as they are written. Nothing here may end a run: what cannot be
exported is said once, and training goes on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pydec.errors import ConfigError, SetupError

Sink = Callable[[bytes], None]
_EXTRA = "pip install 'pydec-train[metrics]'"
_NAMES = {"step_s": "step_seconds", "wait_s": "wait_seconds", "time_s": "time_seconds"}


def address(words: str) -> tuple[str, int]:
    """``PORT`` or ``HOST:PORT`` as (host, port); this machine alone where no host is named.

    Raises:
        ConfigError: neither.
    """
    host, _, port = words.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"--prometheus takes PORT or HOST:PORT, such as 9100 or 0.0.0.0:9100, got {words!r}"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


@contextlib.contextmanager
def exporting(directory: Path, *, tensorboard: bool, prometheus: str) -> Iterator[list[Sink]]:
    """What is to be called with every line of a record, of the rank that exports.

    Args:
        directory: of the run; event files go to ``tensorboard`` in it.
        tensorboard: whether they are written.
        prometheus: where the page is served, see ``address``; "" serves none.

    Raises:
        SetupError: a library is missing, or the port is taken.
    """
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if tensorboard:
            sinks.append(_guarded("TensorBoard", stack.enter_context(_events(directory / "tensorboard"))))
        if prometheus:
            sinks.append(_guarded("Prometheus", stack.enter_context(_page(*address(prometheus)))))
        yield sinks


@contextlib.contextmanager
def _events(folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SetupError(f"--tensorboard needs tensorboard ({error}): {_EXTRA}") from None
    writer = SummaryWriter(str(folder))

    def add(row: Mapping[str, Any]) -> None:
        group = "train" if row["kind"] == "step" else str(row["kind"])
        for key, value in row.items():
            if key not in ("kind", "step") and isinstance(value, int | float):
                writer.add_scalar(f"{group}/{key}", value, row["step"])

    try:
        yield add
    finally:
        writer.close()


@contextlib.contextmanager
def _page(host: str, port: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    try:
        from prometheus_client import CollectorRegistry, Gauge, start_http_server
    except ImportError as error:
        raise SetupError(f"--prometheus needs prometheus-client ({error}): {_EXTRA}") from None
    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise SetupError(
            f"--prometheus {host}:{port} cannot be served: {error.strerror or error}; choose another port"
        ) from None

    def add(row: Mapping[str, Any]) -> None:
        kind = "" if row["kind"] == "step" else f"{row['kind']}_"
        for key, value in row.items():
            if key == "kind" or not isinstance(value, int | float):
                continue
            name = f"pydec_{kind}{_NAMES.get(key, key)}"
            if name not in gauges:
                gauges[name] = Gauge(name, f"{key} of the last {row['kind']} of this rank", registry=registry)
            gauges[name].set(value)

    try:
        yield add
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _guarded(name: str, add: Callable[[Mapping[str, Any]], None]) -> Sink:
    """``add`` for lines; its first failure is said, and it is not called again."""
    works = True

    def sink(line: bytes) -> None:
        nonlocal works
        if not works:
            return
        try:
            add(msgspec.json.decode(line))
        except Exception as error:
            works = False
            print(f"pydec: no more metrics for {name}: {error}", file=sys.stderr, flush=True)

    return sink
