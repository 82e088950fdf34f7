"""Options: what a word must be, said in one line where it is not, and those that a run was given."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from pydec.errors import ConfigError


def grace(word: str) -> float:
    """Seconds, or ``auto``, see ``pydec.comm.watch``."""
    from pydec.comm.watch import grace_of

    try:
        return grace_of(word)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--grace ")) from None


def count(word: str) -> int:
    """An integer of at least 1."""
    value = int(word)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {word}")
    return value


def whole(word: str) -> int:
    """An integer of at least 0."""
    value = int(word)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {word}")
    return value


def positive(word: str) -> float:
    """A finite number above 0."""
    value = float(word)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, got {word}")
    return value


def saved_options(run_dir: Path) -> Mapping[str, object]:
    """The options in a run's ``config.json``; none if it is not on this host or cannot be read."""
    try:
        return dict(json.loads((run_dir / "config.json").read_bytes())["options"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # who needs it says so


count.__name__ = whole.__name__ = "integer"  # argparse names the type in its messages
positive.__name__ = "number"
