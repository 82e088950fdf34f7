"""Which command was meant, and with which exit status does it end?

Only the module of the command that was asked for is imported, and it imports what is heavy when it
runs, so help and mistakes cost no time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from pydec import __version__
from pydec.comm.detect import launch
from pydec.comm.failing import exit_status
from pydec.errors import ConfigError, PydecError, Stopped

COMMANDS = {
    "train": "train a model; under mpirun or pydec run one rank of many, alone a cluster of one",
    "run": "start a command on several ranks with the right flags for mpirun",
    "scale": "give a running job of pydec run more or fewer ranks",
    "report": "draw runs as one HTML page: curves, ranks in time, links, graphs, events",
    "list": "every topology, compressor, algorithm, mixing, optimizer and task, with its options",
    "topology": "facts and a picture of a graph",
    "plan": "what a run of a given size would cost, and how to gossip in it",
    "simulate": "thousands of virtual peers: what they would learn, send and wait for",
    "checkpoint": "show a run's checkpoints, and open sealed ones",
    "keys": "make and show the key files that name nodes",
    "data": "add, list, verify, repair, export and remove data sets of the store",
    "ledger": "show, verify, follow or export what the chain decided; grant and revoke roles",
    "bench": "measure kernels and training against their peers",
    "doctor": "what this machine and its MPI can do, with the fix for each thing missing",
}
"""Commands in the order of the help text; ``pydec.cli.NAME`` is the module of each."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are ConfigErrors: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Raise the mistake as an error that names the way to help."""
        command = self.prog.removeprefix("pydec").strip()
        raise ConfigError(f"{command + ': ' if command else ''}{message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after ``pydec``; those of this process if None.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong arguments, 130 or 143 stopped by a signal.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    status = _status(words)
    if (mpi := sys.modules.get("pydec.comm.mpi")) is not None:  # this process speaks MPI
        mpi.leave(status)
    return status


def _status(words: list[str]) -> int:
    try:
        return _dispatch(words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it exits
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return _fail(error)


def parser_of(command: str) -> argparse.ArgumentParser:
    """The argument parser of one command, with all its options.

    Args:
        command: one of ``COMMANDS``.
    """
    module = importlib.import_module(f"pydec.cli.{command}")
    parser = Parser(
        prog=f"pydec {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    parser.set_defaults(run=module.run)
    return parser


def _dispatch(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        args = parser_of(words[0]).parse_args(words[1:])
        return int(args.run(args))
    parser = Parser(
        prog="pydec",
        usage="pydec COMMAND [options]",
        description="Decentralised training of PyTorch models: gossip over MPI, no centre, no all-reduce.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items())
        + "\n\npydec COMMAND --help tells a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pydec {__version__}")
    if words and not words[0].startswith("-"):
        raise ConfigError(f"unknown command {words[0]!r}; known: {', '.join(COMMANDS)}")
    parser.parse_args(words)
    parser.print_help()
    return 0


def _fail(error: BaseException) -> int:
    """Say why, in one last line on standard error, and return the exit status."""
    started = launch()
    rank = started.rank if started is not None and started.size > 1 else None
    if rank and isinstance(error, (ConfigError, Stopped)):
        return exit_status(error)  # all ranks have it; rank 0 speaks
    who = f"rank {rank}: " if rank is not None and not isinstance(error, (ConfigError, Stopped)) else ""
    sys.stdout.flush()
    if isinstance(error, (PydecError, KeyboardInterrupt)):
        reason = " ".join(str(error).split()) or "interrupted"
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    print(f"pydec: error: {who}{reason}", file=sys.stderr, flush=True)
    return exit_status(error)
