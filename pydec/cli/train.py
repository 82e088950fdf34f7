"""How well does this model train on these ranks?

Trains TASK with gossip in place of all-reduce and writes a run directory: config.json, metrics of
every rank, the averaged model and a summary. Start it under mpirun, or with pydec run:

  pydec run -n 4 train stdlib-lm
  mpirun -n 4 pydec train fashion-mnist --epochs 5 --alpha 0.1 --topology ring
  pydec train mine:task --steps 100        # mine.py: def task() -> pydec.train.Task

TASK is a name that pydec list prints, with options as in stdlib-lm:width=64, or module:function for
one of your own. Topologies, compressors, algorithms and optimizers are given the same way.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydec.cli.train_again import with_order
from pydec.cli.train_groups import add_metrics, add_private, add_robust, add_secure
from pydec.cli.values import count as _count
from pydec.cli.values import grace as _grace
from pydec.cli.values import positive as _positive
from pydec.cli.values import whole as _whole
from pydec.comm.detect import launched_ranks
from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.peer import Peer
    from pydec.train.config import TrainConfig
    from pydec.train.growth import Carried


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("task", metavar="TASK", nargs="?", help="name of a task, or module:function")
    length = parser.add_argument_group("length")
    length.add_argument("--steps", type=_count, metavar="N", help="steps of every rank")
    length.add_argument("--epochs", type=_positive, metavar="X", help="passes of every rank over its share")
    length.add_argument(
        "--duration",
        type=_positive,
        metavar="SECONDS",
        help="as many steps as every rank can take in that time (asynchronous algorithms)",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="DIR|NAME", help="directory of the data, or a data set of pydec data")
    data.add_argument(
        "--store", metavar="DIR", help="of the store; {rank} in it stands for the rank's number"
    )
    data.add_argument(
        "--keep-data",
        choices=["all", "owed"],
        help="what a rank's store keeps of a data set that others had: all that was read (the default), or "
        "its share of the replicas",
    )
    data.add_argument("--batch-size", type=_count, metavar="N", help="samples per rank and step")
    data.add_argument(
        "--alpha",
        type=_positive,
        metavar="A",
        help="split by label, Dirichlet(A): 0.1 is very uneven; iid without it",
    )
    local = parser.add_argument_group("local steps")
    local.add_argument("--optimizer", metavar="SPEC", help="sgd or adamw, with options: sgd:momentum=0.9")
    local.add_argument("--lr", type=_positive, metavar="X", help="peak learning rate")
    local.add_argument("--momentum", type=float, metavar="X", help="option of the optimizer")
    local.add_argument("--weight-decay", type=float, metavar="X", help="option of the optimizer")
    local.add_argument("--schedule", choices=("constant", "cosine"), help="course of the learning rate")
    local.add_argument("--clip-norm", type=_positive, metavar="X", help="largest norm of a gradient")
    local.add_argument(
        "--nan-policy",
        choices=("raise", "skip", "continue"),
        help="when a gradient holds NaN (raise)",
    )
    gossip = parser.add_argument_group("gossip")
    gossip.add_argument("--topology", metavar="SPEC", help="who talks to whom (one-peer-exponential)")
    gossip.add_argument(
        "--compressor", metavar="SPEC", help="how models travel (int8; none where it must be)"
    )
    gossip.add_argument(
        "--algorithm",
        metavar="SPEC",
        help="how local steps and averaging go together; pydec list algorithms names them (dpsgd)",
    )
    gossip.add_argument(
        "--local-steps",
        type=_count,
        metavar="H",
        help="local steps between rounds of gossip (1)",
    )
    gossip.add_argument(
        "--mixing",
        metavar="SPEC",
        help="rounds after a step: fixed:rounds=2; adaptive does more early and when the rate falls (fixed)",
    )
    gossip.add_argument(
        "--merge",
        action="store_true",
        default=None,
        help="end with one model on all ranks, their exact mean by gossip",
    )
    gossip.add_argument(
        "--background",
        action="store_true",
        default=None,
        help="a thread moves packets while gradients are computed (order cta; costs a part of a core)",
    )
    gossip.add_argument(
        "--order",
        choices=("atc", "cta"),
        help="adapt then combine, or combine then adapt, which overlaps",
    )
    gossip.add_argument(
        "--deadline",
        type=_positive,
        metavar="SECONDS",
        help="longest wait for a peer (60)",
    )
    gossip.add_argument(
        "--grace",
        type=_grace,
        metavar="SECONDS|auto",
        help="silence after which a rank that hangs counts as dead; auto follows what is measured (auto)",
    )
    gossip.add_argument(
        "--min-ranks",
        type=_count,
        metavar="N",
        help="ranks that must live for training to go on when others die (1)",
    )
    add_robust(parser)
    add_secure(parser)
    add_private(parser)
    add_metrics(parser)
    run_ = parser.add_argument_group("run")
    run_.add_argument("--seed", type=int, metavar="N", help="decides everything random (0)")
    run_.add_argument("--run-dir", metavar="DIR", default="", help="where to write (runs/TASK-TIME)")
    run_.add_argument(
        "--resume",
        metavar="DIR",
        help="go on with the run in DIR from its newest whole checkpoint, as it was begun",
    )
    run_.add_argument(
        "--resume-step",
        type=_whole,
        metavar="N",
        help="go on from the checkpoint of step N, although there may be newer ones, which are set aside",
    )
    run_.add_argument(
        "--checkpoint-every",
        type=_whole,
        metavar="N",
        help="steps between checkpoints of every rank's state (0: at a stop by a signal and at the end only)",
    )
    run_.add_argument(
        "--keep-last", type=_whole, metavar="K", help="checkpoints that are kept; 0 makes none (2)"
    )
    run_.add_argument(
        "--replicas",
        type=_count,
        metavar="R",
        help="disks that each rank's checkpoint must be on before it counts; other nodes' first (1)",
    )
    run_.add_argument(
        "--store-checkpoints",
        action="store_true",
        default=None,
        help="tensors of checkpoints go into --store, where equal ones are there once",
    )
    run_.add_argument(
        "--ledger",
        metavar="DIR",
        help="commit the run to a ledger that all ranks agree on, each in DIR/rank-N; pydec ledger shows it",
    )
    run_.add_argument(
        "--admission",
        choices=("pow", "stake", "invite"),
        help="what entry to the ledger costs: solved puzzles, bonded stake, or an invitation (stake)",
    )
    run_.add_argument(
        "--puzzle",
        choices=("sha256", "scrypt"),
        help="what entry by work asks for, hashing or memory; decided when the ledger is made (sha256)",
    )
    run_.add_argument(
        "--roles",
        metavar="RANK=ROLE+ROLE,...",
        help="of ranks that are new to the ledger: admin, data-owner, trainer, validator, observer "
        "(all train, vote and own data, rank 0 is admin)",
    )
    run_.add_argument(
        "--eval-every", type=_count, metavar="N", help="steps between evaluations (a fifth of the run)"
    )
    run_.add_argument(
        "--log-every", type=_count, metavar="N", help="steps between reports (a fiftieth of the run)"
    )
    run_.add_argument("--threads", type=_count, metavar="N", help="threads per rank (its part of the cores)")
    run_.add_argument(
        "--compare-solo",
        action="store_true",
        default=None,
        help="then train one peer alone for as many steps",
    )
    run_.add_argument("--joins", action="store_true", help=argparse.SUPPRESS)  # started by a running job
    run_.add_argument("--quiet", action="store_true", help="print nothing unless something fails")
    run_.add_argument(
        "--json",
        action="store_true",
        help="print nothing but the summary at the end, as one JSON object",
    )


def run(args: argparse.Namespace) -> int:
    """Train this rank's part of the job, with other ranks if they change under way."""
    from pydec.cli.train_again import through_changes

    return through_changes(args, _train, lambda: _known(args))


