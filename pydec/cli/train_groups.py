"""Groups of options of ``pydec train``."""

from __future__ import annotations

import argparse

from pydec.cli.values import positive


def add_robust(parser: argparse.ArgumentParser) -> None:
    """What ranks that lie can do, and rehearsals of it."""
    robust = parser.add_argument_group("robust")
    robust.add_argument(
        "--aggregate",
        metavar="SPEC",
        help="average so that liars cannot bend the model far: cs-plus, nna, nnm+trimmed-mean:f=2, ...; auto "
        "takes what fits the graph; pydec list robust and aggregators name them (docs/robust.md)",
    )
    robust.add_argument(
        "--byzantine", metavar="N|RANKS", help="for tests: so many ranks lie, or those named, such as 1,5"
    )
    robust.add_argument("--attack", metavar="SPEC", help="what they send; pydec list attacks (alie)")
    robust.add_argument(
        "--accountable",
        choices=("on", "off", "auto"),
        help="sign what is sent, compare it among those who heard it, and take the stake of who sends "
        "different things; auto: in robust runs with --ledger (auto)",
    )
    robust.add_argument(
        "--audit",
        type=positive,
        nargs="?",
        const=0.01,
        metavar="SHARE",
        help="run steps that the ledger draws again, with so much of the computation, and take the stake of "
        "whose steps are wrong (with --ledger; 0.01 if no SHARE is given)",
    )


def add_metrics(parser: argparse.ArgumentParser) -> None:
    """Options of where metrics go beside the run directory."""
    metrics = parser.add_argument_group("metrics")
    metrics.add_argument(
        "--tensorboard", action="store_true", default=None,
        help="rank 0 writes its metrics to RUN_DIR/tensorboard, too",
    )  # fmt: skip
    metrics.add_argument(
        "--trace", action="store_true", default=None,
        help="every rank records what it does when, in RUN_DIR/trace.json, for Perfetto",
    )  # fmt: skip
    metrics.add_argument(
        "--prometheus", metavar="[HOST:]PORT",
        help="rank 0 serves its last metrics there as a page for Prometheus (HOST 127.0.0.1)",
    )  # fmt: skip


def add_secure(parser: argparse.ArgumentParser) -> None:
    """Whether and with which keys messages and checkpoints are sealed."""
    secure = parser.add_argument_group("secure")
    secure.add_argument(
        "--secure",
        choices=("on", "off", "auto"),
        help="seal all messages between ranks; auto: where they are on more than one host (auto)",
    )
    secure.add_argument(
        "--key",
        metavar="SOURCE",
        help="this job's key: a file of pydec keys, env:NAME or fd:NUMBER; only its holders are let in. With "
        "{rank} in it each rank has its own, see --peers. Without it, fresh keys; with --ledger, its keys",
    )
    secure.add_argument(
        "--peers", metavar="FILE", help="public keys of all ranks, one a line, in their order (with --key)"
    )
    secure.add_argument(
        "--passphrase-from", metavar="SOURCE", help="passphrase of the key file: env:NAME or fd:NUMBER"
    )
    secure.add_argument(
        "--pad",
        action="store_true",
        default=None,
        help="hide the lengths of messages, at most 12 %% more bytes",
    )
    secure.add_argument(
        "--seal-checkpoints",
        action="store_true",
        default=None,
        help="checkpoints and models on disk open with the ranks' keys alone (with --ledger or --key); "
        "pydec checkpoint open makes plain files of them",
    )


def add_private(parser: argparse.ArgumentParser) -> None:
    """Add the options of private gradients, see ``pydec.train.private``."""
    private = parser.add_argument_group("privacy (docs/security.md)")
    private.add_argument(
        "--dp-noise",
        type=positive,
        metavar="SIGMA",
        help="clip every sample's gradient and add Gaussian noise of SIGMA clipping norms to each step's sum",
    )
    private.add_argument(
        "--dp-epsilon",
        type=positive,
        metavar="E",
        help="the most that the run may tell about a sample; alone it chooses the noise",
    )
    private.add_argument(
        "--dp-clip", type=positive, metavar="C", help="largest norm of one sample's gradient (1)"
    )
    private.add_argument(
        "--dp-delta", type=positive, metavar="D", help="chance that more is told (samples of a rank ^ -1.1)"
    )
