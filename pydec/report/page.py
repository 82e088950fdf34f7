"""One self-contained HTML page of one or several runs: no script, no network, light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from pydec.errors import ConfigError
from pydec.report import charts, facts
from pydec.report.read import Run
from pydec.report.series import AXES, Event, evaluated, events, links, timeline, training

MARK = "<!-- pydec report -->"
_MOST_RANKS = 64  # whose graph or links can be told apart
_MOST_EPOCHS = 6
_ROUNDS = 8  # of a graph that changes, drawn over one another
_LIGHT = ("#1f6fb4", "#d0600f", "#2b8a3e", "#b62f2f", "#7a4fb0", "#7d5a4b", "#c2408f", "#5f6368")
_DARK = ("#6cb2f0", "#ff9f55", "#69c77c", "#f08080", "#b99af0", "#c9a797", "#f291c9", "#b5babf")
_CSS = """
:root { color-scheme: light dark; --ink: #1c1e21; --page: #ffffff; --card: #f5f6f8; --grid: #c9ced6;
  --lines: #8b929c; LIGHT }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --page: #15171a; --card: #1e2125; --grid: #4b5058;
    --lines: #8a919b; DARK }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 84rem; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: .2rem 0 }
h2 { font-size: 1.15rem; margin: 1.6rem 0 .5rem }
h3 { font-size: 1rem; margin: 1rem 0 .4rem }
p { margin: .3rem 0 }
.charts { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)) }
figure { margin: 0; padding: .6rem; background: var(--card); border-radius: .5rem }
figure svg { display: block; width: 100%; height: auto }
figure svg text { font-family: system-ui, sans-serif !important }
figcaption { font-size: .85rem; margin-top: .3rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--grid); overflow-wrap: anywhere; min-width: 7rem }
th { font-weight: 600 }
footer { margin-top: 2rem; font-size: .85rem }
"""


def page(runs: Sequence[Run], *, title: str, version: str, refresh_s: float = 0.0) -> str:
    """The whole page.

    Args:
        runs: at least one, in the order of the columns; their names differ.
        title: of the page.
        version: of what made it.
        refresh_s: seconds after which a browser loads it again; 0 for never.

    Raises:
        ConfigError: no matplotlib.
    """
    again = f'<meta http-equiv="refresh" content="{max(1, round(refresh_s))}">' if refresh_s else ""
    colours = {
        word: " ".join(f"--curve-{n}: {colour};" for n, colour in enumerate(of))
        for word, of in (("LIGHT", _LIGHT), ("DARK", _DARK))
    }
    css = _CSS.replace("LIGHT", colours["LIGHT"]).replace("DARK", colours["DARK"])
    body = "\n".join(_body(runs, title, version))
    return (
        f'<!doctype html>\n{MARK}\n<html lang="en"><head><meta charset="utf-8">{again}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{css}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _body(runs: Sequence[Run], title: str, version: str) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    yield _comparison(runs)
    yield from _together({run.name: run for run in runs})
    for run in runs:
        yield from _alone(run)
    yield f"<footer>Made by pydec {escape(version)}. Curves are means over ranks, thinned.</footer>"


def _comparison(runs: Sequence[Run]) -> str:
    columns = [facts.compared(run) for run in runs]
    lines = list(dict.fromkeys(line for column in columns for line in column))
    head = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    rows = "".join(
        f"<tr><th>{escape(line)}</th>"
        + "".join(f"<td>{escape(column.get(line, ''))}</td>" for column in columns)
        + "</tr>"
        for line in lines
    )
    return f'<h2>Results</h2><div class="wide"><table><tr><th></th>{head}</tr>{rows}</table></div>'


def _together(runs: Mapping[str, Run]) -> Iterator[str]:
    """Curves of all runs in one chart each."""
    scores = list(dict.fromkeys(score for run in runs.values() for score in run.scores))
    yield "<h2>Training loss</h2>"
    losses = {name: training(run, "loss") for name, run in runs.items()}
    yield _charts(charts.curves(losses, axis, words, "training loss") for axis, words in AXES.items())
    for score in scores:
        found = {name: evaluated(run, score) for name, run in runs.items()}
        words = facts.score_words(score)
        yield f"<h2>{escape(words.capitalize())} of the averaged model</h2>"
        yield _charts(
            charts.curves(found, axis, x_words, words, percent=score == "accuracy")
            for axis, x_words in AXES.items()
        )
    yield "<h2>Consensus and pace</h2>"
    shown = (
        ("consensus_distance", "consensus distance", 1.0, True),
        ("step_s", "time of a step, ms", 1e3, False),
        ("wait_s", "of it waiting for peers, ms", 1e3, False),
    )
    pieces = []
    for column, words, factor, log in shown:
        found = {}
        for name, run in runs.items():
            curve = training(run, column)
            found[name] = type(curve)(curve.x, factor * curve.y)
        pieces.append(charts.curves(found, "step", "step", words, log=log))
    yield _charts(pieces)


def _alone(run: Run) -> Iterator[str]:
    """What belongs to one run: its ranks in time, its links, its graphs, its events."""
    yield f"<h2>{escape(run.name)}: ranks, links and events</h2>"
    with_waits, end_s = timeline(run, lambda r: r.columns["wait_s"] / r.columns["step_s"].clip(min=1e-9))
    step_times, _ = timeline(run, lambda r: 1e3 * r.columns["step_s"])
    happened = events(run)
    pieces = [
        charts.colours(step_times, end_s, "time of a step, ms"),
        charts.colours(with_waits, end_s, "share of waiting", percent=True),
        charts.happenings(happened, end_s),
    ]
    sent = links(run)
    if 0 < len(sent) <= _MOST_RANKS:
        pieces.append(charts.table(sent / 1e6, "MB sent"))
    yield _charts([*pieces, *_graphs(run)])
    yield "<p>By rank and time, nothing is drawn where a rank evaluated, reported, saved or was gone.</p>"
    if happened:
        yield _events(happened)
    rows = "".join(
        f"<tr><th>{escape(words)}</th><td>{escape(value)}</td></tr>" for words, value in facts.setting(run)
    )
    yield f'<h3>How it was started</h3><div class="wide"><table>{rows}</table></div>'


def _graphs(run: Run) -> Iterator[str]:
    """The graph among the members of each epoch."""
    from pydec.topology import make

    everybody = list(range(run.config.get("ranks", len(run.ranks))))
    known = (run.summary.get("ledger") or {}).get("epochs") or [{"epoch": 0, "members": everybody}]
    for epoch in known[-_MOST_EPOCHS:]:
        members = epoch["members"]
        if not 1 < len(members) <= _MOST_RANKS:
            continue
        try:
            topology = make(
                str(run.option("topology")), len(members), int(epoch.get("seed", run.config.get("seed", 0)))
            )
        except ConfigError:
            continue  # of this job alone: a matrix of its own, or one that follows the nodes
        rounds = min(topology.period or _ROUNDS, _ROUNDS)
        what = "every round" if topology.is_static else f"rounds 0 to {rounds - 1}"
        yield charts.graph(topology, members, rounds, f"epoch {epoch['epoch']}: {topology.name}, {what}")


def _events(found: Sequence[Event]) -> str:
    rows = "".join(
        f"<tr><td>{event.time_s:.1f} s</td><td>{event.step:,}</td><td>{escape(event.words)}</td></tr>"
        for event in found
    )
    return (
        '<h3>Events</h3><div class="wide"><table><tr><th>time</th><th>step</th><th>what</th></tr>'
        f"{rows}</table></div>"
    )


def _charts(pieces: Iterator[str] | Sequence[str]) -> str:
    return '<div class="charts">' + "".join(f"<figure>{svg}</figure>" for svg in pieces if svg) + "</div>"
