"""What ``pydec train`` does around training: other ranks join, and it goes on with them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.train.config import TrainConfig
    from pydec.train.growth import Carried


def through_changes(
    args: argparse.Namespace,
    train: Callable[[argparse.Namespace, Carried | None], int],
    known: Callable[[], TrainConfig | None],
) -> int:
    """Train, again and again if the ranks of the job change; the exit status.

    Args:
        args: as given.
        train: trains with the ranks that are there, and raises Regroup where there are to be others.
        known: the configuration of the run, if this disk has it.
    """
    from pydec.cli.main import parser_of
    from pydec.errors import Regroup
    from pydec.train.joining import ahead, joined, say_why, signals_kept

    carried: Carried | None = None
    if args.joins:
        carried = joined(lambda: ahead(known()))
        if carried is None:
            return 0
    try:
        return train(args, carried)
    except Regroup as change:
        now = change.carried
    except Exception as error:
        if carried is None or carried.trial is None:
            raise
        say_why(error)  # a newcomer, that none of the others has relied on
        return 0
    with signals_kept() as received:
        while True:
            now = now.enlarged()
            now.signum = received.pop() if received else now.signum
            try:
                return train(parser_of("train").parse_args(now.words), now)
            except Regroup as change:
                now = change.carried


def with_order(algorithm: str | None, order: str | None) -> str | None:
    """An algorithm with the order that was given beside it."""
    if order is None:
        return algorithm
    algorithm = algorithm or "dpsgd"
    name, _, options = algorithm.partition(":")
    if any(item.partition("=")[0].strip() == "order" for item in options.split(",")):
        raise ConfigError(
            f"the order is given twice, by --order {order} and in --algorithm {algorithm!r}; leave one out"
        )
    return f"{name}:{options + ',' if options else ''}order={order}"
