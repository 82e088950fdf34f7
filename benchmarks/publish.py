"""Tables and plots of the results: ``python -m benchmarks.publish [--results FOLDER] [--readme FILE]``.

Reads every JSON file that ``pydec bench SUITE --json`` wrote into the folder; writes FOLDER/README.md, one
SVG beside each file, the headline rows between the two ``figures`` marks of the readme, and the tables of
attacks between those of docs/robust.md beside it. The same files give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import plots, publish_attacks
from .targets import HEADLINES, TARGETS, Headline, Target

Row = Mapping[str, Any]
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_INTRODUCTION = """# Results

Made from the JSON files in this folder by `python -m benchmarks.publish`. Each row stands beside its peer in
one run on one machine; a ratio above 1 is in our favour. Share: of the faster of two copies in the same run,
of three syncs for a commit of the ledger.
Files were written on different days and machines: compare within a file.
"""
_UNSHOWN = ("rounds", "curve")
_COPIES = ("kernels", "aggregate")  # suites whose floor is a copy
_SAME = 0.995  # a peer that is at most so little faster is as fast


@dataclass(frozen=True)
class Results:
    """One file of rows.

    Args:
        path: the file.
        rows: as ``harness.Row`` has them; the first also says machine, versions and, in newer files,
            command; a ``note`` there, written by hand, says what disturbed the run.
    """

    path: Path
    rows: Sequence[Row]

    @property
    def command(self) -> str:
        """The command that gave these rows; for files that do not say, the suite's."""
        first = self.rows[0]
        if "command" in first:
            return str(first["command"])
        net, hosts = first["params"].get("net"), first["params"].get("hosts", 4)
        return f"pydec bench {first['suite']}" + (f" --net {net} --hosts {hosts}" if net else "")

    @property
    def note(self) -> str:
        """What else a reader must know."""
        return f" {self.rows[0]['note']}" if "note" in self.rows[0] else ""

    @property
    def machine(self) -> str:
        """Processor, cores, memory and instruction set, on one line."""
        facts = self.rows[0].get("machine", {})
        shown = [facts.get("cpu", "machine not named")]
        shown += [
            f"{facts[key]} {word}"
            for key, word in (("cores", "cores"), ("memory_gib", "GiB"))
            if key in facts
        ]
        shown += [f"kernels for {facts['target']}"] if "target" in facts else []
        shown += [f"load {facts['load_1min']} at the start"] if "load_1min" in facts else []
        return ", ".join(shown)

    @property
    def versions(self) -> str:
        """What was measured, on one line."""
        return ", ".join(f"{name} {version}" for name, version in self.rows[0].get("versions", {}).items())


def read(folder: Path) -> list[Results]:
    """All files of rows in the folder, by name; files without rows are left out.

    Raises:
        ValueError: a file does not hold rows.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "suite" in row for row in rows):
            raise ValueError(
                f"{path} does not hold the rows of `pydec bench SUITE --json`; move it elsewhere"
            )
        if rows:
            found.append(Results(path, rows))
    return found


def target_of(row: Row) -> Target | None:
    """What was asked of this row, if anything."""
    return next((target for target in TARGETS if target.fits(row)), None)


def number(value: float | None, unit: str = "") -> str:
    """Four digits, and the unit."""
    if value is None:
        return ""
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{shown} {unit}".rstrip()


def settings(row: Row) -> str:
    """The row's parameters, without what the table has no room for."""
    return ", ".join(f"{key} {_short(value)}" for key, value in row["params"].items() if key not in _UNSHOWN)


def page(results: Sequence[Results]) -> str:
    """The whole of results/README.md."""
    parts = [_INTRODUCTION]
    for file in results:
        stem = file.path.stem
        parts.append(
            f"## {stem}\n\n`{file.command}`; {file.machine}; {file.versions}. Rows: [{file.path.name}]"
            f"({file.path.name}).{file.note}\n\n![{stem}]({stem}.svg)\n"
        )
        parts.append(_worse(file.rows))
        header = ("what", "settings", "ours", "beside", "theirs", "ratio", "share", "target")
        parts.append(_table(header, [_line(row) for row in file.rows]))
    return "\n".join(parts)


