"""Start a command on n ranks: pydec run -n 4 train stdlib-lm.

Finds the mpirun that belongs to this Python, gives it the flags that pydec needs, stops the job on
SIGINT and SIGTERM so that every rank writes what it has, and leaves no process behind. The exit
status is the job's; the reason of a failure is the last line on standard error. Inside a Slurm allocation
srun takes the place of mpirun where it can: when a node is lost, the ranks on the others go on.

Where Open MPI has fault tolerance the others go on when a rank dies. When a host is lost, or all ranks
are, the job starts again on the hosts that answer: pydec train from its newest checkpoint (see
--checkpoint-every), anything else from its beginning.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydec.cli.main import COMMANDS
from pydec.cli.values import saved_options
from pydec.comm.detect import launch
from pydec.comm.words import VARIABLE
from pydec.errors import ConfigError, SetupError
from pydec.launch.relaunch import option, resumed, with_sealing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydec.launch.scale import Desk
    from pydec.launch.supervise import Outcome, Signals
    from pydec.launch.tolerance import Tolerance


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.usage = "pydec run -n N [--hosts HOST:SLOTS,...] [--] COMMAND ..."
    parser.add_argument("-n", "--ranks", type=int, required=True, metavar="N", help="number of ranks")
    parser.add_argument(
        "--hosts",
        default="",
        metavar="HOST:SLOTS,...",
        help="where they run; without it, in the Slurm allocation, or on this machine",
    )
    add = parser.add_argument
    add("--hostfile", default="", metavar="FILE", help="hosts in a file, one a line: host slots=N, or host:N")
    add("--spare", default="", metavar="HOST:SLOTS,...", help="hosts that take the place of lost ones")
    add(
        "--max-restarts",
        type=int,
        default=3,
        metavar="N",
        help="starts after a lost host, or when all ranks died, without a newer checkpoint (%(default)s)",
    )
    add(
        "--min-ranks",
        type=int,
        default=1,
        metavar="N",
        help="do not start again with fewer, where slots are lost (%(default)s)",
    )
    add(
        "--replace",
        action="store_true",
        help="start ranks in place of dead ones where there is a slot (pydec train: they join the others, or "
        "all start again from a checkpoint)",
    )
    add(
        "--no-fault-tolerance",
        dest="tolerant",
        action="store_false",
        help="let a rank that dies end the job; an Open MPI with UCX then uses it",
    )
    add(
        "--launcher",
        choices=("auto", "mpirun", "srun"),
        default="auto",
        help="what starts the ranks; auto: srun in a Slurm allocation, if it can start Open MPI, else mpirun "
        "(%(default)s)",
    )
    add(
        "--auto-resume",
        action="store_true",
        help="pydec train --run-dir DIR: go on if DIR has a checkpoint already, as a requeued job does",
    )
    add("--secure", choices=("on", "off", "auto"), help="as of pydec train, which it is handed to")
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
    from pydec.launch import hosts, mpirun, srun
    from pydec.launch.ask import answering
    from pydec.launch.relaunch import Plan, Relauncher
    from pydec.launch.supervise import Supervisor

    started = launch()
    if started is not None:
        raise ConfigError(
            f"pydec run starts mpirun itself, but this is rank {started.rank} of {started.size} of a job "
            "already; leave out mpirun, or leave out pydec run"
        )
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    command = mpirun.expand(words, [name for name in COMMANDS if name != "run"])
    if args.secure:
        command = _secured(command, args.secure)
    if args.hosts and args.hostfile:
        raise ConfigError("--hosts and --hostfile exclude each other; give one of them")
    slurm = not args.hosts and not args.hostfile and bool(os.environ.get("SLURM_JOB_NODELIST"))
    slots = hosts.of_slurm(os.environ) if slurm else hosts.parse(args.hosts)
    if args.hostfile:
        slots = hosts.read_hostfile(Path(args.hostfile))
    job = mpirun.Job(args.ranks, command, hosts.render(slots))
    plan = Plan(
        args.ranks,
        slots,
        hosts.parse(args.spare, "--spare"),
        min_ranks=args.min_ranks,
        max_restarts=args.max_restarts,
        seed=os.getpid(),
    )
    if not slots and shutil.which(job.command[0]) is None:
        raise ConfigError(f"no program {job.command[0]!r} to run, and no pydec command of that name")
    program = mpirun.find_mpirun()
    kind = mpirun.family(program)
    by_mpirun = "mpirun" if kind == "Open MPI" else "mpiexec"
    by_srun = srun.chosen(args.launcher, os.environ, kind, hosts=bool(args.hosts or args.hostfile))
    tolerance = _tolerance(args, program, kind)
    if by_srun and tolerance is not None and (why := srun.quiet()):
        print(f"pydec: no fault tolerance under srun: {why}", file=sys.stderr, flush=True)
        tolerance = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    again = Again(command, onward=args.auto_resume)

    def start(number: int, ranks: int, slots: hosts.Slots, signals: Signals) -> Outcome:
        job = mpirun.Job(ranks, again.command(number), hosts.render(slots))
        env = mpirun.environment(job, os.environ, cores, os.geteuid() == 0)
        if by_srun:
            argv = srun.arguments(job, env, tolerant=tolerance is not None)
            env = srun.environment(env, tolerant=tolerance is not None)
        else:
            argv = mpirun.arguments(
                job, program, kind, cores, {*env, VARIABLE}, tolerance=tolerance, agent=args.launch_agent
            )
        supervisor = Supervisor(argv, env, desk=desk, launcher="srun" if by_srun else by_mpirun)
        outcome = supervisor.outcome(signals)
        again.counted = max(again.counted, supervisor.counted)
        return outcome

    def answers(asked: Sequence[str], signals: Signals) -> set[str]:
        return answering(asked, signals, args.launch_agent, slurm=slurm)

    sys.stdout.flush()
    hindrance = _hindrance(args, kind, tolerant=tolerance is not None, by_srun=by_srun)
    desk = _desk(again, answers, replaces=args.replace, hindrance=hindrance)
    try:
        status = Relauncher(plan, start, answers, again.progress, desk).run()
        if desk is not None:
            _note(again.run_dir, desk.scaled, desk.permit.denied() if desk.permit is not None else [])
        return status
    finally:
        if desk is not None:
            desk.finish("the job was stopped", failed=True)
            desk.door.close()


class Again:
    """What to start next: a run of ``pydec train`` goes on from its newest checkpoint.

    Args:
        command: as it is started first. A run without ``--run-dir`` gets one here, so that it can be found.
        onward: whether the first start goes on from a checkpoint that its run directory has already.

    Raises:
        ConfigError: ``onward`` without a run directory to look into.

    Attributes:
        counted: step of the newest checkpoint that the ranks said to have, on whatever disks; -1 without one.
    """

    def __init__(self, command: Sequence[str], *, onward: bool = False) -> None:
        self.counted = -1
        self._onward = onward
        self._command = tuple(command)
        self._run_dir = ""
        if onward and (list(command[1:4]) != ["-m", "pydec", "train"] or not option(command, "--run-dir")):
            raise ConfigError(
                "--auto-resume is for pydec train with --run-dir DIR, where it looks for checkpoints"
            )
        if list(command[1:4]) != ["-m", "pydec", "train"] or {"-h", "--help"} & set(command):
            return
        self._run_dir = option(command, "--resume") or option(command, "--run-dir")
        if not self._run_dir:
            now = datetime.datetime.now(datetime.timezone.utc)
            task = re.match(r"[A-Za-z0-9.-]*", command[4] if len(command) > 4 else "")
            self._run_dir = f"runs/{(task and task[0].strip('-')) or 'train'}-{now:%Y%m%d-%H%M%S}"
            self._command = (*command, "--run-dir", self._run_dir)
        while onward and Path(self._beside()).exists():
            self._run_dir = self._beside()
        if option(command, "--resume"):
            self._command = with_sealing(command, saved_options(Path(self._run_dir)))

    @property
    def run_dir(self) -> str:
        """Of the run that was started last; "" if the command is not ``pydec train``."""
        return self._run_dir

    def command(self, number: int) -> tuple[str, ...]:
        """The command of the ``number``-th start, from 0.

        A run that was lost before its first checkpoint begins anew, in a directory beside the first.
        """
        if not self._run_dir or not (number or self._onward):
            return self._command
        if self.progress():
            return resumed(self._command, self._run_dir)
        if option(self._command, "--resume") or not (number or Path(self._run_dir).exists()):
            return self._command
        self._run_dir = self._beside()
        return (*self._command, "--run-dir", self._run_dir)

    def joining(self) -> tuple[str, ...]:
        """The command of newcomers to the run; () if it is not of ``pydec train``."""
        if not self._run_dir:
            return ()
        command = with_sealing(resumed(self._command, self._run_dir), saved_options(Path(self._run_dir)))
        return (*command, "--joins")

    def _beside(self) -> str:
        """The directory after the run's own: R, R-again-1, R-again-2, ..."""
        match = re.fullmatch(r"(.*?)(?:-again-(\d+))?/*", self._run_dir)
        assert match is not None
        return f"{match[1]}-again-{int(match[2] or 0) + 1}"

    def progress(self) -> int:
        """Steps up to the newest checkpoint that all its ranks have finished, plus one; 0 without one.

        The ranks' word counts, and what lies on this host's disk, which may hold none of it.
        """
        if not self._run_dir or not (Path(self._run_dir) / "checkpoints").is_dir():
            return self.counted + 1
        from pydec.train.checkpoint_files import Store
        from pydec.train.rundir import RunDir

        store = Store(RunDir(Path(self._run_dir)))
        whole = (step for step in store.steps() if {*store.members(step)} <= {*store.ranks(step)})
        return max(next(whole, -1), self.counted) + 1