def _train(args: argparse.Namespace, carried: Carried | None) -> int:
    """Train with the ranks that are there.

    Raises:
        Regroup: there are to be others.
    """
    from pydec.errors import PydecError, Regroup
    from pydec.peer import init
    from pydec.train import job
    from pydec.train.determinism import reproducible
    from pydec.train.rundir import finite
    from pydec.train.sealing import asked
    from pydec.train.together import SharedError, jointly, speaks_alone

    # A run that goes on may be new to this host: its configuration comes from the other ranks.
    joint = bool(args.resume) and (launched_ranks() or 1) > 1
    early = _known(args) if joint else config_of(args)
    blind = early is None
    early = early or _asked_for(args)
    shared: SharedError | None = None
    failed: PydecError | None = None
    speaks = True
    with init(
        deadline_s=early.deadline_s,
        seed=0 if joint else early.seed,
        grace=early.grace_s or "auto",
        secure=asked(early),
    ) as peer:
        try:
            config = jointly(peer, lambda: _handed_over(peer, args, blind=blind)) if joint else early
            peer.configure(seed=config.seed, deadline_s=config.deadline_s, grace_s=config.grace_s)
            with reproducible(config.threads):
                where, quiet = args.resume or args.run_dir, args.quiet or args.json
                resumes = {"resume": bool(args.resume), "resume_step": args.resume_step}
                result = job.run(peer, config, where, quiet=quiet, **resumes, carried=carried)
            if result and args.json:
                print(json.dumps(finite(result), allow_nan=False), flush=True)
        except SharedError as error:
            shared, speaks = error, speaks_alone(peer)
        except PydecError as error:
            if carried is None or carried.trial is None or isinstance(error, Regroup):
                raise
            failed = error
    why = failed or shared
    if carried is not None and carried.trial is not None and why is not None:
        if carried.kept is None:
            raise why
        raise Regroup(carried.returned(why))
    if shared is None:
        return 0
    if not speaks:
        return 2 if isinstance(shared.error, ConfigError) else 1  # another rank says it for all
    raise shared.error from shared.__cause__


