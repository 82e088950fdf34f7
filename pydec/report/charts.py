"""Small charts as SVG that takes its colours from the page around it, light or dark."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from pydec.errors import ConfigError
from pydec.report.series import Array, Curve, Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pydec.topology import Topology

COLOURS = 8  # of curves; more take them again, dashed
_INK, _GRID, _LINES = "#010203", "#010204", "#010205"  # stand for the page's own colours
_CURVES = [f"#01021{number}" for number in range(COLOURS)]
_WIDTH, _HEIGHT = 4.2, 2.5  # inches: a column of the page
_ROW = 0.16  # inches of one rank in a table of colours
_MOST_LABELS = 16
_FEW = 30  # points that are marked one by one
_MARKS = {"lost": "X", "evicted": "v", "epoch": "D", "checkpoint": "o", "resumed": ">"}
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "pydec", "font.size": 8, "axes.titlesize": 8,
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _GRID, "axes.facecolor": "none",
    "xtick.color": _INK, "ytick.color": _INK, "grid.color": _GRID, "grid.linewidth": 0.5,
    "axes.grid": True, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "figure.facecolor": "none", "savefig.facecolor": "none", "path.simplify": True,
}  # fmt: skip
_numbers = itertools.count()


def curves(
    named: Mapping[str, Curve],
    axis: str,
    x_words: str,
    y_words: str,
    *,
    log: bool = False,
    percent: bool = False,
) -> str:
    """One quantity of several runs against one axis of ``series.AXES``; "" where no run has it."""
    named = {name: curve for name, curve in named.items() if len(curve.y)}
    if not named:
        return ""
    with _figure(f"{y_words} against {x_words}") as (axes, done):
        for number, (name, curve) in enumerate(named.items()):
            colour, line = _CURVES[number % COLOURS], "-" if number < COLOURS else "--"
            axes.plot(curve.x[axis], curve.y, color=colour, linestyle=line, linewidth=1.2, label=name)
            if len(curve.y) < _FEW:
                axes.plot(curve.x[axis], curve.y, "o", color=colour, markersize=2.5)
        if log and all((curve.y > 0).any() for curve in named.values()):
            axes.set_yscale("log")
        axes.set(xlabel=x_words, ylabel=y_words)
        if percent:
            axes.yaxis.set_major_formatter("{x:.1%}")
        if len(named) > 1:
            axes.legend(fontsize=7)
        return done()


def colours(values: Array, end: float, words: str, *, percent: bool = False) -> str:
    """Numbers by rank (rows, as many as ranks) and time (columns, from 0 to ``end`` seconds)."""
    rows = len(values)
    height = 0.9 + max(1.0, min(4.0, _ROW * rows))
    with _figure(f"{words}, by rank and time", height) as (axes, done):
        axes.grid(visible=False)
        image = axes.imshow(
            np.ma.masked_invalid(values), aspect="auto", interpolation="nearest", cmap="viridis",
            extent=(0.0, end, rows - 0.5, -0.5), vmin=0.0, vmax=1.0 if percent else None,
        )  # fmt: skip
        axes.set(xlabel="seconds", ylabel="rank")
        _few(axes, rows, both=False)
        axes.figure.colorbar(image, ax=axes, label=words, format="{x:.0%}" if percent else None)
        return done()


def table(values: Array, words: str) -> str:
    """Numbers from each rank (rows) to each (columns)."""
    rows = len(values)
    with _figure(f"{words}, from rank to rank", 0.6 + 2.6) as (axes, done):
        axes.grid(visible=False)
        shown = np.ma.masked_less_equal(values, 0.0)
        image = axes.imshow(shown, interpolation="nearest", cmap="viridis", vmin=0.0)
        axes.set(xlabel="to rank", ylabel="from rank")
        _few(axes, rows, both=True)
        axes.figure.colorbar(image, ax=axes, label=words)
        return done()


def happenings(found: Sequence[Event], end_s: float) -> str:
    """Events on the axis of time, one line for each kind."""
    kinds = [kind for kind in _MARKS if any(event.kind == kind for event in found)]
    if not kinds:
        return ""
    with _figure("events in time", 0.7 + 0.25 * len(kinds)) as (axes, done):
        for row, kind in enumerate(kinds):
            times = [event.time_s for event in found if event.kind == kind]
            axes.plot(times, [row] * len(times), _MARKS[kind], color=_CURVES[row], markersize=5)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set(xlabel="seconds", xlim=(0.0, end_s * 1.02 + 1e-9), ylim=(len(kinds) - 0.5, -0.5))
        return done()


def graph(topology: Topology, names: Sequence[int], rounds: int, words: str) -> str:
    """The ranks on a circle, and lines where models travel in the first rounds.

    Args:
        topology: of the ranks' places.
        names: the rank at each place.
        rounds: that are drawn over one another.
        words: title.
    """
    from pydec.topology.plot import panel

    with _figure(words, 3.0) as (axes, done):
        panel(axes, topology, range(rounds), names, points=_CURVES[0], lines=_LINES)
        axes.set(title=words)
        return done()


@contextmanager
def _figure(words: str, height: float = _HEIGHT) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes to draw on, and the function that gives the SVG."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("a report needs matplotlib: pip install 'pydec-train[plot]'") from None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")

        def done() -> str:
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            return _inline(text.getvalue(), words)

        yield figure.add_subplot(), done


def _inline(text: str, words: str) -> str:
    """An SVG document as an element of a page: the page's colours, names that no other chart has."""
    svg = text[text.index("<svg") :]
    chart = next(_numbers)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"url\(#([^)]+)\)|xlink:href=\"#([^\"]+)\"", svg))
    kept = {name for pair in used for name in pair if name}
    svg = re.sub(
        r' id="([^"]+)"', lambda found: f' id="c{chart}-{found[1]}"' if found[1] in kept else "", svg
    )
    svg = re.sub(r"url\(#", f"url(#c{chart}-", svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#c{chart}-', svg)
    svg = svg.replace(_INK, "var(--ink)").replace(_GRID, "var(--grid)").replace(_LINES, "var(--lines)")
    for number, colour in enumerate(_CURVES):
        svg = svg.replace(colour, f"var(--curve-{number})")
    size = re.search(r'viewBox="0 0 [\d.]+ [\d.]+"', svg)
    view = size[0] if size else ""
    head = f'<svg role="img" aria-label="{escape(words)}" {view} xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + svg[svg.index(">") + 1 :]


def _few(axes: Axes, rows: int, *, both: bool) -> None:
    """At most so many ticks, on whole ranks."""
    ticks = range(0, rows, -(-rows // _MOST_LABELS))
    axes.set_yticks(ticks)
    if both:
        axes.set_xticks(ticks)
