"""Puts audits to work in a run, and says which runs can be audited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pydec import gossip
from pydec.compress.auto import Auto
from pydec.errors import ConfigError
from pydec.gossip.witness import Witness
from pydec.optim import DecentralizedOptimizer
from pydec.train.audit import Audits, Court
from pydec.train.audit_rerun import Rerun, SeededGradients
from pydec.train.config import TrainConfig
from pydec.train.loop import Loop

if TYPE_CHECKING:
    from pydec.peer import Peer
    from pydec.train.prepare import Setup

_MOST_BYTES = 2 << 30  # of states that a rank keeps between two reports


def auditing(peer: Peer, loop: Loop, setup: Setup, court: Court, witness: Witness) -> Audits:
    """The audits of a run, put to work in its loop.

    Args:
        peer: this rank.
        loop: not yet running.
        setup: of this rank.
        court: the ledger.
        witness: of this rank.
    """
    config, first = loop.config, setup.point.step if setup.point else 0
    algorithm = setup.byzantine.algorithm if setup.byzantine else gossip.make(config.algorithm)
    assert setup.batches_of is not None
    rerun = Rerun(config, loop.task, algorithm, setup.batches_of, first)
    witness.window = max(witness.window, 2 * config.log_every)
    audits = Audits(peer, court, witness, loop.optimizer, loop.task, rerun, config.audit, fresh=not first)
    loop.between = audits.between
    loop.gradients = SeededGradients(loop.gradients, config.seed, peer.rank, first)
    return audits


def check_auditable(peer: Peer, config: TrainConfig, optimizer: DecentralizedOptimizer) -> None:
    """Refuse runs whose steps nobody could run again; all ranks together.

    Raises:
        ConfigError: with the reason and what to use.
        MismatchError: the ranks do not compute the same bits.
    """
    algorithm = optimizer.algorithm
    if algorithm.order != "atc":
        raise ConfigError(
            f"--audit runs a step and its round again, and {type(algorithm).__name__} has a round under way "
            "between two steps; use a robust rule, such as --aggregate cs-plus, or dpsgd:order=atc"
        )
    if isinstance(optimizer.compressor, Auto):
        raise ConfigError(
            "--audit compares bits, and compressor auto does as its timings say; use --compressor none, int8"
        )
    if next(iter(optimizer.param_groups))["params"][0].is_cuda:
        raise ConfigError("--audit compares bits, which GPUs of different kinds do not share; train on CPUs")
    kept = config.log_every * sum(
        p.numel() * p.element_size() * 3 for group in optimizer.param_groups for p in group["params"]
    )
    if kept > _MOST_BYTES:
        raise ConfigError(
            f"--audit keeps the state before each of the {config.log_every} steps between two reports, about "
            f"{kept / 2**30:.1f} GiB on each rank; use a smaller --log-every, at most "
            f"{max(1, config.log_every * _MOST_BYTES // kept)}"
        )
    peer.agree(
        {
            "audits: threads": str(torch.get_num_threads()),
            "audits: instructions": torch.backends.cpu.get_cpu_capability(),
            "audits: torch": torch.__version__,
        }
    )
