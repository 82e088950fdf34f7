"""How fast is it here, beside what else one could use?

Runs one suite of benchmarks, prints its rows as they come, and writes them with --json. Numbers
count only with the machine named, which the file does.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydec.errors import ConfigError, SetupError

_PACKAGE = "pydec._benchmarks"
_COLUMNS = ("name", "parameters", "ours", "peer", "theirs", "ratio", "of memory's limit")
_UNSHOWN = ("rounds", "curve")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("suite", metavar="SUITE", help="such as kernels; an unknown name lists all")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows to FILE")
    parser.add_argument("--quick", action="store_true", help="take seconds: does it work, not how fast is it")
    parser.add_argument("--rounds", metavar="N", type=int, help="timed rounds of each comparison")
    parser.add_argument(
        "--net", metavar="RATE", default="", help="gossip, train: over hosts with such links, 100mbit"
    )
    parser.add_argument(
        "--hosts", metavar="N", type=int, default=4, help="how many hosts (with --net); default 4"
    )
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="train, recover: only what has TEXT in its name"
    )


def run(args: argparse.Namespace) -> int:
    """Run one suite.

    Raises:
        ConfigError: no such suite, or a number of rounds below 1.
        SetupError: the benchmarks are not installed, or FILE cannot be written.
    """
    if args.rounds is not None and args.rounds < 1:
        raise ConfigError(f"--rounds must be at least 1, got {args.rounds}")
    if args.hosts < 2:
        raise ConfigError(f"--hosts must be at least 2, got {args.hosts}")
    if args.net and not re.fullmatch("[1-9][0-9]*(kbit|mbit|gbit)", args.net):
        raise ConfigError(f"--net must be a rate like 100mbit or 1gbit, got {args.net!r}")
    known = suites()
    if args.suite not in known:
        raise ConfigError(f"unknown suite {args.suite!r}; known: {', '.join(known)}")
    if args.json is not None:
        _write(args.json, [])  # a path that cannot be written is found now, not after the measurement
    suite, harness = load(f"suite_{args.suite}"), load("harness")
    machine, versions = harness.machine(), harness.versions()
    print(", ".join(f"{key} {value}" for key, value in {**machine, **versions}.items()))
    found = []
    options = harness.Options(args.quick, args.rounds, args.net, args.hosts, args.only)
    for row in _shown(suite.rows(options)):
        found.append(row)
        if args.json is not None:
            first = {**found[0], "command": _command(args), "machine": machine, "versions": versions}
            _write(args.json, [first, *found[1:]])
    return 0


def _command(args: argparse.Namespace) -> str:
    """What repeats these rows."""
    words = ["pydec", "bench", args.suite]
    words += ["--quick"] if args.quick else []
    words += ["--rounds", str(args.rounds)] if args.rounds is not None else []
    words += ["--net", args.net, "--hosts", str(args.hosts)] if args.net else []
    words += ["--only", args.only] if args.only else []
    return shlex.join(words)


def suites() -> list[str]:
    """Names of all suites, in alphabetical order.

    Raises:
        SetupError: the benchmarks are neither installed nor beside a source checkout.
    """
    folder = Path(str(_package().__file__)).parent
    return sorted(path.stem.removeprefix("suite_") for path in folder.glob("suite_*.py"))


def load(name: str) -> ModuleType:
    """A module of the benchmarks, such as "harness", from the wheel or from the source checkout.

    Raises:
        SetupError: as ``suites``.
    """
    _package()
    return importlib.import_module(f"{_PACKAGE}.{name}")


def _package() -> ModuleType:
    """The benchmarks as one package, from the wheel or from the source checkout."""
    if _PACKAGE in sys.modules:
        return sys.modules[_PACKAGE]
    if importlib.util.find_spec(_PACKAGE) is not None:
        return importlib.import_module(_PACKAGE)
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise SetupError(f"the benchmarks are not installed and not at {folder}; run from a source checkout")
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)
    return package


def _shown(rows: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """Prints rows as a table that grows, and passes them on as dictionaries."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    table = Table(*_COLUMNS)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with Live(table, console=console, auto_refresh=False) as live:
        for row in rows:
            table.add_row(*_cells(row.as_dict()))
            live.refresh()
            yield row.as_dict()


def _cells(row: dict[str, Any]) -> list[str]:
    params = ", ".join(
        f"{key}={_short(value)}" for key, value in row["params"].items() if key not in _UNSHOWN
    )
    peer, ratio, share = row["peer_value"], row["ratio"], row["floor_fraction"]
    return [
        row["name"],
        params,
        f"{row['value']:.4g} {row['unit']}",
        row["peer"] or "",
        "" if peer is None else f"{peer:.4g} {row['unit']}",
        "" if ratio is None else f"{ratio:.2f} x",
        "" if share is None else f"{100 * share:.0f} %",
    ]


def _short(value: object) -> str:
    """Whole multiples of 2^20 as "16 Mi"."""
    return f"{value >> 20} Mi" if isinstance(value, int) and value and value % 2**20 == 0 else str(value)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}; choose another --json FILE") from None