def _known(args: argparse.Namespace) -> TrainConfig | None:
    """What ``config_of`` makes of this host's own disk; None if it has not seen the run."""
    try:
        return config_of(args)
    except ConfigError:
        return None  # if that is not why, all ranks say so together


def _asked_for(args: argparse.Namespace) -> TrainConfig:
    """What must be known before the others are met of a run that is new to this disk: what the words say."""
    from pydec.peer import DEADLINE_S
    from pydec.train.config import TrainConfig

    names = ("secure", "key", "peers", "passphrase_from", "pad", "ledger")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return TrainConfig("", deadline_s=args.deadline or DEADLINE_S, grace_s=args.grace or 0.0, **given)


def _handed_over(peer: Peer, args: argparse.Namespace, *, blind: bool) -> TrainConfig:
    """What ``config_of`` makes of the run directory, once every rank's disk has the configuration.

    Args:
        peer: this rank.
        args: as given.
        blind: whether this disk has not known the run, so that the words alone have said how to seal.
    """
    from pydec.comm.sealing import protected
    from pydec.train.handover import hand_over

    hand_over(peer, Path(args.resume))
    config = config_of(args)
    if blind and config.ledger and not args.ledger and protected(peer.transport) is not None:
        raise ConfigError(
            f"--resume {args.resume}: this host had never seen the run, whose messages are sealed with the "
            f"keys of its ledger; say --ledger {config.ledger} beside --resume"
        )
    return config


def config_of(args: argparse.Namespace) -> TrainConfig:
    """The configuration that the words of the command line describe, or that of the run that goes on.

    Raises:
        ConfigError: a value out of range, or two options that exclude each other.
    """
    from pydec.train import optimizers
    from pydec.train.config import TrainConfig
    from pydec.train.resume import configuration

    if args.task is None and not args.resume:
        raise ConfigError("train: a TASK is needed, or --resume DIR; pydec list names tasks")
    if args.resume_step is not None and not args.resume:
        raise ConfigError("--resume-step goes with --resume DIR, the run that goes on")
    if args.resume and args.run_dir:
        raise ConfigError("--resume goes on in the run's own directory; leave --run-dir out")

    optimizer = args.optimizer or ""
    extras = {"momentum": args.momentum, "weight_decay": args.weight_decay}
    if any(value is not None for value in extras.values()):
        if not optimizer:
            raise ConfigError("--momentum and --weight-decay need --optimizer, for example --optimizer sgd")
        optimizer = optimizers.merge(optimizer, **extras)
    given = {
        "task": args.task,
        "data": args.data,
        "steps": args.steps,
        "epochs": args.epochs,
        "duration_s": args.duration,
        "batch_size": args.batch_size,
        "lr": args.lr,
        "schedule": args.schedule,
        "clip_norm": args.clip_norm,
        "optimizer": optimizer or None,
        "topology": args.topology,
        "compressor": args.compressor,
        "algorithm": with_order(args.algorithm, args.order),
        "local_steps": args.local_steps,
        "mixing": args.mixing,
        "merge": args.merge,
        "background": args.background,
        "nan_policy": args.nan_policy,
        "alpha": args.alpha,
        "seed": args.seed,
        "deadline_s": args.deadline,
        "grace_s": args.grace,
        "log_every": args.log_every,
        "eval_every": args.eval_every,
        "threads": args.threads,
        "compare_solo": args.compare_solo,
        "checkpoint_every": args.checkpoint_every,
        "keep_last": args.keep_last,
        "replicas": args.replicas,
        "ledger": args.ledger,
        "admission": args.admission,
        "puzzle": args.puzzle,
        "roles": args.roles,
        "min_ranks": args.min_ranks,
        "secure": args.secure,
        "key": args.key,
        "peers": args.peers,
        "passphrase_from": args.passphrase_from,
        "pad": args.pad,
        "seal_checkpoints": args.seal_checkpoints,
        "store": args.store,
        "keep_data": args.keep_data,
        "store_checkpoints": args.store_checkpoints,
        "aggregate": args.aggregate,
        "byzantine": args.byzantine,
        "attack": args.attack,
        "accountable": args.accountable,
        "audit": args.audit,
        "dp_noise": args.dp_noise,
        "dp_epsilon": args.dp_epsilon,
        "dp_clip": args.dp_clip,
        "dp_delta": args.dp_delta,
        "tensorboard": args.tensorboard,
        "trace": args.trace,
        "prometheus": args.prometheus,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return configuration(args.resume, given) if args.resume else TrainConfig(**given)
