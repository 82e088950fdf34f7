"""What a job does on its ledger, step by step: open, decide who takes part, begin, follow, certify, part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydec.comm.orders import Orders
from pydec.consensus.roles import of_ranks
from pydec.consensus.transactions import Dataset
from pydec.train.accountability import accountable
from pydec.train.auditing import auditing, check_auditable
from pydec.train.checkpoint_vault import SEALED, Vault
from pydec.train.config import TrainConfig
from pydec.train.final_model import keep
from pydec.train.ledger import RunLedger
from pydec.train.loop import Loop
from pydec.train.opening import Opening
from pydec.train.rundir import RunDir
from pydec.train.together import jointly, speaks, texts

if TYPE_CHECKING:
    from pydec.peer import Peer
    from pydec.train.prepare import Setup

_ORDER_S = 2.0  # that the supervisor's order may come later than its signal


@contextmanager
def opened(peer: Peer, config: TrainConfig) -> Iterator[RunLedger | None]:
    """The run's ledger, if there is to be one, with the decision who takes part; all ranks together.

    Raises:
        SharedError: its directories cannot be used, no quorum answers, or nobody may train.
    """
    if not config.ledger:
        yield None
        return
    roles = of_ranks(config.roles)
    opening = jointly(peer, lambda: Opening(peer, Path(config.ledger), config.puzzle, roles))
    jointly(peer, opening.meet, settled=False)
    with jointly(peer, lambda: opening.open(config.deadline_s)) as ledger:
        ledger.enter()
        yield ledger


def narrow(peer: Peer, ledger: RunLedger) -> None:
    """Go on with those alone that take part; all of them together."""
    if ledger.admission.outside:
        peer.narrow(ledger.admission.inside)


def begin(
    ledger: RunLedger,
    config: TrainConfig,
    directory: RunDir,
    facts: Mapping[str, Any],
    data: Dataset | None = None,
) -> None:
    """Commit that the run begins; all that take part together.

    Args:
        ledger: opened.
        config: resolved.
        directory: of the run, which holds ``config.json``.
        facts: of the data and its split.
        data: registers the data set of the store that the run reads, if it reads one.
    """
    content = (directory.path / "config.json").read_bytes()
    ledger.begin(content, asdict(config), facts, config.task, data)


def follow(
    peer: Peer, ledger: RunLedger, loop: Loop, directory: RunDir, setup: Setup, orders: Orders
) -> Callable[[int, bytes], None]:
    """Put the ledger to work in a loop: members, models, partings; returns what certifies checkpoints."""
    vault = setup.vault
    ledger.follow(loop.optimizer)
    if loop.config.audit:
        jointly(peer, lambda: check_auditable(peer, loop.config, loop.optimizer), settled=False)
    if loop.config.audit or accountable(loop.config, loop.optimizer):
        jointly(peer, lambda: ledger.hold_to_account(loop.optimizer), settled=False)
    if loop.config.audit:
        ledger.audit(partial(auditing, peer, loop, setup))
    loop.align = ledger.align
    loop.parting = partial(_part, peer, ledger, orders)
    if not loop.config.checkpoint_every:
        loop.keep = partial(_keep, peer, loop, directory, ledger, vault)
    return partial(_certify, loop.config, ledger)


def _keep(peer: Peer, loop: Loop, directory: RunDir, ledger: RunLedger, vault: Vault | None) -> None:
    """Write the averaged model down and have it certified; the one before is no longer needed."""
    step, every = loop.progress.step, loop.config.eval_every
    writer = 0 if speaks(peer) else peer.rank
    root = keep(directory, f"step-{step}.pt", loop.task.model, writer, vault)
    ledger.checkpoint(step, root)
    if speaks(peer) and step > every:
        before = f"checkpoints/step-{step - every}.pt"
        for name in (before, before + SEALED):
            (directory.path / name).unlink(missing_ok=True)


def _certify(config: TrainConfig, ledger: RunLedger, step: int, root: bytes) -> None:
    """Commit a checkpoint that all ranks hold; of the last step the ledger gets the averaged model."""
    if config.checkpoint_every and step < config.steps:
        ledger.checkpoint(step, root)


def _part(peer: Peer, ledger: RunLedger, orders: Orders) -> None:
    """The ranks end at one step: if others go on in another number, who is too many leaves the ledger."""
    told = texts(peer, str(orders.take(_ORDER_S) or ""))
    if ranks := next(filter(None, told), ""):
        ledger.part(int(ranks))
