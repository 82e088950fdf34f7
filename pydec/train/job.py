"""One training job from its options to its summary: set up together, train, evaluate, compare, report."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydec.comm.living import agree_who_lives, living
from pydec.comm.sealing import protected, protection
from pydec.errors import AccessDenied, CutOff, Evicted, LeftOut, Regroup, SetupError, Stopped
from pydec.peer import Peer
from pydec.train import display, on_ledger
from pydec.train.checkpoint_files import Store
from pydec.train.checkpoint_stored import space, store_of
from pydec.train.config import TrainConfig, document
from pydec.train.evaluate import worst
from pydec.train.exporters import Sink, exporting
from pydec.train.final_model import keep
from pydec.train.growth import Carried, growth_of, heed, orders_of
from pydec.train.ledger import RunLedger
from pydec.train.loop import Loop, train_solo
from pydec.train.membership import Minority
from pydec.train.observers import attend
from pydec.train.prepare import Setup, prepare
from pydec.train.private import PrivateSteps
from pydec.train.rollback import wanted
from pydec.train.rundir import ROW_BYTES, RunDir
from pydec.train.snapshot import saver_of
from pydec.train.stored import Stored, stored
from pydec.train.summary import closing_words, comparison, failed_reason, summary, written
from pydec.train.survivors import TooFewRanks, fault_tolerance
from pydec.train.task import Task
from pydec.train.together import SharedError as SharedError  # noqa: PLC0414  # raised by run
from pydec.train.together import await_release, jointly, release, speaks, speaks_alone, table, text

T = TypeVar("T")


class _Options(NamedTuple):
    """How a job is run; see ``run``."""

    quiet: bool
    resume: bool
    resume_step: int | None
    carried: Carried | None


def run(
    peer: Peer,
    config: TrainConfig,
    run_dir: str,
    *,
    quiet: bool = False,
    resume: bool = False,
    resume_step: int | None = None,
    carried: Carried | None = None,
) -> dict[str, Any]:
    """Train one job to its end; every rank calls it with the same arguments.

    Args:
        peer: this rank, open.
        config: as the user gave it.
        run_dir: directory of the run; "" makes one below ``runs``.
        quiet: show nothing.
        resume: go on from the newest checkpoint in ``run_dir``; ``config`` is then what
            ``resume.configuration`` made of it.
        resume_step: go on from the checkpoint of this step, although there may be newer ones.
        carried: with ``resume``: what takes the checkpoint's place, where the ranks have changed under way.

    Returns:
        On rank 0, or the lowest that lives, what ``summary.json`` holds; elsewhere an empty dictionary.

    Raises:
        SharedError: an error that all ranks have noticed; nobody waits for anybody.
        Stopped: a signal stopped the job; what is there has been written.
        Regroup: the ranks of the job change; each goes on with what it carries.
        PydecError: this rank failed and the others do not know it yet.
    """
    started = datetime.datetime.now(datetime.timezone.utc)
    options = _Options(quiet, resume, resume_step, carried)
    with on_ledger.opened(peer, config) as ledger:
        if ledger is None:
            return _with_data(peer, config, run_dir, started, None, options)
        try:
            if ledger.admission.takes_part:
                on_ledger.narrow(peer, ledger)
                with ledger.feed:
                    return _with_data(peer, config, run_dir, started, ledger, options)
        except AccessDenied:
            if ledger.admission.takes_part:
                raise
        path = Path(run_dir or _new_directory(config, started))
        attend(peer, ledger.admission, ledger.driver, RunDir(path), quiet=quiet)
    return {}


def _with_data(
    peer: Peer,
    config: TrainConfig,
    run_dir: str,
    started: datetime.datetime,
    ledger: RunLedger | None,
    options: _Options,
) -> dict[str, Any]:
    """Train one job, its data from the store if it is there."""
    with stored(peer, config, ledger) as data:
        return _run(peer, config, run_dir, started, ledger, data, options)


def _run(
    peer: Peer,
    config: TrainConfig,
    run_dir: str,
    started: datetime.datetime,
    ledger: RunLedger | None,
    data: Stored | None,
    options: _Options,
) -> dict[str, Any]:
    """Train one job with the ranks that take part."""
    path, quiet, carried = Path(run_dir), options.quiet, options.carried
    older = wanted(path, None if ledger is None else ledger.state.run, options.resume_step)
    before = None
    if options.resume and not carried:
        before = jointly(peer, lambda: store_of(peer, config, RunDir(path), going_on=True))
    try:
        setup = prepare(peer, config, before, data, older, carried, path)
    finally:
        if before is not None:
            before.close()
    directory = _directory(peer, setup, run_dir, started)
    store = jointly(peer, lambda: store_of(peer, setup.config, directory, setup.vault))
    shown = display.make(_title(setup.config.task), setup.config.steps, quiet=quiet or peer.rank > 0)
    if peer.size > 1:
        shown.say(f"faults          {fault_tolerance(peer)}\nmessages        {protection(peer.transport)}")
    if setup.byzantine is not None:
        shown.say(setup.byzantine.words())
    with (
        directory.metrics(peer.rank) as metrics,
        _exporting(peer, setup, directory) as metrics.also,
        _private(peer, setup, directory) as private,
    ):
        parts = setup.optimizer, private or setup.batches, metrics, shown, private
        loop = Loop(setup.config, setup.task, peer, *parts)
        if private is not None:
            shown.say(private.plan(setup.config.steps - (setup.point.step if setup.point else 0)))
        if not quiet:
            loop.successor = partial(display.Lines, _title(setup.config.task), setup.config.steps)
        orders = orders_of(peer, ledger, carried)
        certify = None
        if ledger is not None:
            facts = {key: value for key, value in setup.task.facts.items() if key != "data"}
            registered = None if data is None else data.transaction
            on_ledger.begin(ledger, setup.config, directory, {**facts, "split": setup.split}, registered)
            certify = on_ledger.follow(peer, ledger, loop, directory, setup, orders)
            metrics.also.append(ledger.feed.tell)
        saver = saver_of(peer, setup.config, loop, store, setup.point, certify)
        growth = growth_of(peer, setup, loop, saver, orders, ledger, carried)
        for words in setup.point.said if setup.point is not None else ():
            shown.say(words)
        if carried:
            carried.confirm(setup.config)
            loop.left_s = carried.left_s
        started_s = time.perf_counter()
        try:
            deferred = peer.defer(lambda: loop.under_way) if loop.saver else nullcontext()
            with shown, saver, deferred, closing(growth):
                heed(peer, carried)
                loop.run()
                train_s = time.perf_counter() - started_s
                with peer.busy():
                    saver.now(loop.progress.step)
            missing = saver.complete(loop.progress.step)
            result = _finish(peer, setup, loop, directory, train_s, ledger, data, store)
            if setup.config.compare_solo and 0 in living(peer.transport).members:
                result = _compare(peer, setup, directory, result, quiet=quiet)
        except (AccessDenied, Evicted, LeftOut, Regroup):
            raise  # the others go on, and write what comes of it
        except BaseException as caught:
            error = (ledger.minority(caught) if ledger else None) or caught
            _save_what_is_there(peer, setup, loop, directory, error, time.perf_counter() - started_s)
            last = _voice(shown, peer, quiet=quiet)
            last.say(f"run directory   {directory.path} (up to step {loop.progress.step})")
            if saver.newest >= 0:
                last.say(f"go on with      pydec train --resume {directory.path}")
            if isinstance(error, (TooFewRanks, Minority)):
                raise SharedError(error) from error
            raise
    if result:
        _voice(shown, peer, quiet=quiet).say(closing_words(directory.path, result))
    if missing is not None:
        raise SharedError(missing)
    return result


def _directory(peer: Peer, setup: Setup, run_dir: str, started: datetime.datetime) -> RunDir:
    """Rank 0 makes the directory and writes the configuration before any work; the others follow."""
    config = setup.config
    name = text(peer, run_dir or _new_directory(config, started))
    directory = RunDir(Path(name))

    written = document(
        config,
        peer.size,
        _parameters(setup.task),
        setup.task.facts,
        started.isoformat(timespec="seconds"),
        split=setup.split,
        resumed=setup.point.step if setup.point else 0,
    )

    def create() -> None:
        if setup.point is not None:
            directory.reopen(peer.rank, setup.point.step)
        elif speaks(peer):
            directory.create(config.steps * peer.size * ROW_BYTES + 5 * _parameters(setup.task))
        if speaks(peer):
            directory.write("config.json", written)

    def join() -> None:
        if not speaks(peer):
            directory.join()
            if not directory.holds("config.json", written):  # on a disk of its own; --resume reads it
                directory.write("config.json", written)

    jointly(peer, create)
    jointly(peer, join)
    return directory


@contextmanager
def _private(peer: Peer, setup: Setup, directory: RunDir) -> Iterator[PrivateSteps | None]:
    """What gives private gradients, if that is asked for; all ranks together."""
    if not setup.config.private:
        yield None
        return
    what = setup.config, setup.task, setup.share
    whose = peer.size, peer.rank, directory.path
    with ExitStack() as stack:
        yield jointly(peer, lambda: stack.enter_context(PrivateSteps(*what, *whose, setup.spent)))


@contextmanager
def _exporting(peer: Peer, setup: Setup, directory: RunDir) -> Iterator[list[Sink]]:
    """Where the metrics of rank 0 go beside its record; all ranks together."""
    with ExitStack() as stack:
        config, mine = setup.config, peer.rank == 0
        page = config.prometheus if mine else ""

        def enter() -> list[Sink]:
            what = exporting(directory.path, tensorboard=mine and config.tensorboard, prometheus=page)
            return stack.enter_context(what)

        if config.trace:
            jointly(peer, lambda: peer.record(directory.path))
        yield jointly(peer, enter)


def _finish(
    peer: Peer,
    setup: Setup,
    loop: Loop,
    directory: RunDir,
    train_s: float,
    ledger: RunLedger | None,
    data: Stored | None,
    store: Store,
) -> dict[str, Any]:
    """Evaluate what came out and write it down; all ranks together."""
    progress = loop.progress
    if setup.config.merge:
        loop.merge()
    distance = setup.optimizer.consensus_distance()
    progress.consensus_distance = distance

    root = b""

    def save() -> None:
        nonlocal root
        with peer.busy():
            writer = 0 if speaks(peer) else peer.rank
            root = keep(directory, "final.pt", setup.task.model, writer, setup.vault)

    while True:
        speaker = living(peer.transport).first
        averaged = loop.evaluate(save if peer.rank == speaker or ledger is not None else None)
        if speaker in agree_who_lives(peer.transport):
            break  # else it may have died before it had saved
    last = worst(setup.task, setup.task.model, peer, counts=setup.optimizer.honest is not False)
    moved = loop.traffic
    mine = [moved.bytes_sent, moved.bytes_received, setup.optimizer.wait_s, train_s, progress.step]
    rows = table(peer, [*mine, (loop.gradients.figures() or {}).get("epsilon", 0.0)])
    progress.bytes_sent = round(float(rows[:, 0].sum()))
    committed = None if ledger is None else ledger.end(round(float(rows[:, 4].max())), root)
    members = living(peer.transport).members
    result = summary(
        setup.config, setup.task, peer.size, progress, status="done", wall_s=float(rows[:, 3].max())
    )
    loop.survivors.look(progress.step, train_s)
    result |= {
        **averaged,
        "worst_rank": last,
        "bytes_received": round(float(rows[:, 1].sum())),
        "wait_s": float(rows[:, 2].max()),
        "ranks_finished": len(members),
        "lost": loop.survivors.rows(),
        "dense_bytes": comparison(
            peer.size, round(float(rows[:, 4].sum() / len(members))), _parameters(setup.task)
        ),
    }
    result["secure"] = protected(peer.transport)
    if data is not None:
        result["data"] = {"name": data.manifest.name, "root": data.manifest.root.hex(), **data.totals()}
    if (saved := space(peer, store)) is not None:
        result["checkpoints"] = saved
    if setup.byzantine is not None:
        result["byzantine"] = setup.byzantine.found(peer, setup.optimizer.left_out, progress)
    if isinstance(loop.gradients, PrivateSteps):
        result["privacy"] = loop.gradients.facts(
            [rows[rank, 5] if rank in members else None for rank in range(peer.size)]
        )
    if committed is not None:
        result["ledger"] = {"directory": setup.config.ledger, **committed}
    if setup.optimizer.algorithm.asynchronous:
        result["steps_by_rank"] = rows[:, 4].astype(int).tolist()
    return written(peer, directory, result)


def _voice(shown: display.Display, peer: Peer, *, quiet: bool) -> display.Display:
    """Where the last words go: to rank 0's display, or where that is dead to that of the next rank."""
    return shown if peer.rank == 0 else display.make("", 0, quiet=quiet or not speaks_alone(peer))


