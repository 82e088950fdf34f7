"""Whether a run goes on from an older checkpoint than the newest that its ledger has certified.

Somebody who can write a run directory can put an older state of it back, and every byte of that is sound.
With a ledger the others know better: the last run on it names its newest checkpoint, and ``config.json``,
whose digest its BEGIN committed, names the one that it went on from. Without a ledger nothing knows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydec.consensus.state.parts import Run
from pydec.crypto.hashing import sha256
from pydec.errors import ConfigError


@dataclass(frozen=True)
class Wanted:
    """From which checkpoint a run may go on.

    Args:
        step: asked for by name, whatever is newer; None: the newest.
        certified: the newest that the ledger knows, in steps; 0: it knows none.
        foreign: whether the ledger's last run was begun with another ``config.json`` than this directory's.
    """

    step: int | None = None
    certified: int = 0
    foreign: bool = False

    def check(self, path: Path, step: int, why: list[str]) -> None:
        """Raise ConfigError if a step is too old.

        Args:
            path: of the run.
            step: of the newest checkpoint that is whole.
            why: what was found out about newer ones.
        """
        if self.step is not None or step >= self.certified:
            return
        other = "; if that was another run, " if self.foreign else "; or "
        found = "".join(f"; {words}" for words in why)
        raise ConfigError(
            f"--resume {path}: the last run on the ledger has come to a checkpoint of step {self.certified}, "
            f"and the newest that is whole here is of step {step}{found}. Bring the newer one's files "
            f"back{other}say --resume-step {step} to go on from the older one"
        )

    def chosen(self, path: Path, steps: list[int]) -> list[int]:
        """The steps of checkpoints that may be taken, of all that there are.

        Raises:
            ConfigError: there is none of the step that was asked for.
        """
        if self.step is None:
            return steps
        if self.step not in steps:
            there = ", ".join(map(str, sorted(set(steps)))) or "none"
            raise ConfigError(
                f"--resume-step {self.step}: {path} has no checkpoint of that step; it has {there}"
            )
        return [self.step]


def wanted(path: Path, run: Run | None, step: int | None) -> Wanted:
    """What this rank knows, before it looks at any checkpoint.

    Args:
        path: of the run.
        run: the last on the ledger; None without a ledger.
        step: asked for by name.
    """
    if run is None:
        return Wanted(step)
    newest = run.checkpoints[-1].round if run.checkpoints else 0
    try:
        content = (path / "config.json").read_bytes()
        resumed = int(json.loads(content).get("resumed", 0))
    except (OSError, ValueError, AttributeError, TypeError):
        content, resumed = b"", 0
    if sha256(content) == run.config:
        return Wanted(step, max(newest, resumed))
    return Wanted(step, newest, foreign=True)
