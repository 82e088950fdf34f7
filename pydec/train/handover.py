"""The configuration of a run that goes on, for ranks whose disks have never seen it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydec.errors import ConfigError, PydecError
from pydec.train.rundir import RunDir
from pydec.train.together import Member, settle, texts

_NAME = "config.json"


def hand_over(peer: Member, run_dir: Path) -> None:
    """Write the run's ``config.json`` where it is missing, or of an earlier start; all ranks together.

    What was written last counts. A disk that holds another run is left alone.

    Args:
        peer: this rank.
        run_dir: of the run, on every rank.

    Raises:
        ConfigError: two disks hold different runs; all ranks raise.
        SetupError: a rank cannot write its directory; all ranks raise.
    """
    mine = _read(run_dir / _NAME)
    found = [
        (json.loads(words), rank)
        for rank, words in enumerate(texts(peer, json.dumps(mine) if mine else ""))
        if words
    ]
    if not found:
        return  # what reads it says so, on all ranks
    newest, holder = max(found, key=lambda item: (str(item[0].get("started", "")), -item[1]))
    for other, rank in found:
        if other["task"] != newest["task"] or other["seed"] != newest["seed"]:
            raise ConfigError(
                f"--resume {run_dir}: rank {holder} has a run of {newest['task']} with seed "
                f"{newest['seed']} there, rank {rank} one of {other['task']} with seed "
                f"{other['seed']}; move the wrong one away"
            )
    error: PydecError | None = None
    if not mine or mine["options"] != newest["options"]:
        try:
            directory = RunDir(run_dir)
            directory.join()
            directory.write(_NAME, newest)
        except PydecError as caught:
            error = caught
    settle(peer, error)


def _read(path: Path) -> dict[str, Any]:
    """The configuration on this rank's disk; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_bytes())
        return {**found, "task": found["task"], "seed": found["seed"], "options": dict(found["options"])}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
