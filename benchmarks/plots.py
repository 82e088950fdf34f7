"""Small pictures of results: how many times better than each peer, and the curves of races."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
_MOST_LINES = 60
_MOST_POINTS = 200
_STYLE = {"svg.hashsalt": "pydec", "svg.fonttype": "none", "path.simplify": True, "font.size": 8}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the curves of the rows that have them, else the ratios, else our values.

    The same rows give the same bytes with the same version of matplotlib.

    Args:
        rows: of one file.
        path: the SVG to write.

    Raises:
        RuntimeError: no matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise RuntimeError("drawing needs matplotlib: pip install 'pydec-train[bench]'") from None
    with matplotlib.rc_context(_STYLE):
        raced = contests(rows)
        if raced:
            figure = Figure(figsize=(6, 3.2 * len(raced)), layout="constrained")
            for number, (name, curves) in enumerate(raced.items(), 1):
                _curves(figure.add_subplot(len(raced), 1, number), name, curves)
        else:
            lines = dots(rows)
            figure = Figure(figsize=(6, 0.8 + 0.17 * len(lines)), layout="constrained")
            _dots(figure.add_subplot(), lines, ratios=any(row["ratio"] is not None for row in rows))
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def contests(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows that hold a curve, by contest."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["params"].get("curve"):
            found.setdefault(row["params"]["contest"], []).append(row)
    return found


def dots(rows: Sequence[Row]) -> dict[str, list[float]]:
    """By what was measured: the ratio to each peer; without any ratio in the file, our values."""
    key = "ratio" if any(row["ratio"] is not None for row in rows) else "value"
    found: dict[str, list[float]] = {}
    for row in rows:
        if row[key] is not None and row[key] > 0:
            found.setdefault(row["name"], []).append(row[key])
    return dict(list(found.items())[:_MOST_LINES])


def thinned(curve: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """At most so many of the points, evenly, the last one always."""
    step = -(-len(curve) // _MOST_POINTS)
    return list(curve[::-1][::step])[::-1]


def _curves(axes: Any, name: str, rows: Sequence[Row]) -> None:
    for row in rows:
        times, scores = zip(*thinned(row["params"]["curve"]), strict=True)
        ours = row["params"]["contender"].startswith("pydec")
        axes.plot(times, scores, label=row["params"]["contender"], linewidth=1.6 if ours else 0.9)
    axes.axhline(rows[0]["params"]["target"], color="black", linestyle=":", linewidth=0.8)
    axes.set(title=name, xlabel="seconds of training", ylabel=rows[0]["unit"])
    axes.legend(fontsize=7)


def _dots(axes: Any, lines: Mapping[str, Sequence[float]], *, ratios: bool) -> None:
    for height, values in enumerate(lines.values()):
        axes.plot(values, [height] * len(values), "o", color="C0", markersize=3)
    axes.set_xscale("log")
    axes.set_yticks(range(len(lines)), list(lines))
    axes.invert_yaxis()
    if ratios:
        axes.axvline(1.0, color="black", linestyle=":", linewidth=0.8)
    axes.set_xlabel("times better than each peer" if ratios else "value, in the unit of the table")
