"""Which checkpoints the ledger has certified, read from the disks before its nodes run."""

from __future__ import annotations

import json
from pathlib import Path

from pydec.consensus.file_storage import BLOCKS, GENESIS, read_blocks, read_genesis
from pydec.consensus.replay import Replay
from pydec.errors import LedgerError
from pydec.train.together import Member, table, text


def certified(peer: Member, base: str) -> dict[int, frozenset[str]]:
    """Roots of the checkpoints that a quorum has signed, by step, in hexadecimal; all ranks together.

    Every rank replays the blocks on its own disk, which checks every signature; the longest chain counts.
    Ranks whose disk holds no ledger, or a damaged one, take what the others say.

    Args:
        peer: this rank.
        base: directory of all ranks' ledgers; "" has none.
    """
    if not base:
        return {}
    height, roots = _replayed(Path(base) / f"rank-{peer.rank}")
    speaker = int(table(peer, [float(height)])[:, 0].argmax())
    said = json.loads(text(peer, json.dumps([[step, sorted(of)] for step, of in roots.items()]), speaker))
    return {step: frozenset(of) for step, of in said}


def _replayed(directory: Path) -> tuple[int, dict[int, set[str]]]:
    """The height of a ledger on disk, and the roots that it certifies; of none 0, and no roots."""
    roots: dict[int, set[str]] = {}
    if not (directory / GENESIS).exists() or not (directory / BLOCKS).exists():
        return 0, roots
    try:
        genesis = read_genesis(directory)
        replay = Replay(genesis)
        with read_blocks(directory, genesis) as blocks:
            for _, record in blocks.records(1):
                replay.add(record)
                for found in replay.state.run.checkpoints:
                    roots.setdefault(found.round, set()).add(found.root.hex())
    except LedgerError:
        return 0, {}  # its node will say so when it starts
    return replay.state.height, roots
