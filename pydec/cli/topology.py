"""Who hears whom in a topology of a given size, how much that costs, and how fast it averages.

In the picture a row is a rank, and # marks the ranks that it hears in that round. --plot draws the graph.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydec.topology import Topology

_PICTURE_RANKS = 32
_PICTURE_ROUNDS = 12
_RANDOM_ROUNDS = 3  # of a schedule that never repeats


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("topology", metavar="NAME", help="such as ring or base-k:k=2; pydec list prints all")
    parser.add_argument("--size", type=int, required=True, metavar="N", help="number of ranks")
    parser.add_argument("--seed", type=int, default=0, help="seed of a random topology (default 0)")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the graph as .png, .svg or .pdf (needs matplotlib)"
    )
    parser.add_argument("--json", action="store_true", help="print the facts as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print facts and, for 32 ranks or fewer, a picture.

    Raises:
        ConfigError: unknown name or option, a size or seed that does not fit, or no way to plot.
    """
    from pydec.topology import make

    topology = make(args.topology, args.size, args.seed)
    if args.plot:
        from pydec.topology.plot import plot

        plot(topology, args.plot)
    if args.json:
        print(json.dumps(facts(topology), indent=2))
        return 0
    for label, value in _labelled(topology):
        print(f"{label:<14}{value}")
    if args.plot:
        print(f"{'picture':<14}{args.plot}")
    elif topology.size <= _PICTURE_RANKS:
        print()
        print(picture(topology, shutil.get_terminal_size((100, 24)).columns))
    return 0


def facts(topology: Topology) -> dict[str, Any]:
    """What is known about a topology, as JSON can say it; null for never and for infinite."""
    decade = topology.rounds_per_decade
    return {
        "topology": topology.name,
        "size": topology.size,
        "period_rounds": topology.period or None,
        "degree": topology.degree,
        "messages_per_rank_and_round": topology.messages_per_round,
        "symmetric": topology.is_symmetric,
        "doubly_stochastic": topology.is_doubly_stochastic,
        "smallest_eigenvalue": topology.smallest_eigenvalue(),
        "finite_time_rounds": topology.finite_time,
        "spectral_gap": topology.spectral_gap(),
        "rounds_per_decade": decade if math.isfinite(decade) else None,
    }


def picture(topology: Topology, width: int) -> str:
    """The matrices of the first rounds, side by side as far as ``width`` characters allow.

    ``o`` is the rank itself, ``#`` a rank that it hears, ``.`` any other.
    """
    n = topology.size
    rounds = min(topology.period or _RANDOM_ROUNDS, _PICTURE_ROUNDS)
    label = len(str(n - 1))
    column = max(2 * n - 1, len(f"round {rounds - 1}"))
    across = max(1, (width - label) // (column + 2))
    lines = []
    for first in range(0, rounds, across):
        shown = range(first, min(first + across, rounds))
        titles = [f"round {round}" if topology.period != 1 else "every round" for round in shown]
        lines.append(" " * label + "".join(f"  {title:<{column}}" for title in titles).rstrip())
        for rank in range(n):
            marks = [_marks(topology, rank, round) for round in shown]
            lines.append(f"{rank:>{label}}" + "".join(f"  {mark:<{column}}" for mark in marks).rstrip())
        lines.append("")
    left = topology.period - rounds
    if left > 0:
        lines.append(f"and {left} more rounds")
    return "\n".join(lines).rstrip()


def _marks(topology: Topology, rank: int, round: int) -> str:
    heard = set(topology.neighbors(rank, round))
    return " ".join("o" if j == rank else "#" if j in heard else "." for j in range(topology.size))


def _labelled(topology: Topology) -> list[tuple[str, str]]:
    gap, exact, decade = topology.spectral_gap(), topology.finite_time, topology.rounds_per_decade
    lines = [
        ("topology", f"{topology.name}, {_count(topology.size, 'rank')}"),
        ("period", _count(topology.period, "round") if topology.period else "never repeats"),
        ("degree", f"{_count(topology.degree, 'neighbour')} at most"),
        ("messages", f"{_decimal(topology.messages_per_round)} per rank and round"),
        ("symmetric", "yes" if topology.is_symmetric else "no"),
        ("sums", "rows and columns" if topology.is_doubly_stochastic else "columns only: for push-sum alone"),
        ("exact after", "never, only in the limit" if exact is None else _count(exact, "round")),
        ("spectral gap", f"{gap:.4f}" if gap >= 1e-3 else f"{gap:.3g}"),
    ]
    if exact is None:
        lines.append(("rounds/decade", f"{decade:.1f}"))
    smallest = topology.smallest_eigenvalue()
    if smallest is not None:
        lines.append(("smallest eig", f"{smallest:.4f}"))
    return lines


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _decimal(number: float) -> str:
    return f"{number:.1f}" if number == int(number) else f"{number:.4g}"
