"""What a newcomer to a job that trains does until it is one of its ranks, see ``growth``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydec.errors import PydecError
from pydec.train.config import TrainConfig
from pydec.train.growth import Carried
from pydec.train.task import Task

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def ahead(config: TrainConfig | None) -> Task | None:
    """What a newcomer can build before it has met anybody; None if its disk has not seen the run, or the data
    are other ranks' to give.
    """
    from pydec.train import tasks

    if config is None or (config.data and not Path(config.data).exists()):
        return None
    return tasks.make(config.task, data=config.data or None, seed=config.seed)


def joined(task: Callable[[], Task | None]) -> Carried | None:
    """A newcomer: load what training needs, say so, and become a rank of the job that has started it.

    Args:
        task: builds it, if that can be done before anybody is met.

    Returns:
        None if it is not to come, or cannot; it has said why.
    """
    from pydec.comm.enlarge import begin, join

    built, fine = None, True
    try:
        begin()
    except PydecError as error:
        say_why(error)
        return None
    try:
        from pydec.train import job as job  # noqa: PLC0414  # loads torch and all that training needs

        built = task()
    except Exception as error:  # whatever it is, the job goes on
        say_why(error)
        fine = False
    try:
        trial = join(fine=fine)
    except PydecError as error:
        say_why(error)
        return None
    return None if trial is None else Carried((), task=built, trial=trial)


def say_why(error: BaseException) -> None:
    """A newcomer that does not join says why; that is no failure of the job."""
    why = f"{'' if isinstance(error, PydecError) else type(error).__name__ + ': '}{error}"
    print(f"pydec: a newcomer does not join: {why}", file=sys.stderr, flush=True)


@contextmanager
def signals_kept() -> Iterator[list[int]]:
    """Keeps signals that come while this process is in no job that heeds them; for the main thread."""
    received: list[int] = []
    previous = {number: signal.signal(number, lambda got, _: received.append(got)) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
