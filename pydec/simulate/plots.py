"""Pictures of simulations: how losses and distances fall, and what they come to along a swept option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydec.errors import ConfigError, SetupError
from pydec.simulate.sweep import Result, number

_ENDINGS = (".png", ".svg", ".pdf")
_MOST_LINES = 20  # of a legend that can still be read
_FIGURES = {
    "loss": "training loss",
    "consensus_distance": "distance to the mean",
    "validation_accuracy": "accuracy of the mean",
}
_FINAL = {
    "consensus_distance": "distance to the mean",
    "accuracy": "accuracy of the mean",
    "train_loss": "training loss",
    "virtual_s": "virtual time, s",
    "bytes_sent": "bytes sent",
}


def check(path: Path) -> None:
    """Raise ConfigError unless a picture can be written as that file."""
    if path.suffix not in _ENDINGS:
        raise ConfigError(f"a picture ends in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}, got {path.name}")
    _figure()


def _figure(**options: Any) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("drawing needs matplotlib: pip install 'pydec-train[plot]'") from None
    return Figure(**options)


def curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw what was measured on the way, over steps and over virtual time.

    Args:
        runs: rows by what the legend says.
        path: file to write; its ending, .png, .svg or .pdf, says how.

    Raises:
        ConfigError: another ending, or no matplotlib.
        SetupError: it cannot be written.
    """
    check(path)
    shown = [key for key in _FIGURES if any(key in row for rows in runs.values() for row in rows)]
    timed = any(row["time_s"] > 0 for rows in runs.values() for row in rows)
    over = {"step": "step"} | ({"time_s": "virtual time, s"} if timed else {})
    figure = _figure(figsize=(5.5 * len(over), 3.2 * max(1, len(shown))), layout="constrained")
    for row_number, key in enumerate(shown):
        for column, (along, words) in enumerate(over.items()):
            axes = figure.add_subplot(len(shown), len(over), row_number * len(over) + column + 1)
            for label, rows in runs.items():
                points = [(row[along], row[key]) for row in rows if key in row]
                if points:
                    axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
            axes.set_xlabel(words)
            axes.set_ylabel(_FIGURES[key])
            if key == "consensus_distance" and any(
                row.get(key, 0) > 0 for rows in runs.values() for row in rows
            ):
                axes.set_yscale("log")
            if row_number == column == 0 and 1 < len(runs) <= _MOST_LINES:
                axes.legend(fontsize=7)
    _save(figure, path)


def against(results: Sequence[Result], name: str, path: Path) -> bool:
    """Draw what runs came to over one swept option that is a number; a line for every choice of the others.

    Args:
        results: of a sweep.
        name: the option.
        path: as of ``curves``.

    Returns:
        Whether there was anything to draw: at least two different numbers.
    """
    lines: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for result in results:
        value = number(result.label.get(name))
        if value is None or "error" in result.summary:
            continue
        others = ", ".join(f"{key} {word}" for key, word in result.label.items() if key != name)
        lines.setdefault(others, []).append((value, result.summary))
    if len({value for line in lines.values() for value, _ in line}) < 2:
        return False
    shown = [key for key in _FINAL if any(key in found for line in lines.values() for _, found in line)]
    figure = _figure(figsize=(6, 2.8 * len(shown)), layout="constrained")
    for place, key in enumerate(shown):
        axes = figure.add_subplot(len(shown), 1, place + 1)
        for label, line in lines.items():
            points = sorted((value, found[key]) for value, found in line if key in found)
            axes.plot(*zip(*points, strict=True), "o-", label=label or None, linewidth=1.2, markersize=3)
        values = [value for line in lines.values() for value, _ in line]
        if min(values) > 0 and max(values) >= 10 * min(values):
            axes.set_xscale("log")
        axes.set_ylabel(_FINAL[key])
        if place == 0 and 1 < len(lines) <= _MOST_LINES:
            axes.legend(fontsize=7)
    axes.set_xlabel(name)
    _save(figure, path)
    return True


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}; choose another file") from None