def _compare(
    peer: Peer, setup: Setup, directory: RunDir, result: dict[str, Any], *, quiet: bool
) -> dict[str, Any]:
    """Rank 0 trains one peer alone while the others sleep."""
    if peer.rank:
        await_release(peer)
        return {}
    assert setup.initial is not None
    config = setup.config
    with display.make("one peer alone", config.steps, quiet=quiet) as shown:
        solo = train_solo(config, setup.task, peer, setup.initial, shown)
    release(peer)
    result["solo"] = solo
    directory.write("summary.json", result)
    return result


def _save_what_is_there(
    peer: Peer, setup: Setup, loop: Loop, directory: RunDir, error: BaseException, wall_s: float
) -> None:
    """Write a summary of a run that was cut short; the lowest rank that knows why has the word."""
    stopped = isinstance(error, (Stopped, KeyboardInterrupt))
    others_finished = isinstance(error, CutOff) and (directory.path / "summary.json").exists()
    if others_finished or (stopped and not speaks(peer)):
        return
    known = failed_reason(directory.path)
    reason = (known or str(error)) if stopped else f"rank {peer.rank}: {str(error) or type(error).__name__}"
    status = "stopped" if stopped and not known else "failed"
    cut = summary(setup.config, setup.task, peer.size, loop.progress, status=status, wall_s=wall_s)
    ended = peer.size - len(peer.transport.lost()) if isinstance(error, (TooFewRanks, Minority)) else 0
    if isinstance(loop.gradients, PrivateSteps):
        cut["privacy"] = loop.gradients.facts([loop.gradients.figures()["epsilon"]])
    cut |= {"reason": reason, **loop.progress.score, "lost": loop.survivors.rows(), "ranks_finished": ended}
    try:
        directory.write("summary.json", cut)
    except SetupError:
        pass  # the disk is full or gone, and the first error says more


def _parameters(task: Task) -> int:
    return sum(p.numel() for p in task.model.parameters() if p.requires_grad)


def _new_directory(config: TrainConfig, started: datetime.datetime) -> str:
    return f"runs/{_title(config.task)}-{started:%Y%m%d-%H%M%S}"


def _title(spec: str) -> str:
    """A task's name as it may stand in a path."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", spec.partition("=")[0].rpartition(":")[0] if "=" in spec else spec)
