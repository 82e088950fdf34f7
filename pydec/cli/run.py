"""Start a command on n ranks: pydec run -n 4 train stdlib-lm.

Finds the mpirun that belongs to this Python, gives it the flags that pydec needs, stops the job on
SIGINT and SIGTERM so that every rank writes what it has, and leaves no process behind. The exit
status is the job's; the reason of a failure is the last line on standard error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING

from pydec.cli.main import COMMANDS
from pydec.comm.detect import launch
from pydec.comm.words import VARIABLE
from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.launch.tolerance import Tolerance


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.usage = "pydec run -n N [--hosts HOST:SLOTS,...] [--] COMMAND ..."
    parser.add_argument("-n", "--ranks", type=int, required=True, metavar="N", help="number of ranks")
    parser.add_argument(
        "--hosts", default="", metavar="HOST:SLOTS,...", help="where they run; without it, on this machine"
    )
    add = parser.add_argument
    add(
        "--no-fault-tolerance",
        dest="tolerant",
        action="store_false",
        help="let a rank that dies end the job; an Open MPI with UCX then uses it",
    )
    add(
        "--silence",
        type=float,
        metavar="SECONDS",
        help="a rank or host without a sign of life for so long is dead (5 with several hosts, 0, that is "
        "never, on one)",
    )
    add(
        "--launch-agent",
        default="",
        metavar="PROGRAM",
        help="starts Open MPI on other hosts, called as PROGRAM HOST COMMAND (ssh)",
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="a pydec command with its arguments (train stdlib-lm), a script.py, or any program",
    )


def run(args: argparse.Namespace) -> int:
    """Run the job and return its exit status.

    Raises:
        ConfigError: wrong arguments, or inside a job already.
        SetupError: no mpirun, or one that does not run.
    """
    from pydec.launch import mpirun
    from pydec.launch.supervise import Supervisor

    started = launch()
    if started is not None:
        raise ConfigError(
            f"pydec run starts mpirun itself, but this is rank {started.rank} of {started.size} of a job "
            "already; leave out mpirun, or leave out pydec run"
        )
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    job = mpirun.Job(
        args.ranks, mpirun.expand(words, [name for name in COMMANDS if name != "run"]), args.hosts
    )
    if not args.hosts and shutil.which(job.command[0]) is None:
        raise ConfigError(f"no program {job.command[0]!r} to run, and no pydec command of that name")
    program = mpirun.find_mpirun()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    env = mpirun.environment(job, os.environ, cores, os.geteuid() == 0)
    kind = mpirun.family(program)
    argv = mpirun.arguments(
        job,
        program,
        kind,
        cores,
        {*env, VARIABLE},
        tolerance=_tolerance(args, program, kind),
        agent=args.launch_agent,
    )
    sys.stdout.flush()
    return Supervisor(argv, env).run()


def _tolerance(args: argparse.Namespace, program: str, kind: str) -> Tolerance | None:
    """What the job is to survive, as far as this mpirun can; says so where it cannot."""
    from pydec.launch.tolerance import SILENCE_S, Tolerance, missing

    silence_s = args.silence if args.silence is not None else SILENCE_S if args.hosts else 0.0
    wanted = Tolerance(silence_s) if args.tolerant else None
    if wanted is not None and (why := missing(program, kind)):
        print(f"pydec: no fault tolerance: {why}; pydec doctor says more", file=sys.stderr, flush=True)
        return None
    return wanted
