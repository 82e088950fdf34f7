"""Starts a benchmark's ranks as a user would, with ``pydec run``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

_LIMIT_S = 1800


def run_ranks(ranks: int, words: Sequence[str]) -> None:
    """Run a command on several ranks.

    Args:
        ranks: how many.
        words: what follows ``pydec run -n RANKS``: a command of pydec or a program.

    Raises:
        RuntimeError: it failed; shows the end of what it wrote to standard error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pydec", "run", "-n", str(ranks), *words],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"pydec run {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
