"""``python -m pydec.trace DIR...``: put together what the ranks of a job have written, wherever it ended."""

from __future__ import annotations

import sys
from pathlib import Path

from pydec.errors import ConfigError, PydecError
from pydec.trace.merge import merge


def main(words: list[str]) -> int:
    """Make ``trace.json`` in each directory, and print its path; the exit status."""
    try:
        if not words or any(word.startswith("-") for word in words):
            raise ConfigError("usage: python -m pydec.trace DIR..., where DIR holds trace/rank-*.jsonl")
        for word in words:
            print(merge(Path(word)))
    except PydecError as error:
        print(f"pydec: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
