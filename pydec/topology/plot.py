"""A picture of a graph: the ranks on a circle, and lines along which models travel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pydec.errors import ConfigError
from pydec.topology.base import Topology

_ENDINGS = (".png", ".svg", ".pdf")
_MOST_RANKS = 1024
_LABELLED_RANKS = 40
_MOST_ROUNDS = 12
_RANDOM_ROUNDS = 4
_ACROSS = 4


def plot(topology: Topology, path: str | Path) -> None:
    """Draw the first rounds of a topology, a panel each; arrows point to who hears, lines go both ways.

    Args:
        topology: at most 1024 ranks.
        path: file to write; its ending, .png, .svg or .pdf, says how.

    Raises:
        ConfigError: another ending, too many ranks, or no matplotlib.
    """
    path = Path(path)
    if path.suffix not in _ENDINGS:
        raise ConfigError(f"a picture ends in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}, got {path.name}")
    if topology.size > _MOST_RANKS:
        raise ConfigError(
            f"a picture of {topology.size} ranks shows nothing; at most {_MOST_RANKS} are drawn"
        )
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("drawing needs matplotlib: pip install 'pydec-train[plot]'") from None
    rounds = min(topology.period or _RANDOM_ROUNDS, _MOST_ROUNDS)
    columns = min(rounds, _ACROSS)
    rows = -(-rounds // columns)
    figure = Figure(figsize=(4 * columns, 4.3 * rows), layout="constrained")
    for round in range(rounds):
        axes = figure.add_subplot(rows, columns, round + 1)
        axes.set_title("every round" if topology.is_static else f"round {round}")
        panel(axes, topology, [round])
    figure.suptitle(f"{topology.name}, {topology.size} ranks")
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def panel(
    axes: Any,
    topology: Topology,
    rounds: Sequence[int],
    names: Sequence[int] | None = None,
    *,
    points: str = "tab:blue",
    lines: str = "tab:gray",
) -> None:
    """Draw rounds of a topology over one another.

    Args:
        axes: matplotlib's, to draw on.
        topology: at most some hundred ranks.
        rounds: that are drawn.
        names: of the ranks; their numbers if None.
        points, lines: colours.
    """
    n = topology.size
    angles = np.pi / 2 - 2 * np.pi * np.arange(n) / n  # rank 0 on top, then clockwise
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    pairs = {
        (other, rank) for round in rounds for rank in range(n) for other in topology.neighbors(rank, round)
    }
    axes.scatter(*places.T, s=max(4, 120 - 2 * n), color=points, zorder=3)
    if n <= _LABELLED_RANKS:
        for rank, (x, y) in enumerate(places * 1.13):
            axes.text(x, y, str(rank if names is None else names[rank]), ha="center", va="center", fontsize=8)
    if pairs:
        heard, hearers = (list(side) for side in zip(*sorted(pairs), strict=True))
        start, along = places[heard], places[hearers] - places[heard]
        head = 0.0 if topology.is_symmetric else 4.0
        axes.quiver(
            *start.T, *(0.95 * along).T, angles="xy", scale_units="xy", scale=1, width=0.004,
            headwidth=head, headlength=head, headaxislength=head, alpha=min(1.0, 0.3 + 8 / n),
            color=lines,
        )  # fmt: skip
    axes.set_aspect("equal")
    axes.set_xlim(-1.25, 1.25)
    axes.set_ylim(-1.25, 1.25)
    axes.axis("off")
