"""Draw runs as one self-contained HTML page: curves, ranks in time, links, graphs, events, a comparison."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydec.report.read import Run

_NAME = "report.html"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run directories; several are compared")
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="",
        help=f"the page (default RUN/{_NAME} for one run, {_NAME} for several)",
    )  # fmt: skip
    parser.add_argument("--title", metavar="TEXT", default="", help="of the page")
    parser.add_argument(
        "--watch", action="store_true", help="write it again and again until every run has ended"
    )
    parser.add_argument(
        "--every", type=float, default=10.0, metavar="SECONDS", help="between two pages (default 10)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it is.

    Raises:
        ConfigError: no run directory, nothing recorded yet, a file in the way, or no matplotlib.
        SetupError: the page cannot be written.
    """
    from pydec.errors import ConfigError, SetupError
    from pydec.trace.merge import renewed

    if args.every <= 0.0:
        raise ConfigError(f"--every takes seconds above 0, got {args.every:g}")
    paths = [Path(run) for run in args.runs]
    for path in paths:
        with suppress(SetupError):  # of a run that may only be read
            renewed(path)
    target = Path(args.output or (paths[0] / _NAME if len(paths) == 1 else _NAME))
    _refuse(target)
    while True:
        runs = _read(paths)
        goes_on = args.watch and any(run.status == "running" for run in runs)
        _write(target, runs, args.title, args.every if goes_on else 0.0)
        if not goes_on:
            break
        print(f"{target}: {_progress(runs)}", flush=True)
        time.sleep(args.every)
    print(target)
    return 0


def _read(paths: Sequence[Path]) -> list[Run]:
    """The runs, by names that differ: the last part of a path, all of it where that is not enough."""
    from pydec.errors import ConfigError
    from pydec.report.read import read

    short = [path.resolve().name for path in paths]
    names = [name if short.count(name) == 1 else str(path) for path, name in zip(paths, short, strict=True)]
    if len(set(names)) < len(names):
        raise ConfigError(f"a run is named twice: {', '.join(names)}")
    return [read(path, name) for path, name in zip(paths, names, strict=True)]


def _refuse(target: Path) -> None:
    """Raise ConfigError rather than replace what is no report."""
    from pydec.errors import ConfigError
    from pydec.report.page import MARK

    if target.is_dir():
        raise ConfigError(f"{target} is a directory; name a file with --output")
    if target.exists():
        with target.open("rb") as file:
            if MARK.encode() not in file.read(200):
                raise ConfigError(f"{target} is there and no report of pydec's; name another with --output")


def _write(target: Path, runs: Sequence[Run], title: str, refresh_s: float) -> None:
    from pydec import __version__
    from pydec.errors import SetupError
    from pydec.report.page import page

    words = title or ", ".join(run.name for run in runs)
    text = page(runs, title=words, version=__version__, refresh_s=refresh_s)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SetupError(
            f"{target} cannot be written: {error.strerror or error}; name another with --output"
        ) from error


def _progress(runs: Sequence[Run]) -> str:
    return ", ".join(
        f"{run.name} at step {max(int(r.columns['step'][-1]) for r in run.ranks.values() if len(r)):,}"
        for run in runs
    )