def _secured(command: Sequence[str], mode: str) -> tuple[str, ...]:
    """The command with ``--secure``, which only ``pydec train`` has."""
    if list(command[1:4]) != ["-m", "pydec", "train"]:
        raise ConfigError(
            f"pydec run --secure {mode} is for pydec train; others ask with pydec.init(secure={mode!r})"
        )
    return (*command, "--secure", mode)


def _hindrance(args: argparse.Namespace, kind: str, *, tolerant: bool, by_srun: bool) -> str:
    """Why nobody can join the job while it runs, or ""."""
    if by_srun:
        return "srun starts no ranks beside those of a step"
    if not args.tolerant:
        return "--no-fault-tolerance"
    return "" if tolerant else f"this {kind} does not survive a rank that dies"


def _desk(
    again: Again, answers: Callable[[Sequence[str], Signals], set[str]], *, replaces: bool, hindrance: str
) -> Desk | None:
    """Where ``pydec scale`` asks this job; says so where it cannot."""
    from pydec.launch.door import Door
    from pydec.launch.permit import Permit
    from pydec.launch.scale import Desk

    try:
        permit = Permit(lambda: again.run_dir)
        run_dir, onward = (lambda: again.run_dir), again.joining
        return Desk(Door(), run_dir, answers, again.progress, replaces, permit, onward, hindrance)
    except SetupError as error:
        print(f"pydec: pydec scale cannot ask this job: {error}", file=sys.stderr, flush=True)
        return None


def _note(
    run_dir: str, scaled: Sequence[Mapping[str, object]], denied: Sequence[Mapping[str, object]]
) -> None:
    """Add the changes of the number of ranks, and who was denied one, to the run's summary if it has one."""
    path = Path(run_dir) / "summary.json"
    if (scaled or denied) and path.exists():
        from pydec.train.rundir import RunDir

        found = json.loads(path.read_bytes())
        if scaled:
            found["scaled"] = list(scaled)
        if denied:
            ledger = found.setdefault("ledger", {})
            ledger["denied"] = [*ledger.get("denied", []), *denied]
        RunDir(path.parent).write(path.name, found)


def _tolerance(args: argparse.Namespace, program: str, kind: str) -> Tolerance | None:
    """What the job is to survive, as far as this mpirun can; says so where it cannot."""
    from pydec.launch.tolerance import Tolerance, missing

    wanted = Tolerance() if args.tolerant else None
    if wanted is not None and (why := missing(program, kind)):
        print(f"pydec: no fault tolerance: {why}; pydec doctor says more", file=sys.stderr, flush=True)
        return None
    return wanted