def headlines(results: Sequence[Results], link: str) -> str:
    """The rows that README shows, one per headline and machine."""
    lines = []
    for headline in HEADLINES:
        for file in results:
            rows = _chosen(headline, file.rows)
            if rows:
                beside = "; ".join(
                    f"{row['peer']} {number(row['peer_value'])}"
                    + (f" ({row['ratio']:.2f} x)" if row["ratio"] else "")
                    for row in rows
                    if row["peer_value"] is not None
                )
                share = rows[0]["floor_fraction"]
                ours = number(rows[0]["value"], rows[0]["unit"])
                if share is not None and headline.suite in _COPIES:
                    ours += f", {share:.2f} of a copy"
                if headline.suite == "train" and ": " in rows[0]["name"]:
                    ours += " by " + rows[0]["name"].partition(": ")[2]
                lines.append((headline.what, ours, beside, f"[{file.path.stem}]({link})"))
    return _table(("what", "pydec", "beside (how many times better pydec is)", "run"), lines)


def insert(text: str, table: str) -> str:
    """A page with the table between its two marks.

    Raises:
        ValueError: the marks are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the page needs the marks {BEGIN} and {END}, once each and in this order")
    return f"{before}{BEGIN}\n{table}{END}{after}"


def main(words: Sequence[str] | None = None) -> None:
    """Write tables and plots."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("--results", metavar="FOLDER", type=Path, default=here / "results")
    parser.add_argument("--readme", metavar="FILE", type=Path, help="default: the checkout's README.md")
    args = parser.parse_args(words)
    readme = args.readme or here.parent / "README.md"
    results = read(args.results)
    for file in results:
        plots.draw(file.rows, args.results / f"{file.path.stem}.svg")
    (args.results / "README.md").write_text(page(results), encoding="utf-8")
    table = headlines(results, "benchmarks/results/README.md")
    readme.write_text(insert(readme.read_text(encoding="utf-8"), table), encoding="utf-8")
    robust = readme.parent / "docs" / "robust.md"
    attacks = publish_attacks.tables(row for file in results for row in file.rows)
    if robust.exists() and attacks:
        robust.write_text(insert(robust.read_text(encoding="utf-8"), f"\n{attacks}\n"), encoding="utf-8")


def _chosen(headline: Headline, rows: Iterable[Row]) -> list[Row]:
    """The rows of the measurement that the headline means: one of ours beside several peers."""
    fitting = [
        row
        for row in rows
        if row["suite"] == headline.suite
        and re.fullmatch(headline.name, row["name"])
        and "not reached" not in row["name"]
        and headline.params.items() <= row["params"].items()
    ]
    if not fitting:
        return []
    sign = 1 if headline.best == "least" else -1
    best = min(fitting, key=lambda row: (-row["params"].get("n", 0), sign * row["value"]))
    return [row for row in fitting if (row["name"], row["value"]) == (best["name"], best["value"])]


def _worse(rows: Iterable[Row]) -> str:
    """Where a peer is better, in plain words."""
    better = [row for row in rows if row["ratio"] is not None and row["ratio"] < _SAME]
    if not better:
        return "No peer here is better.\n"
    said = [
        f"- {row['name']} ({settings(row)}): {row['peer']} is {1 / row['ratio']:.2f} x better"
        for row in better
    ]
    return "Where a peer is better:\n\n" + "\n".join(said) + "\n"


def _line(row: Row) -> tuple[str, ...]:
    ratio, share = row["ratio"], row["floor_fraction"]
    return (
        row["name"],
        settings(row),
        number(row["value"], row["unit"]),
        row["peer"] or "",
        number(row["peer_value"], row["unit"]),
        "" if ratio is None else f"{ratio:.2f}",
        "" if share is None else f"{share:.2f}",
        _verdict(row, target_of(row)),
    )


def _verdict(row: Row, target: Target | None) -> str:
    """What was asked, and whether it was reached."""
    if target is None:
        return ""
    said = []
    for wanted, found, word in (
        (target.ratio, row["ratio"], "x"),
        (target.share, row["floor_fraction"], "of a copy"),
    ):
        if wanted is not None and found is not None:
            said.append(f"{wanted:.3g} {word}: {'met' if found >= wanted else '**missed**'}")
    return ", ".join(said)


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _short(value: object) -> str:
    """Whole multiples of 2^20 as "16 Mi", and no more than four digits."""
    if isinstance(value, int) and value and value % 2**20 == 0:
        return f"{value >> 20} Mi"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
