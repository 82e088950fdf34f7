"""The tables of docs/robust.md: which rule survives which attack, from the rows of ``suite_byzantine``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .suite_byzantine import ATTACKS, SHORT

Row = Mapping[str, Any]

_CELL = re.compile(r"([\d.]+) \(worst ([\d.]+)\)")
_NAMES = [SHORT.get(attack, attack) for attack in ATTACKS]
_RING, _SERVER = "ring, 2 liars", "server, "


def tables(rows: Iterable[Row]) -> str:
    """All of them, with a line before each, as Markdown."""
    found = [row for row in rows if row["suite"] == "byzantine"]
    parts = [*_rules(found), *_defaults(found), *_ring(found), *_cliques(found), *_server(found)]
    return "\n".join(parts)


def _rules(rows: Sequence[Row]) -> Iterator[str]:
    """One for each setting where several rules ran: accuracy by attack, and the worst rank of the worst."""
    settings: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        cells = {name: _CELL.fullmatch(str(row["params"].get(name, ""))) for name in _NAMES}
        if not all(cells.values()):
            continue
        pairs = [(cell[1], float(cell[2])) for cell in cells.values() if cell]
        setting, rule = _setting(row["name"])
        line = (
            rule,
            *(value for value, _ in pairs),
            f"{row['value']:.1f}",
            f"{min(w for _, w in pairs):.1f}",
        )
        settings.setdefault(setting, []).append(line)
    for setting, lines in settings.items():
        if len(lines) > 2:
            yield f"{setting}, {_seeds(rows, setting)}:\n"
            yield _table(("rule", *_NAMES, "least", "worst rank"), lines)


def _setting(name: str) -> tuple[str, str]:
    """Setting and rule of a row's name; other libraries' rules follow a comma."""
    setting, found, rule = name.partition(": ")
    if found:
        return setting, rule
    setting, _, rule = name.rpartition(", ")
    return setting, rule


def _seeds(rows: Sequence[Row], setting: str) -> str:
    seeds = {row["params"]["seeds"] for row in rows if _setting(row["name"])[0] == setting}
    return " and ".join(map(str, sorted(seeds))) + " seeds"


def _defaults(rows: Sequence[Row]) -> Iterator[str]:
    """What the worst attack costs pydec's two defaults, everywhere."""
    lines = []
    for row in rows:
        setting, cut, rule = row["name"].partition(": points lost to the worst attack, ")
        if not cut:
            continue
        p = row["params"]
        what = f"{rule} (default)" if p["default"] else rule
        numbers = (f"{p['gossip']:.1f}", what, f"{p['without_attack']:.1f}", p["worst_attack"])
        lines.append((setting, str(p["f"]), f"{p['connectivity']:g}", *numbers, f"{row['value']:.1f}"))
    head = ("graph, data", "f", "connectivity", "gossip", "rule", "no attack", "worst attack", "points lost")
    if lines:
        yield "What the worst of the attacks costs, against plain gossip that nobody attacks:\n"
        yield _table(head, lines)


def _beside(row: Row) -> str:
    published = f" ({row['peer_value']:.1f})" if row["peer_value"] is not None else ""
    return f"{row['value']:.1f}{published}"


def _by_attack(rows: Iterable[Row]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Attacks, and for each name before the attack what the cells say."""
    attacks: list[str] = []
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        what, _, attack = row["name"].rpartition(", ")
        attacks += [attack] if attack not in attacks else []
        lines.setdefault(what, {})[attack] = _beside(row)
    return attacks, lines


def _ring(rows: Sequence[Row]) -> Iterator[str]:
    attacks, lines = _by_attack(row for row in rows if row["name"].startswith(_RING))
    if lines:
        yield "Ring of 5 honest ranks, each of which hears 2 liars of its own:\n"
        table = [(*what.split(": "), *(cells[attack] for attack in attacks)) for what, cells in lines.items()]
        yield _table(("graph", "rule", *attacks), table)


def _cliques(rows: Sequence[Row]) -> Iterator[str]:
    """The mean model of all, and those of the two cliques."""
    lines = []
    for row in rows:
        if not row["name"].startswith(("two cliques", "bridge")):
            continue
        setting, _, rule = row["name"].partition(": ")
        halves, theirs = row["params"]["halves"], row["params"].get("published_halves")
        lines.append((setting, rule, _beside(row), halves + (f" ({theirs})" if theirs else "")))
    if lines:
        yield "Two cliques with half of the classes each, joined by an edge, or by a liar between them:\n"
        yield _table(("setting", "rule", "mean model", "models of the cliques"), lines)


def _server(rows: Sequence[Row]) -> Iterator[str]:
    attacks, lines = _by_attack(row for row in rows if row["name"].startswith(_SERVER))
    if lines:
        yield "A server, 5 of 25 workers lie, and each honest one has a class or two:\n"
        table = [(what.partition(": ")[2], *(c[attack] for attack in attacks)) for what, c in lines.items()]
        yield _table(("rule", *attacks), table)


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
